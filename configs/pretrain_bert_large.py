r"""BERT-large from raw text: 24 layers, 1024 wide, otherwise as the paper's BERT-base (Devlin et al. 2019).

    python -m jaxlm prepare configs/pretrain_bert_large.py --data.train 'wikipedia/*.jsonl' --output prepared
    python -m jaxlm train configs/pretrain_bert_large.py --data.train prepared --data.dev prepared

For a TPU v4-32 or sixteen GPUs. Not run to its end yet; the paper's reaches 86.7 / 85.9 on MNLI after fine-tuning.
"""

from jaxlm.config import Config, DataSettings, ModelSettings, ObjectiveSettings, OptimSettings, Phase, TrainSettings

config = Config(
    task="masked_lm",
    model=ModelSettings(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, remat="dots"),
    data=DataSettings(tokenizer="bert-base-uncased", max_length=128, bad_rows="skip"),
    objective=ObjectiveSettings(next_sentence=True),
    train=TrainSettings(
        batch_size=256,
        phases=(Phase(steps=900_000), Phase(steps=100_000, max_length=512)),
        eval_every=10_000,
        checkpoint_every=2_000,
        log_every=100,
    ),
    optim=OptimSettings(learning_rate=1e-4, schedule="linear", warmup=10_000, weight_decay=0.01, epsilon=1e-6),
)
