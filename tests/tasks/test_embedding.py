"""Sentence embeddings learn what sentence-transformers' losses say, on any mesh, and are measured as others do."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.stats import spearmanr
from sentence_transformers.sentence_transformer import losses as reference
from sentence_transformers.util import pairwise_cos_sim
from sklearn.metrics import label_ranking_average_precision_score

from jaxlm import cli
from jaxlm.config import Config, DataSettings, EmbeddingSettings, ModelSettings, TrainSettings
from jaxlm.config_checks import validate
from jaxlm.data.loader import Batches, Examples, make_batches
from jaxlm.data.sources import Table
from jaxlm.data.text_groups import read_groups
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, Pooling
from jaxlm.models.embedding import unit
from jaxlm.parallel.mesh import by_rows, make_mesh, put_batch, replicated
from jaxlm.predict import Predictor
from jaxlm.tasks.embedding import Embedding
from jaxlm.tasks.pairs import contrastive_losses, cosent_loss, pair_metrics, score_metrics

from ..conftest import make_sentences
from ..models.reference import outputs, quick_jit, random_params

torch.set_num_threads(1)


def random_vectors(groups: int, members: int) -> np.ndarray:
    return np.random.default_rng(groups).normal(size=(groups, members, 12)).astype(np.float32)


def distinct(groups: int, members: int) -> np.ndarray:
    return np.arange(groups * members, dtype=np.int32).reshape(groups, members)


@pytest.mark.parametrize("members", [2, 3])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_contrastive_loss_and_its_gradient_are_those_of_multiple_negatives_ranking(
    members: int, symmetric: bool
) -> None:
    vectors = random_vectors(6, members)
    directions = ("query_to_doc", "doc_to_query") if symmetric else ("query_to_doc",)
    loss = reference.MultipleNegativesRankingLoss(
        torch.nn.Identity(), scale=20.0, directions=directions, partition_mode="per_direction"
    )
    tensors = torch.tensor(vectors, requires_grad=True)
    expected = loss.compute_loss_from_embeddings(list(tensors.unbind(1)), torch.zeros(0))
    expected.backward()
    assert tensors.grad is not None

    def ours(vectors: jax.Array) -> jax.Array:
        # Two groups that are none, as the slots of a short batch are.
        padded = jnp.concatenate([vectors, jnp.zeros((2, *vectors.shape[1:]))])
        there = jnp.arange(8) < 6
        found = contrastive_losses(unit(padded), jnp.asarray(distinct(8, members)), there, 20.0, symmetric)
        return (found * there).sum() / 6

    found, gradient = quick_jit(jax.value_and_grad(ours))(jnp.asarray(vectors))
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(gradient, tensors.grad, atol=1e-5)


def test_the_cosent_loss_and_its_gradient_are_those_of_sentence_transformers() -> None:
    vectors, scores = random_vectors(7, 2), np.array([3, 0, 3, 5, 1, 0, 2], np.float32)
    tensors = torch.tensor(vectors, requires_grad=True)
    expected = reference.CoSENTLoss(torch.nn.Identity(), scale=20.0).compute_loss_from_embeddings(
        list(tensors.unbind(1)), torch.tensor(scores)
    )
    expected.backward()
    assert tensors.grad is not None

    def ours(vectors: jax.Array) -> jax.Array:
        # Two pairs that are none, as the slots of a short batch are; in the wrong order, both would count.
        empty = jnp.ones((2, *vectors.shape[1:])) * jnp.array([[1.0, -1.0], [1.0, 1.0]])[..., None]
        padded, wanted = jnp.concatenate([vectors, empty]), jnp.append(scores, jnp.array([9.0, -9.0]))
        pairs = unit(padded)
        return cosent_loss((pairs[:, 0] * pairs[:, 1]).sum(-1), wanted, jnp.arange(9) < 7, 20.0)

    found, gradient = quick_jit(jax.value_and_grad(ours))(jnp.asarray(vectors))
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-6)
    np.testing.assert_allclose(gradient, tensors.grad, atol=1e-5)


def test_a_text_is_no_negative_of_itself() -> None:
    vectors, same = random_vectors(5, 2), distinct(5, 2)
    losses = quick_jit(lambda same, there: contrastive_losses(unit(jnp.asarray(vectors)), same, there, 2.0))
    without_third, without_fourth = losses(same, np.array([1, 1, 1, 0, 1])), losses(same, np.array([1, 1, 1, 1, 0]))
    every = losses(same, np.ones(5, int))
    same[3, 1], same[4, 1] = same[0, 1], same[1, 0]  # the fourth's second text is the first's; the fifth's the second's
    found = losses(same, np.ones(5, int))
    np.testing.assert_allclose(found[0], without_third[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], without_fourth[1], rtol=1e-6)
    np.testing.assert_allclose(found[2], every[2], rtol=1e-6)
    assert found[0] < every[0] - 0.01


@pytest.mark.parametrize("symmetric", [False, True])
def test_what_fits_an_equal_text_is_no_negative(symmetric: bool) -> None:
    """The first two groups ask with the same text, or are asked for with it; a negative of theirs stays one."""
    vectors, same = unit(jnp.asarray(random_vectors(5, 3))), distinct(5, 3)
    settings = EmbeddingSettings(scale=2.0, symmetric=symmetric)
    losses = quick_jit(lambda same, there: contrastive_losses(vectors, same, there, 2.0, symmetric))
    every, without_second = losses(same, np.ones(5, int)), losses(same, np.array([1, 0, 1, 1, 1]))
    before = pair_metrics(np.asarray(vectors), same, settings)
    same[1, 0] = same[0, 0]
    found = losses(same, np.ones(5, int))
    np.testing.assert_allclose(pair_metrics(np.asarray(vectors), same, settings)["loss"], found.mean(), rtol=1e-6)
    assert pair_metrics(np.asarray(vectors), same, settings)["mrr"] >= before["mrr"]
    assert without_second[0] < found[0] < every[0]
    scores = 2.0 * vectors[0, 0] @ jnp.concatenate([vectors[:, 1], vectors[:, 2]]).T
    forward = jax.nn.logsumexp(jnp.delete(scores, 1)) - scores[0]
    if symmetric:
        backward = 2.0 * vectors[0, 1] @ vectors[:, 0].T  # the second text of the first fits the first of the second
        forward = (forward + jax.nn.logsumexp(jnp.delete(backward, 1)) - backward[0]) / 2
    np.testing.assert_allclose(found[0], forward, rtol=1e-6)


def test_several_texts_that_fit_the_same_one_are_all_found() -> None:
    """Five answers to one question, as a row with a list of them gives: each is found, though others are as near."""
    groups, same = random_vectors(6, 2), distinct(6, 2)
    groups[:5, :] = groups[0, 0]
    same[:5, 0] = same[0, 0]
    assert pair_metrics(groups, same, EmbeddingSettings())["mrr"] >= 5 / 6


def test_pairs_are_ranked_as_scikit_learn_ranks_them() -> None:
    groups = random_vectors(30, 3)
    groups[:, 1] += 0.7 * groups[:, 0]
    found = pair_metrics(groups, distinct(30, 3), EmbeddingSettings(candidates=15))
    reciprocal, losses = [], []
    for rows in (slice(0, 15), slice(15, 30)):
        block = torch.tensor(groups[rows])
        candidates = torch.cat([block[:, 1], block[:, 2]])
        scores = torch.nn.functional.cosine_similarity(block[:, :1], candidates[None], dim=-1)
        # In float64: newer releases of scikit-learn add up in the dtype of the scores.
        reciprocal.append(label_ranking_average_precision_score(np.eye(15, 30), scores.double().numpy()))
        losses.append(torch.nn.functional.cross_entropy(20 * scores, torch.arange(15)))
    assert found["mrr"] == pytest.approx(np.mean(reciprocal), abs=1e-9)
    assert found["loss"] == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert 0 < found["accuracy"] < 1


def test_a_model_for_which_all_texts_are_alike_finds_none() -> None:
    found = pair_metrics(np.ones((8, 2, 4), np.float32), distinct(8, 2), EmbeddingSettings())
    assert (found["accuracy"], found["mrr"]) == (0.0, 1 / 8)


def test_scored_pairs_are_judged_by_scipys_correlation() -> None:
    groups, scores = random_vectors(40, 2), np.random.default_rng(0).uniform(0, 5, 40)
    found = score_metrics(groups, scores, EmbeddingSettings(loss="cosine", lowest=0.0, highest=5.0))
    cosine = pairwise_cos_sim(torch.tensor(groups[:, 0]), torch.tensor(groups[:, 1])).numpy()
    assert found["spearman"] == pytest.approx(spearmanr(cosine, scores).statistic, abs=1e-9)
    assert found["loss"] == pytest.approx(np.square(cosine - scores / 5).mean(), rel=1e-5)


CONFIG = BertConfig(vocab_size=200, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                    max_position_embeddings=64)  # fmt: skip


def stage(loss: Any, batch_size: int = 10, **train: Any) -> Config:
    return Config(
        task="embedding",
        data=DataSettings(train="x", max_length=32),
        embedding=EmbeddingSettings(loss=loss),
        train=TrainSettings(batch_size=batch_size, **train),
    )


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train([text for text, _ in make_sentences(100, 0)], 200, lowercase=True)


def table(rows: int, *, scores: bool = False, negatives: bool = False) -> Table:
    texts = [text for text, _ in make_sentences(3 * rows, 5)]
    labels = [f"{number % 6}.0" for number in range(rows)] if scores else None
    places = [f"line {number}" for number in range(1, rows + 1)]
    third = texts[2 * rows :] if negatives else None
    return Table("file", texts[:rows], texts[rows : 2 * rows], labels, places, negatives=third)


def batches_of(task: Embedding, of: Table, multiple: int, *, side_by_side: bool = False) -> Batches:
    examples, _ = task.examples(of, training=True)
    return make_batches(
        examples, batch_size=10, steps=6, seed=3, row_length=None, hidden_size=16, row_multiple=multiple,
        side_by_side=side_by_side, finish=lambda batch, step: batch,
    )  # fmt: skip


def loss_and_gradients(task: Embedding, batch: dict[str, np.ndarray], devices: int, *, gradients: bool) -> Any:
    config = task.configure(CONFIG)
    graphdef, params = task.model_class.abstract(config)[0], random_params(task.model_class, config)
    mesh = make_mesh(devices)

    def loss(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        sums = task.loss_sums(nnx.merge(graphdef, params), batch, jax.random.key(7))
        return sums / task.loss_weights(batch)

    function = jax.value_and_grad(loss) if gradients else loss
    step = quick_jit(function, in_shardings=(replicated(mesh), by_rows(mesh)))
    return jax.tree.map(np.asarray, step(params, put_batch(batch, mesh)))


@pytest.mark.parametrize("loss", ["contrastive", "cosent"])
def test_the_loss_is_the_same_on_one_two_four_and_eight_devices(tokenizer: TextTokenizer, loss: str) -> None:
    of = table(23, negatives=loss == "contrastive", scores=loss == "cosent")
    task = Embedding.for_training(stage(loss), tokenizer, of, CONFIG)
    results = []
    for devices in (1, 2, 4, 8):
        batches = batches_of(task, of, devices)
        assert batches.count(5) == 8  # fewer than the batch size: slots stay empty
        results.append(loss_and_gradients(task, batches(5), devices, gradients=devices in (1, 8)))
    (one, gradients), two, four, (eight, others) = results
    np.testing.assert_allclose([two, four, eight], one, rtol=1e-5)
    jax.tree.map(lambda left, right: np.testing.assert_allclose(left, right, atol=2e-5), gradients, others)


@pytest.mark.parametrize(
    ("loss", "theirs"),
    [
        ("cosine", reference.CosineSimilarityLoss),
        ("cosent", functools.partial(reference.CoSENTLoss, scale=5.0)),
        ("contrastive", functools.partial(reference.MultipleNegativesRankingLoss, scale=5.0)),
    ],
)
def test_the_loss_of_packed_rows_is_sentence_transformers_of_one_text_a_row(
    tokenizer: TextTokenizer, loss: Any, theirs: Any
) -> None:
    scored = loss in ("cosine", "cosent")
    of = table(23, scores=scored)
    settings = EmbeddingSettings(loss=loss, scale=20.0 if loss == "cosine" else 5.0)
    given = dataclasses.replace(stage("cosine"), embedding=settings)
    task = Embedding.for_training(given, tokenizer, of, CONFIG)
    batches, config = batches_of(task, of, 1), task.configure(CONFIG)
    graphdef, params = task.model_class.abstract(config)[0], random_params(task.model_class, config)
    rows = batches.indices(2)[::2] // 2
    texts = [text for row in rows for text in (of.texts[row], (of.pairs or [])[row])]
    encoded = tokenizer.encode(texts, max_length=32)
    ids = np.zeros((len(texts), 32), np.int32)
    for number, length in enumerate(np.diff(encoded.offsets)):
        ids[number, :length] = encoded.input_ids[encoded.offsets[number] : encoded.offsets[number + 1]]
    vectors = outputs(nnx.merge(graphdef, params), input_ids=ids, attention_mask=ids > 0).sentence_embedding
    pairs = torch.tensor(np.asarray(vectors).reshape(-1, 2, 16))
    assert len(set(texts)) == len(texts)
    scores = torch.tensor([float((of.labels or [5])[row if scored else 0]) / 5 for row in rows])
    expected = theirs(torch.nn.Identity()).compute_loss_from_embeddings([pairs[:, 0], pairs[:, 1]], scores)
    mean = quick_jit(lambda batch: task.loss_sums(nnx.merge(graphdef, params), batch, None) / task.loss_weights(batch))
    found = mean(batches(2))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_symmetric_loss_is_learnt_where_it_is_asked_for(
    tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of vectors that differ more than those of a random model, whose two directions lose as much."""
    of, vectors = table(10), random_vectors(10, 2)
    given = dataclasses.replace(stage("contrastive"), embedding=EmbeddingSettings(symmetric=True))
    task = Embedding.for_training(given, tokenizer, of, CONFIG)
    batch = batches_of(task, of, 1)(0)
    where = batch["slot_examples"] >= 0
    flat = np.zeros((*where.shape, 12), np.float32)
    flat[where] = vectors.reshape(20, 12)[batch["batch_places"][where]]
    monkeypatch.setattr("jaxlm.tasks.embedding.sentence_vectors", lambda *_: jnp.asarray(flat))
    loss = reference.MultipleNegativesRankingLoss(
        torch.nn.Identity(), directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    )
    expected = loss.compute_loss_from_embeddings(list(torch.tensor(vectors).unbind(1)), torch.zeros(0))
    found = task.loss_sums(None, {name: jnp.asarray(values) for name, values in batch.items()}, None)
    assert float(found) / 10 == pytest.approx(float(expected), rel=1e-5)


