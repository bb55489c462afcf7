"""BERT-base on WNLI, Winograd schemas as pairs (GLUE; Levesque et al. 2011).

    python -m jaxlm train configs/wnli.py

Needs the network once, for the weights and the data. Devlin et al. 2019 leave WNLI out: its
development set contradicts its training set, and the majority class, 56.3, is hard to beat there.
"""

from jaxlm.config import Config, DataSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="classification",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(train="tfds:glue/wnli", dev="tfds:glue/wnli", pairs=True, max_length=128),
    train=TrainSettings(epochs=3, batch_size=32),
    optim=OptimSettings(learning_rate=2e-5, schedule="linear", warmup=0.06, weight_decay=0.01),
)
