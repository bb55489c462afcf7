"""What others do: BERT that tells classes with PyTorch and transformers, in a plain loop.

    python tests/bench/peers/hf_classes.py --model DIRECTORY --train mrpc/train.tsv --dev mrpc/dev.tsv
    python tests/bench/peers/hf_classes.py --model DIRECTORY --out_of_scope oos --epochs 5 --max_length 64 \
        --train data_full.json --dev data_full.json --test data_full.json
    python tests/bench/peers/hf_classes.py --shape 4x256 --vocab VOCAB_FOLDER --learning_rate 5e-4 \
        --train chnsenticorp/train.tsv --dev chnsenticorp/dev.tsv --test chnsenticorp/test.tsv

Texts or pairs, from tsv with a header (MRPC's of GLUE, ChnSentiCorp's) or CLINC150's json of several splits; plain or
.xz. Each batch is padded to its longest text; AdamW, linear warm-up and decay, weight decay but for biases and
LayerNorm, gradients clipped to norm 1. `--shape` starts from random weights, LAYERSxWIDTH with heads of 64 (32 where
the width asks for it), and a folder with a vocab.txt. With `--out_of_scope`, rows of that label are not learnt but told
by a largest probability below a threshold: that of the best accuracy on dev ("oos-threshold" of Larson et al. 2019).
Prints one JSON line: accuracy, F1 of the second of two classes, recall of what is out of scope, and seconds.
"""

import argparse
import csv
import json
import lzma
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    get_linear_schedule_with_warmup,
)

TEXTS = ("sentence1", "#1 string", "text_a", "text", "sentence")
PAIRS = ("sentence2", "#2 string", "text_b")
LABELS = ("label", "quality")
JSON_SPLITS = {"train": ("train", "oos_train"), "dev": ("val", "oos_val"), "test": ("test", "oos_test")}


class Row(NamedTuple):
    text: str
    pair: str | None
    label: str


def read(path: str, split: str) -> list[Row]:
    opener: Any = lzma.open if path.endswith(".xz") else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        if ".json" in path:
            splits = json.load(file)
            return [Row(text, None, label) for name in JSON_SPLITS[split] for text, label in splits[name]]
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    header = [name.strip().lower() for name in rows[0]]

    def column(names: tuple[str, ...]) -> int | None:
        return next((header.index(name) for name in names if name in header), None)

    text, pair, label = column(TEXTS), column(PAIRS), column(LABELS)
    if text is None or label is None:
        raise SystemExit(f"{path}: no column of {TEXTS} or of {LABELS} among {header}")
    return [Row(row[text].strip(), None if pair is None else row[pair].strip(), row[label].strip()) for row in rows[1:]]


def encode(tokenizer: Any, rows: list[Row], max_length: int) -> list[dict[str, list[int]]]:
    pairs = None if rows[0].pair is None else [row.pair for row in rows]
    encoded = tokenizer([row.text for row in rows], pairs, truncation=True, max_length=max_length)
    return [{name: values[number] for name, values in encoded.items()} for number in range(len(rows))]


def confidences(
    model: Any, tokenizer: Any, items: list[dict[str, list[int]]], device: str
) -> tuple[torch.Tensor, list[int]]:
    """The largest probability of each text, and the class that has it."""
    model.eval()
    probabilities = []
    with torch.no_grad():
        for start in range(0, len(items), 64):
            batch = tokenizer.pad(items[start : start + 64], return_tensors="pt").to(device)
            probabilities.append(model(**batch).logits.double().softmax(-1).cpu())
    largest, best = torch.cat(probabilities).max(-1)
    return largest, best.tolist()


