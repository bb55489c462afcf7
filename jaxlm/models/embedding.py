"""Sentence embeddings: one vector a text (Reimers and Gurevych 2019, https://aclanthology.org/D19-1410).

Directories are laid out as sentence-transformers reads and writes them: a bare BERT, and beside it `modules.json` with
the modules that follow it, `1_Pooling/config.json`, and `sentence_bert_config.json` with the longest text.
"""

import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from jaxlm.models.attention import gather_tokens
from jaxlm.models.bert import BertModel, Inputs
from jaxlm.models.config import BertConfig, CheckpointError, Pooling, PoolingMode, refusal_of_old_layout
from jaxlm.models.heads import first_tokens
from jaxlm.models.hub import PretrainedModel
from jaxlm.models.products import precision_of
from jaxlm.models.weights import MAX_SHARD_SIZE, is_writer, replace_file

log = logging.getLogger("jaxlm")

# As sentence-transformers named them before its version 6, which reads both: each a switch of 1_Pooling/config.json.
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class SentenceEncoderOutput(NamedTuple):
    sentence_embedding: jax.Array  # [rows, hidden], or [rows, n, hidden] with pool_positions; float32


class SentenceEncoder(PretrainedModel):
    """BERT, and one vector for all tokens of an example: their mean or the first one's, as `config.pooling` says."""

    _unread = ("pooler",)

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.pooling = config.pooling or Pooling()
        self.bert = BertModel(config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        position_ids: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        *,
        pool_positions: jax.Array | None = None,
        example_ids: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> SentenceEncoderOutput:
        """See `BertModel` for the arguments. Where `pool_positions` names no example (an empty slot), the vector is
        that of another one, or of padding: finite, and for nobody to read."""
        inputs = Inputs.fill(self.config, input_ids, attention_mask, token_type_ids,
                             position_ids, segment_ids, example_ids, dropout_key)  # fmt: skip
        first = first_tokens(inputs, pool_positions)
        if self.pooling.mode == "cls":
            vectors = self.bert.encode(inputs, first).astype(jnp.float32)
        else:
            vectors = _means(self.bert.encode(inputs), inputs.segment_ids, first)
        if self.pooling.normalize:
            vectors = unit(vectors)
        return SentenceEncoderOutput(vectors[:, 0] if pool_positions is None else vectors)

    @classmethod
    def read_config(cls, directory: Path) -> BertConfig:
        config = BertConfig.from_json(directory / "config.json")
        return dataclasses.replace(config, pooling=read_pooling(directory, config.hidden_size))

    @classmethod
    def save_params(
        cls,
        directory: str | os.PathLike,
        config: BertConfig,
        params: dict[str, Any],
        *,
        max_shard_size: int = MAX_SHARD_SIZE,
    ) -> None:
        """Writes a bare BERT, which `transformers.AutoModel` opens, and what makes `SentenceTransformer` pool it."""
        if is_writer(params):
            write_pooling(Path(directory), config)
        BertModel.save_params(directory, config, params["bert"], max_shard_size=max_shard_size)


def _means(hidden: jax.Array, segment_ids: jax.Array, first: jax.Array) -> jax.Array:
    """The mean over each example's tokens: `[rows, n, hidden]` of `hidden [rows, length, hidden]`, in float32."""
    segments = jnp.maximum(gather_tokens(segment_ids, first), 1)  # rows that are padded on the left start with 0
    own = (segment_ids[:, None, :] == segments[:, :, None]).astype(hidden.dtype)
    asked = {"precision": precision_of(hidden), "preferred_element_type": jnp.float32}
    sums = jnp.einsum("rnl,rlh->rnh", own, hidden, **asked)
    return sums / jnp.maximum(own.sum(-1, keepdims=True, dtype=jnp.float32), 1)


def unit(vectors: jax.Array) -> jax.Array:
    """Vectors of length 1 along the last axis; a vector of zeros stays one."""
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.square(vectors).sum(-1, keepdims=True), 1e-24))


def has_modules(directory: Path) -> bool:
    """Whether a directory is one of sentence-transformers'."""
    return (directory / "modules.json").is_file()


def read_pooling(directory: Path, hidden_size: int) -> Pooling | None:
    """What `modules.json` and the files that it names say; None where a directory has no `modules.json`.

    Raises:
      CheckpointError: a file is damaged, or asks for what jaxlm does not compute; the message names it.
    """
    if not has_modules(directory):
        return None
    path = directory / "modules.json"
    modules = _read_json(path)
    try:
        places = [(str(module["type"]).rsplit(".", 1)[-1], str(module["path"])) for module in modules]
    except (TypeError, KeyError):
        raise CheckpointError(f"{path} is no list of modules, each with a type and a path") from None
    kinds = [kind for kind, _ in places]
    for kind, place in places:
        if kind not in ("Transformer", "Pooling", "Normalize"):
            where = f" (in {place})" if place else ""
            raise CheckpointError(f"{path} has a module {kind}{where}; jaxlm computes Transformer, Pooling, Normalize")
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise CheckpointError(f"{path} lists {', '.join(kinds)}; jaxlm reads Transformer, Pooling and then Normalize")
    if (reason := refusal_of_old_layout(directory)) is not None:
        raise CheckpointError(f"{directory} {reason}")
    mode = _read_mode(directory / places[1][1] / "config.json", hidden_size)
    prompts = _read_prompts(directory / "config_sentence_transformers.json", normalised="Normalize" in kinds)
    return Pooling(mode, "Normalize" in kinds, _read_max_length(directory), prompts)


