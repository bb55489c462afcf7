import dataclasses

import numpy as np

from jaxlm.data.loader import Batches, Examples, make_batches


def make_examples(count: int = 50, seed: int = 0) -> Examples:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, 30, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = draw.integers(5, 1000, offsets[-1]).astype(np.int32)
    types = draw.integers(0, 2, offsets[-1]).astype(np.int8)
    labels = np.arange(count, dtype=np.int32) * 10
    return Examples(ids, types, offsets, {"labels": labels}, [f"line {i}" for i in range(count)], "file")


def batches_of(examples: Examples, multiple: int = 1, process: int = 0, processes: int = 1, seed: int = 1) -> Batches:
    return make_batches(
        examples, batch_size=8, steps=20, seed=seed, row_length=None, hidden_size=64, row_multiple=multiple,
        finish=lambda batch, step: batch, process=process, processes=processes,
    )  # fmt: skip


def test_each_example_lies_whole_in_its_segment_with_its_target() -> None:
    examples = make_examples()
    batches = batches_of(examples)
    for step in range(20):
        batch = batches(step)
        found = []
        for row, slot in zip(*np.nonzero(batch["slot_examples"] >= 0), strict=True):
            example = batch["slot_examples"][row, slot]
            own = slice(examples.offsets[example], examples.offsets[example + 1])
            here = batch["segment_ids"][row] == slot + 1
            np.testing.assert_array_equal(batch["input_ids"][row][here], examples.input_ids[own])
            np.testing.assert_array_equal(batch["token_type_ids"][row][here], examples.token_type_ids[own])
            np.testing.assert_array_equal(batch["positions"][row][here], np.arange(here.sum()))
            assert (batch["example_ids"][row][here] == example).all()
            assert np.flatnonzero(here)[0] == batch["pool_positions"][row, slot]
            assert batch["labels"][row, slot] == example * 10
            found.append(example)
        assert sorted(found) == sorted(batches.indices(step))
        assert batch["example_weights"].sum() == len(found)
        assert (batch["segment_ids"] > 0).sum() == batches.tokens(step)


def test_a_batch_is_the_same_whenever_it_is_asked_for_and_on_any_mesh() -> None:
    examples = make_examples()
    alone, mesh = batches_of(examples), batches_of(examples, multiple=8)
    for step in (13, 2, 13):
        one, eight = alone(step), mesh(step)
        assert len(eight["input_ids"]) % 8 == 0
        for name, value in one.items():
            np.testing.assert_array_equal(value, eight[name][: len(value)])
            assert not eight["example_weights"][len(value) :].any()


def test_the_slices_of_processes_make_the_whole_batch() -> None:
    examples = make_examples()
    whole = batches_of(examples, multiple=4)(5)
    parts = [batches_of(examples, multiple=4, process=process, processes=2)(5) for process in range(2)]
    for name, value in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value)


def test_one_shape_serves_every_step_and_wastes_little() -> None:
    draw = np.random.default_rng(4)
    lengths = draw.integers(5, 60, 2000)
    examples = Examples(
        np.ones(lengths.sum(), np.int32), np.zeros(lengths.sum(), np.int8), np.concatenate([[0], np.cumsum(lengths)]),
        {}, [""] * 2000, "file",
    )  # fmt: skip
    batches = make_batches(
        examples, batch_size=32, steps=None, seed=0, row_length=None, hidden_size=768, row_multiple=1,
        finish=lambda batch, step: batch,
    )  # fmt: skip
    shapes = {batches(step)["input_ids"].shape for step in range(batches.steps)}
    assert shapes == {(batches.rows, batches.row_length)}
    assert lengths.sum() / (batches.steps * batches.rows * batches.row_length) > 0.92


def test_a_message_can_say_where_a_steps_examples_came_from() -> None:
    batches = batches_of(make_examples())
    first, second, *others = batches.indices(3)
    assert batches.describe_examples(3, most=2) == f"file: line {first}, line {second} and {len(others)} more"


def test_the_digest_is_the_same_for_all_slices_and_another_for_other_content() -> None:
    examples = make_examples()
    whole = batches_of(examples, multiple=4).digest()
    assert {batches_of(examples, multiple=4, process=process, processes=2).digest() for process in range(2)} == {whole}
    assert batches_of(make_examples(seed=1), multiple=4).digest() != whole
    for name, place in (("input_ids", 7), ("token_type_ids", 7), ("offsets", 3)):
        changed = getattr(examples, name).copy()
        changed[place] += 1
        assert dataclasses.replace(examples, **{name: changed}).digest() != examples.digest()
    labels = examples.targets["labels"] + 1
    assert dataclasses.replace(examples, targets={"labels": labels}).digest() != examples.digest()
    assert dataclasses.replace(examples, token_targets={"tags": examples.input_ids}).digest() != examples.digest()
