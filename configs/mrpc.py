"""BERT-base on MRPC, whether two sentences say the same (GLUE; Dolan and Brockett 2005).

    python -m jaxlm train configs/mrpc.py

Needs the network once, for the weights and the data. Judged by F1 of the second class, "equivalent"; Devlin et al.
2019 (table 1) report 88.9 on the test set with BERT-base. With GLUE's files, or own ones of two text columns and a
label:

    python -m jaxlm train configs/mrpc.py --data.train train.tsv --data.dev dev.tsv
"""

from jaxlm.config import Config, DataSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="classification",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(train="tfds:glue/mrpc", dev="tfds:glue/mrpc", pairs=True, max_length=128),
    train=TrainSettings(epochs=3, batch_size=32, metric="f1"),
    optim=OptimSettings(learning_rate=2e-5, schedule="linear", warmup=0.06, weight_decay=0.01),
)
