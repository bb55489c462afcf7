"""`python -m jaxlm predict MODEL`: predictions for texts, a JSON line each, in order."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

from jaxlm.config import DataSettings, Dtype, MeshSettings
from jaxlm.errors import UserError
from jaxlm.flags import check_batch_size, check_output, parse
from jaxlm.parallel import distributed
from jaxlm.startup import start_jax


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Predictions for texts: a JSON line each, in order; where rows are left out, each with the place of its own."""

    model: tyro.conf.Positional[str]
    """Hub name or directory of the model."""
    text: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A text; may be given again and again."""
    text_pair: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """The second text of a pair, one for each --text."""
    input: str | None = None
    """A file of texts: txt (one a line), csv, tsv, jsonl or parquet, plain, .gz or .xz; for models that tag words also
    their own files. Without it: standard input."""
    output: str | None = None
    """A file for the predictions; without it: standard output."""
    data: DataSettings = dataclasses.field(default_factory=lambda: DataSettings(max_length=0))
    """Columns of `--input`, as for training; max_length 0 is the model's own."""
    mesh: MeshSettings = dataclasses.field(default_factory=MeshSettings)
    dtype: Dtype = "auto"
    """What products are computed in; auto is bfloat16 on TPU and GPU, float32 on CPU."""
    batch_size: int | None = None
    """Examples that are computed at once; unset: what keeps the devices busy."""


def run(arguments: list[str]) -> int:
    args = parse(Arguments, arguments, "python -m jaxlm predict")
    if args.text and args.input:
        raise UserError("pass --text or --input, not both")
    if distributed.join(args.mesh).processes > 1 and not args.text and not args.input:
        raise UserError("several processes cannot share standard input; pass --input FILE")
    if args.input and not Path(args.input).exists():
        raise UserError(f"--input {args.input}: no such file (without --input, texts come from standard input)")
    if args.text_pair and len(args.text_pair) != len(args.text):
        raise UserError(f"{len(args.text)} --text and {len(args.text_pair)} --text_pair; each text needs its own")
    if not all(text.strip() for text in (*args.text, *args.text_pair)):
        raise UserError("a --text is empty")
    check_batch_size(args.batch_size)
    check_output(args.output)
    start_jax(args.mesh, sys.stderr)

    import jax

    from jaxlm.atomic import write_atomically
    from jaxlm.parallel.mesh import mesh_for
    from jaxlm.predict import Predictor

    texts = () if args.input else args.text or sys.stdin.buffer.read().split(b"\n")
    predictor = Predictor(
        args.model,
        mesh_for(args.mesh),
        dtype=args.dtype,
        batch_size=args.batch_size,
        max_length=args.data.max_length or None,
        bad_rows=args.data.bad_rows,
    )
    task = predictor.task
    if args.input:
        table = predictor.read(args.input, args.data, labelled=False)
    else:
        source = "--text" if args.text else "standard input"
        table = task.from_texts(source, texts, args.text_pair or None, args.data)
    table = predictor.to_predict(table)
    predictions = predictor.predict(table)
    if table.skipped:  # the n-th line is not of the n-th row then
        predictions = ({"row": place} | found for place, found in zip(table.places, predictions, strict=True))
    lines = [json.dumps(prediction, ensure_ascii=False, allow_nan=False) + "\n" for prediction in predictions]
    if jax.process_index() != 0:
        return 0
    if args.output:
        write_atomically(Path(args.output), "".join(lines))
    else:
        sys.stdout.writelines(lines)
    return 0
