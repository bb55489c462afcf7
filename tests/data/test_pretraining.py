import collections
import dataclasses
import json
import os
import random
import resource
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxlm.config import Config, ModelSettings, Phase
from jaxlm.data import prepare as prepare_module
from jaxlm.data import prepared as prepared_module
from jaxlm.data import pretraining
from jaxlm.data.next_sentence import Pair, pair
from jaxlm.data.order import MixedOrder
from jaxlm.data.prepared import PreparedData
from jaxlm.data.pretraining import PhasedBatches
from jaxlm.errors import UserError
from jaxlm.parallel.mesh import make_mesh
from jaxlm.tasks import TASKS
from jaxlm.training.corpora import open_corpora, row_batches
from jaxlm.training.setup import set_up

from .corpora import config, corpus, document, prepared, tokenizer


def batches(settings: Config, devices: int = 1, split: str = "train") -> Any:
    task = TASKS["masked_lm"](settings, tokenizer())
    return row_batches(settings, open_corpora(settings), task, tokenizer(), make_mesh(devices))[0][split]


def test_each_epoch_sees_every_row_once_in_an_order_of_its_own() -> None:
    order = MixedOrder([1000], [1.0], seed=3)
    epochs = [order.rows(np.arange(start, start + 1000))[1].tolist() for start in (0, 1000, 2000)]
    assert all(sorted(epoch) == list(range(1000)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert MixedOrder([1000], [1.0], seed=4).rows(np.arange(1000))[1].tolist() != epochs[0]


def test_a_mixture_has_its_proportions_at_any_place_and_wastes_no_row() -> None:
    order = MixedOrder([50, 10_000, 700], [1, 6, 3], seed=0)
    corpus_of, row, epoch = order.rows(np.arange(20 * 1024))
    for start in range(0, len(row), 1024):
        counts = np.bincount(corpus_of[start : start + 1024], minlength=3)
        np.testing.assert_allclose(counts / 1024, [0.1, 0.6, 0.3], atol=1 / 1024)
    for number, size in enumerate((50, 10_000, 700)):
        seen = np.bincount(row[corpus_of == number], minlength=size)
        assert seen.max() - seen.min() <= 1
        assert len(set(zip(row[corpus_of == number], epoch[corpus_of == number], strict=True))) == seen.sum()
    corpus_again, row_again, _ = order.rows(np.arange(9000, 9100))
    np.testing.assert_array_equal(corpus_again, corpus_of[9000:9100])
    np.testing.assert_array_equal(row_again, row[9000:9100])
    assert len(np.flatnonzero(np.diff(corpus_of))) > 5000  # mixed finely, not in runs
    assert (corpus_of[:1024] != corpus_of[1024:2048]).any()  # and anew in each block


def test_a_small_share_of_a_mixture_is_not_rounded_away() -> None:
    weights = np.array([1, 5000, 20])
    order = MixedOrder([1000, 1000, 1000], weights, seed=0)
    counts = np.bincount(order.rows(np.arange(1 << 18))[0], minlength=3)
    np.testing.assert_allclose(counts / counts.sum(), weights / weights.sum(), rtol=0.05)
    with pytest.raises(ValueError, match="a share of 1e-07 is too small"):
        MixedOrder([10, 10], [1, 1e7], seed=0)


def test_a_batch_holds_its_rows_windows_with_their_special_tokens(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    settings = config(data.directory, objective={"mask_rate": 1e-9})
    made, rows = batches(settings), data.rows("train", 32)
    batch = made(5)
    for index, number in enumerate(made.numbers(5)[1]):
        windows = rows.read([int(number)])[0]
        expected, segments, positions = [], [], []
        for slot, ids in enumerate(np.split(windows.tokens, np.cumsum(windows.about["length"])[:-1])):
            expected += [2, *ids.tolist(), 3]
            segments += [slot + 1] * (len(ids) + 2)
            positions += range(len(ids) + 2)
        fill = [0] * (32 - len(expected))
        assert batch["input_ids"][index].tolist() == expected + fill
        assert batch["segment_ids"][index].tolist() == segments + fill
        assert batch["positions"][index].tolist() == positions + fill
    assert not batch["token_type_ids"].any()


def test_rows_and_masks_are_the_same_on_any_mesh_and_from_any_step(tmp_path: Path) -> None:
    data = prepared(tmp_path, objective={"next_sentence": True})
    settings = config(data.directory, objective={"next_sentence": True, "mask_unit": "word"}, train={"steps": 40})
    one, eight = batches(settings), batches(dataclasses.replace(settings), devices=8)
    halves = [dataclasses.replace(one, first_row=first, last_row=first + 4) for first in (0, 4)]
    for step in (0, 17, 39, 3):
        batch = one(step)
        parts = [half(step) for half in halves]
        for name, value in batch.items():
            np.testing.assert_array_equal(eight(step)[name][:8], value)
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value)
    assert (one(3)["input_ids"] != one(4)["input_ids"]).any()


@pytest.mark.parametrize("next_sentence", [False, True])
def test_a_process_without_a_row_of_the_last_batch_has_its_share_of_empty_ones(
    tmp_path: Path, next_sentence: bool
) -> None:
    data = prepared(tmp_path, objective={"next_sentence": next_sentence})
    objective = {"next_sentence": next_sentence}
    settings = config(data.directory, objective=objective, train={"eval_batch_size": 10_000})
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, dev=str(data.directory)))
    one = batches(settings, split="dev")
    one = dataclasses.replace(one, rows=2 * one.rows, last_row=None)  # as many again, all empty
    halves = [dataclasses.replace(one, first_row=first, last_row=first + one.rows // 2) for first in (0, one.rows // 2)]
    whole, (full, empty) = one(0), (half(0) for half in halves)
    assert not empty["segment_ids"].any()
    assert empty.keys() == full.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(np.concatenate([full[name], empty[name]]), value)
    assert {half.digest() for half in halves} == {one.digest()} != {dataclasses.replace(one, seed=1).digest()}


def test_masks_and_pairs_are_drawn_afresh_in_each_epoch(tmp_path: Path) -> None:
    data = prepared(tmp_path, objective={"next_sentence": True})
    settings = config(data.directory, objective={"next_sentence": True}, train={"batch_size": 1, "steps": 3000})
    made = batches(settings)
    first = int(made.numbers(0)[1][0])
    again = next(step for step in range(made.steps_per_epoch, 3000) if int(made.numbers(step)[1][0]) == first)
    before, after = made(0), made(again)
    assert (before["input_ids"] != after["input_ids"]).any()
    assert (before["predict_positions"] != after["predict_positions"]).any()


def test_phases_change_length_and_size_and_go_on_where_the_last_of_that_length_stopped(tmp_path: Path) -> None:
    phases = (Phase(3, batch_size=2), Phase(2), Phase(2, max_length=64, batch_size=4), Phase(1))
    data = prepared(tmp_path, phases=phases)
    made = batches(config(data.directory, phases=phases))
    assert isinstance(made, PhasedBatches)
    assert (made.steps, made.starts) == (8, [0, 3, 5, 7])
    rows = {length: len(data.rows("train", length)) for length in (32, 64)}
    per_epoch = [-(-rows[length] // size) for length, size in ((32, 2), (32, 8), (64, 4), (32, 8))]
    seen = [sum(steps / n for steps, n in zip(done, per_epoch, strict=True)) for done in ((2, 0, 0, 0), (3, 2, 2, 1))]
    assert [made.epoch(2), made.epoch(8)] == pytest.approx(seen)
    assert made.steps_per_epoch == round(8 / seen[1])
    shapes = [made(step)["input_ids"].shape for step in range(8)]
    assert shapes == [(2, 32)] * 3 + [(8, 32)] * 2 + [(4, 64)] * 2 + [(8, 32)]
    places = [int(n) for step in (0, 1, 2, 3, 4, 7) for n in made.phase(step).numbers(step)[1]]
    order = MixedOrder([len(data.rows("train", 32))], [1.0], 0)
    assert places == order.rows(np.arange(len(places)))[1].tolist()
    assert (
        batches(config(data.directory, phases=phases, data={"dev": str(data.directory)}), split="dev").row_length == 32
    )


def test_a_mixture_is_read_from_all_its_directories(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "text").mkdir()
    corpus(tmp_path / "b" / "text", seed=9)
    one, other = prepared(tmp_path), prepared(tmp_path / "b")
    mixture = (f"{one.directory}=3", f"{other.directory}=1")
    settings = config(one.directory, data={"train": None, "mixture": mixture}, train={"batch_size": 64, "steps": 32})
    made = batches(settings)
    share = np.concatenate([made.numbers(step)[0] for step in range(16)]).mean()
    assert share == pytest.approx(0.25, abs=0.002)
    assert made(0)["input_ids"].shape == (64, 32)
    # A row of one directory is another example than that of the same number in another.
    twice = dataclasses.replace(made, corpora=[made.corpora[0]] * 2, order=None, first_place=0)
    first, second = twice(0), dataclasses.replace(twice, first_place=len(made.corpora[0]))(0)
    np.testing.assert_array_equal(first["segment_ids"], second["segment_ids"])
    ids = [set(batch["example_ids"][batch["segment_ids"] > 0].tolist()) for batch in (first, second)]
    assert not ids[0] & ids[1]
    for wrong in (("x",), (f"{one.directory}=0",), (f"{one.directory}=a",), (f"{tmp_path}=1",)):
        with pytest.raises(UserError):
            open_corpora(dataclasses.replace(settings, data=dataclasses.replace(settings.data, mixture=wrong)))


def test_half_of_the_second_sentences_come_from_other_documents(tmp_path: Path) -> None:
    data = prepared(tmp_path, objective={"next_sentence": True})
    objective = {"next_sentence": True, "mask_rate": 1e-9}
    made = batches(config(data.directory, objective=objective, train={"batch_size": 16, "steps": 60}))
    rows = data.rows("train", 32)
    random = pairs = 0
    for step in range(60):
        batch = made(step)
        for index, number in enumerate(made.numbers(step)[1]):
            windows = rows.read([int(number)])[0]
            texts = np.split(windows.tokens, np.cumsum(windows.about["length"])[:-1])
            for slot, text in enumerate(texts):
                here = batch["segment_ids"][index] == slot + 1
                ids, types = batch["input_ids"][index][here], batch["token_type_ids"][index][here]
                first, second = ids[types == 0], ids[types == 1]
                assert (first[0], first[-1], second[-1]) == (2, 3, 3)
                assert batch["pool_positions"][index, slot] == np.flatnonzero(here)[0]
                goes_on = [*first[1:-1], *second[:-1]] == text.tolist()
                if not batch["follows"][index, slot]:
                    assert goes_on
                pairs += 1
                random += int(batch["follows"][index, slot])
    assert pairs > 1000
    assert abs(random - pairs / 2) < 4 * np.sqrt(pairs / 4)
    real = np.mean([(made(step)["segment_ids"] > 0).sum() for step in range(60)])
    assert made.tokens(0) == pytest.approx(real, rel=0.1)  # the mean, of windows as long as they are without pairs
    assert made.tokens(0) == pytest.approx(16 * rows.tokens / len(rows))


def test_masks_do_not_tell_what_follows(tmp_path: Path) -> None:
    """Of the chosen first tokens as many are hidden in pairs that follow as in those that do not."""
    data = prepared(tmp_path, objective={"next_sentence": True})
    made = batches(config(data.directory, objective={"next_sentence": True}, train={"batch_size": 16, "steps": 200}))
    mask = tokenizer().special_ids["mask"]
    hidden: dict[int, list[bool]] = {0: [], 1: []}
    for step in range(200):
        batch = made(step)
        for row, positions in enumerate(batch["predict_positions"]):
            chosen = positions[batch["predict_weights"][row] > 0]
            for place in chosen[batch["positions"][row, chosen] == 1]:
                follows = batch["follows"][row, batch["segment_ids"][row, place] - 1]
                hidden[int(follows)].append(batch["input_ids"][row, place] == mask)
    for told in hidden.values():
        assert len(told) > 200
        assert abs(np.mean(told) - 0.8) < 4 * np.sqrt(0.8 * 0.2 / len(told))


def test_copies_of_a_row_in_a_batch_have_masks_of_their_own(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    rows = len(data.rows("train", 32))
    made = batches(config(data.directory, train={"batch_size": 3 * rows, "steps": 1}))
    numbers, batch = made.numbers(0)[1], made(0)
    for number in range(rows):
        copies = batch["input_ids"][numbers == number]
        assert len(copies) == 3
        assert len(np.unique(copies, axis=0)) == 3


def test_second_sentences_come_from_other_documents_also_where_most_rows_are_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").mkdir()
    draw = random.Random(0)
    (tmp_path / "text" / "0.txt").write_text(document(draw, 400))
    (tmp_path / "text" / "1.txt").write_text("\n\n".join(document(draw, 30) for _ in range(5)))
    data = prepared(tmp_path, objective={"next_sentence": True}, data={"validation": 0.0})
    rows = data.rows("train", 32)
    owners: dict[bytes, set[tuple[int, int]]] = collections.defaultdict(set)
    for number in range(len(rows)):
        windows = rows.read([number])[0]
        for text, about in zip(
            np.split(windows.tokens, np.cumsum(windows.about["length"])[:-1]), windows.about, strict=True
        ):
            owners[text.tobytes()].add((rows.part(number), int(about["document"])))
    asked: list[tuple[set, list[set]]] = []
    offered: list[list[bytes]] = []
    taken: list[bool] = []

    def look(window: np.ndarray, others: list[np.ndarray], draws: np.ndarray, ends: np.ndarray) -> Pair:
        asked.append((owners[window.tobytes()], [owners[other.tobytes()] for other in others]))
        offered.append([other.tobytes() for other in others])
        found = pair(window, others, draws, ends)
        taken.append(found.random)
        return found

    monkeypatch.setattr(pretraining, "pair", look)
    made = batches(config(data.directory, objective={"next_sentence": True}, train={"batch_size": 16, "steps": 30}))
    for step in range(30):
        made(step)
    unique = [(own, others) for own, others in asked if len(own) == 1]
    assert len(unique) > 300
    assert not any(own == other for own, others in unique for other in others)
    # Three quarters of the rows are of the long document: a single row to look in would leave a quarter random.
    assert np.mean(taken) > 0.42
    later = dataclasses.replace(made, first_step=1)  # meets the same rows a step later
    assert made.numbers(0)[1].tolist() == later.numbers(1)[1].tolist()
    offered.clear()
    made(0)
    later(1)
    half = len(offered) // 2
    assert np.mean([one == other for one, other in zip(offered[:half], offered[half:], strict=True)]) < 0.15


def test_a_single_document_has_no_other(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "0.txt").write_text(document(random.Random(0), 100))
    data = prepared(tmp_path, objective={"next_sentence": True}, data={"validation": 0.0})
    with pytest.raises(UserError, match="has a single document"):
        open_corpora(config(data.directory, objective={"next_sentence": True}))


@pytest.mark.parametrize("next_sentence", [False, True])
def test_an_evaluation_does_not_depend_on_the_batch(tmp_path: Path, next_sentence: bool) -> None:
    data = prepared(tmp_path, objective={"next_sentence": next_sentence}, data={"validation": 0.3})
    seen: list[dict[int, Any]] = []
    for size in (3, 8):
        settings = config(
            data.directory, objective={"next_sentence": next_sentence}, data={"dev": str(data.directory)},
            train={"eval_batch_size": size, "steps": 1},
        )  # fmt: skip
        made = batches(settings, split="dev")
        seen.append({})
        for step in range(made.steps):
            batch = made(step)
            for index, number in enumerate(made.numbers(step)[1].tolist()):
                seen[-1][number] = [batch[name][index].tolist() for name in ("input_ids", "predict_labels")]
    assert len(seen[0]) > 16
    assert seen[0] == seen[1]


def test_nor_does_one_of_texts_that_were_not_prepared(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(document(random.Random(n), 1) for n in range(40)))
    tokenizer().save(tmp_path / "words", 32)
    shape = ModelSettings(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32)
    seen: list[dict[tuple[int, int], int]] = []
    for size in (3, 8):
        path = str(tmp_path / "a.txt")
        data = {"dev": path, "tokenizer": str(tmp_path / "words")}
        asked = config(path, data=data, train={"eval_batch_size": size, "steps": 1})
        made = set_up(dataclasses.replace(asked, model=shape), make_mesh(1)).batches["dev"]
        seen.append({})
        for batch in map(made, range(made.steps)):
            for row, slot in np.argwhere(batch["predict_weights"] > 0):
                place = row, batch["predict_positions"][row, slot]
                key = int(batch["example_ids"][place]), int(batch["positions"][place])
                seen[-1][key] = int(batch["predict_labels"][row, slot])
    assert len(seen[0]) > 30
    assert seen[0] == seen[1]


def test_no_more_shards_are_open_than_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").mkdir()
    corpus(tmp_path / "text", files=12, documents=20)
    monkeypatch.setattr(prepare_module, "_PART_BYTES", (1, 1))
    rows = prepared(tmp_path).rows("train", 32)
    numbers = np.random.default_rng(0).permutation(len(rows)).tolist()
    expected = [window.tokens.tolist() for window in rows.read(numbers)]
    monkeypatch.setattr(prepared_module, "_most_open", lambda: 3)
    before = len(os.listdir("/proc/self/fd")) - len(prepared_module._open_files)
    assert [rows.read([number])[0].tokens.tolist() for number in numbers] == expected
    assert len(prepared_module._open_files) == 3
    assert len(os.listdir("/proc/self/fd")) <= before + 3


def test_a_pair_is_cut_behind_a_sentence_and_no_longer_than_its_window() -> None:
    ends = np.zeros(100, np.int8)
    ends[9] = 1
    draw, inside = np.random.default_rng(0), 0
    for _ in range(300):
        window, other = (draw.integers(10, 100, n) for n in draw.integers(1, 30, 2))
        window[draw.random(len(window)) < 0.2] = 9
        values = draw.random(4)
        found = pair(window, [other], values, ends)
        assert len(found.first) >= 1
        assert found.random == (values[1] < 0.5 and len(window) > 1)
        assert len(found.first) + len(found.second) <= len(window)
        np.testing.assert_array_equal(found.first, window[: len(found.first)])
        if found.random:
            place = " ".join(map(str, other)).find(" ".join(map(str, found.second)))
            assert place >= 0
            inside += place > 0
            assert len(found.second) >= 1
            room = len(window) - len(found.first)
            if window[-1] == 9 and (other[:-room] == 9).any():
                assert found.second[-1] == 9 or not (found.second == 9).any()
        if (window[:-1] == 9).any():
            assert found.first[-1] == 9
    assert inside > 30
    assert not pair(window, [], np.zeros(4), ends).random


def test_the_last_token_does_not_tell_what_follows() -> None:
    """A window that ends behind a sentence, quotes included, is paired with text that does."""
    ends = np.zeros(100, np.int8)
    ends[[9, 8]] = 1, 2
    window = np.array([20, 21, 9, 22, 23, 24, 9, 8])
    other = np.array([30, 31, 9, 8, 32, 33, 9, 34, 35, 36])
    found = [pair(window, [other], np.array([0.0, 0.0, 0.0, draw]), ends) for draw in (0, 0.4, 0.99)]
    assert [one.first.tolist() for one in found] == [[20, 21, 9]] * 3
    assert [one.second.tolist() for one in found] == [[32, 33, 9], [32, 33, 9], [30, 31, 9, 8]]
    whole = pair(window[:-2], [other], np.zeros(4), ends)
    assert whole.second.tolist() == [32, 33, 9]  # as long as what it takes the place of
    unending = pair(np.array([20, 21, 22, 23]), [other], np.zeros(4), ends)
    assert (unending.first.tolist(), unending.second.tolist()) == ([20], [32, 33, 9])
    assert pair(np.array([20, 9, 8, 21, 22]), [other], np.zeros(4), ends).first.tolist() == [20, 9, 8]


def test_loss_and_gradients_of_packed_rows_equal_those_of_the_same_windows_alone(tmp_path: Path) -> None:
    """Each window moved into a row of its own: the masks, the pairs, the dropout and so the gradients stay."""
    from flax import nnx

    from jaxlm.models import BertConfig

    objective = {"next_sentence": True, "mask_unit": "word"}
    data = prepared(tmp_path, objective=objective)
    settings = config(data.directory, objective=objective, train={"steps": 4, "batch_size": 24})
    packed = batches(settings)(2)
    alone = _alone(packed)
    assert len(alone["input_ids"]) > len(packed["input_ids"])
    task = TASKS["masked_lm"](settings, tokenizer())
    shape = BertConfig(vocab_size=tokenizer().vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                       intermediate_size=32, max_position_embeddings=32)  # fmt: skip
    params = task.model_class.initial_params(shape, jax.random.key(0))
    graphdef = task.model_class.abstract(shape, np.float32)[0]

    def loss(params: Any, batch: Any) -> Any:
        sums = task.loss_sums(nnx.merge(graphdef, params), batch, jax.random.key(1))
        return (sums / task.loss_weights(batch)).sum()

    (one, grads), (other, expected) = (jax.value_and_grad(loss)(params, batch) for batch in (packed, alone))
    assert float(one) == pytest.approx(float(other), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grads, expected)


def _alone(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batch's examples in a row each."""
    rows: list[dict[str, np.ndarray]] = []
    for row in range(len(batch["input_ids"])):
        for slot in np.flatnonzero(batch["example_weights"][row]):
            here = np.flatnonzero(batch["segment_ids"][row] == slot + 1)
            found = {}
            for name in ("input_ids", "segment_ids", "positions", "token_type_ids", "example_ids"):
                found[name] = np.zeros(32, np.int32)
                found[name][: len(here)] = batch[name][row, here]
            found["segment_ids"] = np.minimum(found["segment_ids"], 1)
            targets = np.isin(batch["predict_positions"][row], here) & (batch["predict_weights"][row] > 0)
            for name in ("predict_positions", "predict_labels", "predict_weights"):
                found[name] = np.zeros_like(batch[name][row])
                found[name][: targets.sum()] = batch[name][row, targets]
            found["predict_positions"][: targets.sum()] -= here[0]
            for name in ("follows", "example_weights"):
                found[name] = batch[name][row, slot : slot + 1]
            found["pool_positions"] = np.zeros(1, np.int32)
            rows.append(found)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def test_seeking_in_a_hundred_million_rows_takes_no_time_and_no_memory(tmp_path: Path) -> None:
    """The manifest is synthetic: 2,000 shards of 50,000 rows, of which none is ever opened."""
    shards = [
        {"file": f"512/train-{n:05}-000.array_record", "part": n, "rows": 50_000, "bytes": 0} for n in range(2000)
    ]
    entry = {"rows": 10**8, "windows": 10**8, "most_windows": 9, "shards": shards}
    manifest = {
        "format": 1, "row_lengths": [512], "special_tokens_per_window": 2, "tokenizer_sha256": tokenizer().sha256,
        "token_dtype": "<u2", "tokens": {"train": 5 * 10**10}, "splits": {"train": {"512": entry}}, "sources": [],
    }  # fmt: skip
    folder = tmp_path / "huge"
    (folder / "512").mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    for shard in shards:
        (folder / shard["file"]).touch()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    made = batches(config(folder, 512, train={"batch_size": 4096, "steps": 100_000}))
    made.numbers(0)
    memory, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    seen = [made.numbers(step)[1] for step in (99_999, 1, 50_000, 24_414)]
    assert time.perf_counter() - started < 4.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 50_000  # KiB
    assert all(len(np.unique(rows)) == 4096 for rows in seen)
    assert max(rows.max() for rows in seen) > 9.9e7


def test_data_of_another_kind_or_tokenizer_is_refused(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    with pytest.raises(UserError, match=r"without --objective\.next_sentence"):
        open_corpora(config(data.directory, objective={"next_sentence": True}))
    with pytest.raises(UserError, match="task is classification"):
        open_corpora(dataclasses.replace(config(data.directory), task="classification"))
    with pytest.raises(UserError, match="prepared directory is meant"):
        batches(config(data.directory, data={"dev": str(tmp_path / "text" / "0.txt")}))
    changed = PreparedData(data.directory).manifest | {"tokenizer_sha256": "other"}
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").write_text(json.dumps(changed))
    (other / "plan.json").write_text("{}")
    with pytest.raises(UserError, match="another tokenizer"):
        batches(config(data.directory, data={"dev": str(other)}))
