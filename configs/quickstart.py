"""The whole road on data that every installation carries: no network, no file.

    ./launch/local.sh train configs/quickstart.py

The documentation inside Python's standard library and the installed packages is the corpus. A WordPiece vocabulary is
learnt from it, a small BERT is pre-trained on it (masked words), then fine-tuned to tell which part of which library a
passage documents, and compared with its twin that was not pre-trained.

Two cores take about three minutes. Seed 0 on Python 3.12 with jax 0.12.0: held-out accuracy 0.479, its twin 0.374, the
majority class 0.066; other package versions bring another corpus and other figures.
"""

from jaxlm.config import Config, DataSettings, ModelSettings, OptimSettings, Stage, TrainSettings

config = Config(
    pretrain=Stage(
        task="masked_lm",
        model=ModelSettings(
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            initializer_range=0.06,
            hidden_dropout=0.0,
            attention_dropout=0.0,
        ),
        data=DataSettings(train="docs:text", dev="docs:text", max_length=128, vocab_size=4096),
        train=TrainSettings(steps=540, batch_size=64, eval_every=540, log_every=50),
        optim=OptimSettings(learning_rate=2e-3, schedule="linear", warmup=0.1),
    ),
    task="classification",
    model=ModelSettings(hidden_dropout=0.1, attention_dropout=0.0),
    data=DataSettings(train="docs:topics", dev="docs:topics", test="docs:topics", max_length=128),
    train=TrainSettings(epochs=6, batch_size=16, eval_every=180, log_every=50),
    optim=OptimSettings(learning_rate=1e-3, schedule="linear", warmup=0.1),
    compare_from_scratch=True,
)
