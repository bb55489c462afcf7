r"""BERT-base as later work would pre-train it: 30 % of whole words masked (Wettig et al. 2023), no next sentences
(Liu et al. 2019), no dropout of attention weights, warm-up-stable-decay, and a batch that grows.

    python -m jaxlm prepare configs/pretrain_modern.py --data.train 'texts/*.jsonl' --output prepared
    python -m jaxlm train configs/pretrain_modern.py --data.train prepared --data.dev prepared

For eight GPUs or a TPU v5e-16. Not run to its end yet: no figure is promised.
"""

from jaxlm.config import Config, DataSettings, ModelSettings, ObjectiveSettings, OptimSettings, Phase, TrainSettings

config = Config(
    task="masked_lm",
    model=ModelSettings(attention_dropout=0.0),
    data=DataSettings(tokenizer="bert-base-uncased", max_length=128, bad_rows="skip"),
    objective=ObjectiveSettings(mask_rate=0.3, mask_unit="word"),
    train=TrainSettings(
        batch_size=4096,
        phases=(
            Phase(steps=2_000, batch_size=512),
            Phase(steps=2_000, batch_size=1024),
            Phase(steps=2_000, batch_size=2048),
            Phase(steps=24_000),
        ),
        eval_every=1_000,
        checkpoint_every=1_000,
        log_every=50,
    ),
    optim=OptimSettings(
        learning_rate=8e-4, schedule="wsd", warmup=2_000, decay=0.15, weight_decay=0.01, beta2=0.98, epsilon=1e-6
    ),
)
