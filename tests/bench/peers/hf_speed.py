"""What others do, for speed alone: PyTorch and transformers, as most people run them and at their best.

    python tests/bench/peers/hf_speed.py CASE --way default|best --model DIRECTORY --data FILE

`default` pads each batch to its longest text in the order of the file. `best` sorts texts by length (in training within
blocks of 50 batches, as `group_by_length` does), predicts words at masked places only, and computes in bfloat16 on a
GPU. Attention is `sdpa` and AdamW fused in both, as in transformers; `--compile` adds torch.compile, `--dtype bfloat16`
computes in that either way. Prints one JSON line. Needs torch, transformers and safetensors.
"""

import argparse
import contextlib
import json
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
)

Row = tuple[list[int], int]


def read(path: str) -> list[tuple[str, int]]:
    lines = [line.split("\t") for line in Path(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if lines and len(lines[0]) > 1 and not lines[0][1].strip().isdigit():
        lines = lines[1:]
    return [(line[0], int(line[1]) if len(line) > 1 else 0) for line in lines]


def tokenizer_of(args: argparse.Namespace) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def batches_of(rows: list[Row], args: argparse.Namespace) -> list[list[Row]]:
    """The first batches of an epoch."""
    order = rows[:]
    random.Random(0).shuffle(order)
    block = 50 * args.batch_size if args.way == "best" else 1
    if block > 1:
        order = [
            row for start in range(0, len(order), block)
            for row in sorted(order[start : start + block], key=lambda row: -len(row[0]))
        ]  # fmt: skip
    batches = [order[start : start + args.batch_size] for start in range(0, len(order), args.batch_size)]
    if args.way == "best":  # lengths differ between batches: take them at random, as an epoch's mean is meant
        random.Random(1).shuffle(batches)
    return batches[: args.steps]


def padded(rows: list[Row], pad: int, device: str) -> dict[str, torch.Tensor]:
    longest = max(len(ids) for ids, _ in rows)
    return {
        "input_ids": torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows]).to(device),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows]).to(device),
        "labels": torch.tensor([label for _, label in rows]).to(device),
    }


def precision(args: argparse.Namespace) -> contextlib.AbstractContextManager[Any]:
    if args.dtype == "bfloat16" or (args.way == "best" and args.device == "cuda"):
        return torch.autocast(args.device, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def wait(args: argparse.Namespace) -> None:
    if args.device == "cuda":
        torch.cuda.synchronize()


def train(model: Any, batches: list[dict[str, torch.Tensor]], tokens: list[int], args: argparse.Namespace) -> dict:
    """AdamW steps; the median speed without the first two."""
    model = model.to(args.device).train()
    shapes = {name: value.shape for name, value in batches[0].items()}
    fixed = all({name: value.shape for name, value in batch.items()} == shapes for batch in batches)
    step_model = torch.compile(model, dynamic=not fixed) if args.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01, fused=True)
    speeds = []
    for number, (batch, count) in enumerate(zip(batches, tokens, strict=True)):
        started = time.perf_counter()
        with precision(args):
            loss = step_model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        wait(args)
        speeds.append((count, time.perf_counter() - started))
        print(f"step {number + 1}/{len(batches)}  loss {float(loss.detach()):.4f}", flush=True)
    kept = speeds[2:] or speeds
    # Batches of one length take the same time, others not: tokens of all by seconds of all is the mean an epoch has.
    return {"value": sum(count for count, _ in kept) / sum(spent for _, spent in kept), "unit": "tokens/s",
            "seconds_per_step": statistics.median(spent for _, spent in kept)}  # fmt: skip


def finetune(args: argparse.Namespace) -> dict[str, Any]:
    tokenizer = tokenizer_of(args)
    texts = read(args.data)
    encoded = tokenizer([text for text, _ in texts], truncation=True, max_length=args.length)["input_ids"]
    rows = list(zip(encoded, [label for _, label in texts], strict=True))
    batches = batches_of(rows, args)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2)
    tokens = [sum(len(ids) for ids, _ in batch) for batch in batches]
    return train(model, [padded(batch, tokenizer.pad_token_id, args.device) for batch in batches], tokens, args)


class AtMasks(torch.nn.Module):
    """A masked-LM whose head reads the masked places alone; `BertForMaskedLM` reads all."""

    def __init__(self, model: BertForMaskedLM):
        super().__init__()
        self.model = model

    def forward(self, labels: torch.Tensor, **batch: torch.Tensor) -> Any:
        masked = labels != -100
        logits = self.model.cls(self.model.bert(**batch).last_hidden_state[masked])
        return SimpleNamespace(loss=torch.nn.functional.cross_entropy(logits, labels[masked]))


