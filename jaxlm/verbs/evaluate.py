"""`python -m jaxlm evaluate MODEL --data.test FILE`: metrics of a trained model on a labelled file."""

import dataclasses
import json
import sys
from pathlib import Path

import tyro

from jaxlm.config import DataSettings, Dtype, MeshSettings
from jaxlm.errors import UserError
from jaxlm.flags import check_batch_size, check_output, parse
from jaxlm.parallel import distributed
from jaxlm.startup import start_jax


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Metrics of a trained model on a labelled file."""

    model: tyro.conf.Positional[str]
    """Hub name or directory of the model."""
    data: DataSettings = dataclasses.field(default_factory=lambda: DataSettings(max_length=0))
    """`--data.test FILE`, and columns as for training; max_length 0 is the model's own."""
    mesh: MeshSettings = dataclasses.field(default_factory=MeshSettings)
    dtype: Dtype = "auto"
    """What products are computed in; auto is bfloat16 on TPU and GPU, float32 on CPU."""
    batch_size: int | None = None
    """Examples that are computed at once; unset: what keeps the devices busy."""
    output: str | None = None
    """A file for the metrics as JSON, confusion matrix included."""


def run(arguments: list[str]) -> int:
    args = parse(Arguments, arguments, "python -m jaxlm evaluate")
    if args.data.test is None:
        raise UserError("which file? python -m jaxlm evaluate MODEL --data.test FILE")
    check_batch_size(args.batch_size)
    distributed.join(args.mesh)
    check_output(args.output)
    start_jax(args.mesh, sys.stderr)

    import jax

    from jaxlm.atomic import write_atomically
    from jaxlm.data.sources import counted
    from jaxlm.parallel.mesh import mesh_for
    from jaxlm.predict import Predictor

    predictor = Predictor(
        args.model, mesh_for(args.mesh), dtype=args.dtype, batch_size=args.batch_size,
        max_length=args.data.max_length or None, bad_rows=args.data.bad_rows,
    )  # fmt: skip
    table = predictor.read(args.data.test, args.data)
    metrics, truncated = predictor.evaluate(table)
    if jax.process_index() != 0:
        return 0
    for name, value in metrics.items():
        if isinstance(value, (int, float)):
            print(f"{name}: {value:.6g}")
    if "per_class" in metrics:
        width = max(len(name) for name in metrics["per_class"])
        print(f"\n{'':{width}}  precision  recall      f1  support")
        for name, row in metrics["per_class"].items():
            numbers = f"{row['precision']:9.4f}  {row['recall']:6.4f}  {row['f1']:6.4f}  {row['support']:7d}"
            print(f"{name:{width}}  {numbers}")
    if "confusion" in metrics:
        names = list(metrics["per_class"])
        print("\nconfusion matrix (a row is a true class, a column a predicted one)")
        for name, counts in zip(names, metrics["confusion"], strict=True):
            print(f"{name:{width}}  " + " ".join(f"{count:6d}" for count in counts))
    if table.skipped:
        print(f"\nrows left out: {counted(table.skipped)}")
    if truncated:
        print(f"\n{predictor.task.describe_cut(truncated)}")
    if args.output:
        write_atomically(Path(args.output), json.dumps(metrics, indent=2) + "\n")
    return 0