def test_the_texts_of_a_row_share_a_batch_and_with_micro_batches_a_row(tokenizer: TextTokenizer) -> None:
    of = table(23, negatives=True)
    task = Embedding.for_training(stage("contrastive"), tokenizer, of, CONFIG)
    for side_by_side in (False, True):
        batches = batches_of(task, of, 2, side_by_side=side_by_side)
        seen = []
        for step in range(3):
            batch = batches(step)
            row, slot = np.nonzero(batch["slot_examples"] >= 0)
            order = np.argsort(batch["batch_places"][row, slot])
            examples = batch["slot_examples"][row, slot][order].reshape(-1, 3)
            np.testing.assert_array_equal(examples % 3, np.broadcast_to([0, 1, 2], examples.shape))
            np.testing.assert_array_equal(examples // 3, np.broadcast_to(examples[:, :1] // 3, examples.shape))
            if side_by_side:
                rows = row[order].reshape(-1, 3)
                np.testing.assert_array_equal(rows, np.broadcast_to(rows[:, :1], rows.shape))
            seen += (examples[:, 0] // 3).tolist()
        assert sorted(seen) == list(range(23))


def test_micro_batches_learn_the_same_from_scores(tokenizer: TextTokenizer) -> None:
    of = table(23, scores=True)
    task = Embedding.for_training(stage("cosine", micro_batches=2), tokenizer, of, CONFIG)
    config = task.configure(CONFIG)
    graphdef, params = task.model_class.abstract(config)[0], random_params(task.model_class, config)
    loss = quick_jit(lambda batch: task.loss_sums(nnx.merge(graphdef, params), batch, None))
    batch = batches_of(task, of, 2, side_by_side=True)(0)
    whole = loss(batch)
    parts = [loss({name: value[part::2] for name, value in batch.items()}) for part in (0, 1)]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-5)
    assert min(parts) > 0


WRONG: list[tuple[Config, str]] = [
    (stage("contrastive", micro_batches=2), "train.micro_batches is 2; a contrastive loss compares all texts"),
    (stage("contrastive", batch_size=1), "train.batch_size is 1"),
    (stage("cosent", micro_batches=2), "train.micro_batches is 2; a cosent loss compares all texts"),
    (stage("cosent", batch_size=1), "train.batch_size is 1; a cosent loss compares each pair"),
    (dataclasses.replace(stage("cosine"), embedding=EmbeddingSettings(scale=0.0)), "embedding.scale is 0.0"),
    (dataclasses.replace(stage("cosine"), embedding=EmbeddingSettings(highest=5.0)), "a contrastive loss has no"),
    (
        dataclasses.replace(stage("cosine"), embedding=EmbeddingSettings(loss="cosine", lowest=5.0, highest=0.0)),
        "it must be below --embedding.highest",
    ),
    (
        dataclasses.replace(stage("cosine"), embedding=EmbeddingSettings(loss="cosine", positive="1")),
        "embedding.positive is for",
    ),
    (
        dataclasses.replace(stage("cosine"), embedding=EmbeddingSettings(loss="cosine", symmetric=True)),
        "embedding.symmetric is for",
    ),
]


@pytest.mark.parametrize(("config", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_settings_that_exclude_each_other_are_refused(config: Config, message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(config)
    validate(stage("cosine", micro_batches=2))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, *, labelled: bool = True, **settings: Any) -> Table:
    return read_groups(str(path), "train", DataSettings(**settings), labelled=labelled)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("pairs.tsv", "a b\tc\nd\te f\n", (["a b", "d"], ["c", "e f"], None, None)),
        ("scores.tsv", "a\tb\t1\nc\td\t2.5\n", (["a", "c"], ["b", "d"], None, ["1", "2.5"])),
        ("negatives.tsv", "a\tb\t1\nc\td\te\n", (["a", "c"], ["b", "d"], ["1", "e"], None)),
        ("named.csv", "id,anchor,positive,negative\n1,a,b,c\n", (["a"], ["b"], ["c"], None)),
        ("swapped.csv", "score,sentence2,sentence1\n3,b,a\n", (["a"], ["b"], None, ["3"])),
        ("nli.csv", "sent0,sent1,hard_neg\na,b,c\n", (["a"], ["b"], ["c"], None)),
        ("sick.tsv", "pair_ID\tsentence_A\tsentence_B\tscore\n1\ta\tb\t4.5\n", (["a"], ["b"], None, ["4.5"])),
        (
            "lists.jsonl",
            '{"query": "a", "pos": ["b", "c"], "neg": ["d", "e", "f"]}\n',
            (["a"] * 3, ["b", "c", "b"], ["d", "e", "f"], None),
        ),
        (
            "titles.jsonl",
            '{"question": "a", "positive_ctxs": [{"title": "T", "text": "b", "id": 3}], '
            '"hard_negative_ctxs": [{"text": "c"}]}\n',
            (["a"], ["T b"], ["c"], None),
        ),
        ("nli.jsonl", '{"premise": "a", "hypothesis": "b", "label": 0}\n', (["a"], ["b"], None, ["0"])),
    ],
)
def test_columns_are_found_by_name_or_place(tmp_path: Path, name: str, content: str, found: tuple[Any, ...]) -> None:
    table = read(write(tmp_path / name, content))
    assert (table.texts, table.pairs, table.negatives, table.labels) == found


def test_columns_chosen_by_position_are_read_from_rows_of_several_widths(tmp_path: Path) -> None:
    path = write(tmp_path / "sts.csv.tsv", "x\t2\ta\tb\ny\t5\tc\td\te\tf\nz\t1\tg\n")
    with pytest.raises(UserError, match=r"line 2: wrong .* \(6 instead of 4, which is no harm where --data\.text and"):
        read(path)
    columns = {"text": "2", "text_pair": "3", "label": "1"}
    with pytest.raises(UserError, match=r"line 3: wrong number of columns \(3 instead of 4\)"):
        read(path, **columns)
    table = read(path, bad_rows="skip", **columns)
    assert (table.texts, table.pairs, table.labels) == (["a", "c"], ["b", "d"], ["2", "5"])
    assert table.skipped == {"wrong number of columns": 1}


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "columns.tsv": ("a\tb\nc\td\te\n", "line 2: wrong number of columns"),
    "utf8.tsv": (b"a\tb\nc\t\xff\n", "line 2: not UTF-8"),
    "empty_first.tsv": ("a\tb\n \td\n", "line 2: empty text"),
    "empty_second.tsv": ("a\tb\nc\t\n", "line 2: empty text"),
    "json.jsonl": ('{"anchor": "a", "positive": "b"}\n{"anchor"\n', "line 2: no JSON"),
    "column.jsonl": ('{"anchor": "a", "positive": "b"}\n{"anchor": "c"}\n', "line 2: a column is missing"),
    "number.jsonl": ('{"anchor": "a", "positive": "b"}\n{"anchor": "c", "positive": 3}\n', "text that is no string"),
    "null.jsonl": ('{"anchor": "a", "positive": "b"}\n{"anchor": null, "positive": "d"}\n', "line 2: empty text"),
    "no_score.csv": ("sentence1,sentence2,score\na,b,1\nc,d,\n", "line 3: no label"),
    "list.jsonl": (
        '{"query": "a", "answer": "b", "score": 1}\n{"query": "c", "answer": "d", "score": [1]}\n',
        "line 2: a label that is neither name nor number",
    ),
    "no_list.jsonl": (
        '{"query": "a", "pos": ["b"], "neg": ["c"]}\n{"query": "d", "pos": ["e"], "neg": []}\n',
        "line 2: an empty list of texts",
    ),
    "quote.csv": ('anchor,positive\na,b\n"c"d,e\n', "line 3: no csv"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_an_error_with_its_place_or_left_out_and_counted(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)
    table = read(path, bad_rows="skip")
    assert len(table) == 1
    assert sum(table.skipped.values()) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.tsv", None, "no such file"),
        ("empty.tsv", "", "no rows"),
        ("header.csv", "anchor,positive\n", "a header line and no rows"),
        ("one.tsv", "a\nb\n", "which column is the second text"),
        ("four.tsv", "a\tb\tc\td\n", "which column is the first text"),
        ("strange.csv", "id,anchor,number\n1,a,2\n", "which column is the second text"),
        ("strange.doc", "a\tb\n", "should end in one of"),
    ],
)
def test_an_unusable_file_is_named(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / name, header="yes" if name == "strange.csv" else "auto")
    assert name in str(error.value)


