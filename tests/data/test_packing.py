import numpy as np
import pytest

from jaxlm.data.packing import plan


def test_no_two_examples_share_a_place_and_none_leaves_its_row() -> None:
    lengths = np.random.default_rng(0).integers(0, 33, (20, 17))
    layout = plan(lengths, 40)
    for batch in range(20):
        taken = np.zeros((layout.rows, 40), int)
        for example in range(17):
            if lengths[batch, example]:
                start = layout.start[batch, example]
                assert start + lengths[batch, example] <= 40
                taken[layout.row[batch, example], start : start + lengths[batch, example]] += 1
        assert taken.max() == 1
        assert taken.sum() == lengths[batch].sum()


def test_slots_number_the_examples_of_a_row_and_absent_examples_lie_nowhere() -> None:
    layout = plan(np.array([[5, 0, 3, 4, 8]]), 8)
    assert layout.row[0, 1] == layout.start[0, 1] == layout.slot[0, 1] == -1
    for row in range(layout.rows):
        slots = sorted(layout.slot[0][layout.row[0] == row])
        assert slots == list(range(len(slots)))
    assert layout.rows == 3
    assert layout.slots == 2


def test_a_plan_of_many_batches_is_the_plan_of_each() -> None:
    lengths = np.random.default_rng(1).integers(1, 30, (9, 12))
    whole = plan(lengths, 32)
    for batch in range(9):
        alone = plan(lengths[batch : batch + 1], 32)
        for part, single in zip(whole, alone, strict=True):
            np.testing.assert_array_equal(part[batch], single[0])


def test_rows_are_filled_within_first_fit_decreasing_of_the_fewest() -> None:
    lengths = np.random.default_rng(2).integers(3, 60, (50, 64))
    layout = plan(lengths, 128)
    fewest = np.ceil(lengths.sum(1) / 128)
    assert ((layout.row.max(1) + 1) <= np.ceil(fewest * 11 / 9) + 1).all()


def test_an_example_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="9 tokens does not fit into a row of 8"):
        plan(np.array([[9]]), 8)
