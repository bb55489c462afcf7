"""BERT-base on CoNLL-2003, the names in English news (Tjong Kim Sang and De Meulder 2003).

    python -m jaxlm train configs/conll2003.py --workdir runs/conll2003

Needs the network once, for the weights and the data; one GPU, or a TPU of one host. Aims at the published test F1 of
bert-base-cased, 92.4 (Devlin et al. 2019, table 7; there a sentence sees its whole document, here itself alone, which
costs about a point). With the task's own files:

    python -m jaxlm train configs/conll2003.py --data.train eng.train --data.dev eng.testa --data.test eng.testb
"""

from jaxlm.config import Config, DataSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="token_classification",
    model=ModelSettings(init="bert-base-cased"),
    data=DataSettings(train="tfds:conll2003", dev="tfds:conll2003", test="tfds:conll2003", max_length=128),
    train=TrainSettings(epochs=4, batch_size=32),
    optim=OptimSettings(learning_rate=5e-5, schedule="linear", warmup=0.1, weight_decay=0.01),
)
