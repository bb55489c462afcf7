"""BERT-base on SQuAD 2.0, where half of dev's questions have no answer (Rajpurkar et al. 2018).

    python -m jaxlm train configs/squad_v2.py

Needs the network once, for the weights and the data. The paper gives BERT-large only (dev exact match 78.7, F1 81.9;
Devlin et al. 2019, table 3). For bert-base-uncased by this recipe (three epochs of 32 windows at 3e-5, a fifth of the
steps warm-up) the card of deepset/bert-base-uncased-squad2 on the Hugging Face hub states 75.65 and 78.62, verified by
the hub, and 73.68 and 77.88 by its authors' own count. Hardware as for configs/squad.py. The threshold to "no answer"
is the best for F1 on dev; --qa.null_threshold 0 sets one. With own files:

    python -m jaxlm train configs/squad_v2.py --data.train train-v2.0.json --data.dev dev-v2.0.json
"""

from jaxlm.config import AnswerSettings, Config, DataSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="question_answering",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(train="tfds:squad/v2.0", dev="tfds:squad/v2.0", max_length=384),
    qa=AnswerSettings(stride=128, max_question_length=64, max_answer_length=30),
    train=TrainSettings(epochs=3, batch_size=32),
    optim=OptimSettings(learning_rate=3e-5, schedule="linear", warmup=0.2, weight_decay=0.01),
)
