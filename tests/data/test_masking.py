import math

import numpy as np
import pytest

from jaxlm.config import ObjectiveSettings
from jaxlm.data.masking import Vocabulary, mask_tokens, most_predictions

Batch = dict[str, np.ndarray]

VOCAB, FIRST_CONTINUING = 1000, 700
SPECIAL = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}
ORDINARY = np.setdiff1d(np.arange(VOCAB), list(SPECIAL.values()))
STARTING, CONTINUING = ORDINARY[ORDINARY < FIRST_CONTINUING], ORDINARY[ORDINARY >= FIRST_CONTINUING]
VOCABULARY = Vocabulary(VOCAB, SPECIAL, np.arange(VOCAB) >= FIRST_CONTINUING)

units = pytest.mark.parametrize("unit", ["token", "word", "span"])
units_of_words = pytest.mark.parametrize("unit", ["word", "span"])


def write(lengths: np.ndarray, *, continuing: float = 0.3, special: bool = True, seed: int = 0) -> list[np.ndarray]:
    """Examples of random tokens, `continuing` of which continue a word; with or without special ones among them."""
    draw = np.random.default_rng(seed)
    count = int(lengths.sum())
    ids = np.where(draw.random(count) < continuing, draw.choice(CONTINUING, count), draw.choice(STARTING, count))
    ends = np.cumsum(lengths)
    if special:
        ids[draw.random(count) < 0.02] = SPECIAL["unk"]
        ids[ends - lengths], ids[ends - 1] = SPECIAL["cls"], SPECIAL["sep"]
    return np.split(ids.astype(np.int32), ends[:-1])


def pack(examples: dict[int, np.ndarray], row_length: int) -> Batch:
    """Rows of as many examples (by number) as fit, in the order given."""
    places, row, start, slot = [], 0, 0, 0
    for ids in examples.values():
        if start + len(ids) > row_length:
            row, start, slot = row + 1, 0, 0
        places.append((row, start, slot))
        start, slot = start + len(ids), slot + 1
    names = ("input_ids", "segment_ids", "positions", "example_ids", "token_type_ids")
    batch = {name: np.zeros((row + 1, row_length), np.int32) for name in names}
    for (number, ids), (row, start, slot) in zip(examples.items(), places, strict=True):
        here = row, slice(start, start + len(ids))
        batch["input_ids"][here] = ids
        batch["segment_ids"][here] = slot + 1
        batch["positions"][here] = np.arange(len(ids))
        batch["example_ids"][here] = number * 2654435761 % 2**31  # large, and in no order
    return batch


def lengths(count: int, shortest: int, longest: int) -> np.ndarray:
    return np.random.default_rng(count).integers(shortest, longest + 1, count)


def packed(examples: list[np.ndarray], row_length: int) -> Batch:
    return pack(dict(enumerate(examples)), row_length)


def mask(
    batch: Batch, unit: str, rate: float = 0.15, predictions: int | None = None, seed: int = 0, step: int = 0, **more
) -> Batch:
    settings = ObjectiveSettings(mask_rate=rate, mask_unit=unit, **more)  # type: ignore[arg-type]
    predictions = batch["input_ids"].shape[1] if predictions is None else predictions
    return mask_tokens(batch, seed=seed, step=step, settings=settings, predictions=predictions, vocabulary=VOCABULARY)


def eligible(batch: Batch) -> np.ndarray:
    """`[rows, length]` bool."""
    return (batch["segment_ids"] > 0) & np.isin(batch["input_ids"], ORDINARY)


def chosen(out: Batch) -> np.ndarray:
    """`[rows, length]` bool."""
    row, rank = np.nonzero(out["predict_weights"])
    where = np.zeros(out["input_ids"].shape, bool)
    where[row, out["predict_positions"][row, rank]] = True
    assert where.sum() == len(row)
    return where


def by_example(batch: Batch, values: np.ndarray, reduce: np.ufunc = np.add) -> np.ndarray:
    """The sum of `values [rows, length]` over each example, and over each stretch of padding."""
    starts = np.flatnonzero(np.diff(batch["example_ids"].ravel(), prepend=-1))
    return reduce.reduceat(values.ravel().astype(float), starts)


def assert_zero_on_average(excess: np.ndarray) -> None:
    """Within three standard errors; the values are independent, and each is 0 in expectation."""
    assert abs(excess.sum()) < 3 * np.sqrt((excess**2).sum())


