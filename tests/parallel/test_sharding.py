"""Where parameters lie on a mesh, which meshes there can be, and that the verbs give the same on any."""

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxlm import cli
from jaxlm.config import Config, DataSettings, MeshSettings, ModelSettings, TrainSettings
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    Pooling,
    SentenceEncoder,
)
from jaxlm.parallel import mesh as meshes
from jaxlm.parallel.mesh import arrange, compute_dtype, mesh_for
from jaxlm.parallel.sharding import check_model, parameter_spec, put_params
from jaxlm.training.setup import set_up

from ..conftest import make_sentences

SHAPE = BertConfig(vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                   max_position_embeddings=32, initializer_range=0.2)  # fmt: skip
EVERY_KIND = MeshSettings(devices=8, fsdp=2, tensor=2)


def write(directory: Path, model: Any, config: BertConfig) -> Path:
    TextTokenizer.train([text for text, _ in make_sentences(300, 0)], 200, lowercase=True).save(directory, 32)
    model.save_params(directory, config, model.initial_params(config, jax.random.key(3)))
    return directory


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = dataclasses.replace(SHAPE, id2label={0: "negative", 1: "positive"})
    return write(tmp_path_factory.mktemp("classifier") / "model", BertForSequenceClassification, config)


# Layout


def test_a_parameters_axes_are_split_by_what_they_are() -> None:
    mesh = {"data": 2, "fsdp": 2, "tensor": 4}
    expected = {
        "bert.embeddings.word": ((96, 32), P("tensor", "fsdp")),
        "bert.layers.0.attention.qkv_kernel": ((32, 3, 8, 4), P("fsdp", None, "tensor", None)),
        "bert.layers.0.attention.output.kernel": ((32, 32), P("tensor", "fsdp")),
        "bert.layers.0.feed_forward.up.kernel": ((32, 64), P("fsdp", "tensor")),
        "bert.layers.0.feed_forward.down.kernel": ((64, 32), P("tensor", "fsdp")),
        "bert.layers.0.feed_forward.down.bias": ((32,), P(None)),
        "mlm.bias": ((96,), P("tensor")),
    }
    for name, (shape, spec) in expected.items():
        for prefix in ("", "opt_state.1.mu.", "params."):
            assert parameter_spec(prefix + name, shape, mesh) == spec, name


def test_a_vocabulary_that_cannot_be_divided_splits_its_vectors_and_stays_put_along_fsdp() -> None:
    """What is gathered along `fsdp` is then what each device along `tensor` computes with: nothing has to move."""
    mesh = mesh_for(EVERY_KIND)
    assert parameter_spec("bert.embeddings.word", (97, 32), mesh.shape) == P(None, ("tensor", "fsdp"))
    assert parameter_spec("mlm.bias", (97,), mesh.shape) == P(None)
    split = jax.sharding.NamedSharding(mesh, P(None, ("tensor", "fsdp"))).devices_indices_map((97, 32))
    gathered = jax.sharding.NamedSharding(mesh, P(None, "tensor")).devices_indices_map((97, 32))
    for device, (_, columns) in split.items():
        assert gathered[device][1].start <= columns.start < columns.stop <= gathered[device][1].stop


@pytest.mark.parametrize("model", [BertForPreTraining, BertForSequenceClassification, SentenceEncoder])
def test_the_rules_speak_of_every_parameter(model: Any) -> None:
    config = dataclasses.replace(SHAPE, pooling=Pooling("mean"), id2label={0: "a", 1: "b"})
    mesh = mesh_for(EVERY_KIND)
    for path, leaf in jax.tree_util.tree_flatten_with_path(model.abstract(config)[1])[0]:
        parameter_spec(jax.tree_util.keystr(path, simple=True, separator="."), leaf.shape, mesh.shape)
    with pytest.raises(ValueError, match=r"no rule says how bert\.new_table"):
        parameter_spec("bert.new_table", (4, 4), mesh.shape)


