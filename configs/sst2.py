"""BERT-base on SST-2, the sentiment of film reviews (GLUE; Wang et al. 2019).

    python -m jaxlm train configs/sst2.py

Needs the network once, for the weights and the data. Aims at the published dev accuracy of bert-base-uncased, 92.7
(Devlin et al. 2019 report 93.5 on the test set). With own files:

    python -m jaxlm train configs/sst2.py --data.train train.tsv --data.dev dev.tsv
"""

from jaxlm.config import Config, DataSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="classification",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(train="tfds:glue/sst2", dev="tfds:glue/sst2", max_length=128),
    train=TrainSettings(epochs=3, batch_size=32),
    optim=OptimSettings(learning_rate=2e-5, schedule="linear", warmup=0.06, weight_decay=0.01),
)
