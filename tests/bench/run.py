"""The benchmark suite: jaxlm beside PyTorch and transformers, in turn, one process a measurement, one table.

    python tests/bench/run.py --peer VENV/bin/python                 # all cases, about half an hour on two cores
    python tests/bench/run.py --peer VENV/bin/python --cases finetune,encode --rounds 5

VENV is an environment with torch, transformers and safetensors (`pip install torch transformers safetensors`); without
--peer only jaxlm is measured. Without --model, --sentences and --text the material is made (`material.py`): weights at
random, texts from the installed documentation. Both sides have the same environment; nothing else should run meanwhile.

The table has medians over the rounds, and how many times faster jaxlm is; MFU is its model's FLOPs on real tokens as a
share of what large products reach on this machine, in the faster of the two libraries. `--output` also writes every
measurement as a JSON line.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class Case(NamedTuple):
    name: str
    work: str  # what ours.py and peers/hf_speed.py do
    data: str  # sentences, paragraphs or text
    flags: tuple[str, ...] = ()
    compiled_peer: bool = False  # also the peer's best way with torch.compile


CASES = (
    Case("products", "products", "sentences"),
    Case("products bfloat16", "products", "sentences", ("--dtype", "bfloat16")),
    Case("finetune sentences", "finetune", "sentences", ("--steps", "22"), compiled_peer=True),
    Case("finetune bfloat16", "finetune", "sentences", ("--steps", "22", "--dtype", "bfloat16")),
    Case("finetune 128 full", "finetune", "paragraphs", ("--length", "128", "--steps", "8")),
    Case("finetune 512 full", "finetune", "paragraphs", ("--length", "512", "--steps", "6")),
    Case("pretrain 4x256 128", "pretrain", "text", ("--shape", "4x256", "--steps", "14"), compiled_peer=True),
    Case("pretrain 4x256 512", "pretrain", "text", ("--shape", "4x256", "--length", "512", "--steps", "6")),
    Case("pretrain BERT-base 128", "pretrain", "text", ("--shape", "12x768", "--steps", "6")),
    Case("encode sentences", "encode", "sentences", compiled_peer=True),
    Case("encode bfloat16", "encode", "sentences", ("--dtype", "bfloat16")),
    Case("one sentence", "latency", "sentences"),
    Case("tokenise", "tokenise", "sentences"),
    Case("load data", "load_data", "sentences"),
    Case("checkpoint", "checkpoint", "sentences"),
    Case("start cold", "start", "sentences"),
    Case("start warm", "start", "sentences"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="the Python of an environment with torch and transformers")
    parser.add_argument("--cases", help="parts of their names, with commas between them; unset: all")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each; the table has their medians")
    parser.add_argument("--model", help="a BERT directory")
    parser.add_argument("--sentences", help="tsv: text, label")
    parser.add_argument("--text", help="txt: paragraphs")
    parser.add_argument(
        "--work", default=str(Path(tempfile.gettempdir()) / "jaxlm-bench"), help="where made material lies"
    )
    parser.add_argument("--output", help="a file for a JSON line each measurement")
    args = parser.parse_args()
    wanted = args.cases.split(",") if args.cases else [""]
    cases = [case for case in CASES if any(part.strip() in case.name for part in wanted)]
    if not cases:
        parser.error(f"--cases {args.cases}: there are {', '.join(case.name for case in CASES)}")
    work = Path(args.work)
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(HERE)!r}); import material; "
         f"material.make(__import__('pathlib').Path({str(work)!r}))"],
        check=True, cwd=ROOT, env=_environment(),
    )  # fmt: skip
    data = {
        "model": args.model or str(work / "model"),
        "sentences": args.sentences or str(work / "sentences.tsv"),
        "paragraphs": str(work / "paragraphs.tsv"),
        "text": args.text or str(work / "text.txt"),
    }
    rates: dict[bool, float] = {}  # FLOP/s of large products in bfloat16, or not
    print("| case | unit | jaxlm | default | best | compiled | times default | times best | MFU | MB | MB, best |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        found: dict[str, list[dict[str, Any]]] = {}
        if case.name == "start warm":
            _start(case, "jaxlm", data, args.peer)  # fills the compilation cache
        for number in range(args.rounds):
            for who in ("jaxlm", *(("default", "best") if args.peer else ()),
                        *(("compiled",) if args.peer and case.compiled_peer else ())):  # fmt: skip
                result = (
                    _start(case, who, data, args.peer) if case.work == "start" else _measure(case, who, data, args.peer)
                )
                found.setdefault(who, []).append(result)
                if args.output:
                    with open(args.output, "a") as file:
                        file.write(json.dumps({"case": case.name, "who": who, "round": number} | result) + "\n")
        reduced = "bfloat16" in case.flags
        if case.work == "products":
            rates[reduced] = 1e9 * max(_medians(found).values())
        print(_row(case, found, rates.get(reduced)), flush=True)


def _row(case: Case, found: dict[str, list[dict[str, Any]]], rate: float | None) -> str:
    medians = _medians(found)
    unit = found["jaxlm"][0]["unit"]
    faster = (
        (lambda other: other / medians["jaxlm"]) if unit in ("ms", "s") else (lambda other: medians["jaxlm"] / other)
    )
    best = [medians[who] for who in ("best", "compiled") if who in medians]
    cells = [case.name, unit, *(_number(medians.get(who)) for who in ("jaxlm", "default", "best", "compiled"))]
    cells.append(f"{faster(medians['default']):.2f}" if "default" in medians else "")
    cells.append(f"{min(faster(value) for value in best):.2f}" if best else "")
    flops = [result["model_flops_per_second"] for result in found["jaxlm"] if "model_flops_per_second" in result]
    cells.append(f"{statistics.median(flops) / rate:.0%}" if flops and rate else "")
    for who in ("jaxlm", "best"):
        memory = [result["peak_rss_mb"] for result in found.get(who, ()) if "peak_rss_mb" in result]
        cells.append(str(round(statistics.median(memory))) if memory else "")
    return f"| {' | '.join(cells)} |"


def _medians(found: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    return {who: statistics.median(result["value"] for result in results) for who, results in found.items()}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _environment() -> dict[str, str]:
    """As `launch/local.sh` sets it."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
    }


