"""BERT-base on QNLI, whether a sentence answers a question (GLUE; made of SQuAD by Wang et al. 2019).

    python -m jaxlm train configs/qnli.py

Needs the network once, for the weights and the data. Devlin et al. 2019 (table 1) report 90.5 on the test set with
BERT-base.
"""

from jaxlm.config import Config, DataSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="classification",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(
        train="tfds:glue/qnli",
        dev="tfds:glue/qnli",
        text="question",
        text_pair="sentence",
        pairs=True,
        max_length=128,
    ),
    train=TrainSettings(epochs=3, batch_size=32),
    optim=OptimSettings(learning_rate=2e-5, schedule="linear", warmup=0.06, weight_decay=0.01),
)
