"""The command line as a person meets it: wrong input first."""

import dataclasses
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from jaxlm import cli, flags, predict
from jaxlm.config import Config
from jaxlm.errors import NonFiniteLoss, UserError
from jaxlm.models import BertConfig
from jaxlm.parallel import distributed
from jaxlm.parallel.mesh import make_mesh
from jaxlm.verbs import env
from jaxlm.verbs import predict as verbs_predict
from jaxlm.verbs.train import _own_data

PRESET = """
from jaxlm.config import Config, DataSettings, MeshSettings, ModelSettings, OptimSettings, TrainSettings
config = Config(
    model=ModelSettings(init={model!r}),
    data=DataSettings(train={train!r}, dev={dev!r}, max_length=32),
    train=TrainSettings(steps=40, batch_size=16, eval_every=10, checkpoint_every=3, log_every=10),
    optim=OptimSettings(learning_rate=5e-3),
    mesh=MeshSettings(devices=1),
)
"""


@pytest.fixture
def preset(tmp_path: Path, tiny_model: Path, sentences: dict[str, Path]) -> Path:
    path = tmp_path / "preset.py"
    values = {"model": str(tiny_model), "train": str(sentences["train"]), "dev": str(sentences["dev"])}
    path.write_text(PRESET.format(**values))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, sentences: dict[str, Path]) -> Path:
    """The workdir of a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    values = {"model": str(tiny_model), "train": str(sentences["train"]), "dev": str(sentences["dev"])}
    (folder / "preset.py").write_text(PRESET.format(**values))
    test = ["--data.test", str(sentences["test"])]
    assert cli.main(["train", str(folder / "preset.py"), "--workdir", str(folder / "run"), *test]) == 0
    return folder / "run"


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_verbs_compute_in_the_dtype_that_they_are_told(
    trained: Path, sentences: dict[str, Path], tmp_path: Path, verb: str
) -> None:
    given = (
        ["--data.test", str(sentences["test"])] if verb == "evaluate" else ["--text", "a fine film", "--text", "dull"]
    )
    found = {}
    for dtype in ("auto", "float32", "bfloat16"):
        output = tmp_path / dtype
        command = [verb, str(trained / "model"), *given, "--output", str(output), "--dtype", dtype]
        assert cli.main(command) == 0
        found[dtype] = output.read_text()
    assert found["auto"] == found["float32"] != found["bfloat16"]


def test_a_batch_is_some_thousand_tokens_where_nothing_is_said(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = predict.make_batches
    sizes = []

    def noted(examples: Any, *, batch_size: int, **others: Any) -> Any:
        sizes.append(batch_size * examples.lengths.mean())
        return made(examples, batch_size=batch_size, **others)

    monkeypatch.setattr(predict, "make_batches", noted)
    predictor = predict.Predictor(str(trained / "model"), make_mesh(1))
    texts = ["a fine film"] * 1000
    list(predictor.predict(predictor.task.from_texts("here", texts, None, Config().data)))
    assert sizes == [pytest.approx(2048, rel=0.01)]


def test_a_model_of_pairs_judges_no_single_texts(
    trained: Path, sentences: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(trained / "model", model)
    config = json.loads((model / "config.json").read_text())
    config["jaxlm"]["pairs"] = True
    (model / "config.json").write_text(json.dumps(config))
    evaluate = ["evaluate", str(model), "--data.test", str(sentences["test"])]
    problems = (
        "trained on pairs of texts, and here are single ones",
        "pairs are meant, and which column is the second",
    )
    for command, problem in zip((["predict", str(model), "--text", "a"], evaluate), problems, strict=True):
        assert cli.main(command) == 2
        assert problem in capsys.readouterr().err
    assert cli.main(["predict", str(model), "--text", "a", "--text_pair", "b"]) == 0
    capsys.readouterr()
    assert cli.main(["predict", str(trained / "model"), "--text", "a", "--text_pair", "b"]) == 2
    assert "trained on single texts, and here are pairs" in capsys.readouterr().err


def trained_on(table: Path, text: str, label: str, init: Path, folder: Path) -> Callable[..., str]:
    """Trains a model into `folder` in one step; returns what calls a verb with it and gives its output."""
    run = [
        "train", "configs/sst2.py", "--model.init", str(init), "--data.train", str(table), "--data.dev", "None",
        "--data.max_length", "32", "--train.steps", "1", "--data.text", text, "--data.label", label,
        "--workdir", str(folder / "run"),
    ]  # fmt: skip
    assert cli.main(run) == 0

    def said(verb: str, *flags: str) -> str:
        assert cli.main([verb, str(folder / "run" / "model"), *flags, "--output", str(folder / "output")]) == 0
        return (folder / "output").read_text()

    return said


def test_columns_that_training_was_told_need_not_be_told_again(
    tiny_model: Path, sentences: dict[str, Path], tmp_path: Path
) -> None:
    """A column called "text" would be read else, and "body" by nobody."""
    rows = [line.split("\t") for line in sentences["test"].read_text().splitlines()]
    names = ["text", "body", "label", "mood"]
    table = tmp_path / "table.csv"
    lines = [",".join(names), *(f"no. {number},{text},x,{mood}" for number, (text, mood) in enumerate(rows))]
    table.write_text("\n".join(lines))
    said = trained_on(table, "body", "mood", tiny_model, tmp_path)
    facts = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["jaxlm"]
    assert facts["columns"] == {"text": "body", "label": "mood"}
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"{text}\n" for text, _ in rows))
    evaluated = said("evaluate", "--data.test", str(table))
    assert evaluated == said("evaluate", "--data.test", str(table), "--data.text", "body", "--data.label", "mood")
    assert json.loads(evaluated)["examples"] == len(rows)
    predicted = said("predict", "--input", str(table))
    assert predicted == said("predict", "--input", str(texts))
    assert predicted != said("predict", "--input", str(table), "--data.text", "text")


def test_positions_serve_again_where_nothing_else_tells_columns_apart(
    tiny_model: Path, sentences: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CoLA's files have four columns without names."""
    rows = [line.split("\t") for line in sentences["test"].read_text().splitlines()]
    table = tmp_path / "cola.tsv"
    table.write_text("".join(f"gj04\t{mood}\t*\t{text}\n" for text, mood in rows))
    said = trained_on(table, "3", "1", tiny_model, tmp_path)
    expected = said("evaluate", "--data.test", str(table), "--data.text", "3", "--data.label", "1")
    assert said("evaluate", "--data.test", str(table)) == expected
    assert said("evaluate", "--data.test", str(sentences["test"])) == expected  # text and label, told by the labels
    predicted = said("predict", "--input", str(table))
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"{text}\n" for text, _ in rows))
    assert said("predict", "--input", str(texts)) == predicted
    (tmp_path / "narrow.tsv").write_text("a\tb\tc\n")
    capsys.readouterr()
    assert cli.main(["predict", str(tmp_path / "run" / "model"), "--input", str(tmp_path / "narrow.tsv")]) == 2
    assert "which column is the text? Columns: 0, 1, 2" in capsys.readouterr().err