def words(batch: Batch) -> list[tuple[int, list[int]]]:
    """(row, columns) of each word."""
    found: list[tuple[int, list[int]]] = []
    free = eligible(batch)
    for row, column in zip(*np.nonzero(free), strict=True):
        follows = batch["positions"][row, column] > 0 and free[row, column - 1]
        if follows and batch["input_ids"][row, column] >= FIRST_CONTINUING:
            found[-1][1].append(column)
        else:
            found.append((row, [column]))
    return found


@pytest.fixture(scope="module")
def million() -> Batch:
    batch = packed(write(lengths(34_000, 10, 60)), 128)
    assert eligible(batch).sum() > 1_000_000
    return batch


@units
@pytest.mark.parametrize(("rate", "mask_share", "random_share"), [(0.05, 0.8, 0.1), (0.15, 0.8, 0.1), (0.5, 0.6, 0.3)])
def test_rates_are_the_stated_ones(
    million: Batch, unit: str, rate: float, mask_share: float, random_share: float
) -> None:
    out = mask(million, unit, rate, mask_share=mask_share, random_share=random_share)
    targets, shown = chosen(out), out["input_ids"]
    hidden, kept = targets & (shown == SPECIAL["mask"]), targets & (shown == million["input_ids"])
    unlucky = random_share / len(ORDINARY)
    assert_zero_on_average(by_example(million, targets - rate * eligible(million)))
    assert_zero_on_average(by_example(million, hidden - mask_share * targets))
    assert_zero_on_average(by_example(million, kept - (1 - mask_share - random_share + unlucky) * targets))
    assert_zero_on_average(by_example(million, (targets & ~hidden & ~kept) - (random_share - unlucky) * targets))


def test_random_tokens_are_all_ordinary_ones_equally_often(million: Batch) -> None:
    out = mask(million, "token", 0.5, mask_share=0.0, random_share=1.0)
    counts = np.bincount(out["input_ids"][chosen(out)], minlength=VOCAB)[ORDINARY]
    assert counts.sum() == chosen(out).sum()
    freedom = len(ORDINARY) - 1
    chi_squared = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert abs(chi_squared - freedom) < 3 * np.sqrt(2 * freedom)


@units
def test_short_examples_of_long_words_are_masked_at_the_stated_rate(unit: str) -> None:
    batch = packed(write(lengths(60_000, 1, 5), continuing=0.7, special=False), 16)
    tokens = by_example(batch, eligible(batch))
    excess = by_example(batch, chosen(mask(batch, unit)) - 0.15 * eligible(batch))
    for length in range(1, 6):
        assert (tokens == length).sum() > 10_000
        assert_zero_on_average(excess[tokens == length])


@pytest.mark.parametrize("length", [5, 20])
def test_tokens_are_chosen_equally_often_wherever_they_are(length: int) -> None:
    targets = chosen(mask(packed(write(np.full(20_000, length), special=False), length), "token"))
    for column in targets.T:
        assert_zero_on_average(column - 0.15)


@units_of_words
@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_words_are_masked_whole_and_one_at_most_exceeds_the_quota(unit: str, rate: float) -> None:
    examples = [
        *write(lengths(1000, 1, 5), continuing=0.7, special=False),
        *write(lengths(300, 10, 60), continuing=0.4),
        *write(lengths(100, 20, 64), continuing=0.95),
    ]
    batch = packed(examples, 64)
    targets = chosen(mask(batch, unit, rate))
    longest = np.zeros(targets.shape)
    for row, columns in words(batch):
        assert targets[row, columns].all() or not targets[row, columns].any()
        longest[row, columns] = len(columns)
    over = by_example(batch, targets - rate * eligible(batch))
    longest_chosen = by_example(batch, longest * targets, np.maximum)
    longest = by_example(batch, longest, np.maximum)
    assert (over > -longest)[longest > 0].all()
    assert (over < np.maximum(longest_chosen, 1e-9)).all()


@units_of_words
def test_neither_words_nor_spans_reach_over_a_special_token(unit: str) -> None:
    examples = [np.array([STARTING[0], SPECIAL["unk"], CONTINUING[0]], np.int32)] * 4000
    batch = packed(examples, 3)
    targets = chosen(mask(batch, unit, 0.5))
    np.testing.assert_array_equal(targets.sum(1), 1)
    assert_zero_on_average(targets[:, 0] - 0.5)


