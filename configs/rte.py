"""BERT-base on RTE: does one text follow from another (GLUE; Wang et al. 2019).

    python -m jaxlm train configs/rte.py

Needs the network once, for the weights and the data. Devlin et al. 2019 (table 1) report 66.4 on the test set with
BERT-base. Only 2,490 pairs: results of single seeds scatter by several points.
"""

from jaxlm.config import Config, DataSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="classification",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(train="tfds:glue/rte", dev="tfds:glue/rte", pairs=True, max_length=128),
    train=TrainSettings(epochs=5, batch_size=32),
    optim=OptimSettings(learning_rate=2e-5, schedule="linear", warmup=0.06, weight_decay=0.01),
)
