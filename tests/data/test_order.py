import numpy as np
import pytest

from jaxlm.data.order import StratifiedOrder, permute


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000])
def test_a_permutation_reaches_every_place_once(size: int) -> None:
    assert sorted(permute(np.arange(size), size, np.uint64(7))) == list(range(size))


def test_permutations_of_different_keys_are_unlike_and_spread_evenly() -> None:
    first = np.array([permute(np.arange(50), 50, np.uint64(key))[0] for key in range(5000)])
    counts = np.bincount(first, minlength=50)
    assert abs(counts - 100).max() < 5 * np.sqrt(100)  # five standard errors


def test_every_epoch_sees_every_example_once_in_another_order() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 103)
    order = StratifiedOrder(lengths, 10, seed=3)
    epochs = [order.examples(np.arange(epoch * 11, (epoch + 1) * 11)) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch[epoch >= 0]) == list(range(103))
        assert ((epoch >= 0).sum(1) >= 9).all()
    assert (epochs[0] != epochs[1]).mean() > 0.5


def test_batches_depend_on_seed_and_step_alone() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 103)
    order = StratifiedOrder(lengths, 10, seed=3)
    whole = order.examples(np.arange(40))
    np.testing.assert_array_equal(StratifiedOrder(lengths, 10, seed=3).examples(np.array([27]))[0], whole[27])
    assert (StratifiedOrder(lengths, 10, seed=4).examples(np.arange(40)) != whole).mean() > 0.5


def test_all_batches_hold_nearly_the_same_number_of_tokens() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 6400)
    tokens = lengths[StratifiedOrder(lengths, 32, seed=0).examples(np.arange(200))].sum(1)
    assert tokens.std() < 0.02 * tokens.mean()  # free shuffling gives 9 %
