r"""BERT-base as a re-ranker of MS MARCO passages (Nogueira and Cho 2019, "Passage Re-ranking with BERT").

    python -m jaxlm train configs/msmarco_reranker.py --data.train train.tsv --data.dev dev.tsv --workdir runs/reranker
    python -m jaxlm search MODEL --documents collection.tsv --index runs/index
    python -m jaxlm search --index runs/index --rerank runs/reranker/model --queries queries.dev.small.tsv \
        --qrels qrels.dev.small.tsv

Files hold query, passage and label (1 relevant, 0 not), parted by tabs, or query, a relevant passage and another one.
From those of microsoft.github.io/msmarco:

    head -6400000 triples.train.small.tsv > train.tsv
    awk -F'\t' -v OFS='\t' 'NR == FNR {r[$1, $3]; next} {print $3, $4, ($1, $2) in r}' qrels.dev.small.tsv \
        top1000.dev > dev.tsv

Aims at the published MRR@10 of 34.7 on dev (their BERT-base; BERT-large: 36.5) with their recipe: 100,000 steps of 128
pairs, learning rate 3e-6, 10,000 steps of warm-up. That figure counts the queries for which BM25's thousand passages
hold nothing relevant as 0; here they are left out and counted: multiply by queries / (queries + queries_left_out). All
of dev is seven million pairs: give --data.dev the first hundred queries, and let `evaluate` read all. One H100 or TPU
v3-8 is meant: theirs took 30 hours on the latter in rows of 512 tokens, and packed rows leave out the padding, which
was most of them. 12.8 million pairs take, by estimate, 20 GB of host memory.
"""

from jaxlm.config import Config, DataSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="ranking",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(train="train.tsv", dev="dev.tsv", max_length=512),
    train=TrainSettings(steps=100_000, batch_size=128, eval_every=5_000, checkpoint_every=1_000),
    optim=OptimSettings(learning_rate=3e-6, schedule="linear", warmup=10_000, weight_decay=0.01),
)