def _command(case: Case, who: str, data: dict[str, str], peer: str | None) -> list[str]:
    flags = ["--model", data["model"], "--data", data[case.data], *case.flags]
    if who == "jaxlm":
        return [sys.executable, str(HERE / "ours.py"), case.work, *flags]
    way = ["--way", "default" if who == "default" else "best", *(["--compile"] if who == "compiled" else [])]
    return [str(peer), str(HERE / "peers" / "hf_speed.py"), case.work, *way, *flags]


def _measure(case: Case, who: str, data: dict[str, str], peer: str | None) -> dict[str, Any]:
    command = _command(case, who, data, peer)
    done = subprocess.run(command, cwd=ROOT, env=_environment(), text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case.name}, {who}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _start(case: Case, who: str, data: dict[str, str], peer: str | None) -> dict[str, Any]:
    """Seconds from the command to the line that tells of its first step."""
    folder = tempfile.TemporaryDirectory()
    if who == "jaxlm":
        command = [
            *(sys.executable, "-m", "jaxlm", "train", "configs/sst2.py", "--model.init", data["model"]),
            *("--data.train", data["sentences"], "--data.dev", "None", "--train.steps", "2", "--train.log_every", "1"),
            *("--workdir", f"{folder.name}/run"),
        ]
        cache = f"{folder.name}/cache" if case.name.endswith("cold") else str(Path(data["model"]).parent / "cache")
        environment = _environment() | {"JAX_COMPILATION_CACHE_DIR": cache}
    else:
        finetuning = case._replace(work="finetune", flags=("--steps", "2"))
        command, environment = _command(finetuning, who, data, peer), _environment()
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    first, tail = None, ""
    for line in process.stdout or ():
        tail = (tail + line)[-3000:]
        if first is None and re.search(r"\bstep 1/", line):
            first = time.perf_counter() - started
    failed = process.wait() or first is None
    folder.cleanup()
    if failed:
        raise SystemExit(f"{case.name}, {who}: exit code {process.returncode}\n{tail}")
    return {"value": first, "unit": "s"}


if __name__ == "__main__":
    main()
