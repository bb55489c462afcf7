"""Raw text to packed rows on disk: `python -m jaxlm prepare`.

The sources are grouped into *parts* (a file, or a run of small ones) and read as a stream of chunks of a megabyte.
Worker processes make packed rows of them (`jaxlm.data.chunks`), written in order as *shards* of array_record. What a
shard holds follows from its part alone, so that the output is the same byte for byte on any number of cores and
machines and after any number of kills; a shard is there whole or not at all, and a whole one is never made again.

    OUTPUT/manifest.json              what there is: shards, counts, sources and their hashes; written last
    OUTPUT/tokenizer/                 as transformers reads it
    OUTPUT/128/train-00003-000.array_record    rows of 128 tokens, of part 3, its first shard
"""

import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from jaxlm.atomic import no_space_told, write_atomically
from jaxlm.config import Config
from jaxlm.console import Console, duration
from jaxlm.data import chunks, corpus, rows
from jaxlm.data.chunks import Packed
from jaxlm.data.corpus import Piece
from jaxlm.data.schemes import is_scheme
from jaxlm.data.shards import Shard, ShardWriter
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import RunFailed, UserError

FORMAT = 1
_CHUNK_BYTES = 1 << 20
_CHUNKS_PER_SHARD = 128
_PART_BYTES = (1 << 18, 1 << 28)  # least and most, of a part of several files
_REPORT_S = 10.0


def row_lengths(config: Config) -> list[int]:
    """The row lengths that a config trains on, shortest first."""
    return sorted(
        {phase.max_length or config.data.max_length for phase in config.train.phases} or {config.data.max_length}
    )


