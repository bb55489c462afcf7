r"""BERT-base from raw text, as in the paper (Devlin et al. 2019, appendix A.2): masked LM and next sentences, 256 rows
a step, 900,000 steps at 128 tokens and 100,000 at 512, Adam at 1e-4.

    python -m jaxlm prepare configs/pretrain_bert_base.py --data.train 'wikipedia/*.jsonl' --output prepared
    python -m jaxlm train configs/pretrain_bert_base.py --data.train prepared --data.dev prepared

For a TPU v5e-16 or eight GPUs. Not run to its end yet; the paper's model reaches 84.6 / 83.4 on MNLI after fine-tuning.
"""

from jaxlm.config import Config, DataSettings, ObjectiveSettings, OptimSettings, Phase, TrainSettings

config = Config(
    task="masked_lm",
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