def test_data_that_a_loss_cannot_learn_from_is_refused(tokenizer: TextTokenizer) -> None:
    def examples(loss: str, of: Table, **settings: Any) -> Any:
        config = stage(loss)
        config = dataclasses.replace(config, embedding=dataclasses.replace(config.embedding, **settings))
        return Embedding.for_training(config, tokenizer, of, CONFIG).examples(of, training=True)

    with pytest.raises(UserError, match="file has labels, and a contrastive loss"):
        examples("contrastive", table(6, scores=True))
    with pytest.raises(UserError, match="cosine learns from scores"):
        examples("cosine", table(6))
    with pytest.raises(UserError, match="cosent learns from scores"):
        examples("cosent", table(6))
    with pytest.raises(UserError, match="all scores are 2; cosent learns from higher and lower ones"):
        examples("cosent", dataclasses.replace(table(6, scores=True), labels=["2"] * 6))
    with pytest.raises(UserError, match="there are negatives as well"):
        examples("cosine", table(6, scores=True, negatives=True))
    with pytest.raises(UserError, match=r"line 6: a score outside of .* \(5\.0\)"):
        examples("cosine", table(6, scores=True), highest=4.0)
    with pytest.raises(UserError, match=r"no row is labelled '9' .* there are 0\.0, 1\.0"):
        examples("contrastive", table(6, scores=True), positive="9")
    with pytest.raises(UserError, match="line 2: a score that is no number"):
        examples("cosine", dataclasses.replace(table(6, scores=True), labels=["1", "x", *"2345"]))
    of = table(12, scores=True)
    found, _ = examples("contrastive", of, positive="3.0")
    assert (found.groups, of.skipped) == (2, {"not labelled 3.0": 10})