@pytest.mark.parametrize("longest", [3, 10])
def test_spans_have_geometric_lengths_and_one_fate(longest: int) -> None:
    rate = 0.02
    text = packed([ids[1:-1] for ids in write(np.full(12, 100_002), special=False)], 100_000)
    out = mask(text, "span", rate, longest_span=longest)
    targets = chosen(out)
    run = np.cumsum(targets & ~np.pad(targets, ((0, 0), (1, 0)))[:, :-1]) - 1  # neighbouring spans look like one
    run = run[targets.ravel()]
    starts = text["input_ids"][targets] < FIRST_CONTINUING
    in_words = np.bincount(run, starts)
    mean = (1 - 0.8**longest) / 0.2 / (1 - rate)
    assert_zero_on_average(in_words - mean)
    shown, label = out["input_ids"][targets], text["input_ids"][targets]
    fate = np.where(shown == SPECIAL["mask"], 0, np.where(shown == label, 1, 2))
    within = run[1:] == run[:-1]
    assert (fate[1:] != fate[:-1])[within].mean() < 0.01  # from one span to the next
    both_random = within & (fate[1:] == 2) & (fate[:-1] == 2)
    assert (shown[1:] == shown[:-1])[both_random].mean() < 0.01


@pytest.mark.parametrize("unit", ["token", "word"])
def test_the_fate_of_neighbours_is_drawn_for_each(million: Batch, unit: str) -> None:
    out = mask(million, unit, 0.5)
    targets, hidden = chosen(out), out["input_ids"] == SPECIAL["mask"]
    pairs = targets[:, 1:] & targets[:, :-1] & (million["input_ids"][:, 1:] >= FIRST_CONTINUING)
    differ = (hidden[:, 1:] != hidden[:, :-1])[pairs]
    assert abs(differ.mean() - 2 * 0.8 * 0.2) < 0.01


@units
def test_special_tokens_and_padding_are_never_chosen_and_nothing_else_changes(unit: str) -> None:
    batch = packed(write(lengths(400, 5, 60)), 128)
    batch["input_ids"][batch["segment_ids"] == 0] = STARTING[0]
    before = {name: values.copy() for name, values in batch.items()}
    out = mask(batch, unit, 0.5, predictions=70)
    for name, values in before.items():
        np.testing.assert_array_equal(batch[name], values)
        if name != "input_ids":
            np.testing.assert_array_equal(out[name], values)
    targets = chosen(out)
    assert targets.any()
    assert not (targets & ~eligible(batch)).any()
    np.testing.assert_array_equal(out["input_ids"][~targets], before["input_ids"][~targets])
    assert {name: (values.dtype, values.shape) for name, values in out.items() if name not in before} == {
        "predict_positions": (np.int32, (len(targets), 70)),
        "predict_labels": (np.int32, (len(targets), 70)),
        "predict_weights": (np.float32, (len(targets), 70)),
    }
    for row, real in enumerate(out["predict_weights"] == 1):
        np.testing.assert_array_equal(real, np.arange(70) < targets[row].sum())
        np.testing.assert_array_equal(out["predict_positions"][row, real], np.flatnonzero(targets[row]))
        np.testing.assert_array_equal(out["predict_labels"][row, real], before["input_ids"][row, targets[row]])


def tokens_shown(out: Batch) -> dict[int, list[tuple[int, bool]]]:
    """Each example's tokens: what is shown, and whether it is to be predicted."""
    real, found = out["segment_ids"] > 0, {}
    for example in np.unique(out["example_ids"][real]):
        here = real & (out["example_ids"] == example)
        found[int(example)] = list(zip(out["input_ids"][here].tolist(), chosen(out)[here].tolist(), strict=True))
    return found


@units
def test_an_example_is_masked_alike_packed_and_alone(unit: str) -> None:
    examples = write(lengths(60, 10, 60)) + write(lengths(40, 1, 30), special=False)
    together = pack(dict(enumerate(examples)), 128)
    apart = pack(dict(reversed(list(enumerate(examples)))), 60)
    assert len(apart["input_ids"]) > 1.5 * len(together["input_ids"])
    assert tokens_shown(mask(together, unit)) == tokens_shown(mask(apart, unit))


@units
def test_masks_are_new_with_each_step_and_seed_and_the_same_for_the_same(unit: str) -> None:
    batch = packed(write(np.full(100, 500)), 512)
    first = mask(batch, unit)
    np.testing.assert_array_equal(mask(batch, unit)["input_ids"], first["input_ids"])
    for other in (mask(batch, unit, step=1), mask(batch, unit, seed=1), mask(batch, unit, seed=2**32 - 1)):
        assert 0.1 < chosen(first)[chosen(other)].mean() < 0.2