def test_a_presets_test_set_is_not_that_of_own_training_data() -> None:
    def change(config: Config, **data: Any) -> Config:
        return dataclasses.replace(config, data=dataclasses.replace(config.data, **data))

    given = flags.preset("configs/conll2003.py")
    own = change(given, train="mine.txt", dev="mine_too.txt")
    config, said = _own_data(own, given)
    assert (config.data.train, config.data.dev, config.data.test) == ("mine.txt", "mine_too.txt", None)
    assert said == ["--data.train is your own, so the preset's --data.test tfds:conll2003 is left out"]
    asked = change(own, test="tfds:conll2003:test")
    assert _own_data(asked, given) == (asked, [])
    assert _own_data(given, given) == (given, [])
    several = flags.preset("configs/customer_service.py")
    *others, sentiment = several.parts
    mine = dataclasses.replace(sentiment, data=dataclasses.replace(sentiment.data, train="mine.csv"))
    config, said = _own_data(dataclasses.replace(several, parts=(*others, mine)), several)
    assert (config.parts[-1].data.train, config.parts[-1].data.dev) == ("mine.csv", None)
    assert config.parts[:-1] == tuple(others)
    flag = "--parts.sentiment.data"
    assert said == [f"{flag}.train is your own, so the preset's {flag}.dev tfds:glue/sst2 is left out"]
    other = flags.preset("configs/embeddings_nli.py")  # its dev set is of another kind than its training data
    assert _own_data(change(other, train="mine.csv"), other)[0].data.dev == other.data.dev


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--lr", "--optim.learning_rate"),
        ("--optim.lr", "--optim.learning_rate"),
        ("--epochs", "--train.epochs"),
        ("--train.epoch", "--train.epochs"),
        ("--bs", "--train.batch_size"),
        ("--train.bach_size", "--train.batch_size"),
        ("--output_dir", "--workdir"),
        ("--sede", "--seed"),
        ("--max_seq_length", "--data.max_length"),
        ("--dryrun", "--dry_run"),
    ],
)
def test_a_half_remembered_flag_is_answered_with_the_right_one(
    preset: Path, capsys: pytest.CaptureFixture[str], flag: str, meant: str
) -> None:
    assert cli.main(["train", str(preset), flag, "3"]) == 2
    assert capsys.readouterr().err == f"error: there is no flag {flag}; did you mean {meant}?\n"


