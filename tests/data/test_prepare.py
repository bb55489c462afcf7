import hashlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from jaxlm.config import DataSettings, Phase
from jaxlm.console import Console
from jaxlm.data import prepare as module
from jaxlm.data.chunks import Packer
from jaxlm.data.prepare import fill_rate, parts_of, prepare
from jaxlm.data.prepared import PreparedData
from jaxlm.errors import RunFailed, UserError

from .corpora import config, corpus, prepared, tokenizer

QUIET = Console(speaks=False)


def digests(folder: Path) -> dict[str, str]:
    """Of every file, state and all."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    corpus(tmp_path / "text")
    return tmp_path / "text"


def test_every_document_is_there_token_for_token_and_once(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART_BYTES", (1, 1))
    data = prepared(tmp_path, phases=(Phase(1), Phase(1, max_length=64)))
    words = tokenizer()
    for part, path in enumerate(sorted(source.glob("*.txt"))):
        texts = [text for text in re.split(r"\n\s*\n", path.read_text()) if text.strip()]
        found = {d.number: d.tokens.tolist() for d in data.documents() if d.part == part}
        assert [found[number] for number in range(len(texts))] == [words.tokenize_text(text).tolist() for text in texts]
    assert data.manifest["counts"]["documents"] == sum(data.manifest["documents_in_splits"].values())
    assert list(data.manifest["splits"]["train"]) == ["32", "64"]
    for source_entry in data.manifest["sources"]:
        assert source_entry["sha256"] == hashlib.sha256(Path(source_entry["path"]).read_bytes()).hexdigest()


def test_rows_are_full_and_a_document_is_either_trained_on_or_held_out(tmp_path: Path, source: Path) -> None:
    corpus(source, documents=800)
    data = prepared(tmp_path)
    texts: dict[str, set[bytes]] = {}
    for split in ("train", "validation"):
        assert fill_rate(data.manifest, split, "32") > 0.95  # small shards: the last row of each is not full
        rows = data.rows(split, 32)
        windows = rows.read(range(len(rows)))
        assert sum(int(row.about["length"].sum() + 2 * len(row.about)) for row in windows) == rows.tokens
        assert max(len(row.about) for row in windows) == rows.most_windows
        keys = [
            [rows.part(number), *map(int, w)]
            for number, row in enumerate(windows)
            for w in row.about[["document"]].tolist()
        ]
        texts[split] = {bytes(str(key), "ascii") for key in keys}
    assert not texts["train"] & texts["validation"]
    assert 0.02 < len(texts["validation"]) / (len(texts["train"]) + len(texts["validation"])) < 0.25


@pytest.mark.parametrize("workers", [2, 3])
def test_the_output_is_the_same_byte_for_byte_on_any_number_of_workers_and_machines(
    tmp_path: Path, source: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", 2000)
    monkeypatch.setattr(module, "_CHUNKS_PER_SHARD", 3)
    monkeypatch.setattr(module, "_PART_BYTES", (1, 1))
    settings = config(source / "*.txt")
    prepare(settings, tokenizer(), tmp_path / "one", QUIET, workers=1)
    assert len(list((tmp_path / "one" / "32").iterdir())) > 6
    for machine in range(workers):
        shard = (machine, workers)
        manifest = prepare(settings, tokenizer(), tmp_path / "many", QUIET, shard=shard, workers=workers)
        assert (manifest is None) == (machine < workers - 1)
    assert digests(tmp_path / "many") == digests(tmp_path / "one")


def test_a_preparation_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path, source: Path) -> None:
    """SIGKILL at moments spread over the run, workers and all; what is whole is not made again."""
    corpus(source, documents=1500)
    tokenizer().save(tmp_path / "tokenizer", 32)
    preset = tmp_path / "preset.py"
    preset.write_text("from jaxlm.config import *\nconfig = Config(task='masked_lm', data=DataSettings(max_length=32))")
    start = (
        "from jaxlm.data import prepare\nprepare._CHUNK_BYTES, prepare._CHUNKS_PER_SHARD = 10000, 4\n"
        "import sys, jaxlm.cli\nif __name__ == '__main__': sys.exit(jaxlm.cli.main(sys.argv[1:]))"
    )
    (tmp_path / "small_shards.py").write_text(start)

    def command(output: Path) -> list[str]:
        return [sys.executable, str(tmp_path / "small_shards.py"), "prepare", str(preset), "--data.train",
                f"{source}/*.txt", "--data.tokenizer", str(tmp_path / "tokenizer"), "--output", str(output),
                "--workers", "2"]  # fmt: skip

    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    whole = digests(tmp_path / "whole")
    for shards in (1, 4, 7):
        process = subprocess.Popen(command(tmp_path / "cut"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("cut/state/*-*.json"))) < shards and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "cut" / "manifest.json").exists()
    subprocess.run(command(tmp_path / "cut"), check=True, capture_output=True)
    assert digests(tmp_path / "cut") == whole
    again = subprocess.run(command(tmp_path / "cut"), check=True, capture_output=True, text=True)
    assert "already prepared" in again.stdout
    assert digests(tmp_path / "cut") == whole


def test_other_settings_or_sources_are_refused(tmp_path: Path, source: Path) -> None:
    settings = config(source / "*.txt")
    prepare(settings, tokenizer(), tmp_path / "out", QUIET, workers=1)
    before = digests(tmp_path / "out")
    with pytest.raises(UserError, match="row_lengths: \\[32\\] there, \\[40\\] now"):
        prepare(config(source / "*.txt", 40), tokenizer(), tmp_path / "out", QUIET, workers=1)
    first = min(source.glob("*.txt"))
    content = first.read_text()
    first.write_text(content[::-1])
    with pytest.raises(UserError, match=r"holds what .*txt was before it changed"):
        prepare(settings, tokenizer(), tmp_path / "out", QUIET, workers=1)
    first.write_text(content)
    (source / "3.txt").write_text("more")
    with pytest.raises(UserError, match="other sources"):
        prepare(settings, tokenizer(), tmp_path / "out", QUIET, workers=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(UserError, match="holds no prepared data"):
        prepare(settings, tokenizer(), tmp_path / "full", QUIET, workers=1)
    assert digests(tmp_path / "out") == before


def test_rows_that_the_model_cannot_read_are_not_made(tmp_path: Path, source: Path) -> None:
    asked = config(source / "*.txt", 64, model={"max_position_embeddings": 32})
    with pytest.raises(UserError, match=r"rows of 64 tokens .* the model has 32 positions"):
        prepare(asked, tokenizer(), tmp_path / "out", QUIET, workers=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (BrokenProcessPool("a process in the pool was terminated"), "a worker process was killed .* goes on"),
        (RuntimeError("Write failed: No space left on device"), "no space is left where .*out lies; the same command"),
        (OSError(28, "No space left on device"), "no space is left where"),
    ],
)
def test_what_a_machine_runs_out_of_is_said(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    prepare(config(source / "*.txt"), tokenizer(), tmp_path / "whole", QUIET, workers=1)

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module.ShardWriter, "add", fail)
        with pytest.raises(RunFailed, match=message):
            prepare(config(source / "*.txt"), tokenizer(), tmp_path / "out", QUIET, workers=1)
    prepare(config(source / "*.txt"), tokenizer(), tmp_path / "out", QUIET, workers=1)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_header_that_was_told_is_a_setting(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n" + "".join(f"document {n}.\n" for n in range(30)))
    told = config(tmp_path / "a.csv", data={"header": "no"})
    prepare(told, tokenizer(), tmp_path / "out", QUIET, workers=1)
    with pytest.raises(UserError, match="header: no there, None now"):
        prepare(config(tmp_path / "a.csv"), tokenizer(), tmp_path / "out", QUIET, workers=1)


def test_a_kill_while_the_plan_is_written_is_no_matter(tmp_path: Path, source: Path) -> None:
    (tmp_path / "out" / "state").mkdir(parents=True)
    (tmp_path / "out" / ".plan.json.a1b2").write_text("{")
    prepare(config(source / "*.txt"), tokenizer(), tmp_path / "out", QUIET, workers=1)
    assert PreparedData(tmp_path / "out").manifest["splits"]


@pytest.mark.parametrize("when", ["before it looks what is left", "before it writes the manifest"])
def test_machines_that_end_together_do_not_undo_each_other(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Another one writes the manifest and removes the state at either moment."""
    settings, output = config(source / "*.txt"), tmp_path / "out"
    prepare(settings, tokenizer(), tmp_path / "whole", QUIET, workers=1)
    expected = digests(tmp_path / "whole")
    name = "parts_of" if when.endswith("left") else "_manifest"
    real = getattr(module, name)

    def after_another(*arguments: object) -> object:
        monkeypatch.setattr(module, name, real)
        if name == "_manifest":  # all parts are done
            (output / "manifest.json").write_bytes((tmp_path / "whole" / "manifest.json").read_bytes())
            shutil.rmtree(output / "state")
        else:
            prepare(settings, tokenizer(), output, QUIET, workers=1)
        return real(*arguments)

    monkeypatch.setattr(module, name, after_another)
    manifest = prepare(settings, tokenizer(), output, QUIET, workers=1)
    assert manifest == PreparedData(output).manifest
    assert digests(output) == expected