def test_pairs_chosen_by_a_label_may_be_judged_by_scores(tokenizer: TextTokenizer) -> None:
    labelled = dataclasses.replace(table(6, scores=True), labels=["yes", "no"] * 3)
    config = dataclasses.replace(stage("contrastive"), embedding=EmbeddingSettings(positive="yes"))
    trained = Embedding.for_training(config, tokenizer, labelled, CONFIG)
    saved = dataclasses.replace(trained.configure(CONFIG), facts=trained.facts())
    for task in (trained, Embedding.for_model(Config(), tokenizer, saved)):
        found, _ = task.examples(table(6, scores=True))
        assert found.targets["scores"][::2].tolist() == [0, 1, 2, 3, 4, 5]
        assert task.examples(labelled)[0].groups == 3
    assert trained.metric == "spearman"


@pytest.mark.parametrize("loss", ["contrastive", "cosine"])
def test_a_model_that_learnt_scores_says_where_a_file_has_none(
    tokenizer: TextTokenizer, loss: Any, caplog: pytest.LogCaptureFixture
) -> None:
    task = Embedding(stage(loss), tokenizer, EmbeddingSettings(loss=loss, lowest=0.0, highest=5.0), 2)
    none = np.zeros(0)
    examples = Examples(none, none, np.arange(9), {"same_texts": np.arange(8)}, [""] * 8, "pairs.tsv", group=2)
    assert "mrr" in task.metrics({}, {"vectors": random_vectors(4, 2).reshape(8, -1)}, examples)
    assert ("pairs.tsv has no column of scores" in caplog.text) == (loss == "cosine")


