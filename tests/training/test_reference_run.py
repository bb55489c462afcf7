"""A whole run is the plain PyTorch loop's of the same recipe, loss for loss: what each part is tested for, together."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from jaxlm.config import Config, DataSettings, MeshSettings, ModelSettings, OptimSettings, TrainSettings
from jaxlm.console import Console
from jaxlm.parallel.mesh import mesh_for
from jaxlm.training import loop
from jaxlm.training.setup import set_up


@pytest.mark.parametrize("mesh", [MeshSettings(devices=1), MeshSettings(devices=8, fsdp=2, tensor=2)])
def test_fine_tuning_has_the_losses_and_the_weights_of_a_loop_in_torch(
    tiny_model: Path, sentences: dict[str, Path], tmp_path: Path, mesh: MeshSettings
) -> None:
    """Three epochs of batches that are not all as large; packed here, padded there; without dropout."""
    config = Config(
        model=ModelSettings(init=str(tiny_model), hidden_dropout=0.0, attention_dropout=0.0),
        data=DataSettings(train=str(sentences["train"]), max_length=32),
        train=TrainSettings(epochs=3, batch_size=20, log_every=1),
        optim=OptimSettings(learning_rate=5e-3, schedule="linear", warmup=0.25, weight_decay=0.1, clip_norm=1.0),
        mesh=mesh,
    )
    setup = set_up(config, mesh_for(mesh))
    setup.task.save(tmp_path / "start", setup.bert_config, setup.initial_state()["params"])
    loop.train(setup, tmp_path / "run", Console(io.StringIO()), "test")
    ours = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]

    rows = [line.split("\t") for line in sentences["train"].read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = BertForSequenceClassification.from_pretrained(tmp_path / "start").train()
    spared = ("bias", "LayerNorm.weight")
    groups = [
        {"params": [p for n, p in model.named_parameters() if n.endswith(spared) == spare], "weight_decay": decay}
        for spare, decay in ((True, 0.0), (False, 0.1))
    ]
    optimizer = torch.optim.AdamW(groups, lr=5e-3)
    # transformers' linear schedule, its warm-up a step ahead: its first step has a rate of 0 and changes nothing.
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: min((done + 1) / 6, (24 - done) / 18))
    for step, line in enumerate(row for row in ours if row["split"] == "train"):
        chosen = setup.batches["train"](step)["slot_examples"]
        texts, labels = zip(*(rows[number] for number in chosen[chosen >= 0]), strict=True)
        assert len(texts) in (18, 19)
        batch = tokenizer(list(texts), padding=True, return_tensors="pt")
        rate = optimizer.param_groups[0]["lr"]
        loss = model(**batch, labels=torch.tensor([model.config.label2id[label] for label in labels])).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        assert line["loss"] == pytest.approx(loss.item(), rel=1e-4), step
        assert line["grad_norm"] == pytest.approx(norm.item(), rel=1e-3), step
        assert line["learning_rate"] == pytest.approx(rate), step
    assert step == 23
    trained = BertForSequenceClassification.from_pretrained(tmp_path / "run" / "model").state_dict()
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(trained[name], value, atol=1e-4, err_msg=name)
