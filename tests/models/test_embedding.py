"""One vector a text: as PyTorch computes it, packed or not, in directories that sentence-transformers shares."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from jaxlm.models import CheckpointError, Pooling, SentenceEncoder
from jaxlm.models.config import PoolingMode

from .conftest import Checkpoints
from .reference import (
    assert_gradients_equal,
    batch,
    flat_params,
    outputs,
    quick_jit,
    random_params,
    relative_error,
    torch_model,
)
from .test_packing import CONFIG, EXAMPLES, LAYOUTS

MODES: tuple[PoolingMode, ...] = ("mean", "cls")


@pytest.mark.parametrize(("mode", "normalize"), [("mean", True), ("cls", False)])
def test_vectors_equal_those_of_pytorch(mode: PoolingMode, normalize: bool, checkpoints: Checkpoints) -> None:
    arrays = batch("erf", padded=True)
    config = dataclasses.replace(_config(checkpoints), pooling=Pooling(mode, normalize))
    params = SentenceEncoder.load_params(checkpoints.directory("BertModel"), config, jax.random.key(0))
    model = nnx.merge(SentenceEncoder.abstract(config)[0], params)
    with torch.no_grad():
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        hidden = torch_model("BertModel", "erf")(**tensors).last_hidden_state
    mask = tensors["attention_mask"][..., None]
    expected = hidden[:, 0] if mode == "cls" else (hidden * mask).sum(1) / mask.sum(1)
    if normalize:
        expected = torch.nn.functional.normalize(expected, dim=-1)
    found = outputs(model, **arrays).sentence_embedding
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_padding_on_the_left_is_no_part_of_the_mean(checkpoints: Checkpoints) -> None:
    config = dataclasses.replace(_config(checkpoints), pooling=Pooling("mean", False))
    model = nnx.merge(
        SentenceEncoder.abstract(config)[0],
        SentenceEncoder.load_params(checkpoints.directory("BertModel"), config, jax.random.key(0)),
    )
    ids = np.array([[0, 0, 5, 6, 7]])
    left = model(ids, attention_mask=ids > 0, position_ids=np.maximum(np.arange(5) - 2, 0)[None])
    np.testing.assert_allclose(left.sentence_embedding, model(ids[:, 2:]).sentence_embedding, atol=1e-5, rtol=0)


def _config(checkpoints: Checkpoints) -> Any:
    return SentenceEncoder.read_config(checkpoints.directory("BertModel"))


@functools.partial(quick_jit, static_argnums=0)
def _loss_and_gradients(graphdef: nnx.GraphDef, params: Any, layout: Any, wanted: jax.Array, key: Any) -> Any:
    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        found = nnx.merge(graphdef, params)(**layout.arrays, dropout_key=key).sentence_embedding
        found = found[layout.rows] if found.ndim == 2 else found[layout.rows, layout.slots]
        return jnp.square(found - wanted).sum(), found

    return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.mark.parametrize(("mode", "seed"), [("mean", 8), ("cls", 8), ("mean", None)])
def test_packed_vectors_loss_and_gradients_equal_unpacked(mode: PoolingMode, seed: int | None) -> None:
    """With dropout (the seed is its), and without."""
    config = dataclasses.replace(CONFIG, num_hidden_layers=1, pooling=Pooling(mode, normalize=True))
    graphdef, params = SentenceEncoder.abstract(config)[0], random_params(SentenceEncoder, config)
    wanted = np.random.default_rng(0).normal(size=(len(EXAMPLES), config.hidden_size)).astype(np.float32)
    key = None if seed is None else jax.random.key(seed)

    def run(layout: str) -> tuple[Any, Any, dict[str, Any]]:
        (loss, found), gradients = _loss_and_gradients(graphdef, params, LAYOUTS[layout], wanted, key)
        return loss, found, flat_params(gradients)

    expected, found = run("unpacked"), run("packed in one row")
    assert relative_error(found[1], expected[1]) < 1e-5
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    assert_gradients_equal(found[2], expected[2], 1e-5)


def test_models_that_pool_differently_are_different_programs() -> None:
    graphs = [SentenceEncoder.abstract(dataclasses.replace(CONFIG, pooling=Pooling(mode)))[0] for mode in MODES]
    assert graphs[0] != graphs[1]


PROMPTS = (("query", "find: "), ("document", ""))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    config = dataclasses.replace(CONFIG, pooling=Pooling("cls", normalize=True, max_length=9, prompts=PROMPTS))
    SentenceEncoder.save_params(tmp_path / "model", config, random_params(SentenceEncoder, config))
    return tmp_path / "model"


def test_a_directory_reads_back_and_automodel_opens_it_with_the_same_hidden_states(saved: Path) -> None:
    read = SentenceEncoder.from_pretrained(saved)
    assert read.config.pooling == Pooling("cls", normalize=True, max_length=9, prompts=PROMPTS)
    stated = json.loads((saved / "config_sentence_transformers.json").read_text())
    assert stated["prompts"] == {"query": "find: ", "document": ""}
    assert (saved / "2_Normalize").is_dir()
    assert json.loads((saved / "config.json").read_text())["architectures"] == ["BertModel"]
    reference, report = transformers.AutoModel.from_pretrained(saved, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = np.array([[5, 3, 9, 1]])
    with torch.no_grad():
        expected = reference.eval()(torch.from_numpy(ids)).last_hidden_state.numpy()
    np.testing.assert_allclose(outputs(read.bert, input_ids=ids).last_hidden_state, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        ({"word_embedding_dimension": CONFIG.hidden_size, "pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": False}, "mean"),
        ({"embedding_dimension": CONFIG.hidden_size, "pooling_mode": "cls", "include_prompt": True}, "cls"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({}, "mean"),
    ],
)
def test_the_pooling_that_a_directory_states_is_taken(saved: Path, content: dict[str, Any], mode: str) -> None:
    (saved / "1_Pooling" / "config.json").write_text(json.dumps(content))
    pooling = SentenceEncoder.read_config(saved).pooling
    assert pooling is not None
    assert pooling.mode == mode


def test_what_a_directory_does_not_say_is_none(saved: Path) -> None:
    (saved / "modules.json").unlink()
    assert SentenceEncoder.read_config(saved).pooling is None


MODULES = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in (
    ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))]  # fmt: skip
DENSE = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}
BROKEN: dict[str, tuple[str, Any, str]] = {
    "no json": ("modules.json", "[", "modules.json is not JSON"),
    "no list": ("modules.json", {"type": 1}, "is no list of modules"),
    "no path": ("modules.json", [{"type": "a.Transformer"}], "is no list of modules"),
    "dense": ("modules.json", [*MODULES[:2], DENSE], r"a module Dense \(in 2_Dense\)"),
    "no pooling": ("modules.json", MODULES[:1], "lists Transformer; jaxlm reads"),
    "normalised first": ("modules.json", [MODULES[0], MODULES[2], MODULES[1]], "lists Transformer, Normalize, Pooling"),
    "elsewhere": ("modules.json", [MODULES[0] | {"path": "0_BERT"}, *MODULES[1:]], "its Transformer in 0_BERT"),
    "missing": ("1_Pooling/config.json", None, "config.json is missing"),
    "array": ("1_Pooling/config.json", [], "holds no JSON object"),
    "max": ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "asks for pooling max; jaxlm computes"),
    "two": ("1_Pooling/config.json", {"pooling_mode": ["mean", "cls"]}, "asks for pooling mean and cls"),
    "unknown": ("1_Pooling/config.json", {"pooling_mode": {"a": 1}}, "asks for pooling"),
    "width": ("1_Pooling/config.json", {"word_embedding_dimension": 7}, "pools vectors of 7 numbers"),
    "prompt left out": ("1_Pooling/config.json", {"include_prompt": False}, "include_prompt is off"),
    "prompt": ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "default_prompt_name is 'query'"),
    "width of vectors": ("config_sentence_transformers.json", {"truncate_dim": 16}, "truncate_dim is 16"),
    "length": ("sentence_bert_config.json", {"max_seq_length": "long"}, "max_seq_length is 'long'"),
    "lower case": ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case is on"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_computed_is_refused_by_name(saved: Path, name: str) -> None:
    file, content, message = BROKEN[name]
    (saved / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    if content is None:
        (saved / file).unlink()
    else:
        (saved / file).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(CheckpointError, match=message) as error:
        SentenceEncoder.from_pretrained(saved)
    assert file.split("/")[-1] in str(error.value)


def test_the_longest_text_is_read_from_files_of_old_names_too(saved: Path) -> None:
    (saved / "sentence_bert_config.json").unlink()
    (saved / "sentence_roberta_config.json").write_text('{"max_seq_length": 9}')
    (saved / "sentence_distilbert_config.json").write_text('{"max_seq_length": 8}')
    assert SentenceEncoder.read_config(saved).pooling.max_length == 9
    (saved / "sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    assert SentenceEncoder.read_config(saved).pooling.max_length == 7


def test_an_encoder_in_a_folder_of_its_own_is_refused_with_what_to_do(saved: Path) -> None:
    (saved / "modules.json").write_text(json.dumps([MODULES[0] | {"path": "0_BERT"}, *MODULES[1:]]))
    (saved / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has its Transformer in 0_BERT, .*; move what is in 0_BERT up"):
        SentenceEncoder.from_pretrained(saved)


@pytest.mark.parametrize(
    "stated", [None, {}, {"do_lower_case": True}, {"do_lower_case": None}]
)  # BERT's tokenizers do by default
def test_a_lower_case_that_the_tokenizer_has_too_is_no_matter(saved: Path, stated: dict[str, bool] | None) -> None:
    (saved / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True, "max_seq_length": 12}))
    if stated is not None:
        (saved / "tokenizer_config.json").write_text(json.dumps(stated))
    pooling = SentenceEncoder.read_config(saved).pooling
    assert pooling is not None
    assert pooling.max_length == 12