def test_pooling_is_that_of_the_weights_unless_told(tokenizer: TextTokenizer) -> None:
    prompts = (("query", "find: "),)
    given = dataclasses.replace(CONFIG, pooling=Pooling("cls", True, 64, prompts))
    told = EmbeddingSettings(pooling="mean", normalize=False)
    for settings, of, expected in (
        (EmbeddingSettings(), CONFIG, Pooling("mean", False, 32)),
        (EmbeddingSettings(), given, Pooling("cls", True, 32, prompts)),
        (told, given, Pooling("mean", False, 32, prompts)),
    ):
        assert Embedding(stage("contrastive"), tokenizer, settings).configure(of).pooling == expected


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences and their words in another order."""
    rows = [(text, " ".join(reversed(text.split()))) for text, _ in make_sentences(96, 4)]
    return write(tmp_path_factory.mktemp("pairs") / "pairs.tsv", "".join(f"{a}\t{b}\n" for a, b in rows))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, pairs: Path) -> Path:
    config = Config(
        task="embedding",
        model=ModelSettings(init=str(tiny_model), hidden_dropout=0.0),
        data=DataSettings(train=str(pairs), dev=str(pairs), max_length=32),
        embedding=EmbeddingSettings(normalize=True, candidates=32),
        train=TrainSettings(steps=30, batch_size=24, eval_every=30, log_every=10),
    )
    folder = tmp_path_factory.mktemp("trained")
    preset = folder / "preset.py"
    preset.write_text(
        "from jaxlm.config import *\n"
        f"config = {config!r}\n"
    )  # fmt: skip
    flags = ["--workdir", str(folder / "run"), "--optim.learning_rate", "5e-3", "--mesh.devices", "1"]
    assert cli.main(["train", str(preset), *flags]) == 0
    return folder / "run"


def test_a_training_learns_to_tell_pairs_from_others_and_remembers_how(
    trained: Path, tiny_model: Path, pairs: Path
) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    mesh = make_mesh(1)
    predictor = Predictor(str(trained / "model"), mesh)
    assert isinstance(predictor.task, Embedding)
    assert predictor.task.settings.candidates == 32
    data = read(pairs)
    metrics, _ = predictor.evaluate(data)
    assert metrics["mrr"] == pytest.approx(summary["dev"]["mrr"], abs=1e-6)
    assert metrics["loss"] == pytest.approx(summary["dev"]["loss"], rel=1e-4)
    found = list(predictor.predict(read(pairs, labelled=False)))
    assert len(found) == 96
    assert all(-1 <= item["similarity"] <= 1 for item in found)
    assert metrics["loss"] < 3
    assert metrics["mrr"] > 0.2
    card = (trained / "model" / "README.md").read_text()
    assert "library_name: sentence-transformers" in card


def test_predict_gives_a_text_its_vector_and_a_pair_its_similarity(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["predict", str(trained / "model"), "--text", "a fine film", "--text", "a dull plot"]) == 0
    one, other = (np.array(json.loads(line)["vector"]) for line in capsys.readouterr().out.splitlines())
    assert one.shape == (16,)
    np.testing.assert_allclose(np.linalg.norm(one), 1, rtol=1e-5)
    assert cli.main(["predict", str(trained / "model"), "--text", "a fine film", "--text_pair", "a dull plot"]) == 0
    assert json.loads(capsys.readouterr().out)["similarity"] == pytest.approx(one @ other, abs=1e-5)


def test_scores_of_dev_judge_a_contrastive_training(tokenizer: TextTokenizer) -> None:
    task = Embedding.for_training(stage("contrastive"), tokenizer, table(6), CONFIG)
    task.examples(table(6), training=True)
    task.examples(table(6, scores=True))
    assert task.metric == "spearman"
    asked = Embedding.for_training(stage("contrastive", metric="mrr"), tokenizer, table(6), CONFIG)
    with pytest.raises(UserError, match="pairs with scores, which are judged by one of spearman, pearson"):
        asked.examples(table(6, scores=True))
