"""BERT-base on SQuAD 1.1, questions whose answer is a span of a paragraph (Rajpurkar et al. 2016).

    python -m jaxlm train configs/squad.py

Needs the network once, for the weights and the data. Aims at the published dev scores of BERT-base, exact match 80.8
and F1 88.5 (Devlin et al. 2019, table 2; three epochs of 32 windows at 5e-5, section 4.2). For one GPU of 16 GB or a
TPU core; with less memory, add --train.micro_batches 4. With own files, in SQuAD's json or rows of id, question,
context and answers:

    python -m jaxlm train configs/squad.py --data.train train-v1.1.json --data.dev dev-v1.1.json
    python -m jaxlm predict MODEL --text "Who wrote Emma?" --text_pair "Emma is a novel by Jane Austen."
"""

from jaxlm.config import AnswerSettings, Config, DataSettings, ModelSettings, OptimSettings, TrainSettings

config = Config(
    task="question_answering",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(train="tfds:squad/v1.1", dev="tfds:squad/v1.1", max_length=384),
    qa=AnswerSettings(stride=128, max_question_length=64, max_answer_length=30),
    train=TrainSettings(epochs=3, batch_size=32),
    optim=OptimSettings(learning_rate=5e-5, schedule="linear", warmup=0.1, weight_decay=0.01),
)
