"""config.json is read as transformers reads it, and what is no BERT is refused with the file's name."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from jaxlm.models import BertConfig, CheckpointError, Pooling

from .reference import SHAPES

# Those that `transformers.BertConfig` has too.
FIELDS = [
    field.name
    for field in dataclasses.fields(BertConfig)
    if field.compare and field.name not in ("scan_layers", "remat", "attention", "position_init")
]


def shared(config: BertConfig) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(config).items() if name in FIELDS}


def write(directory: Path, values: Any) -> Path:
    path = directory / "config.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


def test_the_defaults_are_those_of_transformers() -> None:
    reference = transformers.BertConfig()
    assert shared(BertConfig()) == {name: getattr(reference, name) for name in FIELDS}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_config_that_transformers_wrote_reads_back_equal(shape: str, tmp_path: Path) -> None:
    transformers.BertConfig(**shared(SHAPES[shape])).save_pretrained(tmp_path)
    assert BertConfig.from_json(tmp_path / "config.json") == SHAPES[shape]


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_reads_the_config_that_we_write(shape: str, tmp_path: Path) -> None:
    write(tmp_path, SHAPES[shape].to_json("BertForMaskedLM"))
    read = transformers.AutoConfig.from_pretrained(tmp_path)
    assert isinstance(read, transformers.BertConfig)
    assert read.architectures == ["BertForMaskedLM"]
    assert {name: getattr(read, name) for name in FIELDS} == shared(SHAPES[shape])
    assert read.label2id == {name: index for index, name in SHAPES[shape].id2label.items()}


def test_every_field_survives_writing_and_reading(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=7, hidden_size=6, num_hidden_layers=5, num_attention_heads=3, intermediate_size=4, hidden_act="relu",
        hidden_dropout_prob=0.25, attention_probs_dropout_prob=0.125, classifier_dropout=0.5, max_position_embeddings=9,
        type_vocab_size=1, initializer_range=0.5, layer_norm_eps=1e-5, pad_token_id=3,
        id2label={index: f"größe {index}" for index in range(12)}, problem_type="regression",
        facts={"task": "regression"},
    )  # fmt: skip
    changed = [name for name in FIELDS if getattr(config, name) != getattr(BertConfig(), name)]
    assert changed == FIELDS
    read = BertConfig.from_json(write(tmp_path, config.to_json("BertModel")))
    assert read == config
    assert (read.architecture, read.facts) == ("BertModel", {"task": "regression"})


def test_how_positions_began_is_kept_and_does_not_trouble_transformers(tmp_path: Path) -> None:
    config = BertConfig(position_init="sinusoidal")
    path = write(tmp_path, config.to_json("BertModel"))
    assert BertConfig.from_json(path) == config != BertConfig()
    assert isinstance(transformers.AutoConfig.from_pretrained(tmp_path), transformers.BertConfig)
    assert "position_init" not in json.loads(BertConfig().to_json("BertModel"))


def test_what_a_short_config_leaves_out_takes_the_default(tmp_path: Path) -> None:
    assert BertConfig.from_json(write(tmp_path, {"hidden_size": 24})) == BertConfig(hidden_size=24)


def test_num_labels_without_names_makes_names(tmp_path: Path) -> None:
    config = BertConfig.from_json(write(tmp_path, {"model_type": "bert", "num_labels": 3}))
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert config.num_labels == 3


def test_equal_configs_hash_equal_so_that_a_graphdef_can_be_a_static_argument() -> None:
    assert hash(BertConfig(id2label={0: "a"})) == hash(BertConfig(id2label={0: "a"}))
    assert BertConfig(id2label={0: "a"}) != BertConfig(id2label={0: "b"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no JSON object"),
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"hidden_act": "swish"}, "hidden_act 'swish' is not one of gelu, gelu_new, relu"),
        ({"position_init": "rotary"}, "position_init is 'rotary'; it is one of normal, sinusoidal"),
        ({"position_init": "sinusoidal", "hidden_size": 3, "num_attention_heads": 1}, "hidden_size is 3"),
        ({"hidden_size": 100}, "hidden_size 100 is not a multiple of num_attention_heads 12"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"intermediate_size": 3.5}, "intermediate_size is 3.5"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob is 1.0"),
        ({"classifier_dropout": -0.1}, "classifier_dropout is -0.1"),
        ({"attention_probs_dropout_prob": "0.1"}, "attention_probs_dropout_prob is '0.1'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"id2label": "no, yes"}, "id2label is .* must map class numbers to names"),
        ({"id2label": {"1": "no", "2": "yes"}}, r"id2label numbers its classes \[1, 2\]"),
        ({"id2label": {"0": "no", "1": "no"}}, "id2label gives several classes the name 'no'"),
        ({"hidden_dropout_prob": None}, "hidden_dropout_prob is None"),
        ({"initializer_range": "0.02"}, "initializer_range is '0.02'; it must be a number above 0"),
        ({"layer_norm_eps": "1e-12"}, "layer_norm_eps is '1e-12'; it must be a number above 0"),
        ({"id2label": {"no": 0, "yes": 1}}, "id2label is .* must map class numbers to names"),
    ],
)
def test_what_is_no_bert_is_refused_with_the_files_name(values: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, values)
    with pytest.raises(CheckpointError, match=message) as caught:
        BertConfig.from_json(path)
    assert str(path) in str(caught.value)


def test_a_config_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="is not JSON"):
        BertConfig.from_json(tmp_path / "config.json")


def test_a_directory_without_config_is_no_model_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{tmp_path} is no model directory"):
        BertConfig.from_json(tmp_path / "config.json")


def test_names_of_classes_are_texts(tmp_path: Path) -> None:
    assert BertConfig.from_json(write(tmp_path, {"id2label": {"0": 1, "1": 0}})).id2label == {0: "1", 1: "0"}


@pytest.mark.parametrize("field", ["id2label", "id2intent"])
def test_classes_are_checked_and_numbered_however_a_config_is_made(field: str) -> None:
    def make(names: Any) -> dict[int, str]:
        return getattr(BertConfig(**{field: names}), field)

    for names in (["a", "b"], {np.int64(1): "b", np.int64(0): "a"}, {"0": "a", "1": "b"}):
        assert repr(make(names)) == "{0: 'a', 1: 'b'}"
    for wrong in ({1: "a", 2: "b"}, {0: "a", 1: "a"}, {"a": 0}, {None: "a"}):
        with pytest.raises(CheckpointError, match=field):
            make(wrong)


def test_a_model_has_a_class() -> None:
    with pytest.raises(CheckpointError, match="id2label names no class"):
        BertConfig(id2label={})


@pytest.mark.parametrize(
    "values", [{"mode": "max"}, {"mode": "Mean"}, {"max_length": 2}, {"max_length": "64"}, {"max_length": True}]
)
def test_a_pooling_that_is_not_computed_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=f"pooling {next(iter(values))}"):
        Pooling(**values)
