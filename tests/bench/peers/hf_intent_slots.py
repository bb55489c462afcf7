"""What others do: joint intents and slots (Chen et al. 2019) with PyTorch and transformers' BERT, in a plain loop.

    python tests/bench/peers/hf_intent_slots.py --model DIRECTORY --train atis/train --test atis/test

A directory holds seq.in, seq.out and label. Each batch is padded to its longest sentence; AdamW, linear warm-up and
decay, weight decay but for biases and LayerNorm, gradients clipped to norm 1. Prints a JSON line: accuracy of intents,
seqeval's F1 of slots, the share of sentences right in both, and seconds. It needs torch, transformers and seqeval.
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from seqeval.metrics import f1_score
from transformers import AutoModel, AutoTokenizer, get_linear_schedule_with_warmup


class Sentence(NamedTuple):
    words: list[str]
    tags: list[str]
    intent: str


class JointBert(torch.nn.Module):
    """The encoder, and a linear layer over the pooled text and over every token, each after dropout."""

    def __init__(self, directory: str, intents: int, tags: int):
        super().__init__()
        self.bert = AutoModel.from_pretrained(directory, dtype=torch.float32)
        width = self.bert.config.hidden_size
        self.dropout = torch.nn.Dropout(self.bert.config.hidden_dropout_prob)
        self.intents, self.slots = torch.nn.Linear(width, intents), torch.nn.Linear(width, tags)
        for layer in (self.intents, self.slots):
            torch.nn.init.normal_(layer.weight, std=self.bert.config.initializer_range)
            torch.nn.init.zeros_(layer.bias)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.bert(input_ids=input_ids, attention_mask=attention_mask)
        return self.intents(self.dropout(output.pooler_output)), self.slots(self.dropout(output.last_hidden_state))


def read(directory: str) -> list[Sentence]:
    words, tags, intents = (
        (Path(directory) / name).read_text(encoding="utf-8").splitlines() for name in ("seq.in", "seq.out", "label")
    )
    return [
        Sentence(w.split(), t.split(), i.strip()) for w, t, i in zip(words, tags, intents, strict=True) if w.strip()
    ]


def encode(
    tokenizer: Any, sentences: list[Sentence], numbers: dict[str, int], intents: dict[str, int], max_length: int
) -> list[dict]:
    encoded = []
    for words, tags, intent in sentences:
        item = tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_length)
        owners = item.word_ids()
        first = [word is not None and word != before for word, before in zip(owners, [None, *owners], strict=False)]
        labels = [
            numbers.get(tags[word], -100) if is_first else -100 for word, is_first in zip(owners, first, strict=True)
        ]
        encoded.append(
            {"ids": item["input_ids"], "labels": labels, "owners": owners, "first": first,
             "intent": intents.get(intent, -100)}
        )  # fmt: skip
    return encoded


def padded(items: list[dict], pad: int, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask, tags and intents."""
    length = max(len(item["ids"]) for item in items)

    def stack(name: str, filler: int) -> torch.Tensor:
        rows = [item[name] + [filler] * (length - len(item[name])) for item in items]
        return torch.tensor(rows, device=device)

    mask = [[1] * len(item["ids"]) + [0] * (length - len(item["ids"])) for item in items]
    intents = torch.tensor([item["intent"] for item in items], device=device)
    return stack("ids", pad), torch.tensor(mask, device=device), stack("labels", -100), intents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "train", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--warmup", type=float, default=0.1)
    parser.add_argument("--weight_decay", type=float, default=0.01)
    parser.add_argument("--max_length", type=int, default=64)
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
    names = ["O", *sorted({tag for sentence in train for tag in sentence.tags} - {"O"})]
    intent_names = sorted({sentence.intent for sentence in train})
    numbers = {name: number for number, name in enumerate(names)}
    intents = {name: number for number, name in enumerate(intent_names)}
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = JointBert(args.model, len(intent_names), len(names)).to(args.device).train()
    examples = encode(tokenizer, train, numbers, intents, args.max_length)
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
    entropy = torch.nn.CrossEntropyLoss(ignore_index=-100)

    losses: list[float] = []
    training_started = time.perf_counter()
    order: list[int] = []
    for _ in range(steps):
        if not order:
            order = draw.sample(range(len(examples)), len(examples))
        chosen, order = order[: args.batch_size], order[args.batch_size :]
        ids, mask, labels, wanted = padded([examples[i] for i in chosen], tokenizer.pad_token_id, args.device)
        of_intents, of_slots = model(ids, mask)
        loss = entropy(of_intents, wanted) + entropy(of_slots.flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    training_s = time.perf_counter() - training_started

    model.eval()
    guesses, right = [], []
    held_out = encode(tokenizer, test, numbers, intents, args.max_length)
    with torch.no_grad():
        for start in range(0, len(held_out), 64):
            items, sentences = held_out[start : start + 64], test[start : start + 64]
            ids, mask, _, _ = padded(items, tokenizer.pad_token_id, args.device)
            of_intents, of_slots = (logits.argmax(-1).tolist() for logits in model(ids, mask))
            right += [intent_names[n] == sentence.intent for n, sentence in zip(of_intents, sentences, strict=True)]
            for item, row, sentence in zip(items, of_slots, sentences, strict=True):
                tags = ["O"] * len(sentence.words)  # of words that were cut off, too
                for owner, is_first, number in zip(item["owners"], item["first"], row, strict=False):
                    if is_first:
                        tags[owner] = names[number]
                guesses.append(tags)
    truth = [sentence.tags for sentence in test]
    whole = [ok and one == other for ok, one, other in zip(right, truth, guesses, strict=True)]
    print(
        json.dumps(
            {
                "peer": Path(__file__).stem,
                "intent_accuracy": sum(right) / len(right),
                "slot_f1": float(f1_score(truth, guesses)),
                "frame_accuracy": sum(whole) / len(whole),
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