def test_loaded_weights_are_born_split_and_so_are_their_moments(classifier: Path, sentences: dict[str, Path]) -> None:
    config = Config(
        model=ModelSettings(init=str(classifier)),
        data=DataSettings(train=str(sentences["train"]), max_length=32),
        train=TrainSettings(steps=1, batch_size=8),
    )
    loaded = BertForSequenceClassification.load_params(
        classifier, BertConfig.from_json(classifier / "config.json"), jax.random.key(0)
    )
    mesh = mesh_for(EVERY_KIND)
    state = set_up(config, mesh).initial_state()
    split = {"word": 4, "position": 2, "qkv_kernel": 4, "attention.output.kernel": 4, "up.kernel": 4, "down.kernel": 4}
    found = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path((state, put_params(loaded, mesh)))[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if parts := next((parts for end, parts in split.items() if name.endswith(end)), 0):
            assert {shard.data.size for shard in leaf.addressable_shards} == {leaf.size // parts}, name
            found += 1
    assert found == 4 * (2 + 2 * 4)  # parameters as they are put on the mesh, and, as training starts, with two moments
    jax.tree.map(np.testing.assert_array_equal, state["params"], loaded)


def test_a_saved_model_is_the_same_from_any_mesh(tmp_path: Path) -> None:
    """Byte by byte, in one file or several; a vocabulary of 97 is divided by nothing."""
    for vocabulary in (96, 97):
        config = dataclasses.replace(SHAPE, vocab_size=vocabulary, num_attention_heads=8)
        params = jax.tree.map(np.asarray, BertForMaskedLM.initial_params(config, jax.random.key(0)))
        written = []
        for fsdp, tensor in ((1, 1), (2, 2), (8, 1), (1, 8)):
            on_mesh = put_params(params, mesh_for(MeshSettings(fsdp=fsdp, tensor=tensor)))
            directory = tmp_path / f"{vocabulary}-{fsdp}-{tensor}"
            BertForMaskedLM.save_params(directory / "one", config, on_mesh)
            BertForMaskedLM.save_params(directory / "several", config, on_mesh, max_shard_size=20_000)
            files = sorted(path for path in directory.rglob("*") if path.is_file())
            written.append({str(path.relative_to(directory)): path.read_bytes() for path in files})
        assert len(written[0]) > 6
        assert all(files == written[0] for files in written)


# Meshes


@dataclasses.dataclass(frozen=True)
class FakeDevice:
    id: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "fake"
    process_index: int = 0


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        (FakeDevice(0, 0, "cpu"), "float32"),
        (FakeDevice(0, 0, "tpu", "TPU v5 lite"), "bfloat16"),
        (FakeDevice(0, 0, "gpu", "NVIDIA H200"), "bfloat16"),
        (FakeDevice(0, 0, "gpu", "a GPU to come"), "bfloat16"),
        (FakeDevice(0, 0, "gpu", "Tesla T4"), "float32"),
    ],
)
def test_products_are_in_bfloat16_where_a_device_multiplies_it(device: FakeDevice, dtype: str) -> None:
    mesh: Any = SimpleNamespace(devices=np.array([device]))
    assert np.dtype(compute_dtype("auto", mesh)).name == dtype
    assert np.dtype(compute_dtype("bfloat16", mesh)).name == "bfloat16"


def test_slices_become_the_outermost_axis_and_no_other_axis_leaves_one() -> None:
    devices = [FakeDevice(number, slice_index=number % 2) for number in range(16)]  # listed in turn
    array, names = arrange(devices, fsdp=2, tensor=2)
    assert names == ("replica", "data", "fsdp", "tensor")
    assert array.shape == (2, 2, 2, 2)
    for index in range(2):
        assert {device.slice_index for device in array[index].flat} == {index}


def test_one_slice_whatever_its_number_has_no_replica_axis() -> None:
    array, names = arrange([FakeDevice(number, slice_index=3) for number in range(8)], fsdp=2, tensor=2)
    assert (array.shape, names) == ((2, 2, 2), ("data", "fsdp", "tensor"))


