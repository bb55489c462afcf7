import numpy as np

from jaxlm.data.loader import Batch, Examples, make_batches
from jaxlm.data.masking import mask_tokens, most_predictions

SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
VOCAB = 1000


def packed(count: int, row_length: int | None, batch_size: int, seed: int = 0) -> list[Batch]:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(10, 60, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = draw.integers(5, VOCAB, offsets[-1]).astype(np.int32)
    ids[offsets[:-1]], ids[offsets[1:] - 1] = 2, 3
    examples = Examples(ids, np.zeros(len(ids), np.int8), offsets, {}, [""] * count, "file")
    batches = make_batches(examples, batch_size=batch_size, steps=None, seed=0, row_length=row_length, hidden_size=64,
                           row_multiple=1, finish=lambda batch, step: batch)  # fmt: skip
    return [batches(step) for step in range(batches.steps)]


def mask(batch: Batch, rate: float = 0.15, seed: int = 0, step: int = 0) -> Batch:
    predictions = most_predictions(batch["input_ids"].shape[1], batch["slot_examples"].shape[1], rate)
    return mask_tokens(
        batch, seed=seed, step=step, rate=rate, predictions=predictions, vocab_size=VOCAB, special_ids=SPECIAL
    )


def test_rates_are_the_stated_ones_within_three_standard_errors() -> None:
    eligible = chosen = masked = kept = 0
    for step, batch in enumerate(packed(8000, 128, 256)):
        out = mask(batch, step=step)
        eligible += int((batch["input_ids"] > 4).sum())
        labels = out["predict_labels"][out["predict_weights"] > 0]
        shown = np.take_along_axis(out["input_ids"], out["predict_positions"], 1)[out["predict_weights"] > 0]
        chosen += len(labels)
        masked += int((shown == 4).sum())
        kept += int((shown == labels).sum())
    assert eligible > 250_000
    assert abs(chosen - 0.15 * eligible) < 3 * np.sqrt(eligible * 0.15 * 0.85)
    for count, rate in ((masked, 0.8), (kept, 0.1 + 0.1 / (VOCAB - 5))):
        assert abs(count - rate * chosen) < 3 * np.sqrt(chosen * rate * (1 - rate))


def test_special_tokens_and_padding_are_never_chosen_and_nothing_else_changes() -> None:
    for batch in packed(200, 128, 32):
        before = batch["input_ids"].copy()
        out = mask(batch, rate=0.5)
        np.testing.assert_array_equal(batch["input_ids"], before)
        targets = np.zeros(before.shape, bool)
        rows = np.broadcast_to(np.arange(len(before))[:, None], out["predict_positions"].shape)
        real = out["predict_weights"] > 0
        targets[rows[real], out["predict_positions"][real]] = True
        assert (before[targets] > 4).all()
        np.testing.assert_array_equal(out["input_ids"][~targets], before[~targets])
        np.testing.assert_array_equal(out["predict_labels"][real], before[rows[real], out["predict_positions"][real]])


def by_example(batch: Batch) -> dict[int, list[int]]:
    """Each example's shown tokens."""
    shown = {}
    for row, slot in zip(*np.nonzero(batch["slot_examples"] >= 0), strict=True):
        here = batch["segment_ids"][row] == slot + 1
        shown[int(batch["slot_examples"][row, slot])] = batch["input_ids"][row][here].tolist()
    return shown


def test_an_example_is_masked_alike_packed_and_alone() -> None:
    together, apart = packed(40, 128, 40)[0], packed(40, 59, 40)[0]
    assert len(apart["input_ids"]) > len(together["input_ids"])
    assert by_example(mask(together)) == by_example(mask(apart))


def test_masks_are_new_with_each_step_and_seed_and_the_same_for_the_same() -> None:
    batch = packed(40, 128, 40)[0]
    first = mask(batch)["input_ids"]
    np.testing.assert_array_equal(mask(batch)["input_ids"], first)
    assert (mask(batch, step=1)["input_ids"] != first).any()
    assert (mask(batch, seed=1)["input_ids"] != first).any()
