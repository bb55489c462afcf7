"""BERT-base on CoLA, whether a sentence is acceptable English (GLUE; Warstadt et al. 2019).

    python -m jaxlm train configs/cola.py

Needs the network once, for the weights and the data. Judged by Matthews' correlation; Devlin et al. 2019 (table 1)
report 52.1 on the test set with BERT-base.
"""

from jaxlm.config import Config, DataSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="classification",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(train="tfds:glue/cola", dev="tfds:glue/cola", max_length=128),
    train=TrainSettings(epochs=3, batch_size=32, metric="matthews_correlation"),
    optim=OptimSettings(learning_rate=2e-5, schedule="linear", warmup=0.06, weight_decay=0.01),
)
