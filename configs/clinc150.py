r"""BERT-base on CLINC150: which of 150 things a user wants, or something else altogether (Larson et al. 2019).

    python -m jaxlm train configs/clinc150.py --data.train data_full.json --data.dev data_full.json \
        --data.test data_full.json

data_full.json is that of clinc/oos-eval; each setting reads its own split of it. Out-of-scope texts are not learnt but
told by a threshold on the largest probability, which dev sets: the paper's "oos-threshold". It found that classifiers
tell the intents apart well, and struggle to see what is out of scope. A few minutes on a GPU.
"""

from jaxlm.config import Config, DataSettings, LabelSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="classification",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(max_length=64),
    labels=LabelSettings(out_of_scope="oos"),
    train=TrainSettings(epochs=5, batch_size=32),
    optim=OptimSettings(learning_rate=5e-5, schedule="linear", warmup=0.1, weight_decay=0.01),
)