def test_white_space_around_a_document_does_not_change_its_side(tmp_path: Path) -> None:
    tokenizer().save(tmp_path, 32)
    packer = Packer(tmp_path, [], DataSettings(validation=0.5), [32], 2)
    texts = [f"document {number}" for number in range(40)]
    assert [packer._split(text) for text in texts] == [packer._split(f"\n{text}\r\n") for text in texts]
    assert len({packer._split(text) for text in texts}) == 2


def test_a_corpus_that_all_falls_to_validation_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one document\n")
    with pytest.raises(UserError, match="all documents fell to validation"):
        prepare(config(tmp_path / "a.txt", data={"validation": 0.999}), tokenizer(), tmp_path / "out", QUIET, workers=1)
    data = prepared(tmp_path, data={"validation": 0.0})
    with pytest.raises(UserError, match=r"has no validation rows \(--data\.validation was 0 in prepare\)"):
        data.rows("validation", 32)


def test_a_worker_that_meets_bad_input_ends_the_preparation_with_its_message(tmp_path: Path, source: Path) -> None:
    (source / "1.txt").write_bytes(b"good\n\nb\xffd\n")
    with pytest.raises(UserError, match=r"1\.txt, line 3: not UTF-8"):
        prepare(config(source / "*.txt"), tokenizer(), tmp_path / "out", QUIET, workers=1)
    (source / "empty.txt").write_text("\n\n")
    with pytest.raises(UserError, match="no text for training"):
        prepare(config(source / "empty.txt"), tokenizer(), tmp_path / "none", QUIET, workers=1)


