"""What the benchmarks run on, where no real data is given: made of the documentation that is installed.

    WORK/model/            a BERT of MiniLM's shape (6 layers, 384 wide, 12 heads) with random weights
    WORK/sentences.tsv     text, label: as long as SST-2's sentences (median 21 words)
    WORK/paragraphs.tsv    the same, each longer than 512 tokens
    WORK/text.txt          a text a paragraph

Speed does not depend on what the weights are or whether the labels mean anything.
"""

import random
from pathlib import Path

import jax
from flax import nnx

from jaxlm.data.installed_docs import pretraining_texts
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.models import BertConfig, BertModel

SENTENCES, PARAGRAPHS, LONGEST = 4096, 1024, 560
_VOCABULARY = 30522


def make(work: Path) -> None:
    """Makes what `work` lacks; the same installation gives the same files."""
    if (work / "model" / "config.json").is_file():
        return
    work.mkdir(parents=True, exist_ok=True)
    texts = pretraining_texts("train")
    draw = random.Random(0)
    words = " ".join(texts).replace("\t", " ").split()

    def table(name: str, rows: int, length: int | None) -> None:
        lines = []
        for _ in range(rows):
            count = length or min(max(round(draw.lognormvariate(3.04, 0.45)), 4), 60)
            start = draw.randrange(len(words) - count)
            lines.append(" ".join(words[start : start + count]) + f"\t{draw.randrange(2)}\n")
        (work / name).write_text("".join(lines), encoding="utf-8")

    table("sentences.tsv", SENTENCES, None)
    table("paragraphs.tsv", PARAGRAPHS, LONGEST)
    (work / "text.txt").write_text("\n\n".join(texts), encoding="utf-8")
    tokenizer = TextTokenizer.train(texts, 8192, lowercase=True)
    config = BertConfig(
        vocab_size=_VOCABULARY, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        pad_token_id=tokenizer.special_ids["pad"],
    )  # fmt: skip
    params = nnx.to_pure_dict(nnx.state(BertModel(config, rngs=nnx.Rngs(jax.random.key(0)))))
    tokenizer.save(work / "model", max_length=512)
    BertModel.save_params(work / "model", config, params)
