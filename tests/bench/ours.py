"""One measurement of jaxlm in a process of its own, as `run.py` asks for it; prints one JSON line.

Trainings go through `jaxlm.training.run`, the road of `python -m jaxlm train`: what is timed is the product.
"""

import argparse
import dataclasses
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlm.config import Config, MeshSettings
from jaxlm.console import Console
from jaxlm.flags import preset
from jaxlm.startup import start_jax

PRODUCT_SIZE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--shape", default="4x256", help="LAYERSxWIDTH of a pre-training")
    parser.add_argument("--dtype", default="auto")
    args = parser.parse_args()
    found = CASES[args.case](args)
    found["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"who": "jaxlm", "case": args.case} | found))


def _trained(config: Config, steps: int) -> dict[str, Any]:
    """Medians over the logged intervals of two steps, without the first, which waits for the first batch."""
    from jaxlm.training.run import run

    console = start_jax(MeshSettings())
    train = dataclasses.replace(config.train, steps=steps, log_every=2, checkpoint_every=10**9)
    with tempfile.TemporaryDirectory() as folder:
        run(dataclasses.replace(config, train=train, workdir=folder), "bench", console)
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if line["split"] == "train"][1:]
    names = ("tokens_per_second", "seconds_per_step", "model_flops_per_second", "input_wait_share")
    medians = {name: statistics.median(line[name] for line in logged) for name in names if name in logged[0]}
    return {"value": medians["tokens_per_second"], "unit": "tokens/s"} | medians


def finetune(args: argparse.Namespace) -> dict[str, Any]:
    config = preset("configs/sst2.py")
    data = dataclasses.replace(config.data, train=args.data, dev=None, max_length=args.length)
    model = dataclasses.replace(config.model, init=args.model, dtype=args.dtype)
    return _trained(dataclasses.replace(config, model=model, data=data), args.steps)


def pretrain(args: argparse.Namespace) -> dict[str, Any]:
    from jaxlm.data.prepare import prepare
    from jaxlm.data.tokenizer import TextTokenizer

    layers, width = map(int, args.shape.split("x"))
    config = preset("configs/pretrain_tiny.py")
    objective = dataclasses.replace(config.objective, mask_rate=0.15)
    data = dataclasses.replace(config.data, max_length=args.length, train=args.data)
    model = dataclasses.replace(
        config.model, hidden_size=width, num_hidden_layers=layers, num_attention_heads=max(width // 64, 1),
        max_position_embeddings=512, hidden_dropout=0.1, attention_dropout=0.1, position_init="normal",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(config, model=model, data=data, objective=objective)
        prepare(config, TextTokenizer.load(Path(args.model)), Path(folder), Console(), workers=1)
        return _trained(dataclasses.replace(config, data=dataclasses.replace(data, train=folder)), args.steps)


def products(args: argparse.Namespace) -> dict[str, Any]:
    """The rate of large matrix products, which no model's step exceeds."""
    start_jax(MeshSettings())
    import jax
    import jax.numpy as jnp

    size = PRODUCT_SIZE[jax.default_backend()]
    factor = jnp.ones((size, size), "bfloat16" if args.dtype == "bfloat16" else "float32")
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=a.dtype))
    multiply(factor, factor).block_until_ready()
    seconds = _median_seconds(lambda: multiply(factor, factor).block_until_ready(), 15)
    return {"value": 2e-9 * size**3 / seconds, "unit": "GFLOP/s"}


def _texts(path: str) -> list[str]:
    return [line.split("\t")[0] for line in Path(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def _embedder(args: argparse.Namespace) -> Any:
    start_jax(MeshSettings())
    from jaxlm.embed import Embedder
    from jaxlm.parallel.mesh import make_mesh

    return Embedder(args.model, make_mesh(), dtype=args.dtype)


def encode(args: argparse.Namespace) -> dict[str, Any]:
    from jaxlm.training.flops import train_flops

    texts = _texts(args.data)
    embed = _embedder(args)
    embed(texts)  # compiles the shapes that will be needed
    seconds = _median_seconds(lambda: embed(texts), 3)
    tokens = len(embed.tokenizer.encode(texts, max_length=embed.max_length).input_ids)
    flops = train_flops(embed.config, tokens=tokens, row_length=tokens / len(texts), scored=tokens) / 3
    return {"value": len(texts) / seconds, "unit": "texts/s", "model_flops_per_second": flops / seconds}


def latency(args: argparse.Namespace) -> dict[str, Any]:
    texts = _texts(args.data)[:50]
    embed = _embedder(args)
    for text in texts:
        embed([text])
    return {"value": 1e3 * statistics.median(_seconds(lambda t=text: embed([t])) for text in texts), "unit": "ms"}


def tokenise(args: argparse.Namespace) -> dict[str, Any]:
    from jaxlm.data.tokenizer import TextTokenizer

    tokenizer = TextTokenizer.load(Path(args.model))
    texts = _texts(args.data)
    tokens = len(tokenizer.encode(texts, max_length=512).input_ids)
    return {"value": tokens / _median_seconds(lambda: tokenizer.encode(texts, max_length=512), 5), "unit": "tokens/s"}


def load_data(args: argparse.Namespace) -> dict[str, Any]:
    """Batches alone, made as in training, without a device."""
    start_jax(MeshSettings())
    from jaxlm.parallel.mesh import make_mesh
    from jaxlm.training.setup import set_up

    config = preset("configs/sst2.py")
    data = dataclasses.replace(config.data, train=args.data, dev=None)
    model = dataclasses.replace(config.model, init=args.model)
    batches = set_up(dataclasses.replace(config, model=model, data=data), make_mesh(1)).batches["train"]
    steps = min(batches.steps, 100)
    tokens = sum(batches.tokens(step) for step in range(steps))
    seconds = _seconds(lambda: [batches(step) for step in range(steps)])
    return {"value": tokens / seconds, "unit": "tokens/s"}


def checkpoint(args: argparse.Namespace) -> dict[str, Any]:
    """How long a checkpoint keeps the loop from its next step."""
    start_jax(MeshSettings())
    from jaxlm.parallel.mesh import make_mesh
    from jaxlm.training.checkpoint import Checkpoints
    from jaxlm.training.setup import set_up

    config = preset("configs/sst2.py")
    data = dataclasses.replace(config.data, train=args.data, dev=None)
    model = dataclasses.replace(config.model, init=args.model)
    state = set_up(dataclasses.replace(config, model=model, data=data), make_mesh(1)).initial_state()
    stalls = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        for step in range(1, 6):
            stalls.append(_seconds(lambda step=step: checkpoints.save(step, state, {})))
            checkpoints.wait()
        checkpoints.close()
    return {"value": 1e3 * statistics.median(stalls), "unit": "ms"}


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _median_seconds(work: Callable[[], Any], times: int) -> float:
    return statistics.median(_seconds(work) for _ in range(times))


CASES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "products": products,
    "finetune": finetune,
    "pretrain": pretrain,
    "encode": encode,
    "latency": latency,
    "tokenise": tokenise,
    "load_data": load_data,
    "checkpoint": checkpoint,
}

if __name__ == "__main__":
    main()
