"""`python -m jaxlm embed MODEL --input FILE --output vectors.npy`: the vectors of texts."""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxlm.atomic import write_atomically
from jaxlm.config import DataSettings, Dtype, MeshSettings
from jaxlm.errors import UserError
from jaxlm.flags import check_batch_size, check_output, parse
from jaxlm.parallel import distributed
from jaxlm.startup import start_jax

if TYPE_CHECKING:
    from jaxlm.console import Console
    from jaxlm.embed import Embedder

_AT_ONCE = 4096  # texts between two looks at the clock
_SAY_EVERY_S = 15.0


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The vectors of texts."""

    model: tyro.conf.Positional[str]
    """Hub name or directory of a sentence encoder, or of any BERT, whose tokens are then averaged."""
    text: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A text, whose vector is printed as a JSON line; may be given again and again."""
    input: str | None = None
    """A file of texts: txt (one a line), csv, tsv, jsonl or parquet, plain, .gz or .xz; or tfds:NAME[:SPLIT]."""
    output: str | None = None
    """A .npy file for the vectors of `--input`, float32 [texts, hidden], in order; numpy.load reads it. Where
    `--data.bad_rows skip` leaves rows out, FILE.npy.rows has the place of each vector's row, one a line."""
    data: DataSettings = dataclasses.field(default_factory=lambda: DataSettings(max_length=0))
    """Columns of `--input`, as for training; max_length 0 is the model's own."""
    mesh: MeshSettings = dataclasses.field(default_factory=MeshSettings)
    dtype: Dtype = "auto"
    """What products are computed in; auto is bfloat16 on TPU and GPU, float32 on CPU."""
    batch_size: int | None = None
    """What is computed at once: as many tokens as this many texts of 32 have; unset: what keeps the devices busy."""


def run(arguments: list[str]) -> int:
    args = parse(Arguments, arguments, "python -m jaxlm embed")
    if bool(args.text) == bool(args.input):
        raise UserError("which texts? python -m jaxlm embed MODEL, and --text TEXT or --input FILE --output V.npy")
    if args.input and (args.output is None or not args.output.endswith(".npy")):
        raise UserError("--output FILE.npy says where the vectors of --input go")
    if args.text and args.output:
        raise UserError("--output is for the vectors of --input; those of --text are printed")
    distributed.join(args.mesh)
    if args.input and ":" not in args.input and not Path(args.input).is_file():
        raise UserError(f"--input {args.input}: no such file")
    if not all(text.strip() for text in args.text):
        raise UserError("a --text is empty")
    if args.data.text_pair is not None:
        raise UserError("--data.text_pair: a text has a vector, a pair has none; choose one column with --data.text")
    check_batch_size(args.batch_size)
    check_output(args.output)
    console = start_jax(args.mesh, sys.stderr)

    import jax

    from jaxlm.data.digest import digest
    from jaxlm.data.sources import read_table
    from jaxlm.embed import Embedder
    from jaxlm.parallel.mesh import mesh_for
    from jaxlm.tasks.embedding import rounded

    mesh = mesh_for(args.mesh)
    texts, places = list(args.text), None
    if args.input:
        table = read_table(args.input, "test", args.data, label_kind=None)
        if table.pairs is not None and args.data.text is None:
            raise UserError(f"{args.input} has texts in pairs; choose one column with --data.text NAME")
        texts, places = table.texts, table.places if table.skipped else None
    embedder = Embedder(args.model, mesh, dtype=args.dtype, batch_size=args.batch_size,
                        max_length=args.data.max_length or None)  # fmt: skip
    distributed.agree("texts", digest(texts))
    if args.output:
        write_vectors(Path(args.output), texts, embedder, console)
        rows = Path(f"{args.output}.rows")
        if places is None and jax.process_index() == 0:
            rows.unlink(missing_ok=True)  # of an earlier run
        elif places is not None and jax.process_index() == 0:
            write_atomically(rows, "".join(f"{place}\n" for place in places))
            console.say(f"{rows}: which rows the vectors are of, as some are left out")
    else:
        vectors = embedder(texts)
        for vector in vectors if jax.process_index() == 0 else []:
            print(json.dumps({"vector": rounded(vector)}, allow_nan=False))
    if embedder.truncated:
        console.say(f"{embedder.truncated} texts were cut to {embedder.max_length} tokens (--data.max_length)")
    return 0


def write_vectors(path: Path, texts: list[str], embedder: "Embedder", console: "Console") -> None:
    """Writes the vectors of texts, `[texts, hidden]` float32; the file is there whole or not at all."""
    import jax
    import numpy as np

    target = path.resolve()  # of a link, what it points to
    partial = target.with_name(f".{target.name}.partial")
    writes = jax.process_index() == 0
    shape = (len(texts), embedder.config.hidden_size)
    started = said = time.perf_counter()
    try:
        vectors = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape) if writes else None
        for start in range(0, len(texts), _AT_ONCE):
            found = embedder(texts[start : start + _AT_ONCE])
            if vectors is not None:
                vectors[start : start + len(found)] = found
            done, now = start + len(found), time.perf_counter()
            speed = done / (now - started)
            console.progress("embedding", done, len(texts), f"{speed:.0f} texts/s", (len(texts) - done) / speed)
            if not console.live and now - said > _SAY_EVERY_S:
                said = now
                console.say(f"embedding: {done}/{len(texts)} texts, {speed:.0f} texts/s")
        if vectors is not None:
            vectors.flush()
            os.replace(partial, target)
    except BaseException:
        if writes:
            partial.unlink(missing_ok=True)
        raise
    console.say(f"{path}: the vectors of {shape[0]} texts, {shape[1]} numbers each")
