r"""A small BERT from raw text in minutes, on a CPU: 4 layers, 256 wide.

    python -m jaxlm tokenizer --input 'books/*.txt' --output runs/tokenizer --vocab_size 8192
    python -m jaxlm prepare configs/pretrain_tiny.py --data.train 'books/*.txt' --data.tokenizer runs/tokenizer \
        --output runs/prepared
    python -m jaxlm train configs/pretrain_tiny.py --data.train runs/prepared --data.dev runs/prepared
"""

from jaxlm.config import Config, DataSettings, ModelSettings, ObjectiveSettings, OptimSettings, TrainSettings

config = Config(
    task="masked_lm",
    model=ModelSettings(
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.04,
        hidden_dropout=0.0,
        attention_dropout=0.0,
    ),
    data=DataSettings(max_length=128, validation=0.02, bad_rows="skip"),
    objective=ObjectiveSettings(mask_rate=0.15),
    train=TrainSettings(steps=3000, batch_size=32, eval_every=500, log_every=50),
    optim=OptimSettings(learning_rate=1e-3, schedule="linear", warmup=0.1, weight_decay=0.01),
)
