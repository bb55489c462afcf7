"""What others do: sentence embeddings on the STS benchmark with PyTorch and transformers, in a plain loop.

    python tests/bench/peers/hf_stsb.py --model DIRECTORY --train train.tsv --dev dev.tsv --test sts-test.tsv

The regression objective of Sentence-BERT: mean pooling, and the cosine of a pair learns its score (0 to 5, here 0 to 1)
by mean squared error. Each batch is padded to its longest sentence; AdamW, linear warm-up and
decay, weight decay but for biases and LayerNorm, gradients clipped to norm 1. Reads GLUE's files (header line;
sentence1, sentence2, score) and the benchmark's own (no header; score, first and second sentence in columns 5 to 7).
Prints one JSON line: Spearman correlations, and seconds. `--epochs 0` measures the model as it is.
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from transformers import AutoModel, AutoTokenizer, get_linear_schedule_with_warmup

Pair = tuple[str, str, float]


def read(path: str) -> list[Pair]:
    rows = [line.split("\t") for line in Path(path).read_text(encoding="utf-8").split("\n") if line.strip()]
    if "sentence1" in rows[0]:
        first, second, score = (rows[0].index(name) for name in ("sentence1", "sentence2", "score"))
        rows = rows[1:]
    else:
        first, second, score = 5, 6, 4
    return [(row[first].strip(), row[second].strip(), float(row[score]) / 5) for row in rows]


def cosines(model: Any, tokenizer: Any, pairs: list[Pair], args: argparse.Namespace) -> torch.Tensor:
    """Of each pair; both sentences go through the model in one padded batch."""
    texts = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=args.max_length, return_tensors="pt")
    batch = batch.to(args.device)
    hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    vectors = (hidden * mask).sum(1) / mask.sum(1)
    return torch.cosine_similarity(vectors[: len(pairs)], vectors[len(pairs) :])


def spearman(model: Any, tokenizer: Any, pairs: list[Pair], args: argparse.Namespace) -> float:
    model.eval()
    found: list[float] = []
    with torch.no_grad():
        for start in range(0, len(pairs), 64):
            found += cosines(model, tokenizer, pairs[start : start + 64], args).tolist()
    return float(spearmanr(found, [pair[2] for pair in pairs]).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--test")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=2e-5)
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

    train = read(args.train)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModel.from_pretrained(args.model, dtype=torch.float32).to(args.device).train()
    steps = round(args.epochs * -(-len(train) // args.batch_size)) if args.steps is None else args.steps
    named = list(model.named_parameters())
    plain = [parameter for name, parameter in named if name.endswith(("bias", "LayerNorm.weight"))]
    decayed = [parameter for name, parameter in named if not name.endswith(("bias", "LayerNorm.weight"))]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": args.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=args.learning_rate,
    )
    schedule = get_linear_schedule_with_warmup(optimizer, round(args.warmup * steps), max(steps, 1))

    losses: list[float] = []
    training_started = time.perf_counter()
    order: list[int] = []
    for _ in range(steps):
        if not order:
            order = draw.sample(range(len(train)), len(train))
        chosen, order = [train[index] for index in order[: args.batch_size]], order[args.batch_size :]
        scores = torch.tensor([pair[2] for pair in chosen], device=args.device)
        loss = torch.nn.functional.mse_loss(cosines(model, tokenizer, chosen, args), scores)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    training_s = time.perf_counter() - training_started

    print(
        json.dumps(
            {
                "peer": Path(__file__).stem,
                "dev_spearman": spearman(model, tokenizer, read(args.dev), args),
                "test_spearman": spearman(model, tokenizer, read(args.test), args) if args.test else None,
                "final_loss": sum(losses[-20:]) / max(len(losses[-20:]), 1),
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
