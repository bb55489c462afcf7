"""BERT-base on STS-B, how similar two sentences are, from 0 to 5 (GLUE; Cer et al. 2017).

    python -m jaxlm train configs/stsb.py

Needs the network once, for the weights and the data. Judged by Spearman's correlation; Devlin et al. 2019 (table 1)
report 85.8 on the test set with BERT-base. With GLUE's files, or own ones of two text columns and a score:

    python -m jaxlm train configs/stsb.py --data.train train.tsv --data.dev dev.tsv
"""

from jaxlm.config import Config, DataSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="regression",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(train="tfds:glue/stsb", dev="tfds:glue/stsb", pairs=True, max_length=128),
    train=TrainSettings(epochs=3, batch_size=32),
    optim=OptimSettings(learning_rate=2e-5, schedule="linear", warmup=0.06, weight_decay=0.01),
)
