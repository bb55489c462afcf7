"""The peer of configs/squad.py: transformers on PyTorch, a plain loop with dynamic padding and the same recipe.

    python tests/bench/peers/hf_squad.py --model DIRECTORY --train train.json --dev dev.json

Trains on one file in SQuAD's json and scores another by SQuAD 1.1's rules, or 2.0's (with the best threshold for F1)
where it has questions without an answer. Windows, targets and the choice of answers are those of BERT's run_squad.py.
Prints one line of JSON: exact_match, f1, and the seconds that training and evaluation took. It needs torch and
transformers, and nothing of jaxlm.
"""

import argparse
import collections
import gzip
import json
import lzma
import random
import re
import string
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertForQuestionAnswering


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True, type=Path)
    parser.add_argument("--dev", required=True, type=Path)
    parser.add_argument("--train_questions", type=int, help="only the first so many")
    parser.add_argument("--dev_questions", type=int, help="only the first so many")
    parser.add_argument("--max_length", type=int, default=384)
    parser.add_argument("--stride", type=int, default=128, help="tokens by which a window starts after the last one")
    parser.add_argument("--max_question_length", type=int, default=64)
    parser.add_argument("--max_answer_length", type=int, default=30)
    parser.add_argument("--n_best", type=int, default=20)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--steps", type=int, help="instead of epochs")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--eval_batch_size", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--warmup", type=float, default=0.1, help="share of the steps")
    parser.add_argument("--weight_decay", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def read(path: Path, most: int | None) -> list[dict[str, Any]]:
    """Questions, each with its context."""
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "rb") as file:
        articles = json.loads(file.read().decode("utf-8-sig"))["data"]
    questions = [
        question | {"context": paragraph["context"]}
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    return questions[:most]


def windows_of(questions: list[dict[str, Any]], tokenizer: Any, args: argparse.Namespace) -> list[dict[str, Any]]:
    """[CLS] question [SEP] context [SEP], in order; `spans` holds a context token's characters, None of the others."""
    windows = []
    for number, question in enumerate(questions):
        asked = tokenizer(question["question"], add_special_tokens=False)["input_ids"]
        text = question["question"]
        if len(asked) > args.max_question_length:
            cut = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            text = text[: cut[args.max_question_length - 1][1]]
        room = args.max_length - 3 - min(len(asked), args.max_question_length)
        encoded = tokenizer(
            text,
            question["context"],
            truncation="only_second",
            max_length=args.max_length,
            stride=max(room - args.stride, 0),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        answers = question["answers"]
        for index, ids in enumerate(encoded["input_ids"]):
            spans = [
                span if part == 1 else None
                for span, part in zip(encoded["offset_mapping"][index], encoded.sequence_ids(index), strict=True)
            ]
            start = end = 0
            if answers:
                first, last = answers[0]["answer_start"], answers[0]["answer_start"] + len(answers[0]["text"])
                inside = [token for token, span in enumerate(spans) if span and span[0] < last and span[1] > first]
                if inside and spans[inside[0]][0] <= first and spans[inside[-1]][1] >= last:
                    start, end = inside[0], inside[-1]
            windows.append(
                {"question": number, "ids": ids, "types": encoded["token_type_ids"][index], "spans": spans,
                 "start": start, "end": end}
            )  # fmt: skip
    return windows


def collate(windows: list[dict[str, Any]], padding: int, device: str) -> dict[str, torch.Tensor]:
    longest = max(len(window["ids"]) for window in windows)
    arrays: dict[str, list[list[int]]] = {"input_ids": [], "token_type_ids": [], "attention_mask": []}
    for window in windows:
        more = longest - len(window["ids"])
        arrays["input_ids"].append(window["ids"] + [padding] * more)
        arrays["token_type_ids"].append(window["types"] + [0] * more)
        arrays["attention_mask"].append([1] * len(window["ids"]) + [0] * more)
    return {name: torch.tensor(values, device=device) for name, values in arrays.items()}


def train(model: Any, windows: list[dict[str, Any]], padding: int, args: argparse.Namespace) -> tuple[int, float]:
    """Steps taken, and the mean loss of the last twenty."""
    per_epoch = -(-len(windows) // args.batch_size)
    steps = args.steps or -(-int(args.epochs * per_epoch * 1000) // 1000)
    decayed = [p for n, p in model.named_parameters() if not n.endswith("bias") and "LayerNorm" not in n]
    others = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=args.learning_rate,
        eps=1e-8,
    )
    warmup = int(args.warmup * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (step + 1) / (warmup + 1) if step < warmup else (steps - step) / max(steps - warmup, 1)
    )
    model.train()
    order: list[int] = []
    losses: list[float] = []
    for _ in range(steps):
        if len(order) == 0:
            order = random.sample(range(len(windows)), len(windows))
        batch, order = [windows[number] for number in order[: args.batch_size]], order[args.batch_size :]
        targets = {f"{name}_positions": torch.tensor([window[name] for window in batch], device=args.device)
                   for name in ("start", "end")}  # fmt: skip
        loss = model(**collate(batch, padding, args.device), **targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return steps, sum(losses[-20:]) / len(losses[-20:])


@torch.no_grad()
def score_tokens(model: Any, windows: list[dict[str, Any]], padding: int, args: argparse.Namespace) -> None:
    """Adds start and end logits to the windows."""
    model.eval()
    by_length = sorted(windows, key=lambda window: -len(window["ids"]))
    for first in range(0, len(by_length), args.eval_batch_size):
        batch = by_length[first : first + args.eval_batch_size]
        output = model(**collate(batch, padding, args.device))
        for window, starts, ends in zip(batch, output.start_logits.tolist(), output.end_logits.tolist(), strict=True):
            window["scores"] = starts[: len(window["ids"])], ends[: len(window["ids"])]


def best_answer(windows: list[dict[str, Any]], context: str, args: argparse.Namespace) -> tuple[str, float]:
    """The best answer of a question's windows, and by how much the score of none exceeds its score."""
    view: dict[tuple[int, int], tuple[float, int]] = {}  # characters of a token: the window that shows most around it
    for number, window in enumerate(windows):
        places = [token for token, span in enumerate(window["spans"]) if span]
        for token in places:
            around = min(token - places[0], places[-1] - token) + 0.01 * len(places)
            key = tuple(window["spans"][token])
            if key not in view or around > view[key][0]:
                view[key] = around, number
    best, text = float("-inf"), ""
    for number, window in enumerate(windows):
        starts, ends = window["scores"]
        spans = window["spans"]

        def likeliest(scores: list[float]) -> list[int]:
            return sorted(range(len(scores)), key=lambda token: -scores[token])[: args.n_best]

        for start in likeliest(starts):
            if not spans[start] or view[tuple(spans[start])][1] != number:
                continue
            for end in likeliest(ends):
                if spans[end] and start <= end < start + args.max_answer_length and starts[start] + ends[end] > best:
                    best, text = starts[start] + ends[end], context[spans[start][0] : spans[end][1]]
    null = min(window["scores"][0][0] + window["scores"][1][0] for window in windows)
    return text, null - best


def words(text: str) -> list[str]:
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def compare(text: str, truths: list[str], version_2: bool) -> tuple[float, float]:
    """Exact match and F1, as the official scripts count."""
    given, wanted = words(text), [words(truth) for truth in truths]
    if version_2:
        wanted = [answer for answer in wanted if answer] or [[]]
    f1 = 0.0
    for answer in wanted:
        common = sum((collections.Counter(given) & collections.Counter(answer)).values())
        if version_2 and not (given and answer):
            f1 = max(f1, float(given == answer))
        elif common:
            f1 = max(f1, 2 * common / (len(given) + len(answer)))
    return float(given in wanted), f1


def evaluate(
    questions: list[dict[str, Any]], windows: list[dict[str, Any]], args: argparse.Namespace
) -> dict[str, Any]:
    mine = collections.defaultdict(list)
    for window in windows:
        mine[window["question"]].append(window)
    found = [best_answer(mine[number], question["context"], args) for number, question in enumerate(questions)]
    truths = [[answer["text"] for answer in question["answers"]] for question in questions]
    version_2 = not all(truths)
    threshold = None
    if version_2:
        running = best = float(sum(not wanted for wanted in truths))
        order = sorted(range(len(found)), key=lambda number: found[number][1])
        threshold = found[order[0]][1] - 1.0
        for number in order:
            running += compare(found[number][0], truths[number], True)[1] if truths[number] else -1.0
            if running > best:
                best, threshold = running, found[number][1]
    given = [text if threshold is None or difference <= threshold else "" for text, difference in found]
    scores = [compare(text, wanted, version_2) for text, wanted in zip(given, truths, strict=True)]
    exact, f1 = (100.0 * sum(column) / len(scores) for column in zip(*scores, strict=True))
    return {"exact_match": exact, "f1": f1} | ({} if threshold is None else {"null_threshold": threshold})


def main() -> None:
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = BertForQuestionAnswering.from_pretrained(args.model, num_labels=2).to(args.device)
    train_windows = windows_of(read(args.train, args.train_questions), tokenizer, args)
    ready = time.perf_counter()
    steps, loss = train(model, train_windows, tokenizer.pad_token_id, args)
    trained = time.perf_counter()
    questions = read(args.dev, args.dev_questions)
    windows = windows_of(questions, tokenizer, args)
    score_tokens(model, windows, tokenizer.pad_token_id, args)
    metrics = evaluate(questions, windows, args)
    ended = time.perf_counter()
    seconds = {"train_s": trained - ready, "eval_s": ended - trained, "wall_s": ended - started}
    counts = {"steps": steps, "train_windows": len(train_windows), "questions": len(questions), "windows": len(windows)}
    print(json.dumps(metrics | {"train_loss": loss} | counts | seconds))


if __name__ == "__main__":
    main()