def parts_of(sources: list[str]) -> list[list[int]]:
    """Groups sources, in order: small files share a part, so that a million of them do not make a million shards."""
    sizes = [0 if is_scheme(source) else Path(source).stat().st_size for source in sources]
    target = min(max(sum(sizes) // 256, _PART_BYTES[0]), _PART_BYTES[1])
    parts: list[list[int]] = []
    filled = target
    for number, (source, size) in enumerate(zip(sources, sizes, strict=True)):
        if filled + size > target or is_scheme(source):
            parts.append([])
            filled = 0
        parts[-1].append(number)
        filled += target if is_scheme(source) else size
    return parts


def prepare(
    config: Config, tokenizer: TextTokenizer, output: Path, console: Console, *, shard: tuple[int, int] = (0, 1),
    workers: int | None = None,
) -> dict[str, Any] | None:  # fmt: skip
    """Prepares the corpus that `config.data.train` names, going on where an earlier call stopped.

    Args:
      tokenizer: copied into the output.
      shard: `(i, n)`: this machine does every n-th part from the i-th on (from 0); the last of them to end writes the
        manifest. The output directory is one that all of them see.
      workers: processes; None for a core each.

    Returns:
      The manifest; None where other machines' parts are missing yet.

    Raises:
      UserError: the sources cannot be read, or the output directory holds something else.
    """

    started = time.perf_counter()
    if config.data.train is None:
        raise UserError("--data.train names the raw text to prepare")
    longest, positions = max(row_lengths(config)), config.model.max_position_embeddings
    if config.model.init is None and longest > positions:
        raise UserError(
            f"rows of {longest} tokens (--data.max_length, or a phase's): the model has {positions} positions"
        )
    sources = corpus.expand(config.data.train)
    special = rows.specials(config.objective.next_sentence)
    plan: dict[str, Any] = {
        "format": FORMAT,
        "row_lengths": row_lengths(config),
        "special_tokens_per_window": special,
        "documents": config.data.documents,
        "text": config.data.text,
        "validation": config.data.validation,
        "bad_rows": config.data.bad_rows,
        "tokenizer_sha256": tokenizer.sha256,
        "sources": [{"path": s, "bytes": 0 if is_scheme(s) else Path(s).stat().st_size} for s in sources],
    }
    if config.data.header != "auto":
        plan["header"] = config.data.header
    if (manifest := _check_output(output, plan)) is not None:
        _check_content(output, manifest)
        console.say(f"already prepared: {output}")
        return manifest
    parts = parts_of(sources)
    if shard[1] > len(parts):
        console.say(f"{len(parts)} parts for {shard[1]} machines: some have nothing to do (a part is a file, or more)")
    state = output / "state"
    state.mkdir(parents=True, exist_ok=True)
    tokenizer.save(output / "tokenizer", max_length=max(plan["row_lengths"]))
    write_atomically(output / "plan.json", json.dumps(plan, indent=2) + "\n")
    mine = [part for part in range(len(parts)) if part % shard[1] == shard[0]]
    todo = [part for part in mine if not (state / f"{part:05}.json").is_file()]
    if (manifest := _check_output(output, plan)) is not None:  # of another machine, meanwhile
        _remove_state(state)
        return manifest
    if len(todo) < len(mine):
        console.say(f"{len(mine) - len(todo)} of {len(mine)} parts were done before")
    progress = _Progress(plan["sources"], parts, todo, console)
    arguments = (output / "tokenizer", sources, config.data, plan["row_lengths"], special)
    with _failures(), no_space_told(output), _pool(workers or _cores(), arguments) as (pool, slots):
        waiting: deque[tuple[Shard, int, concurrent.futures.Future[Packed | str]]] = deque()
        writer: ShardWriter | None = None

        def take() -> None:
            nonlocal writer
            here, read, future = waiting.popleft()
            packed = future.result()
            if isinstance(packed, str):
                raise UserError(packed)
            if writer is None:
                writer = ShardWriter(output, here, special)
            writer.add(packed)
            progress.count(read, sum(packed.tokens.values()))

        def finish() -> None:
            nonlocal writer
            while waiting:
                take()
            if writer is not None:
                writer.close()
                writer = None

        for part in todo:
            files = [number for number in parts[part] if not is_scheme(sources[number])]
            hashes = {number: pool.submit(chunks.sha256, sources[number]) for number in files}
            number = -1
            for index, chunk in enumerate(_chunks(sources, parts[part], config)):
                here = Shard(part, index // _CHUNKS_PER_SHARD)
                if here.number != number:
                    finish()
                    number = here.number
                read = sum(len(piece.content) for piece in chunk)
                if (state / f"{here.name}.json").is_file():
                    progress.count(read, 0)
                    continue
                waiting.append((here, read, pool.submit(chunks.pack, chunk)))
                if len(waiting) > slots:
                    take()
            finish()
            done = {"shards": number + 1, "sha256": {source: digest.result() for source, digest in hashes.items()}}
            write_atomically(state / f"{part:05}.json", json.dumps(done) + "\n")
            progress.finish(part)
    if any(not (state / f"{part:05}.json").is_file() for part in range(len(parts))):
        console.say(f"this machine's {len(mine)} parts are done; the manifest comes with the last machine's")
        return None
    try:
        manifest = _manifest(output, plan, parts, tokenizer)
    except FileNotFoundError:  # another machine has just done so, and removed what it was made from
        if (manifest := _check_output(output, plan)) is None:
            raise
        return manifest
    write_atomically(output / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    _remove_state(state)
    _report(manifest, output, console, time.perf_counter() - started, progress.tokens)
    return manifest


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """What a machine runs out of, in a person's words."""
    try:
        yield
    except BrokenProcessPool:
        reason = "a worker process was killed (out of memory? try fewer --workers)"
        raise RunFailed(f"{reason}; the same command goes on") from None


def _remove_state(state: Path) -> None:
    """Another machine may do the same."""
    with contextlib.suppress(FileNotFoundError):
        for file in state.iterdir():
            file.unlink(missing_ok=True)
        state.rmdir()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _pool(workers: int, arguments: tuple[Any, ...]) -> Iterator[tuple[concurrent.futures.Executor, int]]:
    """Worker processes, and how many chunks may be with them at once."""
    # A fork is there at once, with everything loaded; but that of a process that runs jax inherits locks that its
    # threads hold, and libraries of macOS do not live through one.
    forks = sys.platform == "linux" and "jax" not in sys.modules
    context = multiprocessing.get_context("fork" if forks else "spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, chunks.start, (os.getpid(), *arguments)) as pool:
        try:
            yield pool, 2 * workers
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _chunks(sources: list[str], part: list[int], config: Config) -> Iterator[list[Piece]]:
    """A part's pieces in lists of about a megabyte; documents are numbered through the part."""
    chunk: list[Piece] = []
    size = base = 0
    for number in part:
        document = -1
        for piece in corpus.pieces(sources[number], number, config.data):
            document = piece.document
            chunk.append(piece._replace(document=base + document))
            size += len(piece.content)
            if size >= _CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
        base += document + 1
    if chunk:
        yield chunk


def _check_output(output: Path, plan: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest, if all is done already."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file; name a directory")
    if not output.is_dir() or not any(output.iterdir()):
        return None
    if not (output / "plan.json").is_file():
        names = {path.name for path in output.iterdir() if not path.name.startswith(".plan.json.")}
        if names <= {"state", "tokenizer"}:
            return None  # killed within its first second
        raise UserError(f"--output {output} is not empty and holds no prepared data; name another directory")
    try:
        old = json.loads((output / "plan.json").read_text())
    except json.JSONDecodeError:
        raise UserError(f"{output}/plan.json is damaged; name another --output") from None
    different = [name for name in dict.fromkeys([*plan, *old]) if old.get(name) != plan.get(name)]
    if different:
        listing = "; ".join(
            "other sources, or of other sizes"
            if name == "sources"
            else f"{name}: {old.get(name)} there, {plan.get(name)} now"
            for name in different
        )
        raise UserError(f"--output {output} holds data that was prepared otherwise ({listing}); name another directory")
    manifest = output / "manifest.json"
    return json.loads(manifest.read_text()) if manifest.is_file() else None


def _check_content(output: Path, manifest: dict[str, Any]) -> None:
    """Sources that have the size of those that were prepared may still be others."""
    for source in manifest["sources"]:
        if source.get("sha256") and chunks.sha256(source["path"]) != source["sha256"]:
            raise UserError(
                f"--output {output} holds what {source['path']} was before it changed; name another directory"
            )


def _manifest(output: Path, plan: dict[str, Any], parts: list[list[int]], tokenizer: TextTokenizer) -> dict[str, Any]:
    splits: dict[str, dict[str, Any]] = {}
    sums: dict[str, Counter[str]] = {name: Counter() for name in ("counts", "dropped", "tokens", "documents")}
    sources = [dict(source) for source in plan["sources"]]
    for part, members in enumerate(parts):
        done = json.loads((output / "state" / f"{part:05}.json").read_text())
        for number in members:
            sources[number] |= {"part": part, "sha256": done["sha256"].get(str(number))}
        for number in range(done["shards"]):
            shard = Shard(part, number).name
            state = json.loads((output / "state" / f"{shard}.json").read_text())
            for key, counter in sums.items():
                counter.update(state[key])
            for file in state["files"]:
                path = f"{file['row_length']}/{file['split']}-{shard}.array_record"
                entry = splits.setdefault(file["split"], {}).setdefault(
                    str(file["row_length"]), {"rows": 0, "windows": 0, "most_windows": 0, "shards": []}
                )
                for name in ("rows", "windows"):
                    entry[name] += file[name]
                entry["most_windows"] = max(entry["most_windows"], file["most_windows"])
                entry["shards"].append(
                    {"file": path, "part": part, "rows": file["rows"], "bytes": (output / path).stat().st_size}
                )
    if not splits.get("train") and splits:
        raise UserError("all documents fell to validation: more text, or a smaller --data.validation, is needed")
    if not splits:
        raise UserError(f"the sources hold no text for training ({dict(sums['dropped']) or 'all is empty'})")
    return plan | {
        "vocab_size": tokenizer.vocab_size,
        "token_dtype": tokenizer.token_dtype.str,
        "tokens": dict(sorted(sums["tokens"].items())),
        "documents_in_splits": dict(sorted(sums["documents"].items())),
        "counts": dict(sorted(sums["counts"].items())),
        "dropped": dict(sorted(sums["dropped"].items())),
        "splits": splits,
        "sources": sources,
    }


def fill_rate(manifest: dict[str, Any], split: str, row_length: str) -> float:
    """Share of a split's places that hold a token, [CLS] and [SEP] included."""
    entry = manifest["splits"][split][row_length]
    tokens = manifest["tokens"][split] + entry["windows"] * manifest["special_tokens_per_window"]
    return tokens / (entry["rows"] * int(row_length))


def _report(manifest: dict[str, Any], output: Path, console: Console, seconds: float, tokens: int) -> None:
    listing = ", ".join(f"{name} {count}" for name, count in manifest["counts"].items())
    console.say(f"met: {listing}")
    if manifest["dropped"]:
        console.say("left out: " + ", ".join(f"{name} {count}" for name, count in manifest["dropped"].items()))
    for split, lengths in manifest["splits"].items():
        for length, entry in lengths.items():
            console.say(
                f"{split}, length {length}: {entry['rows']} rows in {len(entry['shards'])} shards, "
                f"{manifest['tokens'][split]} tokens, {fill_rate(manifest, split, length):.2%} filled"
            )
    console.say(f"{tokens / max(seconds, 1e-9):.0f} tokens/s over {duration(seconds)}")
    console.say(f"prepared: {output}")
    dev = f" --data.dev {output}" if "validation" in manifest["splits"] else ""
    console.say(f"next: python -m jaxlm train CONFIG --data.train {output}{dev}")


class _Progress:
    """How far it has come, by what has been read of each source."""

    def __init__(self, sources: list[dict[str, Any]], parts: list[list[int]], todo: list[int], console: Console):
        compressed = (".gz", ".xz")
        guess = [source["bytes"] * (3 if source["path"].endswith(compressed) else 1) for source in sources]
        self._sizes = {part: max(sum(guess[n] for n in parts[part]), 1) for part in todo}
        self._total = sum(self._sizes.values())
        self._finished = self._read = self.tokens = 0
        self._console, self._started, self._said = console, time.perf_counter(), 0.0
        self._part: int | None = todo[0] if todo else None
        self._todo = todo

    def count(self, read: int, tokens: int) -> None:
        self._read += read
        self.tokens += tokens
        self._show()

    def finish(self, part: int) -> None:
        self._finished += self._sizes[part]
        self._read = 0
        self._show()

    def _show(self) -> None:
        now = time.perf_counter() - self._started
        share = min((self._finished + self._read) / max(self._total, 1), 0.999)
        left = now / max(share, 1e-6) * (1 - share)
        text = f"{self.tokens / max(now, 1e-9):.0f} tokens/s"
        if self._console.live:
            self._console.progress("prepare", round(100 * share), 100, text, left)
        elif now - self._said > _REPORT_S:
            self._said = now
            self._console.say(f"prepare: {share:.0%}  {text}  {duration(left)} left")
