"""What others do: BERT on CoNLL-2003 with PyTorch and transformers, in a plain loop.

    python tests/bench/peers/hf_tokens.py --model DIRECTORY --train eng.train --test eng.testb

Each batch is padded to its longest sentence; AdamW, linear warm-up and decay, weight decay but for biases and
LayerNorm, gradients clipped to norm 1. Prints one JSON line: seqeval's F1 of the test file, and seconds.
"""

import argparse
import json
import lzma
import random
import time
from pathlib import Path
from typing import Any

import torch
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from transformers import AutoModelForTokenClassification, AutoTokenizer, get_linear_schedule_with_warmup

Sentence = tuple[list[str], list[str]]


def read(path: str) -> list[Sentence]:
    """Words and IOB2 tags of each sentence of a CoNLL file."""
    opener: Any = lzma.open if path.endswith(".xz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        blocks = file.read().split("\n\n")
    found = []
    for block in blocks:
        lines = [line.split() for line in block.splitlines() if line.strip() and not line.startswith("-DOCSTART-")]
        if lines:
            words, tags = [line[0] for line in lines], ["O"] * len(lines)
            for kind, first, last in get_entities([line[-1] for line in lines]):
                tags[first : last + 1] = [f"B-{kind}"] + [f"I-{kind}"] * (last - first)
            found.append((words, tags))
    return found


def encode(tokenizer: Any, sentences: list[Sentence], numbers: dict[str, int], max_length: int) -> list[dict]:
    encoded = []
    for words, tags in sentences:
        item = tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_length)
        owners = item.word_ids()
        first = [word is not None and word != before for word, before in zip(owners, [None, *owners], strict=False)]
        labels = [
            numbers.get(tags[word], -100) if is_first else -100 for word, is_first in zip(owners, first, strict=True)
        ]
        encoded.append({"ids": item["input_ids"], "labels": labels, "owners": owners, "first": first})
    return encoded


def padded(items: list[dict], pad: int) -> dict[str, torch.Tensor]:
    length = max(len(item["ids"]) for item in items)

    def stack(name: str, filler: int) -> torch.Tensor:
        return torch.tensor([item[name] + [filler] * (length - len(item[name])) for item in items])

    ids = stack("ids", pad)
    mask = torch.tensor([[1] * len(item["ids"]) + [0] * (length - len(item["ids"])) for item in items])
    return {"input_ids": ids, "attention_mask": mask, "labels": stack("labels", -100)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "train", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--warmup", type=float, default=0.1)
    parser.add_argument("--weight_decay", type=float, default=0.01)
    parser.add_argument("--max_length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    draw = random.Random(args.seed)
    started = time.perf_counter()

    train, test = read(args.train), read(args.test)
    names = ["O", *sorted({tag for _, tags in train for tag in tags} - {"O"})]
    numbers = {name: number for number, name in enumerate(names)}
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForTokenClassification.from_pretrained(args.model, num_labels=len(names), dtype=torch.float32)
    model = model.to(args.device).train()
    examples = encode(tokenizer, train, numbers, args.max_length)
    per_epoch = -(-len(examples) // args.batch_size)
    steps = args.steps or round(args.epochs * per_epoch)
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
        batch = padded([examples[index] for index in chosen], tokenizer.pad_token_id)
        loss = model(**{name: value.to(args.device) for name, value in batch.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    training_s = time.perf_counter() - training_started

    model.eval()
    guesses = []
    held_out = encode(tokenizer, test, numbers, args.max_length)
    with torch.no_grad():
        for start in range(0, len(held_out), 64):
            items = held_out[start : start + 64]
            batch = padded(items, tokenizer.pad_token_id)
            del batch["labels"]
            best = model(**{name: value.to(args.device) for name, value in batch.items()}).logits.argmax(-1).tolist()
            for item, row, (words, _) in zip(items, best, test[start : start + 64], strict=True):
                tags = ["O"] * len(words)  # of words that were cut off, too
                for owner, is_first, number in zip(item["owners"], item["first"], row, strict=False):
                    if is_first:
                        tags[owner] = names[number]
                guesses.append(tags)
    truth = [tags for _, tags in test]
    print(
        json.dumps(
            {
                "peer": Path(__file__).stem,
                "f1": float(f1_score(truth, guesses)),
                "precision": float(precision_score(truth, guesses)),
                "recall": float(recall_score(truth, guesses)),
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
