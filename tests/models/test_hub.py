"""Model directories: any that transformers wrote opens here, ours opens there, and a wrong one is named."""

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from flax import nnx

from jaxlm.models import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    CheckpointError,
)
from jaxlm.models.hub import PretrainedModel, read_tensors, resolve

from .conftest import Checkpoints
from .reference import (
    CLASSES,
    SHAPES,
    batch,
    flat_params,
    outputs,
    params_of,
    relative_error,
    torch_model,
    torch_outputs,
)

Tensors = dict[str, torch.Tensor]


def tensors_of(directory: Path) -> Tensors:
    return safetensors.torch.load_file(directory / "model.safetensors")


def load(model: type[PretrainedModel], directory: Path, **options: Any) -> dict[str, np.ndarray]:
    """Parameters by dotted name."""
    config = BertConfig.from_json(directory / "config.json")
    return flat_params(model.load_params(directory, config, jax.random.key(0), **options))


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


class Writer:
    """Writes variants of transformers' save of `BertForPreTraining`."""

    def __init__(self, original: Path, directory: Path):
        self.tensors = tensors_of(original)
        self.directory = directory
        shutil.copy(original / "config.json", directory)

    def safetensors(self, tensors: Tensors) -> Path:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        safetensors.torch.save_file(contiguous, self.directory / "model.safetensors", metadata={"format": "pt"})
        return self.directory

    def bin(self, tensors: Tensors, *, zipped: bool) -> Path:
        torch.save(tensors, self.directory / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        return self.directory

    def configure(self, **values: Any) -> None:
        path = self.directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def writer(checkpoints: Checkpoints, tmp_path: Path) -> Writer:
    return Writer(checkpoints.directory("BertForPreTraining"), tmp_path)


@pytest.fixture
def expected(checkpoints: Checkpoints) -> dict[str, Any]:
    return params_of(checkpoints.model("BertForPreTraining"))


# Round trips


@pytest.mark.parametrize("class_name", CLASSES)
def test_what_is_saved_opens_in_the_transformers_class_of_the_same_name(
    class_name: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    model, arrays = checkpoints.model(class_name), batch("erf", padded=True)
    model.save_pretrained(tmp_path)
    opened, info = getattr(transformers, class_name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info  # missing_keys, unexpected_keys, mismatched_keys, error_msgs
    wanted = torch_outputs(opened.eval(), arrays)
    for name, found in outputs(model, **arrays)._asdict().items():
        assert relative_error(found, wanted[name]) < 1e-5, name


@pytest.mark.parametrize("class_name", CLASSES)
def test_what_is_saved_equals_what_transformers_saves(
    class_name: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    shape = "erf" if class_name == "BertForQuestionAnswering" else "tanh"  # transformers gives it an output a label
    checkpoints.model(class_name, shape).save_pretrained(tmp_path)
    found, original = tensors_of(tmp_path), tensors_of(checkpoints.directory(class_name, shape))
    assert found.keys() == original.keys()
    for name, tensor in original.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [class_name]


def test_a_question_answering_model_made_of_one_with_other_labels_opens_in_transformers(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    directory = checkpoints.directory("BertForSequenceClassification", "relu")  # of three labels
    BertForQuestionAnswering.from_pretrained(directory).save_pretrained(tmp_path)
    opened = transformers.BertForQuestionAnswering.from_pretrained(tmp_path)
    assert opened.qa_outputs.weight.shape == (2, SHAPES["relu"].hidden_size)


def test_the_class_that_transformers_chooses_for_a_saved_directory_is_ours(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    checkpoints.model("BertForSequenceClassification", "relu").save_pretrained(tmp_path)
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(opened) is transformers.BertForSequenceClassification
    assert opened.config.id2label == SHAPES["relu"].id2label


def test_saving_and_loading_gives_the_same_parameters_and_config(checkpoints: Checkpoints, tmp_path: Path) -> None:
    model = checkpoints.model("BertForPreTraining", "relu", dtype=jnp.bfloat16)
    model.save_pretrained(tmp_path / "a" / "b")
    loaded = BertForPreTraining.from_pretrained(tmp_path / "a" / "b")
    assert loaded.config == model.config
    assert_equal(params_of(loaded), params_of(model))


def test_parameters_outside_a_module_save_as_the_module_does(checkpoints: Checkpoints, tmp_path: Path) -> None:
    model = checkpoints.model("BertModel")
    model.save_pretrained(tmp_path / "module")
    BertModel.save_params(tmp_path / "params", model.config, nnx.to_pure_dict(nnx.state(model)))
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "module" / name).read_bytes() == (tmp_path / "params" / name).read_bytes()


def test_a_config_that_json_cannot_hold_writes_nothing(checkpoints: Checkpoints, tmp_path: Path) -> None:
    model = BertModel.from_pretrained(checkpoints.directory("BertModel"), facts={"when": object()})
    with pytest.raises(TypeError, match="not JSON serializable"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_save_replaces_the_one_before_and_leaves_nothing_else(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.model("BertModel", "relu").save_pretrained(tmp_path)
    checkpoints.model("BertModel", "tanh").save_pretrained(tmp_path)
    assert BertModel.from_pretrained(tmp_path).config == SHAPES["tanh"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


# Names and layouts


def without_prefix(tensors: Tensors) -> Tensors:
    return {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}


def with_tensorflow_names(tensors: Tensors) -> Tensors:
    def rename(name: str) -> str:
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    assert any(rename(name) != name for name in tensors)
    return {rename(name): tensor for name, tensor in tensors.items()}


def with_position_ids(tensors: Tensors) -> Tensors:
    return tensors | {"bert.embeddings.position_ids": torch.arange(24)[None]}


def with_position_ids_and_without_prefix(tensors: Tensors) -> Tensors:
    return without_prefix(with_position_ids(tensors))


def with_tied_decoder(tensors: Tensors) -> Tensors:
    return tensors | {
        "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].clone(),
        "cls.predictions.decoder.bias": tensors["cls.predictions.bias"].clone(),
    }


def with_the_decoder_in_place_of_what_it_is_tied_to(tensors: Tensors) -> Tensors:
    tensors = with_tied_decoder(tensors)
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name not in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias")
    }


def in_reverse_order(tensors: Tensors) -> Tensors:
    return dict(reversed(tensors.items()))


@pytest.mark.parametrize(
    "variant",
    [
        without_prefix,
        with_tensorflow_names,
        with_position_ids,
        with_position_ids_and_without_prefix,
        with_tied_decoder,
        with_the_decoder_in_place_of_what_it_is_tied_to,
        in_reverse_order,
    ],
)
def test_the_same_model_under_other_names_gives_the_same_parameters(
    variant: Callable[[Tensors], Tensors], writer: Writer, expected: dict[str, Any]
) -> None:
    assert_equal(load(BertForPreTraining, writer.safetensors(variant(writer.tensors))), expected)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_bin_file_in_either_layout_gives_the_same_parameters(
    zipped: bool, writer: Writer, expected: dict[str, Any]
) -> None:
    assert_equal(load(BertForPreTraining, writer.bin(writer.tensors, zipped=zipped)), expected)


def test_sharded_safetensors_give_the_same_parameters(writer: Writer, expected: dict[str, Any]) -> None:
    torch_model("BertForPreTraining", "erf").save_pretrained(writer.directory, max_shard_size="20KB")
    assert len(list(writer.directory.glob("model-*-of-*.safetensors"))) > 2
    assert not (writer.directory / "model.safetensors").exists()
    assert_equal(load(BertForPreTraining, writer.directory), expected)


def write_sharded_bin(writer: Writer) -> Path:
    names = sorted(writer.tensors)
    shards = {f"pytorch_model-0000{n + 1}-of-00003.bin": names[n::3] for n in range(3)}
    for file, members in shards.items():
        torch.save({name: writer.tensors[name] for name in members}, writer.directory / file)
    weight_map = {name: file for file, members in shards.items() for name in members}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (writer.directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return writer.directory


def test_a_sharded_bin_gives_the_same_parameters(writer: Writer, expected: dict[str, Any]) -> None:
    assert_equal(load(BertForPreTraining, write_sharded_bin(writer)), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("in_bin", [False, True], ids=["safetensors", "bin"])
def test_tensors_of_another_precision_load_as_float32_of_the_same_value(
    dtype: torch.dtype, in_bin: bool, writer: Writer
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in writer.tensors.items()}
    directory = writer.bin(tensors, zipped=True) if in_bin else writer.safetensors(tensors)
    found = load(BertForPreTraining, directory)
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
    word = tensors["bert.embeddings.word_embeddings.weight"].float()
    kernel = tensors["bert.encoder.layer.1.output.dense.weight"].float()
    np.testing.assert_array_equal(found["bert.embeddings.word"], word)
    np.testing.assert_array_equal(found["bert.layers.1.feed_forward.down.kernel"], kernel.T)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tensors_that_are_not_contiguous_give_the_same_parameters(
    zipped: bool, writer: Writer, expected: dict[str, Any]
) -> None:
    tensors = {
        name: tensor.T.contiguous().T if tensor.ndim == 2 else tensor.repeat_interleave(2)[::2]
        for name, tensor in writer.tensors.items()
    }
    assert not any(tensor.is_contiguous() for tensor in tensors.values() if tensor.ndim == 2 and len(tensor) > 2)
    assert_equal(load(BertForPreTraining, writer.bin(tensors, zipped=zipped)), expected)


def test_safetensors_are_preferred_to_a_bin_file_beside_them(writer: Writer, expected: dict[str, Any]) -> None:
    (writer.directory / "pytorch_model.bin").write_bytes(b"never read")
    assert_equal(load(BertForPreTraining, writer.safetensors(writer.tensors)), expected)


# Heads


def test_an_encoder_loads_into_every_class_with_its_encoder_unchanged(checkpoints: Checkpoints) -> None:
    encoder = {f"bert.{name}": value for name, value in params_of(checkpoints.model("BertModel")).items()}
    for name in ("BertForMaskedLM", "BertForPreTraining", "BertForSequenceClassification"):
        found = load(CLASSES[name], checkpoints.directory("BertModel"))
        shared = found.keys() & encoder.keys()
        assert len(shared) >= len(encoder) - 2  # a masked-LM model has no pooler
        assert_equal({name: found[name] for name in shared}, {name: encoder[name] for name in shared})


def test_a_missing_head_is_initialised_as_the_config_says_and_logged(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    directory = checkpoints.directory("BertForMaskedLM")
    with caplog.at_level(logging.INFO, logger="jaxlm"):
        found = load(BertForSequenceClassification, directory)
    assert [record.getMessage() for record in caplog.records if record.name == "jaxlm"] == [
        f"{directory} has no classifier and no pooler that serves here: initialised at random",
        f"{directory}: not used here: masked-LM head",
    ]
    for name in ("classifier", "bert.pooler"):
        kernel = found[f"{name}.kernel"]
        deviation = SHAPES["erf"].initializer_range
        assert abs(kernel.std() / deviation - 1) < 5 / np.sqrt(2 * kernel.size)
        assert abs(kernel.mean()) < 5 * deviation / np.sqrt(kernel.size)
        np.testing.assert_array_equal(found[f"{name}.bias"], 0)


def test_who_sets_up_no_log_is_warned_of_a_random_head(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):  # as Python has it by itself
        BertForSequenceClassification.from_pretrained(checkpoints.directory("BertForSequenceClassification"))
        assert not caplog.records
        BertForTokenClassification.from_pretrained(checkpoints.directory("BertForSequenceClassification"))
    (record,) = caplog.records
    assert (record.levelname, "no classifier that serves here" in record.getMessage()) == ("WARNING", True)


def test_a_model_is_loaded_with_changes_to_its_config(checkpoints: Checkpoints) -> None:
    directory = checkpoints.directory("BertForSequenceClassification", "relu")
    labels = dict(enumerate("abcde"))
    model = BertForSequenceClassification.from_pretrained(
        directory, new_heads=True, id2label=labels, remat="dots", scan_layers=True
    )
    assert (model.config.id2label, model.config.remat, model.config.scan_layers) == (labels, "dots", True)
    assert model(jnp.ones((1, 4), int)).logits.shape == (1, 5)
    with pytest.raises(TypeError, match="num_label"):
        BertForSequenceClassification.from_pretrained(directory, num_label=5)


def test_a_missing_head_depends_on_the_key_and_the_rest_does_not(checkpoints: Checkpoints) -> None:
    directory = checkpoints.directory("BertForMaskedLM")
    first, same, other = (
        params_of(BertForSequenceClassification.from_pretrained(directory, rngs=nnx.Rngs(seed))) for seed in (0, 0, 1)
    )
    assert_equal(first, same)
    differing = {name for name, value in first.items() if not np.array_equal(value, other[name])}
    assert differing == {"classifier.kernel", "bert.pooler.kernel"}


def test_a_complete_checkpoint_logs_nothing(checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="jaxlm"):
        load(BertForPreTraining, checkpoints.directory("BertForPreTraining"))
    assert not [record for record in caplog.records if record.name == "jaxlm"]


@pytest.mark.parametrize("class_name", ["BertForQuestionAnswering", "BertForNextSentencePrediction"])
def test_heads_that_are_not_asked_for_are_left_out(
    class_name: str, checkpoints: Checkpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = transformers.BertConfig(**dataclasses.asdict(SHAPES["tanh"]))
    model = getattr(transformers, class_name)(config)
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, logger="jaxlm"):
        found = load(BertModel, tmp_path)
    np.testing.assert_array_equal(found["embeddings.word"], model.bert.embeddings.word_embeddings.weight.detach())
    assert "not used here" in caplog.text


def test_a_classifier_of_another_number_of_labels_is_an_error_unless_a_new_one_is_asked_for(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    shutil.copytree(checkpoints.directory("BertForSequenceClassification", "relu"), tmp_path / "model")
    config = dataclasses.replace(SHAPES["relu"], id2label={n: str(n) for n in range(5)})
    (tmp_path / "model" / "config.json").write_text(config.to_json("BertForSequenceClassification"))
    with pytest.raises(CheckpointError, match=r"classifier.bias has shape \(3,\), the config asks for \(5,\)"):
        load(BertForSequenceClassification, tmp_path / "model")
    found = load(BertForSequenceClassification, tmp_path / "model", new_heads=True)
    assert found["classifier.kernel"].shape == (16, 5)
    assert 0.5 < found["classifier.kernel"].std() / config.initializer_range < 2
    trained = params_of(checkpoints.model("BertForSequenceClassification", "relu"))
    shared = [name for name in found if not name.startswith("classifier.")]
    assert_equal({name: found[name] for name in shared}, {name: trained[name] for name in shared})


def test_a_new_head_replaces_one_of_the_same_shape(checkpoints: Checkpoints) -> None:
    directory = checkpoints.directory("BertForSequenceClassification", "relu")
    old, new = (load(BertForSequenceClassification, directory, new_heads=choice) for choice in (False, True))
    differing = {name for name, value in old.items() if not np.array_equal(value, new[name])}
    assert differing == {"classifier.kernel", "classifier.bias"}


def test_a_classifier_of_texts_is_none_of_tokens(checkpoints: Checkpoints) -> None:
    """Though both have the same names and shapes."""
    directory = checkpoints.directory("BertForSequenceClassification", "relu")
    of_texts, of_tokens = load(BertForSequenceClassification, directory), load(BertForTokenClassification, directory)
    differing = {name for name, value in of_tokens.items() if not np.array_equal(value, of_texts[name])}
    assert differing == {"classifier.kernel", "classifier.bias"}


# What is wrong is named

LAST = "encoder.layer.1.output.dense.bias"


@pytest.mark.parametrize("prefix", ["bert.", ""])
@pytest.mark.parametrize("name", ["embeddings.word_embeddings.weight", LAST, "encoder.layer.0.attention.self.key.bias"])
def test_a_missing_tensor_is_named(name: str, prefix: str, writer: Writer) -> None:
    tensors = writer.tensors if prefix else without_prefix(writer.tensors)
    del tensors[prefix + name]
    with pytest.raises(CheckpointError, match=f"missing bert.{name}$") as caught:
        BertForPreTraining.from_pretrained(writer.safetensors(tensors))
    assert str(writer.directory) in str(caught.value)


def test_a_tensor_missing_of_a_head_that_is_there_is_named(writer: Writer) -> None:
    del writer.tensors["cls.predictions.transform.dense.bias"]
    with pytest.raises(CheckpointError, match=r"missing cls.predictions.transform.dense.bias"):
        load(BertForPreTraining, writer.safetensors(writer.tensors))


@pytest.mark.parametrize("prefix", ["module.", "0.auto_model.", "bert."])
def test_what_is_there_under_a_prefix_is_named_beside_what_is_missing(prefix: str, writer: Writer) -> None:
    writer.safetensors({prefix + name: tensor for name, tensor in writer.tensors.items()})
    with pytest.raises(
        CheckpointError, match=rf"missing bert\..* and \d+ more; it has {prefix}\S+ and \d+ more instead"
    ):
        load(BertModel, writer.directory)


def test_whole_numbers_are_no_weights(writer: Writer) -> None:
    name = "bert.embeddings.word_embeddings.weight"
    writer.safetensors(writer.tensors | {name: torch.ones(writer.tensors[name].shape, dtype=torch.int8)})
    with pytest.raises(CheckpointError, match=f"{name} holds int8; jaxlm reads no quantised weights"):
        load(BertModel, writer.directory)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"]
)
def test_a_pointer_of_git_lfs_is_told_from_the_file(name: str, writer: Writer) -> None:
    (writer.directory / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match=f"{name} is a pointer of Git LFS .*: run git lfs pull"):
        BertModel.from_pretrained(writer.directory)


def test_a_tensor_left_over_is_named(writer: Writer) -> None:
    with pytest.raises(CheckpointError, match=r"left over bert.encoder.layer.1.adapter.weight;"):
        load(BertModel, writer.safetensors(writer.tensors | {"bert.encoder.layer.1.adapter.weight": torch.ones(2)}))


def test_layers_beyond_the_config_are_left_over(writer: Writer) -> None:
    writer.configure(num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"left over bert.encoder.layer.1..* and 11 more; config.json describes"):
        load(BertModel, writer.safetensors(writer.tensors))


def test_layers_that_the_config_asks_for_in_vain_are_missing(writer: Writer) -> None:
    writer.configure(num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"missing bert.encoder.layer.2.* and 11 more"):
        load(BertModel, writer.safetensors(writer.tensors))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("bert.embeddings.word_embeddings.weight", (61, 31)),
        ("bert.encoder.layer.0.attention.self.value.weight", (32, 16)),
        ("bert.encoder.layer.1.intermediate.dense.weight", (32, 64)),  # transposed
        ("cls.predictions.bias", (62,)),
    ],
)
def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes(
    name: str, shape: tuple[int, ...], writer: Writer
) -> None:
    right = tuple(writer.tensors[name].shape)
    writer.safetensors(writer.tensors | {name: torch.ones(shape)})
    with pytest.raises(CheckpointError) as caught:
        load(BertForPreTraining, writer.directory)
    assert f"{name} has shape {shape}, the config asks for {right}" in str(caught.value)


@pytest.mark.parametrize("name", ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"])
def test_a_decoder_that_is_not_tied_is_refused(name: str, writer: Writer) -> None:
    tensors = with_tied_decoder(writer.tensors)
    tensors[name][3] += 1
    with pytest.raises(CheckpointError, match=f"{name} differs from .*tied decoders only"):
        load(BertForMaskedLM, writer.safetensors(tensors))


@pytest.mark.parametrize("name", ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"])
def test_a_decoder_that_is_not_tied_is_no_matter_to_models_without_one(name: str, writer: Writer) -> None:
    tensors = with_tied_decoder(writer.tensors)
    tied = load(BertModel, writer.safetensors(tensors))
    tensors[name][3] += 1
    assert_equal(load(BertModel, writer.safetensors(tensors)), tied)


def test_a_config_of_another_architecture_is_refused(writer: Writer) -> None:
    writer.configure(model_type="roberta")
    writer.safetensors(writer.tensors)
    with pytest.raises(CheckpointError, match=r"config.json: model_type is 'roberta'; jaxlm reads 'bert'"):
        BertModel.from_pretrained(writer.directory)


def test_a_directory_without_config_is_refused(writer: Writer) -> None:
    (writer.safetensors(writer.tensors) / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"is no model directory: it has no config.json"):
        BertModel.from_pretrained(writer.directory)


def test_a_directory_without_weights_is_refused(writer: Writer) -> None:
    with pytest.raises(CheckpointError, match=f"{writer.directory} holds no weights .*pytorch_model.bin"):
        BertModel.from_pretrained(writer.directory)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_truncated_safetensors_are_refused(share: float, writer: Writer) -> None:
    path = writer.safetensors(writer.tensors) / "model.safetensors"
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged"):
        BertModel.from_pretrained(writer.directory)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_truncated_bin_is_refused(zipped: bool, writer: Writer) -> None:
    path = writer.bin(writer.tensors, zipped=zipped) / "pytorch_model.bin"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin is damaged or no PyTorch checkpoint"):
        BertModel.from_pretrained(writer.directory)


def test_a_dtype_that_numpy_does_not_know_is_refused(writer: Writer) -> None:
    writer.safetensors(writer.tensors | {f"bert.{LAST}": torch.ones(32, dtype=torch.float8_e4m3fn)})
    with pytest.raises(CheckpointError, match=r"model.safetensors holds a tensor of a dtype"):
        BertModel.from_pretrained(writer.directory)


def test_a_missing_shard_is_named(writer: Writer) -> None:
    (write_sharded_bin(writer) / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(
        CheckpointError, match=r"index.json names the shard pytorch_model-00002-of-00003.bin, which is not"
    ):
        BertModel.from_pretrained(writer.directory)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": ["a"]}', '{"weight_map": {"a": 1, "b": "c"}}'])
def test_a_damaged_index_is_refused(index: str, writer: Writer) -> None:
    (writer.directory / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"model.safetensors.index.json is no index of shards"):
        BertModel.from_pretrained(writer.directory)


# Names of the hub


@pytest.mark.parametrize("name", ["./nothing", "/nowhere/at/all", "~/nothing", "several/slashes/here"])
def test_a_path_that_is_no_directory_is_refused_without_asking_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=f"^{name} is no directory"):
        resolve(name)


def test_a_file_is_no_model_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bert.bin").touch()
    with pytest.raises(CheckpointError, match=r"^bert.bin is no directory \(a model directory holds config.json"):
        BertModel.from_pretrained("bert.bin")


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, which cannot be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_hub_name_is_found_in_the_cache(hub_cache: Path, checkpoints: Checkpoints, expected: dict[str, Any]) -> None:
    commit = "0" * 40
    repository = hub_cache / "models--someone--bert"
    shutil.copytree(checkpoints.directory("BertForPreTraining"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert_equal(params_of(BertForPreTraining.from_pretrained("someone/bert")), expected)


@pytest.mark.parametrize("name", ["someone/bert", "bert-base-uncased"])
def test_a_model_that_the_hub_does_not_give_is_named_with_a_remedy(name: str, hub_cache: Path) -> None:
    with pytest.raises(
        CheckpointError, match=f"^{name} is no directory here, and the hub did not.* pass its directory"
    ):
        resolve(name)


def test_what_cannot_be_a_hub_name_is_refused(hub_cache: Path) -> None:
    with pytest.raises(CheckpointError, match="'two words' is neither a directory nor a hub name"):
        resolve("two words")


def test_all_tensors_of_a_directory_are_read_under_their_own_names(writer: Writer) -> None:
    found = read_tensors(writer.safetensors(writer.tensors))
    assert_equal(found, {name: tensor.numpy() for name, tensor in writer.tensors.items()})
