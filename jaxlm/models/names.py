"""One table of parameter names: ours on the left, Hugging Face's on the right, read in both directions.

A kernel here is `[inputs, outputs]`, there `[outputs, inputs]`; query, key and value are one array here, three there.
Names are those of a model with a head; a bare `BertModel` leaves the `bert.` in front away, on both sides.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.models.config import BertConfig


class Rule(NamedTuple):
    """How one of our parameters is made of Hugging Face tensors, and they of it. `{i}` stands for the layer."""

    ours: str
    theirs: tuple[str, ...]
    load: Callable[[BertConfig, Sequence[np.ndarray]], np.ndarray]
    save: Callable[[np.ndarray], list[np.ndarray]]


def _copy(ours: str, theirs: str) -> Rule:
    return Rule(ours, (theirs,), lambda config, t: t[0], lambda p: [p])


def _transpose(ours: str, theirs: str) -> Rule:
    return Rule(ours, (theirs,), lambda config, t: t[0].T, lambda p: [p.T])


def _linear(ours: str, theirs: str) -> list[Rule]:
    return [_transpose(f"{ours}.kernel", f"{theirs}.weight"), _copy(f"{ours}.bias", f"{theirs}.bias")]


def _norm(ours: str, theirs: str) -> list[Rule]:
    return [_copy(f"{ours}.scale", f"{theirs}.weight"), _copy(f"{ours}.bias", f"{theirs}.bias")]


def _load_qkv_kernel(config: BertConfig, tensors: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([t.T for t in tensors], axis=1).reshape(-1, 3, config.num_attention_heads, config.head_dim)


def _save_qkv_kernel(kernel: np.ndarray) -> list[np.ndarray]:
    return [kernel[:, part].reshape(kernel.shape[0], -1).T for part in range(3)]


def _load_qkv_bias(config: BertConfig, tensors: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(tensors).reshape(3, config.num_attention_heads, config.head_dim)


def _save_qkv_bias(bias: np.ndarray) -> list[np.ndarray]:
    return [part.reshape(-1) for part in bias]


_LAYER = "bert.encoder.layer.{i}"
_QKV = [f"{_LAYER}.attention.self.{part}" for part in ("query", "key", "value")]

RULES: list[Rule] = [
    _copy("bert.embeddings.word", "bert.embeddings.word_embeddings.weight"),
    _copy("bert.embeddings.position", "bert.embeddings.position_embeddings.weight"),
    _copy("bert.embeddings.token_type", "bert.embeddings.token_type_embeddings.weight"),
    *_norm("bert.embeddings.norm", "bert.embeddings.LayerNorm"),
    Rule(
        "bert.layers.{i}.attention.qkv_kernel", tuple(f"{n}.weight" for n in _QKV), _load_qkv_kernel, _save_qkv_kernel
    ),
    Rule("bert.layers.{i}.attention.qkv_bias", tuple(f"{n}.bias" for n in _QKV), _load_qkv_bias, _save_qkv_bias),
    *_linear("bert.layers.{i}.attention.output", f"{_LAYER}.attention.output.dense"),
    *_norm("bert.layers.{i}.attention.norm", f"{_LAYER}.attention.output.LayerNorm"),
    *_linear("bert.layers.{i}.feed_forward.up", f"{_LAYER}.intermediate.dense"),
    *_linear("bert.layers.{i}.feed_forward.down", f"{_LAYER}.output.dense"),
    *_norm("bert.layers.{i}.feed_forward.norm", f"{_LAYER}.output.LayerNorm"),
    *_linear("bert.pooler", "bert.pooler.dense"),
    *_linear("mlm.transform", "cls.predictions.transform.dense"),
    *_norm("mlm.norm", "cls.predictions.transform.LayerNorm"),
    _copy("mlm.bias", "cls.predictions.bias"),
    *_linear("next_sentence", "cls.seq_relationship"),
    *_linear("classifier", "classifier"),
    *_linear("qa_outputs", "qa_outputs"),
    *_linear("intent_classifier", "intent_classifier"),
    *_linear("slot_classifier", "slot_classifier"),
]

# What a checkpoint may lack (it is then initialised) or hold beside what is asked for (it is then left out).
HEADS = {
    "pooler": ("bert.pooler.",),
    "masked-LM head": ("mlm.", "cls.predictions."),
    "next-sentence head": ("next_sentence.", "cls.seq_relationship."),
    "classifier": ("classifier.",),
    "question-answering head": ("qa_outputs.",),
    "intent classifier": ("intent_classifier.",),
    "slot classifier": ("slot_classifier.",),
}
CLASSIFIERS = ("classifier", "intent classifier", "slot classifier")  # heads whose size is a number of labels


def rules_for(config: BertConfig) -> dict[str, Rule]:
    """The table written out for a model's layers, by our names."""
    rules = {}
    for rule in RULES:
        for i in range(config.num_hidden_layers) if "{i}" in rule.ours else [0]:
            theirs = tuple(name.replace("{i}", str(i)) for name in rule.theirs)
            rules[rule.ours.replace("{i}", str(i))] = rule._replace(
                ours=rule.ours.replace("{i}", str(i)), theirs=theirs
            )
    return rules


def canonical(name: str) -> str:
    """A Hugging Face tensor name in the form the table uses: with the `bert.` prefix and without TensorFlow's names."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def head_of(name: str) -> str | None:
    """The head to which a parameter (ours or theirs) belongs, or None where it is the encoder's."""
    return next((head for head, prefixes in HEADS.items() if name.startswith(prefixes)), None)
