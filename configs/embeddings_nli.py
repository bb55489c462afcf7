"""Sentence embeddings from BERT-base, on natural language inference: entailed sentences against all others.

    python -m jaxlm train configs/embeddings_nli.py --data.train nli_for_simcse.csv

The file has a sentence, one that follows from it and one that contradicts it in each row (sent0, sent1, hard_neg;
275,601 rows): https://huggingface.co/datasets/princeton-nlp/datasets-for-simcse. Judged by the scored pairs of the STS
benchmark's dev set, where the published checkpoint of supervised SimCSE has a Spearman correlation of 86.18 (Gao et al.
2021, https://aclanthology.org/2021.emnlp-main.552; princeton-nlp/sup-simcse-bert-base-uncased, eval_results.txt). It
learnt by the same loss, temperature (0.05), batch and learning rate, but has [CLS] and a layer over it instead of the
mean. Sentence-BERT, which learnt the same corpora by classifying, has 77.03 on the benchmark's test set (Reimers and
Gurevych 2019, Table 1). Needs the network for weights and dev data, and a GPU of 40 GB or several smaller ones for the
batch of 512: all its texts are negatives of each other, on however many devices.
"""

from jaxlm.config import Config, DataSettings, EmbeddingSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="embedding",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(train="nli_for_simcse.csv", dev="tfds:glue/stsb", max_length=32),
    embedding=EmbeddingSettings(loss="contrastive", pooling="mean", scale=20.0),
    train=TrainSettings(epochs=3, batch_size=512, eval_every=250),
    optim=OptimSettings(learning_rate=5e-5, schedule="linear", warmup=0.1),
)
