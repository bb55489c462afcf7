"""`python -m jaxlm fill-mask MODEL --text TEXT`: the likeliest words for each [MASK]."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

from jaxlm.config import DataSettings, MeshSettings
from jaxlm.errors import UserError
from jaxlm.flags import check_output, parse
from jaxlm.startup import start_jax


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The likeliest words for each [MASK] of a text."""

    model: tyro.conf.Positional[str]
    """Hub name or directory of a model with a masked-LM head."""
    text: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A text with one or more [MASK]; may be given again and again."""
    top_k: int = 5
    """Words for each."""
    output: str | None = None
    """A file for the answers as JSON lines."""


def run(arguments: list[str]) -> int:
    args = parse(Arguments, arguments, "python -m jaxlm fill-mask")
    if not args.text:
        raise UserError('which text? python -m jaxlm fill-mask MODEL --text "Paris is the [MASK] of France."')
    if args.top_k < 1:
        raise UserError(f"--top_k is {args.top_k}; it must be at least 1")
    check_output(args.output)
    start_jax(MeshSettings(distributed="off"), sys.stderr)

    from jaxlm.atomic import write_atomically
    from jaxlm.models import hub
    from jaxlm.parallel.mesh import make_mesh
    from jaxlm.predict import Predictor
    from jaxlm.tasks import MaskedLM

    directory = hub.resolve(args.model)
    if "masked-LM head" not in hub.heads_in(directory):
        raise UserError(f"{args.model} has no masked-LM head; fill-mask needs a pre-trained model that kept its own")
    predictor = Predictor(str(directory), make_mesh(1), kind=MaskedLM)
    task = predictor.task
    assert isinstance(task, MaskedLM)
    task.top_k = args.top_k
    answers = list(predictor.predict(task.from_texts("--text", args.text, None, DataSettings())))
    for answer in answers:
        print(answer["text"])
        for number, mask in enumerate(answer["masks"], 1):
            if len(answer["masks"]) > 1:
                print(f"  [MASK] {number}")
            for guess in mask:
                print(f"  {guess['probability']:.4f}  {guess['token']}")
    if args.output:
        lines = "".join(json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n" for answer in answers)
        write_atomically(Path(args.output), lines)
    return 0
