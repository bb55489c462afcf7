"""Directories that others made: what they leave unsaid is understood as transformers does, or is an error."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlm.config import Config, DataSettings, ModelSettings
from jaxlm.embed import Embedder
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, BertForMaskedLM, BertForSequenceClassification, CheckpointError
from jaxlm.parallel.mesh import make_mesh
from jaxlm.predict import Predictor
from jaxlm.tasks import task_of
from jaxlm.tasks.embedding import Embedding
from jaxlm.training.setup import set_up


@pytest.fixture
def foreign(tiny_model: Path, tmp_path: Path) -> Path:
    """A classifier of two classes without names, as transformers' Trainer leaves it."""
    directory = tmp_path / "foreign"
    shutil.copytree(tiny_model, directory)
    config = BertConfig.from_json(tiny_model / "config.json")
    params = BertForSequenceClassification.initial_params(config, jax.random.key(3))
    BertForSequenceClassification.save_params(directory, config, params)
    return directory


def tell(directory: Path, file: str = "config.json", **values: Any) -> None:
    content = json.loads((directory / file).read_text())
    (directory / file).write_text(json.dumps(content | values))


def test_numbers_are_the_classes_of_a_model_without_names(foreign: Path, tmp_path: Path) -> None:
    texts = [f"text {n} of some" for n in range(8)]
    predictor = Predictor(str(foreign), make_mesh(1))
    settings = DataSettings(text="0", label="1")
    guesses = []
    for kind in ("{}", "LABEL_{}"):
        path = tmp_path / f"{len(guesses)}.tsv"
        path.write_text("".join(f"{text}\t{kind.format(n % 2)}\n" for n, text in enumerate(texts)))
        guesses.append(predictor.evaluate(predictor.read(str(path), settings))[0])
    assert guesses[0] == guesses[1]
    path.write_text("a text\t2\nb text\t0\n")
    with pytest.raises(UserError, match="label '2' is none of the model's"):
        predictor.evaluate(predictor.read(str(path), settings))


def test_a_token_that_the_model_does_not_know_is_an_error_where_it_occurs(foreign: Path) -> None:
    (foreign / "tokenizer.json").unlink()
    with open(foreign / "vocab.txt", "a") as vocab:
        vocab.write("zzyzx\n")
    size = BertConfig.from_json(foreign / "config.json").vocab_size
    predictor, embedder = Predictor(str(foreign), make_mesh(1)), Embedder(str(foreign), make_mesh(1))

    def predict(text: str) -> list[dict[str, Any]]:
        return list(predictor.predict(predictor.task.from_texts("it", [text], None, DataSettings())))

    assert predict("a text")
    assert embedder(["a text"]).any()
    message = rf"the tokenizer gives 'zzyzx' the id {size}, and the model has {size} tokens"
    for use in (predict, lambda text: embedder([text])):
        with pytest.raises(UserError, match=message):
            use("at zzyzx")