@units
def test_what_has_no_place_is_left_out_by_whole_words_from_the_end(unit: str) -> None:
    batch = packed(write(lengths(300, 5, 40), continuing=0.5), 64)
    everything, targets = chosen(mask(batch, unit)), chosen(mask(batch, unit, predictions=7))
    lost = everything & ~targets
    assert not (targets & ~everything).any()
    assert targets.sum(1).max() == 7
    full = everything.sum(1) > 7
    assert 0.2 < full.mean() < 0.8
    np.testing.assert_array_equal(lost.any(1), full)
    first_lost = np.where(lost, batch["segment_ids"], 99).min(1)
    assert (np.where(targets, batch["segment_ids"], 0).max(1) <= first_lost).all()
    longest = np.zeros(len(full))
    for row, columns in words(batch) if unit != "token" else [(row, [0]) for row in range(len(full))]:
        assert targets[row, columns].all() or not targets[row, columns].any()
        longest[row] = max(longest[row], len(columns))
    assert (7 - targets.sum(1) < longest)[full].all()


def test_what_has_no_place_was_chosen_last() -> None:
    batch = packed(write(np.full(50, 40), special=False), 40)
    few = mask(batch, "token", 0.25)
    np.testing.assert_array_equal(mask(batch, "token", 0.5, predictions=10)["predict_positions"],
                                  few["predict_positions"][:, :10])  # fmt: skip


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.5])
@pytest.mark.parametrize("row_length", [7, 37, 128])
def test_a_row_of_one_example_has_just_enough_places_for_tokens(rate: float, row_length: int) -> None:
    predictions = most_predictions(row_length, 1, ObjectiveSettings(mask_rate=rate))
    batch = packed(write(np.full(200, row_length), special=False), row_length)
    assert chosen(mask(batch, "token", rate)).sum(1).max() == predictions == math.ceil(rate * row_length)


@units
def test_packed_rows_have_places_enough_and_few_too_many(unit: str) -> None:
    rows, row_length, slots = 2000, 512, 16
    draw = np.random.default_rng(0)
    ends = np.sort(draw.random((rows, row_length - 1)).argsort(1)[:, : slots - 1] + 1, axis=1)
    batch = packed(write(np.diff(ends, axis=1, prepend=0, append=row_length).ravel(), special=False), row_length)
    assert batch["segment_ids"].max() == slots
    assert eligible(batch).all()
    settings = ObjectiveSettings(mask_unit=unit)  # type: ignore[arg-type]
    predictions = most_predictions(row_length, slots, settings)
    needed = chosen(mask(batch, unit)).sum(1)
    typical = 1 if unit == "token" else 2
    assert needed.max() <= predictions <= math.ceil(0.15 * row_length + 4 * math.sqrt(slots) * typical / 2)


def test_there_are_never_more_places_than_can_be_needed() -> None:
    assert most_predictions(4, 1, ObjectiveSettings(mask_unit="word")) == 4
    assert most_predictions(100, 2, ObjectiveSettings(mask_rate=0.15)) == 16
    assert most_predictions(10, 9, ObjectiveSettings(mask_rate=0.5)) == 10
    # Special tokens are never chosen: with two an example, many examples a row leave fewer tokens, not more places.
    places = [most_predictions(128, slots, ObjectiveSettings(mask_rate=0.15), 2) for slots in (1, 11, 40)]
    assert places == [19, 23, 23]
    assert most_predictions(128, 40, ObjectiveSettings(mask_rate=0.15)) > 30


@units
def test_a_batch_with_nothing_to_choose_stays_as_it_is(unit: str) -> None:
    batch = packed([np.array([SPECIAL["cls"], SPECIAL["sep"]], np.int32)], 4)
    out = mask(batch, unit)
    np.testing.assert_array_equal(out["input_ids"], batch["input_ids"])
    assert not out["predict_weights"].any()


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_copies_of_an_example_are_masked_as_it_alone(unit: str) -> None:
    """A batch that is larger than its corpus holds the same example in rows that follow each other."""
    (example,) = write(np.array([40]))
    one, four = pack({3: example}, 40), pack({3: example}, 40)
    four = {name: np.concatenate([value] * 4) for name, value in four.items()}
    for step in range(5):
        alone, copies = mask(one, unit, predictions=12, step=step), mask(four, unit, predictions=12, step=step)
        for name, value in alone.items():
            np.testing.assert_array_equal(copies[name], np.concatenate([value] * 4))
