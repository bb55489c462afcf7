"""BERT-base on QQP, whether two questions of Quora ask the same (GLUE; Wang et al. 2019).

    python -m jaxlm train configs/qqp.py

Needs the network once, for the weights and the data. Judged by F1 of the second class, "duplicate"; Devlin et al.
2019 (table 1) report 71.2 on the test set with BERT-base.
"""

from jaxlm.config import Config, DataSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="classification",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(train="tfds:glue/qqp", dev="tfds:glue/qqp", pairs=True, max_length=128),
    train=TrainSettings(epochs=3, batch_size=32, metric="f1"),
    optim=OptimSettings(learning_rate=2e-5, schedule="linear", warmup=0.06, weight_decay=0.01),
)
