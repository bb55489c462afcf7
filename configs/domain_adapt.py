r"""Goes on pre-training a hub model on text of one's own field (Gururangan et al. 2020, "Don't Stop Pretraining").

    python -m jaxlm prepare configs/domain_adapt.py --data.train 'texts/*.jsonl' --output runs/prepared
    python -m jaxlm train configs/domain_adapt.py --data.train runs/prepared --data.dev runs/prepared

Starts from bert-base-uncased, or any model with a masked-LM head: `--model.init DIRECTORY`, to both commands. Stops
when the held-out loss has not gained in three evaluations. Not run to its end yet: no figure is promised.
"""

from jaxlm.config import Config, DataSettings, ModelSettings, ObjectiveSettings, OptimSettings, TrainSettings

config = Config(
    task="masked_lm",
    model=ModelSettings(init="bert-base-uncased"),
    data=DataSettings(max_length=128, bad_rows="skip"),
    objective=ObjectiveSettings(mask_unit="word"),
    train=TrainSettings(steps=12_500, batch_size=256, eval_every=500, patience=3),
    optim=OptimSettings(learning_rate=1e-4, schedule="linear", warmup=0.06, weight_decay=0.01),
)