def best_threshold(confidence: torch.Tensor, best: list[int], truth: list[int]) -> float:
    """Of the best accuracy, with -1 for what is out of scope; halfway between two probabilities that occur."""
    order = confidence.argsort().tolist()
    right = sum(one == other for one, other in zip(best, truth, strict=True))
    ranked = [0.0, *confidence[order].tolist(), 1.0]
    most, threshold = right, ranked[1] / 2
    for count, number in enumerate(order, 1):
        right += (truth[number] == -1) - (best[number] == truth[number])
        if right > most:
            most, threshold = right, (ranked[count] + ranked[count + 1]) / 2
    return threshold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--shape", help="LAYERSxWIDTH, from random weights")
    parser.add_argument("--vocab", help="a folder with a vocab.txt, for --shape")
    parser.add_argument("--train", required=True)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--test")
    parser.add_argument("--out_of_scope", help="a label")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--warmup", type=float, default=0.1)
    parser.add_argument("--weight_decay", type=float, default=0.01)
    parser.add_argument("--max_length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--limit", type=int, help="about so many rows of each file, for a trial")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if (args.model is None) == (args.shape is None):
        parser.error("--model DIRECTORY, or --shape LAYERSxWIDTH --vocab FOLDER")
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    draw = random.Random(args.seed)
    started = time.perf_counter()

    paths = {"train": args.train, "dev": args.dev} | ({"test": args.test} if args.test else {})
    rows = {split: read(path, split) for split, path in paths.items()}
    if args.limit:
        rows = {split: of[:: max(1, len(of) // args.limit)] for split, of in rows.items()}
    train = [row for row in rows["train"] if row.label != args.out_of_scope]
    names = sorted({row.label for row in train}, key=lambda name: (not name.isdigit(), name))
    numbers = {name: number for number, name in enumerate(names)}
    if args.shape:
        layers, width = map(int, args.shape.split("x"))
        tokenizer: Any = BertTokenizerFast(vocab=str(Path(args.vocab) / "vocab.txt"), do_lower_case=True)
        shape = BertConfig(
            vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, intermediate_size=4 * width,
            num_attention_heads=width // (64 if width % 64 == 0 else 32), num_labels=len(names),
        )  # fmt: skip
        model: Any = BertForSequenceClassification(shape)
    else:
        tokenizer = AutoTokenizer.from_pretrained(args.model)
        model = AutoModelForSequenceClassification.from_pretrained(
            args.model, num_labels=len(names), dtype=torch.float32
        )
    model = model.to(args.device).train()
    examples = encode(tokenizer, train, args.max_length)
    steps = args.steps or round(args.epochs * -(-len(examples) // args.batch_size))
    spared = ("bias", "LayerNorm.weight")
    groups = [
        {
            "params": [p for n, p in model.named_parameters() if not n.endswith(spared)],
            "weight_decay": args.weight_decay,
        },
        {"params": [p for n, p in model.named_parameters() if n.endswith(spared)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate)
    schedule = get_linear_schedule_with_warmup(optimizer, round(args.warmup * steps), steps)

    losses: list[float] = []
    training_started = time.perf_counter()
    order: list[int] = []
    for _ in range(steps):
        if not order:
            order = draw.sample(range(len(examples)), len(examples))
        chosen, order = order[: args.batch_size], order[args.batch_size :]
        batch = tokenizer.pad([examples[index] for index in chosen], return_tensors="pt").to(args.device)
        labels = torch.tensor([numbers[train[index].label] for index in chosen], device=args.device)
        loss = model(**batch, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    training_s = time.perf_counter() - training_started

    metrics: dict[str, float] = {}
    threshold = 0.0
    for split in ("dev", "test"):
        if split not in rows:
            continue
        held_out = [row for row in rows[split] if row.label in numbers or row.label == args.out_of_scope]
        truth = [numbers.get(row.label, -1) for row in held_out]
        confidence, best = confidences(model, tokenizer, encode(tokenizer, held_out, args.max_length), args.device)
        if split == "dev" and args.out_of_scope:
            threshold = best_threshold(confidence, best, truth)
        guess = [-1 if sure < threshold else number for sure, number in zip(confidence.tolist(), best, strict=True)]
        pairs = list(zip(truth, guess, strict=True))
        metrics[f"{split}_accuracy"] = sum(one == other for one, other in pairs) / len(pairs)
        if len(names) == 2:
            metrics[f"{split}_f1"] = 2 * pairs.count((1, 1)) / max(truth.count(1) + guess.count(1), 1)
        outside = [number for number, wanted in enumerate(truth) if wanted == -1]
        if outside:
            metrics[f"{split}_out_of_scope_recall"] = sum(guess[number] == -1 for number in outside) / len(outside)
            inside = [number for number, wanted in enumerate(truth) if wanted != -1]
            metrics[f"{split}_in_scope_accuracy"] = sum(guess[n] == truth[n] for n in inside) / max(len(inside), 1)
    print(
        json.dumps(
            {"peer": Path(__file__).stem}
            | metrics
            | ({"threshold": threshold} if args.out_of_scope else {})
            | {
                "final_loss": sum(losses[-20:]) / len(losses[-20:]),
                "steps": steps,
                "training_s": training_s,
                "wall_s": time.perf_counter() - started,
                "threads": torch.get_num_threads(),
                "device": args.device,
            }
        )
    )


if __name__ == "__main__":
    main()