@pytest.mark.parametrize(
    ("slices", "fsdp", "reason"),
    [
        ([0] * 4 + [1] * 4, 8, "--mesh.fsdp 8 x --mesh.tensor 1 is 8; each of the 2 slices has 4 devices, not a multi"),
        ([0] * 5 + [2] * 3, 1, r"the slices differ in size \(5 in slice 0, 3 in slice 2\); choose --mesh.devices so "),
    ],
)
def test_slices_that_cannot_be_are_refused(slices: list[int], fsdp: int, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        arrange([FakeDevice(number, index) for number, index in enumerate(slices)], fsdp=fsdp)


@pytest.mark.parametrize(
    ("changes", "mesh", "reason"),
    [
        ({"hidden_size": 24, "num_attention_heads": 6}, (1, 4), "--mesh.tensor is 4; it must divide the model's 6 att"),
        ({"intermediate_size": 66}, (1, 4), "--mesh.tensor is 4; it must divide the model's 66 units in its feed-forw"),
        ({"hidden_size": 36}, (8, 1), "--mesh.fsdp is 8; it must divide the model's width, 36"),
        ({"hidden_size": 12, "vocab_size": 97}, (2, 4), "where --mesh.tensor does not divide the vocabulary (97), it "),
    ],
)
def test_a_model_that_a_mesh_cannot_share_is_refused(
    changes: dict[str, int], mesh: tuple[int, int], reason: str
) -> None:
    config = dataclasses.replace(SHAPE, **changes)
    with pytest.raises(UserError) as error:
        check_model(config, mesh_for(MeshSettings(fsdp=mesh[0], tensor=mesh[1])))
    assert reason in str(error.value)


# The command line


def test_a_mesh_that_cannot_be_is_one_line_before_data_are_read(
    tmp_path: Path, classifier: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.tsv"
    broken.write_bytes(b"\xff\n")  # read, this would be an error of its own
    preset = tmp_path / "preset.py"
    preset.write_text(
        "from jaxlm.config import Config, DataSettings, ModelSettings\n"
        f"config = Config(model=ModelSettings(init={str(classifier)!r}), data=DataSettings(train={str(broken)!r}))\n"
    )
    vectors = str(tmp_path / "vectors.npy")
    verbs = [
        ["train", str(preset), "--workdir", str(tmp_path / "run")],
        [
            "train",
            str(preset),
            "--workdir",
            str(tmp_path / "run"),
            "--model.init",
            "None",
            "--model.hidden_size",
            "64",
            "--model.num_attention_heads",
            "4",
        ],
        ["evaluate", str(classifier), "--data.test", str(broken)],
        ["predict", str(classifier), "--input", str(broken)],
        ["embed", str(classifier), "--input", str(broken), "--output", vectors],
    ]
    cases = {
        ("--mesh.fsdp", "3"): "--mesh.fsdp 3 x --mesh.tensor 1 is 3; there are 8 devices, not a multiple of it",
        ("--mesh.tensor", "16"): "--mesh.fsdp 1 x --mesh.tensor 16 is 16; there are 8 devices, not a multiple of it",
        ("--mesh.fsdp", "0"): "--mesh.fsdp is 0; it must be at least 1",
        ("--mesh.tensor", "-2"): "--mesh.tensor is -2; it must be at least 1",
        ("--mesh.devices", "16"): "--mesh.devices is 16; there are 8",
        ("--mesh.tensor", "two"): "two",
    }
    heads = {("--mesh.tensor", "8"): "--mesh.tensor is 8; it must divide the model's 4 attention heads"}
    fused = ("--model.attention", "fused")
    kernels = [{fused: "heads are 8 wide; the kernel serves 16, 32, 64, 128"}, {fused: "for GPUs; here it is a cpu"}]
    for verb, more in zip(verbs, [kernels[0] | heads, kernels[1] | heads, heads, heads, {}], strict=True):
        # embed reads its texts before the model, and after the mesh is made.
        for flags, reason in (cases | more).items():
            assert cli.main([*verb, *flags]) == 2, (verb[0], flags)
            error = capfd.readouterr().err
            assert error.startswith("error: "), (verb[0], flags, error)
            assert reason in error, (verb[0], flags, error)
            assert error.count("\n") == 1, error
            assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.tsv", "preset.py"]


def test_predict_evaluate_and_embed_give_on_a_mesh_what_one_device_gives(
    tmp_path: Path, classifier: Path, sentences: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """To 1e-5, on 2 x 2 x 2 devices."""
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"{text}\n" for text, _ in make_sentences(21, 5)))
    found: list[dict[str, Any]] = []
    for name, mesh in (("one", ["--mesh.devices", "1"]), ("many", ["--mesh.fsdp", "2", "--mesh.tensor", "2"])):
        out = {verb: tmp_path / f"{verb}-{name}" for verb in ("predict", "evaluate")}
        vectors = tmp_path / f"{name}.npy"
        model = str(classifier)
        assert cli.main(["predict", model, "--input", str(texts), "--output", str(out["predict"]), *mesh]) == 0
        test = ["--data.test", str(sentences["test"]), "--output", str(out["evaluate"])]
        assert cli.main(["evaluate", model, *test, *mesh]) == 0
        assert cli.main(["embed", model, "--input", str(texts), "--output", str(vectors), *mesh]) == 0
        predictions = [json.loads(line) for line in out["predict"].read_text().splitlines()]
        metrics = json.loads(out["evaluate"].read_text())
        found.append({"predictions": predictions, "metrics": metrics, "vectors": np.load(vectors).tolist()})
    capfd.readouterr()
    one, many = found
    assert len(one["predictions"]) == len(one["vectors"]) == 21
    assert len({json.dumps(prediction) for prediction in one["predictions"]}) == 21
    assert_close(many, one)


def assert_close(found: Any, expected: Any) -> None:
    """The same structure and texts, and numbers that differ by at most 1e-5."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(found[name], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, float):
        assert math.isclose(found, expected, rel_tol=0, abs_tol=1e-5), (found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("processes", "order", "owners"),
    [
        ([[0], [0], [1], [1]], [0, 1, 2, 3], [0, 1]),
        ([[0], [1], [2], [0], [1], [2]], [0, 3, 1, 4, 2, 5], [0, 1, 2]),  # a host's chips are not neighbours
        ([[2, 2], [0, 0], [1, 1]], [0, 1, 2], [1, 2, 0]),
        ([[0, 1], [0, 1], [2, 3], [2, 3]], [0, 1, 2, 3], [0, 0, 1, 1]),  # along tensor two read the same
    ],
)
def test_rows_come_back_in_the_order_of_the_batch_wherever_a_process_has_its_devices(
    processes: list[list[int]], order: list[int], owners: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, of_processes = meshes.row_owners(np.array(processes))
    assert (found, of_processes.tolist()) == (order, owners)
    parts = len(order)
    batch = np.arange(parts * 2 * 3).reshape(parts * 2, 3)
    gathered = np.zeros_like(batch)  # as the mesh has them: its part order[n] is the n-th of the batch
    for number, part in enumerate(order):
        gathered[2 * part : 2 * part + 2] = batch[2 * number : 2 * number + 2]
    array: Any = SimpleNamespace(
        is_fully_addressable=False, sharding=meshes.by_rows(mesh_for(MeshSettings(devices=parts)))
    )
    monkeypatch.setattr(meshes, "_owners", lambda _: meshes.row_owners(np.array(processes)))
    monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", lambda *_, **__: gathered)
    np.testing.assert_array_equal(meshes.fetch_rows(array), batch)


def test_row_owners_refuses_parts_that_overlap() -> None:
    with pytest.raises(UserError, match="does not divide the rows evenly"):
        meshes.row_owners(np.array([[0, 0], [0, 1], [1, 1]]))