def test_small_files_share_a_part_and_large_ones_do_not(tmp_path: Path) -> None:
    sizes = [10, 10, 300_000, 5, 200_000, 100_000, 5]
    paths = []
    for number, size in enumerate(sizes):
        paths.append(tmp_path / f"{number}.txt")
        paths[-1].write_bytes(b"x" * size)
    parts = parts_of([*map(str, paths), "docs:text"])
    assert list(itertools.chain.from_iterable(parts)) == list(range(8))
    assert parts[-1] == [7]
    for part in parts[:-1]:
        assert len(part) == 1 or sum(sizes[n] for n in part) <= 1 << 18


def test_the_report_says_what_a_person_asks(tmp_path: Path, source: Path) -> None:
    said = io.StringIO()
    prepare(config(source / "*.txt"), tokenizer(), tmp_path / "out", Console(said), workers=1)
    for expected in ("documents 180", "% filled", "tokens/s", "next: python -m jaxlm train"):
        assert expected in said.getvalue()
    assert "\r" not in said.getvalue()


def test_damage_to_prepared_data_is_named(tmp_path: Path, source: Path) -> None:
    data = prepared(tmp_path)
    shard = next((data.directory / "32").glob("train-*"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(UserError, match=f"{shard.name} has {len(content) - 1} bytes"):
        data.rows("train", 32)
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name} is missing"):
        data.rows("train", 32)
    with pytest.raises(UserError, match="rows of length 32, and"):
        data.rows("train", 48)
    (data.directory / "manifest.json").unlink()
    with pytest.raises(UserError, match="has not ended"):
        PreparedData(data.directory)


def test_workers_end_with_their_parent(tmp_path: Path, source: Path) -> None:
    corpus(source, documents=4000)
    code = (
        "from pathlib import Path\nfrom corpora import *\n"
        "if __name__ == '__main__':\n"
        f"    prepare(config('{source}/*.txt'), tokenizer(), Path('{tmp_path}/out'), Console(), workers=2)\n"
    )
    (tmp_path / "run.py").write_text(code)
    places = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
    process = subprocess.Popen([sys.executable, str(tmp_path / "run.py")], env=environment, stdout=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("/proc does not tell the children of a process here")
    deadline = time.monotonic() + 60
    while len(pids := children.read_text().split()) < 2 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    assert len(pids) >= 2
    process.kill()
    process.wait()
    while any(_runs(int(pid)) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_runs(int(pid)) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_manifest_is_json_without_a_time_or_a_machine_in_it(tmp_path: Path, source: Path) -> None:
    data = prepared(tmp_path)
    text = (data.directory / "manifest.json").read_text()
    assert json.loads(text) == data.manifest
    assert not re.search(r"second|time|host|date", text.replace(str(tmp_path), ""))