def test_a_value_that_looks_like_a_flag() -> None:
    def texts(*arguments: str) -> tuple[str, ...]:
        return flags.parse(verbs_predict.Arguments, ["model", *arguments], "predict").text

    assert texts("--text", "-great film") == texts("--text=-great film") == ("-great film",)
    assert texts("--text=-great") == ("-great",)
    with pytest.raises(
        UserError, match=r"there is no flag -great; .*a value that begins with - is given as --flag=VAL"
    ):
        texts("--text", "-great")


def test_a_home_directory_after_an_equals_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    read = flags.parse(Config, ["--workdir=~/runs", "--data.train=~", "--data.dev=~x/y"], "train", Config())
    assert (read.workdir, read.data.train, read.data.dev) == ("/home/ada/runs", "/home/ada", "~x/y")


def test_a_wrong_flag_is_answered_before_jax_is_imported(preset: Path) -> None:
    code = (
        "import sys; from jaxlm import cli; code = cli.main(sys.argv[1:]); "
        "assert not {'jax', 'numpy', 'transformers'} & set(sys.modules), 'imported'; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "train", str(preset), "--lr", "3"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def _write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_wrong_input_is_one_clear_line_and_leaves_nothing_behind(
    tmp_path: Path, preset: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    broken = folder / "broken"
    broken.mkdir()
    for file in tiny_model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes((tiny_model / "model.safetensors").read_bytes()[:-50])
    deeper = folder / "deeper"
    deeper.mkdir()
    for file in tiny_model.iterdir():
        (deeper / file.name).write_bytes(file.read_bytes())
    shape = json.loads((tiny_model / "config.json").read_text()) | {"num_hidden_layers": 3}
    (deeper / "config.json").write_text(json.dumps(shape))
    (folder / "full").mkdir()
    (folder / "full" / "something").write_text("else")
    cases = {
        ("--data.train", str(folder / "absent.tsv")): "no such file",
        ("--data.train", _write(folder / "empty.tsv", "")): "no rows",
        ("--data.train", _write(folder / "one_class.tsv", "a b\tx\nc d\tx\n")): "at least two labels",
        ("--data.train", _write(folder / "columns.tsv", "a b\tx\nc d\ty\tz\n")): "line 2: wrong number of columns",
        ("--data.train", _write(folder / "utf8.tsv", b"a b\tx\n\xff\ty\n")): "line 2: not UTF-8",
        ("--data.train", _write(folder / "void.tsv", "a b\tx\n \ty\n")): "line 2: empty text",
        ("--data.train", _write(folder / "strange.pdf", "a")): "should end in one of",
        ("--data.train", _write(folder / "cut.tsv.xz", b"\xfd7zXZ\x00nonsense")): "damaged",
        (
            "--data.dev",
            _write(folder / "unseen.tsv", "a b\tpositive\nc d\tneutral\n"),
        ): "line 2: label 'neutral' is none",
        ("--data.train", "tfds:nosuchset"): "nosuchset",
        ("--data.text", "review"): "no such column",
        ("--data.max_length", "100"): "has 64 positions",
        ("--model.init", str(broken)): "model.safetensors is damaged",
        ("--model.init", str(deeper)): "encoder.layer.2",
        ("--model.init", str(folder / "nowhere")): "is no directory",
        ("--model.init", str(folder)): "no config.json",
        ("--model.init", "no-such-org/no-such-model"): "the hub did not give a model",
        ("--train.batch_size", "0"): "--train.batch_size is 0; it must be at least 1",
        ("--train.batch_size", "many"): "many",
        ("--optim.learning_rate", "-1"): "must be above 0",
        ("--optim.schedule", "linaer"): "Expected one of",
        ("--mesh.devices", "99"): "there are 8",
        ("--mesh.distributed", "explicit"): "needs JAXLM_COORDINATOR, JAXLM_NUM_PROCESSES, JAXLM_PROCESS_ID",
        ("--train.patience", "0"): "--train.patience",
        ("--workdir", str(folder / "full")): "is not empty and holds no run",
        ("--workdir", str(preset)): "is a file",
    }
    workdir = tmp_path / "run"
    for (flag, value), message in cases.items():
        place = [] if flag == "--workdir" else ["--workdir", str(workdir)]
        assert cli.main(["train", str(preset), flag, value, *place]) == 2, (flag, value)
        error = capfd.readouterr().err
        assert message in error, (flag, value)
        assert error.startswith("error: ")
        assert error.count("\n") == 1, error
        assert not workdir.exists(), (flag, value)
    assert [path.name for path in (folder / "full").iterdir()] == ["something"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "did you mean train?"),
        (["train"], "usage"),
        (["train", "configs/sst3.py"], "no such preset; did you mean configs/sst2.py?"),
        (["train", "sst2"], "no such preset; did you mean configs/sst2.py?"),
        (["evaluate", "somewhere"], "which file?"),
        (["evaluate", "nowhere", "--data.test", "absent.tsv"], "nowhere"),
        (["predict", "a", "--text", "b", "--input", "c"], "not both"),
        (["predict", "a", "--input", "absent.txt"], "no such file"),
        (["predict", "a", "--text", "b", "--output", "no/such/folder/x.jsonl"], "there is no directory"),
        (["predict", "a", "--text", "b", "--output", "/proc/x.jsonl"], "/proc cannot be written"),
        (["predict", "a", "--text", "b", "--output", "configs"], "configs is a directory; a file is meant"),
        (["predict", "a", "--text", ""], "a --text is empty"),
        (["predict", "a", "--text", "b", "--text_pair", "c", "--text_pair", "d"], "each text needs its own"),
    ],
)
def test_wrong_verbs_and_files_are_answered(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_preset_that_fails_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", _write(tmp_path / "a.py", "import nothing_of_that_name")]) == 2
    assert "nothing_of_that_name" in capsys.readouterr().err
    assert cli.main(["train", _write(tmp_path / "b.py", "confg = 3")]) == 2
    assert "defines no `config" in capsys.readouterr().err


def test_a_finished_run_says_so_and_ends_well(trained: Path, capsys: pytest.CaptureFixture[str], sentences) -> None:
    command = ["train", str(trained.parent / "preset.py"), "--workdir", str(trained)]
    before = (trained / "summary.json").read_bytes()
    assert cli.main([*command, "--data.test", str(sentences["test"]), "--train.log_every", "7"]) == 0
    said = capsys.readouterr().out
    assert "this run is finished" in said
    assert "changed setting, not applied: train.log_every: " in said
    assert "another --workdir makes another run" in said
    assert (trained / "summary.json").read_bytes() == before
    assert cli.main([*command, "--data.test", str(sentences["test"]), "--seed", "5"]) == 2
    assert "seed: 0 -> 5" in capsys.readouterr().err


def test_predictions_are_those_of_transformers_on_the_saved_directory(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["a good and lovely film", "dull plot", "the awful awful music of the story " * 10, "unknownword"]
    command = ["predict", str(trained / "model")]
    assert cli.main([*command, *[part for text in texts for part in ("--text", text)]]) == 0
    printed = capsys.readouterr().out
    lines = "".join(f"{text}\n" for text in texts)
    (tmp_path / "texts.txt").write_text(lines)
    assert cli.main([*command, "--input", str(tmp_path / "texts.txt"), "--output", str(tmp_path / "out.jsonl")]) == 0
    assert (tmp_path / "out.jsonl").read_text() == printed
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert cli.main(command) == 0
    assert capsys.readouterr().out == printed
    assert cli.main([*command, "--input", str(tmp_path / "texts.txt"), "--data.max_length", "8"]) == 0
    cut = capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    model = AutoModelForSequenceClassification.from_pretrained(trained / "model").eval()
    cases = [(text, None) for text in texts] + [(text, 8) for text in texts]
    for (text, length), line in zip(cases, (printed + cut).splitlines(), strict=True):
        logits = model(**tokenizer(text, truncation=True, max_length=length, return_tensors="pt")).logits[0]
        found = json.loads(line)
        for number, probability in enumerate(logits.softmax(-1).tolist()):
            assert found["probabilities"][model.config.id2label[number]] == pytest.approx(probability, abs=1e-5)
        assert found["label"] == model.config.id2label[int(logits.argmax())]


def test_predictions_say_which_rows_they_are_of_where_some_are_left_out(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a good film\n\ndull plot\n")
    command = ["predict", str(trained / "model"), "--input", str(tmp_path / "texts.txt"), "--data.bad_rows", "skip"]
    assert cli.main([*command, "--output", str(tmp_path / "out.jsonl")]) == 0
    rows = [json.loads(line)["row"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == ["line 1", "line 3"]


@pytest.mark.parametrize("length", ["500", "2", "-3"])
def test_a_length_that_the_model_cannot_read_is_refused(
    length: str, trained: Path, sentences: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = [str(trained / "model"), "--data.max_length", length, "--mesh.devices", "1"]
    for command in (["predict", *model, "--text", "good"], ["evaluate", *model, "--data.test", str(sentences["test"])]):
        assert cli.main(command) == 2
        assert f"max_length is {length}; it must be at least 3, and the model has 64 pos" in capsys.readouterr().err


def test_an_evaluation_leaves_rows_of_unknown_labels_out_where_it_is_told(
    trained: Path, sentences: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "rows.tsv").write_text(sentences["test"].read_text() + "the film\tneutral\n")
    output = tmp_path / "metrics.json"
    command = ["evaluate", str(trained / "model"), "--data.test", str(tmp_path / "rows.tsv"), "--output", str(output)]
    assert cli.main(command) == 2
    assert cli.main([*command, "--data.bad_rows", "skip"]) == 0
    expected = json.loads((trained / "summary.json").read_text())["test"]
    assert json.loads(output.read_text())["confusion"] == expected["confusion"]


@pytest.mark.parametrize("batch_size", [1, 7, 128])
def test_evaluation_is_exact_whatever_the_batch(
    trained: Path, sentences: dict[str, Path], tmp_path: Path, batch_size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "metrics.json"
    command = ["evaluate", str(trained / "model"), "--data.test", str(sentences["test"]), "--output", str(file)]
    assert cli.main([*command, "--batch_size", str(batch_size)]) == 0
    metrics = json.loads(file.read_text())
    expected = json.loads((trained / "summary.json").read_text())["test"]
    assert metrics["loss"] == pytest.approx(expected["loss"], abs=1e-6)
    assert metrics["confusion"] == expected["confusion"]
    assert sum(map(sum, metrics["confusion"])) == metrics["examples"] == 30
    assert "confusion matrix" in capsys.readouterr().out


def test_the_label_names_are_kept_in_the_model(trained: Path) -> None:
    assert BertConfig.from_json(trained / "model" / "config.json").id2label == {0: "negative", 1: "positive"}


def test_a_dry_run_walks_the_road_and_leaves_nothing(
    preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", str(preset), "--dry_run", "--workdir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    for part in (
        "one training step",
        "evaluation step",
        "checkpoint",
        "model directory",
        "40 steps of",
        "GiB",
        "passed",
    ):
        assert part in said
    assert [path.name for path in tmp_path.iterdir()] == ["preset.py"]


def test_env_names_versions_and_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["env"]) == 0
    said = capsys.readouterr().out
    for part in ("jaxlm ", "Python ", "jax 0.", "device 7: cpu", "compilation cache "):
        assert part in said


def test_nothing_complains_of_a_tpu_that_is_not_there() -> None:
    pytest.importorskip("libtpu")  # which does, where it is installed and nobody tells it
    environment = {name: os.environ[name] for name in os.environ if not name.startswith(("TPU_", "JAX_PLATFORMS"))}
    done = subprocess.run([sys.executable, "-m", "jaxlm", "env"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_losses(preset: Path, tmp_path: Path) -> None:
    def start(workdir: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "jaxlm", "train", str(preset), "--workdir", str(workdir)]
        environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    whole, _ = start(tmp_path / "whole").communicate(timeout=120)
    draw = random.Random(0)
    for steps_before_the_kill in (1, 9, 20):
        run = start(tmp_path / "killed")
        metrics = tmp_path / "killed" / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while run.poll() is None and time.monotonic() < deadline:
            if _last_checkpoint(tmp_path / "killed") >= steps_before_the_kill:
                break
            time.sleep(0.01)
        time.sleep(draw.random() * 0.2)
        run.send_signal(signal.SIGKILL)
        run.communicate(timeout=60)
    final, _ = start(tmp_path / "killed").communicate(timeout=120)
    assert "model: " in final, final
    for name in ("dev", "train"):
        one, other = (json.loads((tmp_path / run / "summary.json").read_text())[name] for run in ("whole", "killed"))
        assert one["loss"] == other["loss"], whole
    curves = [
        [(row["step"], row["loss"]) for row in map(json.loads, path.read_text().splitlines())]
        for path in (tmp_path / "whole" / "metrics.jsonl", metrics)
    ]
    assert curves[0] == curves[1]


def _last_checkpoint(workdir: Path) -> int:
    folder = workdir / "checkpoints"
    return (
        max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=0) if folder.is_dir() else 0
    )


class _Group:
    """Hears what a process tells the others."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def fail(self, code: int, text: str) -> None:
        self.heard.append((code, text))

    def close(self) -> None:
        self.heard.append("the end")


@pytest.mark.parametrize(
    ("end", "code", "heard"),
    [
        (UserError("no such file"), 2, (2, "no such file")),
        (NonFiniteLoss("step 3: the loss is nan"), 1, (1, "step 3: the loss is nan")),
        (KeyboardInterrupt(), 130, (130, "stopped")),
        (OSError("the disk is full"), 1, (1, "OSError: the disk is full")),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED"), 1, (1, "JaxRuntimeError: RESOURCE_EXHAUSTED")),
        (jax.errors.JaxRuntimeError("Gloo: closed by peer"), 1, (1, "JaxRuntimeError: Gloo: closed by peer")),
        (None, 0, "the end"),
    ],
)  # fmt: skip
def test_whatever_ends_one_of_several_processes_is_told_to_the_others(
    end: BaseException | None, code: int, heard: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, waited = _Group(), []

    def run(_: list[str]) -> int:
        if end is not None:
            raise end
        return 0

    monkeypatch.setattr(distributed, "_member", group)
    monkeypatch.setattr(distributed.time, "sleep", waited.append)
    monkeypatch.setattr(env, "run", run)
    assert cli.main(["env"]) == code
    assert group.heard == [heard]
    # What broke a connection is perhaps another's death, of which the group is about to hear.
    assert bool(waited) == ("Gloo" in str(end))


def test_sigterm_before_training_ends_with_the_code_that_says_start_again(preset: Path, tmp_path: Path) -> None:
    code = """
import os, signal, sys, time
from jaxlm import cli
from jaxlm.training import run
run.check_workdir = lambda *_: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(60))
sys.exit(cli.main(["train", *sys.argv[1:]]))
"""
    command = [sys.executable, "-c", code, str(preset), "--workdir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (75, "stopped by SIGTERM; the same command goes on\n")
    assert not (tmp_path / "run").exists()