def _read_mode(path: Path, hidden_size: int) -> PoolingMode:
    values = _read_object(path)
    width = values.get("word_embedding_dimension", values.get("embedding_dimension", hidden_size))
    if width != hidden_size:
        raise CheckpointError(f"{path} pools vectors of {width} numbers; config.json has hidden_size {hidden_size}")
    if values.get("include_prompt", True) is not True:
        raise CheckpointError(f"{path}: include_prompt is off; jaxlm pools all tokens of a text")
    if "pooling_mode" in values:
        given = values["pooling_mode"]
        modes = given if isinstance(given, list) else [given]
    else:
        modes = [mode for switch, mode in _SWITCHES.items() if values.get(switch)] or ["mean"]
    known: dict[Any, PoolingMode] = {mode: mode for mode in get_args(PoolingMode)}
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in known:
        raise CheckpointError(f"{path} asks for pooling {' and '.join(map(str, modes))}; jaxlm computes mean or cls")
    return known[modes[0]]


def _read_prompts(path: Path, *, normalised: bool) -> tuple[tuple[str, str], ...]:
    """The prompts by name. Stops at one that stands before every text without being asked for, which would silently be
    missing; says what else of a model's use is up to its user."""
    values = _read_object(path) if path.is_file() else {}
    if (name := values.get("default_prompt_name")) is not None:
        raise CheckpointError(f"{path}: default_prompt_name is {name!r}; jaxlm puts no prompt before a text by itself")
    if (width := values.get("truncate_dim")) is not None:
        raise CheckpointError(f"{path}: truncate_dim is {width!r}; jaxlm gives whole vectors")
    prompts = values.get("prompts")
    prompts = prompts if isinstance(prompts, dict) else {}
    prompts = {name: text for name, text in prompts.items() if isinstance(text, str)}
    if told := {name: text for name, text in prompts.items() if text}:
        listed = ", ".join(f"{name} {text!r}" for name, text in told.items())
        log.info("%s has prompts (%s): they are put before texts where you ask for it", path, listed)
    if (compared := values.get("similarity_fn_name")) not in (None, "cosine") and not normalised:
        log.warning("%s: vectors are compared by %s; search, predict and evaluate compare by cosine", path, compared)
    return tuple(prompts.items())


def _read_max_length(directory: Path) -> int | None:
    # Old releases named the file after the model's class; sentence-transformers looks for them in this order.
    kinds = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
    paths = [directory / f"sentence_{kind}_config.json" for kind in kinds]
    path = next((path for path in paths if path.is_file()), paths[0])
    values = _read_object(path) if path.is_file() else {}
    if values.get("do_lower_case"):
        tokenizer = directory / "tokenizer_config.json"
        if tokenizer.is_file() and _read_object(tokenizer).get("do_lower_case") is False:  # left out or null: BERT's
            raise CheckpointError(f"{path}: do_lower_case is on, and the tokenizer keeps capitals; jaxlm goes by it")
    length = values.get("max_seq_length")
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 3):
        raise CheckpointError(f"{path}: max_seq_length is {length!r}; a number of tokens is meant, at least 3")
    return length


def _read_object(path: Path) -> dict[str, Any]:
    values = _read_json(path)
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return values


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing, and modules.json names it") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None


def write_pooling(directory: Path, config: BertConfig) -> None:
    """Writes what `read_pooling` reads, in the form that every version of sentence-transformers from 2 on knows."""
    pooling = config.pooling or Pooling()
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * pooling.normalize
    paths = [f"{number}_{kind}" if number else "" for number, kind in enumerate(kinds)]
    for path in paths:
        (directory / path).mkdir(parents=True, exist_ok=True)
    switches = {switch: mode == pooling.mode for switch, mode in _SWITCHES.items()}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    files: dict[str, Any] = {
        "1_Pooling/config.json": {"word_embedding_dimension": config.hidden_size} | switches,
        "sentence_bert_config.json": {
            "max_seq_length": pooling.max_length or config.max_position_embeddings,
            "do_lower_case": False,
        },
        "config_sentence_transformers.json": {
            "prompts": dict(pooling.prompts),
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "modules.json": modules,
    }
    for name, content in files.items():
        replace_file(directory / name, json.dumps(content, indent=2) + "\n")
