"""Several tasks on one encoder: to each part, data, loss and model are what they would be alone."""

import dataclasses
import io
import json
import os
import random
import re
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import scipy.special
import torch
from flax import nnx
from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from jaxlm import cli
from jaxlm.config import (
    Config,
    DataSettings,
    LabelSettings,
    MeshSettings,
    ModelSettings,
    OptimSettings,
    Part,
    TrainSettings,
    as_part,
)
from jaxlm.config_changes import changes, flatten
from jaxlm.config_checks import validate
from jaxlm.console import Console
from jaxlm.data.loader import Examples
from jaxlm.data.part_batches import of_part
from jaxlm.data.sources import Table
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.flags import parse
from jaxlm.models import BertConfig, BertForSequenceClassification, BertModel, CheckpointError
from jaxlm.models.multi_task import MultiTaskBert, SharedConfig
from jaxlm.parallel.mesh import by_rows, in_context, mesh_for, put_batch
from jaxlm.parallel.sharding import shardings
from jaxlm.tasks.base import Metrics
from jaxlm.tasks.classification import Classification
from jaxlm.tasks.multi_label import MultiLabel
from jaxlm.tasks.multi_task import MultiTask
from jaxlm.training import loop
from jaxlm.training.identity import identity
from jaxlm.training.setup import Setup, set_up

from ..conftest import make_sentences, write_tsv
from ..models.reference import assert_gradients_equal, flat_params, outputs, quick_jit, random_params
from .tagged import make_tagged, write_conll

NAMES = ["alike", "names"]
KEY = jax.random.fold_in(jax.random.key(0), 3)  # of the fourth step of a run with seed 0


def write_pairs(path: Path, count: int, seed: int) -> Path:
    """Pairs of texts that have more or fewer words in common."""
    draw = random.Random(seed)
    lines = ["sentence1\tsentence2\tlabel\n"]
    for text, _ in make_sentences(count, seed):
        words = text.split()
        kept = draw.sample(words, draw.randint(1, len(words)))
        lines.append(f"{text}\t{' '.join(kept)}\t{'much' if 2 * len(kept) > len(words) else 'little'}\n")
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Config:
    folder = tmp_path_factory.mktemp("parts")
    shape = BertConfig.from_json(tiny_model / "config.json")
    shape = dataclasses.replace(shape, num_hidden_layers=1, initializer_range=0.2)
    BertModel.save_params(folder / "model", shape, BertModel.initial_params(shape, jax.random.key(0)))
    TextTokenizer.load(tiny_model).save(folder / "model", max_length=64)

    def data(write: Any, rows: Any, suffix: str) -> DataSettings:
        splits = {name: (size, seed) for name, size, seed in (("train", 60, 1), ("dev", 21, 2))}
        paths = {name: str(write(folder / f"{name}{suffix}", *rows(*of))) for name, of in splits.items()}
        return DataSettings(max_length=32, row_length=64, **paths)

    return Config(
        task="multi_task",
        model=ModelSettings(init=str(folder / "model")),
        parts=(
            Part(name="alike", data=data(write_pairs, lambda *of: of, "_pairs.tsv")),
            Part(
                name="names", task="token_classification", weight=0.5, batch_size=7, metric="recall",
                data=data(write_conll, lambda *of: [make_tagged(*of)], ".conll"),
            ),
        ),
        train=TrainSettings(
            steps=60, batch_size=20, eval_every=15, eval_batch_size=8, checkpoint_every=20, log_every=1
        ),
        optim=OptimSettings(learning_rate=1e-2),
        mesh=MeshSettings(devices=1),
    )  # fmt: skip


def with_data(config: Config, **settings: Any) -> Config:
    """The config with other data settings in every part."""
    parts = [dataclasses.replace(part, data=dataclasses.replace(part.data, **settings)) for part in config.parts]
    return dataclasses.replace(config, parts=tuple(parts))


def ready(config: Config) -> Setup:
    return set_up(config, mesh_for(config.mesh))


def alone(config: Config, name: str, batch_size: int) -> Setup:
    """A part as a run of its own."""
    (part,) = [part for part in config.parts if part.name == name]
    return ready(as_part(config, dataclasses.replace(part, batch_size=batch_size)))


