"""BERT-base on MultiNLI: does one sentence follow from another (GLUE; Williams et al. 2018).

    python -m jaxlm train configs/mnli.py

Needs the network once, for the weights and the data. Devlin et al. 2019 (table 1) report 84.6 matched and 83.4
mismatched on the test set with BERT-base. `dev` is the matched part, of the training data's genres, and `test` the
mismatched one.
"""

from jaxlm.config import Config, DataSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="classification",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(
        train="tfds:glue/mnli",
        dev="tfds:glue/mnli:validation_matched",
        test="tfds:glue/mnli:validation_mismatched",
        pairs=True,
        max_length=128,
    ),
    train=TrainSettings(epochs=3, batch_size=32),
    optim=OptimSettings(learning_rate=2e-5, schedule="linear", warmup=0.06, weight_decay=0.01),
)
