"""Sentence embeddings from BERT-base, on the scored pairs of the STS benchmark (Cer et al. 2017).

    python -m jaxlm train configs/embeddings_stsb.py

The regression objective of Sentence-BERT (Reimers and Gurevych 2019, sections 3 and 4.2): mean pooling, the cosine of a
pair learns its score. Aims at their Spearman correlation on the benchmark's test set, 84.67 +- 0.19 (Table 2,
SBERT-STSb-base); GLUE's data, read here, withholds the test scores, and dev comes out about 2 higher.
`--embedding.loss cosent` learns the order of the scores instead (Su 2022). Needs the network once, for the weights and
the data; a minute on a GPU. With own files, columns sentence1, sentence2 and score:

    python -m jaxlm train configs/embeddings_stsb.py --data.train train.tsv --data.dev dev.tsv
    python -m jaxlm evaluate runs/MINE/model --data.test sts-test.tsv --data.text 5 --data.text_pair 6 --data.label 4
"""

from jaxlm.config import Config, DataSettings, EmbeddingSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="embedding",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(train="tfds:glue/stsb", dev="tfds:glue/stsb", max_length=128),
    embedding=EmbeddingSettings(loss="cosine", pooling="mean"),
    train=TrainSettings(epochs=4, batch_size=16),
    optim=OptimSettings(learning_rate=2e-5, schedule="linear", warmup=0.1, weight_decay=0.01),
)