def loss_and_gradients(setup: Setup, params: Any, key: Any) -> Any:
    """Of the fourth step."""
    task = setup.task

    def loss(params: Any, batch: Any) -> jax.Array:
        with in_context(setup.mesh):
            return (task.loss_sums(nnx.merge(setup.graphdef, params), batch, key) / task.loss_weights(batch)).sum()

    run = quick_jit(jax.value_and_grad(loss), in_shardings=(shardings(params, setup.mesh), by_rows(setup.mesh)))
    return jax.tree.map(np.asarray, run(params, put_batch(setup.batches["train"](3), setup.mesh)))


@pytest.fixture(scope="module")
def shared(config: Config) -> tuple[Setup, Any, Any]:
    """A run, random parameters, and the loss of its fourth step with its gradients."""
    setup = ready(config)
    params = jax.tree.map(lambda x: x / 3, random_params(setup.task.model_class, setup.bert_config))
    return setup, params, loss_and_gradients(setup, params, KEY)


def test_the_loss_and_the_encoders_gradient_are_the_weighted_sums_of_those_of_single_tasks(
    config: Config, shared: tuple[Setup, Any, Any]
) -> None:
    setup, params, (loss, gradients) = shared
    expected_loss, expected = 0.0, {}
    for number, (part, batch_size) in enumerate(zip(config.parts, (10, 7), strict=True)):
        single = alone(config, part.name, batch_size)
        batch = single.batches["train"](3)
        mine = of_part(setup.batches["train"](3), part.name)
        assert mine.keys() == batch.keys()
        for name, value in batch.items():
            np.testing.assert_array_equal(mine[name], value)
        own = MultiTaskBert.params_of(setup.bert_config, params, part.name)
        key = jax.random.fold_in(KEY, number)
        its_loss, its_gradients = loss_and_gradients(single, own, key)
        expected_loss += part.weight * float(its_loss)
        for name, gradient in flat_params(its_gradients).items():
            name = name if name.startswith("bert.") else f"parts.{number}.{name}"
            expected[name] = expected.get(name, 0) + part.weight * np.asarray(gradient)
    assert float(loss) == pytest.approx(expected_loss, rel=1e-5)
    assert_gradients_equal(flat_params(gradients), expected, 1e-5)


def test_packed_loss_and_gradients_equal_unpacked_with_dropout(config: Config, shared: tuple[Setup, Any, Any]) -> None:
    packed, params, (loss, gradients) = shared
    setup = ready(with_data(config, row_length=32))
    batch = setup.batches["train"](3)
    for name in NAMES:
        assert batch[f"{name}/segment_ids"].shape[0] > packed.batches["train"](3)[f"{name}/segment_ids"].shape[0]
    expected_loss, expected = loss_and_gradients(setup, params, KEY)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5)
    assert_gradients_equal(flat_params(gradients), flat_params(expected), 1e-5)


def test_the_loss_and_gradients_are_the_same_on_eight_devices_that_share_everything(
    config: Config, shared: tuple[Setup, Any, Any]
) -> None:
    _, params, (loss, gradients) = shared
    setup = ready(dataclasses.replace(config, mesh=MeshSettings(devices=8, fsdp=2, tensor=2)))
    found_loss, found = loss_and_gradients(setup, params, KEY)
    assert float(found_loss) == pytest.approx(float(loss), rel=1e-5)
    assert_gradients_equal(flat_params(found), flat_params(gradients), 1e-5)


def test_batch_sizes_are_the_parts_shares_and_an_epoch_shows_every_example(config: Config, tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "a.tsv", make_sentences(12, 5))
    small = Part(name="mood", data=DataSettings(train=str(path), max_length=32))
    alike, names = [
        dataclasses.replace(part, batch_size=None, data=dataclasses.replace(part.data, dev=None))
        for part in config.parts
    ]
    train = dataclasses.replace(config.train, batch_size=22, steps=None, epochs=2)
    setup = ready(dataclasses.replace(config, parts=(small, alike, names), train=train))
    batches, sizes = setup.batches["train"], {"mood": 12, "alike": 60, "names": 60}
    assert {name: own.count(0) for name, own in batches.parts.items()} == {"mood": 2, "alike": 10, "names": 10}
    assert (setup.steps, batches.steps_per_epoch) == (12, 6)
    for name, size in sizes.items():
        seen = [batches(step)[f"{name}/slot_examples"] for step in range(6)]
        assert sorted(number for found in seen for number in found[found >= 0]) == list(range(size))
    assert "mood train: 12 examples" in setup.notes[0]
    assert "2 of them a step, each 1 times an epoch" in setup.notes[0]


