r"""BERT-large from raw text in large batches, by LAMB (You et al. 2020, https://arxiv.org/abs/1904.00962): 65,536 rows
of 128 tokens a step, then 32,768 of 512; 8,601 steps instead of a million. Steps, rates and warm-up are NVIDIA's
(DeepLearningExamples).

    python -m jaxlm prepare configs/pretrain_bert_large.py --data.train 'wikipedia/*.jsonl' --output prepared
    python -m jaxlm train configs/pretrain_bert_large.py --data.train prepared --data.dev prepared

For eight GPUs of 40 GB or a TPU v5e-16, which compute a step in 64 parts and exchange gradients once. With more devices
fewer parts are faster: `--train.micro_batches 4` on a v6e-256. Not run to its end yet; on SQuAD 1.1 the paper's model
reaches F1 90.6, and NVIDIA's 91.1 after a last loss of 1.33 (masked words and next sentences together).
"""

from jaxlm.config import Config, DataSettings, ModelSettings, ObjectiveSettings, OptimSettings, Phase, TrainSettings

config = Config(
    task="masked_lm",
    model=ModelSettings(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, remat="dots"),
    data=DataSettings(tokenizer="bert-base-uncased", max_length=128, bad_rows="skip"),
    objective=ObjectiveSettings(next_sentence=True),
    train=TrainSettings(
        batch_size=32_768,
        micro_batches=64,
        phases=(
            Phase(steps=7_038, batch_size=65_536),
            Phase(steps=1_563, max_length=512, learning_rate=4e-3, warmup=0.128),
        ),
        eval_every=500,
        checkpoint_every=200,
        log_every=10,
    ),
    optim=OptimSettings(
        optimizer="lamb", learning_rate=6e-3, schedule="linear", warmup=0.2843, weight_decay=0.01, epsilon=1e-6
    ),
)
