r"""One BERT-base that answers three questions about what a customer writes: what is wanted, how does the customer feel,
is it praise or blame? Intents of CLINC150 (Larson et al. 2019), emotions of GoEmotions (Demszky et al. 2020), and the
sentiment of SST-2 (GLUE), each a head on one encoder.

    python -m jaxlm train configs/customer_service.py \
        --parts.intent.data.train data_full.json --parts.intent.data.dev data_full.json \
        --parts.emotion.data.train train.tsv --parts.emotion.data.dev dev.tsv

The files are those of configs/clinc150.py and configs/go_emotions.py; SST-2 comes over the network, once, and so do the
weights. A step has texts of each part in proportion to how many there are. The model's directory holds one model a
part: `python -m jaxlm predict MODEL/intent --text "Where is my order?"`. For one GPU.
"""

from jaxlm.config import Config, DataSettings, LabelSettings, ModelSettings, OptimSettings, Part, TrainSettings

config = Config(
    task="multi_task",
    model=ModelSettings(init="bert-base-uncased"),
    parts=(
        Part(name="intent", data=DataSettings(max_length=64), labels=LabelSettings(out_of_scope="oos")),
        Part(
            name="emotion",
            task="multi_label",
            data=DataSettings(text="0", label="1", header="no", max_length=64),
            metric="macro_f1",
        ),
        Part(name="sentiment", data=DataSettings(train="tfds:glue/sst2", dev="tfds:glue/sst2", max_length=64)),
    ),
    train=TrainSettings(epochs=3, batch_size=48),
    optim=OptimSettings(learning_rate=5e-5, schedule="linear", warmup=0.1, weight_decay=0.01),
)