def test_a_model_of_one_token_type_reads_no_pairs(foreign: Path) -> None:
    weights = load_file(foreign / "model.safetensors")
    name = "bert.embeddings.token_type_embeddings.weight"
    save_file(weights | {name: np.ascontiguousarray(weights[name][:1])}, foreign / "model.safetensors")
    tell(foreign, type_vocab_size=1)
    predictor = Predictor(str(foreign), make_mesh(1))
    with pytest.raises(UserError, match="one token type"):
        list(predictor.predict(predictor.task.from_texts("it", ["a text"], ["another"], DataSettings())))
    path = foreign.parent / "pairs.tsv"
    path.write_text("sentence1\tsentence2\tlabel\na text\tanother\tyes\na text\tone more\tno\n")
    config = Config(model=ModelSettings(init=str(foreign)), data=DataSettings(train=str(path), max_length=16))
    with pytest.raises(UserError, match="one token type"):
        set_up(config, make_mesh(1))
    # Unless its tokenizer gives the second text the same type.
    tell(foreign, "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    predictor = Predictor(str(foreign), make_mesh(1))
    assert list(predictor.predict(predictor.task.from_texts("it", ["a text"], ["another"], DataSettings())))


def test_several_numbers_for_a_text_are_not_cut_to_the_first(foreign: Path) -> None:
    tell(foreign, problem_type="regression")
    with pytest.raises(UserError, match="gives 2 numbers for a text"):
        Predictor(str(foreign), make_mesh(1))


def test_nothing_is_predicted_with_weights_drawn_at_random(foreign: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = load_file(foreign / "model.safetensors")
    save_file({name: w for name, w in weights.items() if "pooler" not in name}, foreign / "model.safetensors")
    with pytest.raises(CheckpointError, match="has no pooler, without which its output means nothing"):
        Predictor(str(foreign), make_mesh(1))
    caplog.clear()
    Embedder(str(foreign), make_mesh(1))
    assert "at random" not in caplog.text  # means of tokens have no use for a pooler


def test_weights_of_other_names_are_told_by_one(foreign: Path) -> None:
    weights = load_file(foreign / "model.safetensors")
    save_file({f"module.{name}": w for name, w in weights.items()}, foreign / "model.safetensors")
    with pytest.raises(UserError, match=r"other names than BERT's \(module\.bert\.embeddings\."):
        Predictor(str(foreign), make_mesh(1))


def test_modules_make_a_sentence_encoder_of_a_masked_lm(tiny_model: Path, tmp_path: Path) -> None:
    config = BertConfig.from_json(tiny_model / "config.json")
    BertForMaskedLM.save_params(tmp_path, config, BertForMaskedLM.initial_params(config, jax.random.key(0)))
    config = BertConfig.from_json(tmp_path / "config.json")
    assert task_of(tmp_path, config) is not Embedding
    (tmp_path / "modules.json").write_text("[]")
    assert task_of(tmp_path, config) is Embedding


def test_what_a_sentence_encoder_asks_of_its_user_is_said(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "encoder"
    shutil.copytree(tiny_model, directory)
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling")]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    told = {"prompts": {"query": "query: ", "document": ""}, "similarity_fn_name": "dot"}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(told))
    with caplog.at_level("INFO", "jaxlm"):
        Embedder(str(directory), make_mesh(1))
    assert "has prompts (query 'query: '): they are put before texts where you ask for it" in caplog.text
    assert "vectors are compared by dot; search, predict and evaluate compare by cosine" in caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_told_by_every_use(foreign: Path, tmp_path: Path, value: float) -> None:
    weights = load_file(foreign / "model.safetensors")
    weights["bert.encoder.layer.1.output.dense.bias"][0] = value
    save_file(weights, foreign / "model.safetensors")
    (tmp_path / "x.tsv").write_text("text\tlabel\na text\t0\nb text\t1\n")
    predictor = Predictor(str(foreign), make_mesh(1))
    table = predictor.read(str(tmp_path / "x.tsv"), DataSettings())
    embedder = Embedder(str(foreign), make_mesh(1))
    for use in (
        lambda: list(predictor.predict(table)),
        lambda: predictor.evaluate(table),
        lambda: embedder(["a text"]),
    ):
        with pytest.raises(UserError, match=f"{foreign} gives results that are not finite numbers"):
            use()
    masked = tmp_path / "masked"
    shutil.copytree(foreign, masked)
    config = BertConfig.from_json(masked / "config.json")
    params = BertForMaskedLM.initial_params(config, jax.random.key(0))
    params["mlm"]["bias"] = np.full_like(params["mlm"]["bias"], value)
    BertForMaskedLM.save_params(masked, config, params)
    predictor = Predictor(str(masked), make_mesh(1))
    (tmp_path / "x.txt").write_text("a text\nb text\n")
    with pytest.raises(UserError, match="not finite numbers"):  # of sums, where a task gives no more
        predictor.evaluate(predictor.read(str(tmp_path / "x.txt"), DataSettings()))
