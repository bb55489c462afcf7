"""BERT-base on GoEmotions: which of 27 emotions a comment shows, or none (Demszky et al. 2020).

    python -m jaxlm train configs/go_emotions.py --data.train train.tsv --data.dev dev.tsv --data.test test.tsv

The files are those of the paper, of google-research/goemotions: text, numbers of emotions with commas between them,
and an id, without a header. Aims at the published macro F1 of 0.46 with bert-base-cased; a minute or two on a GPU.
"""

from jaxlm.config import Config, DataSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="multi_label",
    model=ModelSettings(init="bert-base-cased"),
    data=DataSettings(text="0", label="1", header="no", max_length=64),
    train=TrainSettings(epochs=4, batch_size=16, metric="macro_f1"),
    optim=OptimSettings(learning_rate=5e-5, schedule="linear", warmup=0.1, weight_decay=0.01),
)