def pretrain(args: argparse.Namespace) -> dict[str, Any]:
    """run_mlm's way: texts joined and cut into full rows, 15 % masked."""
    tokenizer = tokenizer_of(args)
    layers, width = map(int, args.shape.split("x"))
    ids: list[int] = []
    for text in Path(args.data).read_text(encoding="utf-8").split("\n\n"):
        ids += tokenizer(text, truncation=False, verbose=False)["input_ids"]
        if len(ids) > args.steps * args.batch_size * args.length:
            break
    rows = [{"input_ids": ids[i : i + args.length]} for i in range(0, len(ids) - args.length, args.length)]
    shape = BertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=max(width // 64, 1),
        intermediate_size=4 * width,
    )  # fmt: skip
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    starts = range(0, args.steps * args.batch_size, args.batch_size)
    batches = [
        {name: value.to(args.device) for name, value in collate(rows[start : start + args.batch_size]).items()}
        for start in starts
    ]
    model = BertForMaskedLM(shape)
    return train(
        AtMasks(model) if args.way == "best" else model, batches, [args.batch_size * args.length] * args.steps, args
    )


def embedder_of(args: argparse.Namespace) -> Callable[[list[str]], torch.Tensor]:
    tokenizer = tokenizer_of(args)
    model = AutoModel.from_pretrained(args.model).to(args.device).eval()
    if args.compile:
        model = torch.compile(model, dynamic=True)

    @torch.inference_mode()
    def embed(texts: list[str]) -> torch.Tensor:
        batch = tokenizer(texts, padding=True, truncation=True, max_length=args.length, return_tensors="pt")
        batch = batch.to(args.device)
        with precision(args):
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        return ((hidden * mask).sum(1) / mask.sum(1)).cpu()

    return embed


def encode(args: argparse.Namespace) -> dict[str, Any]:
    texts = [text for text, _ in read(args.data)]
    if args.way == "best":
        texts = sorted(texts, key=len)
    embed = embedder_of(args)

    def all_texts() -> None:
        for start in range(0, len(texts), args.batch_size):
            embed(texts[start : start + args.batch_size])

    all_texts()
    return {"value": len(texts) / median_seconds(all_texts, 3), "unit": "texts/s"}


def latency(args: argparse.Namespace) -> dict[str, Any]:
    texts = [text for text, _ in read(args.data)[:50]]
    embed = embedder_of(args)
    for text in texts:
        embed([text])
    return {"value": 1e3 * statistics.median(seconds(lambda t=text: embed([t])) for text in texts), "unit": "ms"}


def tokenise(args: argparse.Namespace) -> dict[str, Any]:
    tokenizer = tokenizer_of(args)
    texts = [text for text, _ in read(args.data)]
    if args.way == "best":  # the Rust library itself
        backend = tokenizer.backend_tokenizer
        backend.enable_truncation(args.length)
        tokens = sum(len(item.ids) for item in backend.encode_batch_fast(texts))
        spent = median_seconds(lambda: backend.encode_batch_fast(texts), 5)
    else:
        tokens = sum(map(len, tokenizer(texts, truncation=True, max_length=args.length)["input_ids"]))
        spent = median_seconds(lambda: tokenizer(texts, truncation=True, max_length=args.length), 5)
    return {"value": tokens / spent, "unit": "tokens/s"}


def load_data(args: argparse.Namespace) -> dict[str, Any]:
    from torch.utils.data import DataLoader
    from transformers import DataCollatorWithPadding

    tokenizer = tokenizer_of(args)
    texts = [text for text, _ in read(args.data)]
    rows = [{"input_ids": ids} for ids in tokenizer(texts, truncation=True, max_length=args.length)["input_ids"]]
    loader = DataLoader(rows, args.batch_size, shuffle=True, collate_fn=DataCollatorWithPadding(tokenizer))
    spent = seconds(lambda: [batch for batch, _ in zip(loader, range(100), strict=False)])
    share = min(1.0, 100 * args.batch_size / len(rows))
    return {"value": share * sum(len(row["input_ids"]) for row in rows) / spent, "unit": "tokens/s"}


def checkpoint(args: argparse.Namespace) -> dict[str, Any]:
    """Model and AdamW's moments by torch.save, which the loop waits for."""
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    with tempfile.TemporaryDirectory() as folder:
        spent = median_seconds(lambda: torch.save(state, Path(folder) / "checkpoint.pt"), 5)
    return {"value": 1e3 * spent, "unit": "ms"}


def products(args: argparse.Namespace) -> dict[str, Any]:
    size = 8192 if args.device == "cuda" else 2048
    factor = torch.ones(size, size, device=args.device, dtype=getattr(torch, args.dtype.replace("auto", "float32")))

    def multiply() -> None:
        factor @ factor
        wait(args)

    multiply()
    return {"value": 2e-9 * size**3 / median_seconds(multiply, 15), "unit": "GFLOP/s"}


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median_seconds(work: Callable[[], Any], times: int) -> float:
    return statistics.median(seconds(work) for _ in range(times))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--way", choices=["default", "best"], default="default")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--shape", default="4x256")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--dtype", choices=["auto", "bfloat16"], default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    found = CASES[args.case](args)
    found["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    who = f"transformers, {args.way}{', compiled' if args.compile else ''}"
    print(json.dumps({"who": who, "case": args.case} | found))


if __name__ == "__main__":
    main()