def test_processes_can_tell_that_they_read_the_same_parts(config: Config) -> None:
    names = dataclasses.replace(config.parts[1].data, max_length=12)
    one, same, other = [identity(ready(of)) for of in (config, config, changed(config, 1, data=names))]
    assert one == same
    assert {name for name, digest in one.items() if digest != other[name]} == {"train", "dev"}


def rows_of(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def curve(workdir: Path) -> list[tuple[int, str, dict[str, float]]]:
    """Steps, splits, and the losses of all parts."""
    return [(row["step"], row["split"], {n: v for n, v in row.items() if "loss" in n}) for row in rows_of(workdir)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, config: Config) -> tuple[Path, str]:
    """The directory of a run from the command line, and what it said."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "preset.py").write_text(f"from jaxlm.config import *\nconfig = {config!r}\n")
    flags = ["--workdir", str(folder / "run"), "--parts.names.data.max_length", "32"]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", said)
        assert cli.main(["train", str(folder / "preset.py"), *flags]) == 0
    return folder / "run", said.getvalue()


def test_a_run_stopped_by_a_signal_goes_on_to_the_same_losses(
    trained: tuple[Path, str], config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, handed_out = loop.put_batch, []

    def put_and_signal(*arguments: Any) -> Any:
        handed_out.append(None)
        if len(handed_out) == 17:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(loop, "put_batch", put_and_signal)
    with pytest.raises(loop.Interrupted):
        loop.train(ready(config), tmp_path, Console(io.StringIO()), "test")
    summary = loop.train(ready(config), tmp_path, Console(io.StringIO()), "test")
    assert curve(tmp_path) == curve(trained[0])
    assert summary["dev"] == json.loads((trained[0] / "summary.json").read_text())["dev"]


def test_every_part_is_evaluated_and_their_mean_judges_the_run(trained: tuple[Path, str], config: Config) -> None:
    run, said = trained
    summary = json.loads((run / "summary.json").read_text())
    found = summary["dev"]
    assert found["mean"] == pytest.approx((found["alike/accuracy"] + found["names/recall"]) / 2)
    assert found["loss"] == pytest.approx(sum(part.weight * found[f"{part.name}/loss"] for part in config.parts))
    assert found["mean"] == max(row["mean"] for row in rows_of(run) if row["split"] == "dev")
    assert found["mean"] > 0.85
    assert found["alike/majority_accuracy"] < 0.6
    assert "alike/confusion" in found
    for name, flags in zip(NAMES, ('--text_pair "its second text"', '--text "a text of your own"'), strict=True):
        start = f"next: python -m jaxlm predict {run}/model/{name} "
        (line,) = [line for line in said.splitlines() if line.startswith(start)]
        assert line.endswith(flags)


def test_the_log_has_each_parts_share_of_the_loss(trained: tuple[Path, str]) -> None:
    for row in (row for row in rows_of(trained[0]) if row["split"] == "train"):
        shares = [row[f"loss/{name}"] for name in NAMES]
        assert row["loss"] == pytest.approx(sum(shares), rel=1e-6)
        assert min(shares) > 0
    assert re.search(r"loss \d\.\d+ \(alike \d\.\d+, names \d\.\d+\)", trained[1])


def test_every_part_is_a_model_of_its_own(
    trained: tuple[Path, str], config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained
    summary = json.loads((run / "summary.json").read_text())
    shared = MultiTaskBert.from_pretrained(run / "model")
    for part in config.parts:
        model, output = str(run / "model" / part.name), str(tmp_path / part.name)
        command = ["evaluate", model, "--data.test", str(part.data.dev), "--output", output, "--mesh.devices", "1"]
        assert cli.main(command) == 0
        for name, value in json.loads(Path(output).read_text()).items():
            if isinstance(value, float):
                assert value == pytest.approx(summary["dev"][f"{part.name}/{name}"], abs=1e-5)
        card = Path(model, "README.md").read_text()
        assert f"{summary['dev'][f'{part.name}/loss']:.4g}" in card
        assert "trained on one encoder with other tasks: " in card
        kind = AutoModelForTokenClassification if part.name == "names" else AutoModelForSequenceClassification
        reference, tokenizer = kind.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
        inputs = tokenizer("a good and lovely film", return_tensors="pt")
        with torch.no_grad():
            expected = reference(**inputs).logits.numpy()
        found = outputs(shared.part(part.name), input_ids=inputs["input_ids"].numpy()).logits
        np.testing.assert_allclose(found, expected, atol=1e-5)
    capsys.readouterr()
    AutoModel.from_pretrained(run / "model")
    shared.save_pretrained(tmp_path / "copy")
    for name in (".", *NAMES):
        files = [folder / name / "model.safetensors" for folder in (run / "model", tmp_path / "copy")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert cli.main(["predict", str(run / "model"), "--text", "a"]) == 2
    assert "MODEL/alike, MODEL/names" in capsys.readouterr().err
    card = (run / "model" / "README.md").read_text()
    assert "PATH_OF_THIS_DIRECTORY/names" in card
    assert "jaxlm predict PATH_OF_THIS_DIRECTORY/alike --text" in card


def test_a_run_from_its_model_goes_on_with_the_heads_or_starts_new_ones(
    trained: tuple[Path, str], config: Config
) -> None:
    init = trained[0] / "model"
    params = BertForSequenceClassification.from_pretrained(init / "alike")
    params = nnx.to_pure_dict(nnx.state(params))
    again = dataclasses.replace(config, model=ModelSettings(init=str(init)))
    anew = dataclasses.replace(config, model=ModelSettings(init=str(init), new_head=True))
    for of, same in ((again, True), (anew, False)):
        setup = ready(of)
        found = MultiTaskBert.params_of(setup.bert_config, setup.initial_state()["params"], "alike")
        np.testing.assert_array_equal(found["bert"]["embeddings"]["word"], params["bert"]["embeddings"]["word"])
        assert np.array_equal(found["classifier"]["kernel"], params["classifier"]["kernel"]) == same
    swapped = dataclasses.replace(config.parts[1], name="alike"), dataclasses.replace(config.parts[0], name="names")
    with pytest.raises(CheckpointError, match="alike is a BertForSequenceClassification, a BertForTokenClassification"):
        ready(dataclasses.replace(again, parts=swapped)).initial_state()


def test_a_dry_run_walks_the_road_of_every_part(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "preset.py").write_text(f"from jaxlm.config import *\nconfig = {config!r}\n")
    assert cli.main(["train", str(tmp_path / "preset.py"), "--dry_run", "--workdir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    for part in ("names train: 60 examples", "one evaluation step on dev", "model directory", "passed"):
        assert part in said
    assert not (tmp_path / "run").exists()


class Percentage(Classification):
    """Judged by a metric whose best value is 100, as question answering is."""

    best_metric = 100.0

    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Examples) -> Metrics:
        found = super().metrics(sums, outputs, examples)
        return found | {"accuracy": 100 * found["accuracy"]}


def test_parts_are_calibrated_and_weigh_the_same_whatever_their_metrics_scale(tiny_model: Path) -> None:
    stage, tokenizer = Config(parts=(Part(name="sets"), Part(name="kind"))), TextTokenizer.load(tiny_model)
    short, long = (dataclasses.replace(stage, data=DataSettings(max_length=n)) for n in (16, 48))
    sets, kind = MultiLabel(long, tokenizer, ["a", "b"]), Percentage(short, tokenizer, ["x", "y"])
    task = MultiTask(stage, tokenizer, {"sets": sets, "kind": kind})
    assert task.max_length == 48
    logits = {"sets/logits": np.array([[2.0, 1.9], [1.0, 0.5]]), "kind/logits": np.array([[3.0, 0.0], [3.0, 0.0]])}
    table = {
        "sets": Table("f", ["u", "v"], None, [("a", "b"), ()], ["1", "2"]),
        "kind": Table("f", ["u", "v"], None, ["x", "y"], ["1", "2"]),
    }
    examples = {name: part.examples(table[name])[0] for name, part in task.parts.items()}
    task.calibrate(logits, examples)
    assert scipy.special.expit(1.0) < sets.threshold < scipy.special.expit(1.9)
    found = task.metrics({}, logits, examples)
    assert (found["sets/micro_f1"], found["kind/accuracy"]) == (1.0, 50.0)
    assert found["mean"] == 0.75
    assert found["loss"] == pytest.approx(found["sets/loss"] + found["kind/loss"])


def changed(config: Config, number: int, **values: Any) -> Config:
    parts = list(config.parts)
    parts[number] = dataclasses.replace(parts[number], **values)
    return dataclasses.replace(config, parts=tuple(parts))


WRONG: dict[str, tuple[Any, str]] = {
    "same name": (lambda c: changed(c, 1, name="alike"), "--parts.alike: 2 parts have this name"),
    "no name": (lambda c: changed(c, 1, name=""), "--parts.1.name is ''; small letters"),
    "strange name": (lambda c: changed(c, 1, name="a/b"), "--parts.1.name is 'a/b'"),
    "unknown task": (lambda c: changed(c, 0, task="parsing"), "--parts.alike.task is parsing; a part may be one of"),
    "other task": (lambda c: changed(c, 0, task="masked_lm"), "--parts.alike.task is masked_lm"),
    "no data": (lambda c: changed(c, 0, data=DataSettings()), "--parts.alike.data.train is None"),
    "weight": (lambda c: changed(c, 0, weight=0.0), "--parts.alike.weight is 0.0; it must be above 0"),
    "batch size": (lambda c: changed(c, 0, batch_size=0), "--parts.alike.batch_size is 0"),
    "metric": (lambda c: changed(c, 0, metric="loss"), "--parts.alike.metric is loss"),
    "setting": (lambda c: changed(c, 0, labels=LabelSettings(threshold=2.0)), "--parts.alike.labels.threshold is 2.0"),
    "tokenizer": (
        lambda c: changed(c, 0, data=dataclasses.replace(c.parts[0].data, tokenizer="x")),
        "--parts.alike.data.tokenizer is x; the parts share --data.tokenizer",
    ),
    "some dev": (
        lambda c: changed(c, 0, data=dataclasses.replace(c.parts[0].data, dev=None)),
        "--parts.alike.data.dev is not set, and other parts have one",
    ),
    "one part": (lambda c: dataclasses.replace(c, parts=c.parts[:1]), "at least two parts; the config has 1"),
    "task": (lambda c: dataclasses.replace(c, task="classification"), "parts are for multi_task"),
    "data of the run": (
        lambda c: dataclasses.replace(c, data=DataSettings(train="x")), "in multi_task set --parts.NAME.data.train",
    ),
    "labels of the run": (
        lambda c: dataclasses.replace(c, labels=LabelSettings(out_of_scope="x")),
        "in multi_task set --parts.NAME.labels.out_of_scope",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_named(config: Config, name: str) -> None:
    validate(config)
    change, message = WRONG[name]
    with pytest.raises(UserError) as error:
        validate(change(config))
    assert message in str(error.value)


def test_what_is_wrong_with_a_parts_data_is_said_with_its_own_flags(config: Config, tmp_path: Path) -> None:
    def refused(number: int, message: str, **data: Any) -> None:
        data = dataclasses.replace(config.parts[number].data, **data)
        with pytest.raises((UserError, CheckpointError)) as error:
            ready(changed(config, number, data=data))
        assert message in str(error.value)

    refused(1, "--parts.names.data.max_length is 100; the model has 64 positions", max_length=100)
    (tmp_path / "dev.tsv").write_text("sentence1\tsentence2\tlabel\na\tb\tmuch\nc\td\tnone\n")
    refused(0, "part alike: ", dev=str(tmp_path / "dev.tsv"))
    refused(0, "or pass --parts.alike.data.bad_rows skip", dev=str(tmp_path / "dev.tsv"))
    with pytest.raises(UserError, match=r"part alike: --parts.alike.metric is pearson; classification is judged by"):
        ready(changed(config, 0, metric="pearson"))


def test_parts_are_set_by_name_and_resumed_only_with_what_they_were(config: Config) -> None:
    flags = ["--parts.names.data.train", "x", "--parts.0.batch_size", "3"]
    found = parse(Config, flags, "test", config)
    assert (found.parts[1].data.train, found.parts[0].batch_size) == ("x", 3)
    with pytest.raises(UserError, match=r"no flag --parts.names.data.trian; did you mean"):
        parse(Config, ["--parts.names.data.trian", "x"], "test", config)
    assert changes(flatten(config), config) == ([], [])
    assert changes(flatten(config), found)[1][0] == "parts.0.batch_size: None -> 3"
    older = {name: value for name, value in flatten(config).items() if "header" not in name}
    assert changes(older, config) == ([], [])
    assert isinstance(ready(config).bert_config, SharedConfig)
