import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pytrec_eval
import torch
from flax import nnx
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from jaxlm import cli
from jaxlm.config import Config, DataSettings, RankingSettings, TrainSettings
from jaxlm.data.loader import lay_out
from jaxlm.data.packing import Layout, plan
from jaxlm.data.sources import Table
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, SequenceClassifierOutput
from jaxlm.tasks import task_of
from jaxlm.tasks.ranking import Ranking
from jaxlm.tasks.regression import Regression

from ..conftest import make_sentences
from ..models.reference import assert_gradients_equal, flat_params, quick_jit, random_params

QUERIES = ["the film", "a story with music", "ending"]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train([text for text, _ in make_sentences(300, 0)], 200, lowercase=True)


def make_table(count: int = 45, seed: int = 0) -> Table:
    """Rows of which those of one query are no neighbours, with grades 0 to 3; of the last query, only 0."""
    draw = np.random.default_rng(seed)
    passages = [text for text, _ in make_sentences(count, seed)]
    labels = [float(draw.integers(0, 4)) if row % 3 < 2 else 0.0 for row in range(count)]
    queries = [QUERIES[row % 3] for row in range(count)]
    return Table("file.tsv", queries, passages, labels, [f"line {row + 1}" for row in range(count)])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs_binary_cross_entropy_of_scaled_relevance(
    tokenizer: TextTokenizer, smoothing: float
) -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(4, 3, 1)).astype(np.float32)
    weights = (draw.random((4, 3)) < 0.7).astype(np.float32)
    grades = draw.integers(0, 4, (4, 3))
    task = Ranking(Config(train=TrainSettings(label_smoothing=smoothing)), tokenizer, largest=3.0)
    scaled, _ = task.targets(Table("", [""] * 12, None, grades.ravel().tolist(), [""] * 12), True)
    names = ("input_ids", "token_type_ids", "positions", "segment_ids", "pool_positions", "example_ids")
    batch = {name: jnp.zeros((4, 8), jnp.int32) for name in names}
    batch |= {"labels": jnp.asarray(scaled.reshape(4, 3)), "example_weights": jnp.asarray(weights)}

    def model(*_: jax.Array, **__: jax.Array) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(jnp.asarray(logits))

    real = weights > 0
    truth = torch.tensor(grades[real] / 3) * (1 - smoothing) + smoothing / 2
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits[real][:, 0], dtype=torch.float64), truth, reduction="sum"
    )
    assert float(task.loss_sums(model, batch, None)) == pytest.approx(float(expected), rel=1e-6)
    assert float(task.loss_weights(batch)) == real.sum()


def test_metrics_are_trec_evals_over_the_rows_of_each_query(tokenizer: TextTokenizer) -> None:
    table = make_table()
    task = Ranking.for_training(Config(), tokenizer, table, BertConfig())
    examples, _ = task.examples(table)
    logits = (np.random.default_rng(1).integers(-4, 5, (45, 1)) / 2).astype(np.float32)  # with ties
    found = task.metrics({}, {"logits": logits}, examples)
    run: dict[str, dict[str, float]] = {query: {} for query in QUERIES}
    qrels: dict[str, dict[str, int]] = {query: {} for query in QUERIES}
    for row, (query, grade) in enumerate(zip(table.texts, table.labels or [], strict=True)):
        run[query][f"{row:03}"], qrels[query][f"{row:03}"] = float(logits[row, 0]), int(grade)
    reference = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank", "ndcg_cut.10", "recall.10", "map"}).evaluate(run)
    names = {"mrr": "recip_rank", "ndcg@10": "ndcg_cut_10", "recall@10": "recall_10", "map": "map"}
    for ours, theirs in names.items():
        expected = np.mean([reference[query][theirs] for query in QUERIES[:2]])
        assert found[ours] == pytest.approx(expected, abs=1e-9), ours
    assert (found["queries"], found["queries_left_out"], found["examples"]) == (2, 1, 45)
    truth = np.array(table.labels) / 3
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits[:, 0], dtype=torch.float64), torch.tensor(truth)
    )
    assert found["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert found["accuracy"] == ((logits[:, 0] >= 0) == (truth >= 0.5)).mean()


def test_a_passage_in_several_rows_of_a_query_is_judged_once(tokenizer: TextTokenizer) -> None:
    triplets = [("q", "good", "bad"), ("q", "good", "worse"), ("q", "good", "worst"), ("p", "good", "bad")]
    texts = [query for query, *_ in triplets for _ in range(2)]
    table = Table("file", texts, [t for _, *pair in triplets for t in pair], [1.0, 0.0] * 4, [""] * 8)
    scores = {"good": 1.0, "bad": 2.0, "worse": 0.0, "worst": -1.0}
    logits = np.array([[scores[text]] for text in table.pairs or []], np.float32)
    task = Ranking(Config(), tokenizer, 1.0)
    found = task.metrics({}, {"logits": logits}, task.examples(table)[0])
    run = {"q": scores, "p": {name: scores[name] for name in ("good", "bad")}}
    qrels = {"q": {"good": 1, "bad": 0}, "p": {"good": 1}}
    measures = {"recip_rank", "ndcg_cut.10", "recall.10", "map"}
    reference = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    for ours, theirs in {"mrr": "recip_rank", "ndcg@10": "ndcg_cut_10", "recall@10": "recall_10", "map": "map"}.items():
        assert found[ours] == pytest.approx(np.mean([reference[q][theirs] for q in "qp"]), abs=1e-9), ours
    assert (found["queries"], found["examples"]) == (2, 8)
    graded = Table("file", ["q"] * 3, ["one", "two", "one"], [1.0, 0.0, 0.0], [""] * 3)  # the highest grade counts
    best = {"logits": np.array([[1.0], [0.0], [1.0]], np.float32)}
    assert task.metrics({}, best, task.examples(graded)[0])["mrr"] == 1.0


def test_what_counts_as_relevant_is_a_setting(tokenizer: TextTokenizer) -> None:
    table = Table("file", ["q"] * 4, ["one", "two", "three", "four"], [3.0, 1.0, 2.0, 0.0], [""] * 4)
    logits = {"logits": np.array([[1.0], [4.0], [3.0], [2.0]])}

    def mrr(relevant: float | None) -> float:
        task = Ranking.for_training(Config(ranking=RankingSettings(relevant=relevant)), tokenizer, table, BertConfig())
        return task.metrics({}, logits, task.examples(table)[0])["mrr"]

    assert [mrr(None), mrr(2), mrr(3)] == [1, 1 / 2, 1 / 4]


def test_a_cross_encoder_of_unknown_grades_takes_the_largest_there_is_and_none_for_irrelevance(
    tokenizer: TextTokenizer,
) -> None:
    def metrics(grades: list[float]) -> dict[str, Any]:
        table = Table("file", ["q"] * 3, ["one", "two", "three"], grades, [""] * 3)
        task = Ranking.for_model(Config(), tokenizer, BertConfig())
        return task.metrics({}, {"logits": np.array([[1.0], [3.0], [2.0]])}, task.examples(table)[0])

    assert metrics([0.5, 0.0, 0.25])["mrr"] == 1 / 2  # half of the largest grade and more is relevant
    assert metrics([0.0, 0.0, 0.0])["queries_left_out"] == 1
    assert metrics([0.0, 0.0, 0.0])["mrr"] == 0


def test_grades_survive_in_the_model(tokenizer: TextTokenizer) -> None:
    table = Table("file", ["q"] * 3, ["one", "two", "three"], [3.0, 1.0, 0.0], [""] * 3)
    trained = Ranking.for_training(
        Config(ranking=RankingSettings(largest=4, relevant=2)), tokenizer, table, BertConfig()
    )
    again = Ranking.for_model(Config(), tokenizer, BertConfig(facts=trained.facts()))
    for task in (trained, again):
        assert (task.largest, task.relevant) == (4, 2)
        np.testing.assert_allclose(task.examples(table)[0].targets["labels"], [3 / 4, 1 / 4, 0])


@pytest.mark.parametrize("seed", [None, 3], ids=["without dropout", "with dropout"])
def test_packed_losses_and_gradients_equal_unpacked(tokenizer: TextTokenizer, seed: int | None) -> None:
    table = make_table(9)
    shape = BertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2,
    )  # fmt: skip
    task = Ranking.for_training(Config(), tokenizer, table, shape)
    shape = task.configure(shape)
    examples, _ = task.examples(table)
    graphdef, params = task.model_class.abstract(shape)[0], random_params(task.model_class, shape)
    key = None if seed is None else jax.random.key(seed)

    def run(layout: Layout, rows: int, length: int) -> tuple[Any, Any]:
        slots = int(layout.slot.max()) + 1
        batch = lay_out(
            examples.input_ids, examples.token_type_ids, examples.lengths, np.arange(9), layout,
            shape=(rows, length, slots),
        )  # fmt: skip
        labels = np.zeros((rows, slots), np.float32)
        labels[layout.row, layout.slot] = examples.targets["labels"]
        arrays = {name: jnp.asarray(value) for name, value in (batch | {"labels": labels}).items()}

        def loss(params: Any) -> jax.Array:
            return task.loss_sums(nnx.merge(graphdef, params), arrays, key)

        total, gradients = quick_jit(jax.value_and_grad(loss))(params)
        return total, flat_params(gradients)

    zeros = np.zeros(9, np.int64)
    alone, expected = run(Layout(np.arange(9), zeros, zeros), 9, int(examples.lengths.max()))
    packed = plan(examples.lengths[None], 64)
    together, found = run(Layout(*(part[0] for part in packed)), packed.rows, 64)
    assert packed.rows < 9
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert_gradients_equal(found, expected, 1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A run in which passages of praise are relevant, whatever the query."""
    folder = tmp_path_factory.mktemp("ranking")
    for split, (count, seed) in {"train": (150, 1), "dev": (42, 2)}.items():
        lines = ["passage\trelevance\tquery\n"]
        for row, (text, label) in enumerate(make_sentences(count, seed)):
            lines.append(f"{text}\t{2 if label == 'positive' else 0}\t{QUERIES[row % 3]}\n")
        (folder / f"{split}.tsv").write_text("".join(lines))
    (folder / "preset.py").write_text(f"""
from jaxlm.config import Config, DataSettings, MeshSettings, ModelSettings, OptimSettings, TrainSettings
config = Config(
    task="ranking",
    model=ModelSettings(init={str(tiny_model)!r}),
    data=DataSettings(train={str(folder / "train.tsv")!r}, dev={str(folder / "dev.tsv")!r}, max_length=40),
    train=TrainSettings(steps=40, batch_size=16, eval_every=20),
    optim=OptimSettings(learning_rate=5e-3),
    mesh=MeshSettings(devices=1),
)
""")
    assert cli.main(["train", str(folder / "preset.py"), "--workdir", str(folder / "run")]) == 0
    return folder / "run"


def test_training_evaluation_and_model_card_serve_rankings(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = json.loads((trained / "summary.json").read_text())["dev"]
    assert summary["map"] > 0.9  # half of the passages are relevant: chance would give about 0.6
    file = tmp_path / "metrics.json"
    command = ["evaluate", str(trained / "model"), "--data.test", str(trained.parent / "dev.tsv")]
    assert cli.main([*command, "--batch_size", "7", "--output", str(file)]) == 0
    assert json.loads(file.read_text()) == pytest.approx(summary, abs=1e-5)
    assert "ndcg@10: " in capsys.readouterr().out
    card = (trained / "model" / "README.md").read_text()
    assert 'CrossEncoder("PATH_OF_THIS_DIRECTORY")' in card
    assert '--text "a query" --text_pair "a passage"' in card


def test_scores_are_those_of_transformers_and_of_cross_encoder_on_the_saved_directory(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [("the film", "good and lovely"), ("ending", "dull"), ("a story", "the awful music " * 30)]
    file = tmp_path / "pairs.tsv"
    file.write_text("query\tpassage\n" + "".join(f"{query}\t{passage}\n" for query, passage in pairs))
    assert cli.main(["predict", str(trained / "model"), "--input", str(file)]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    model = AutoModelForSequenceClassification.from_pretrained(trained / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    for (query, passage), prediction in zip(pairs, found, strict=True):
        inputs = tokenizer(query, passage, truncation="longest_first", return_tensors="pt")
        logit = model(**inputs).logits[0].detach()
        assert prediction["score"] == pytest.approx(float(logit), abs=1e-4)
        assert prediction["probability"] == pytest.approx(float(logit.sigmoid()), abs=1e-5)
    assert (model.config.num_labels, model.config.problem_type) == (1, None)
    scores = CrossEncoder(str(trained / "model"), device="cpu").predict(pairs)
    assert scores.tolist() == pytest.approx([prediction["probability"] for prediction in found], abs=1e-5)


@pytest.mark.parametrize(
    "entry",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0.1"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    ],
    ids=["of version 4", "of old"],
)
def test_a_cross_encoder_of_sentence_transformers_is_a_ranking_model(
    trained: Path, tmp_path: Path, entry: dict[str, Any]
) -> None:
    theirs = json.loads((trained / "model" / "config.json").read_text())
    assert theirs.pop("sentence_transformers") == {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    facts = theirs.pop("jaxlm")
    columns = {"text": "query", "text_pair": "passage", "label": "relevance"}
    assert facts == {"task": "ranking", "pairs": True, "columns": columns, "largest": 2.0, "relevant": None}
    (tmp_path / "config.json").write_text(json.dumps(theirs | entry))
    (tmp_path / "model.safetensors").write_bytes((trained / "model" / "model.safetensors").read_bytes())
    config = BertConfig.from_json(tmp_path / "config.json")
    assert task_of(tmp_path, config) is Ranking
    assert task_of(tmp_path, dataclasses.replace(config, score_activation=None)) is not Ranking


def test_a_cross_encoder_that_sentence_transformers_saved_is_a_ranking_model(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "model", tmp_path / "plain")
    plain = json.loads((tmp_path / "plain" / "config.json").read_text())
    del plain["sentence_transformers"], plain["jaxlm"]
    (tmp_path / "plain" / "config.json").write_text(json.dumps(plain))
    CrossEncoder(str(tmp_path / "plain"), device="cpu").save_pretrained(str(tmp_path / "theirs"))
    assert "sentence_transformers" not in json.loads((tmp_path / "theirs" / "config.json").read_text())
    kinds = [task_of(path, BertConfig.from_json(path / "config.json")) for path in sorted(tmp_path.iterdir())]
    assert kinds == [Regression, Ranking]


def test_a_long_pair_loses_tokens_of_its_passage_and_is_counted(tokenizer: TextTokenizer) -> None:
    table = Table("file", ["the film", "the film"], ["good " * 50, "good"], [1.0, 0.0], ["", ""])
    task = Ranking(Config(data=DataSettings(max_length=16)), tokenizer, 1.0)
    examples, cut = task.examples(table)
    assert (cut, examples.lengths.tolist()[0]) == (1, 16)
    first = examples.input_ids[: examples.offsets[1]][examples.token_type_ids[: examples.offsets[1]] == 0]
    second = examples.input_ids[examples.offsets[1] :][examples.token_type_ids[examples.offsets[1] :] == 0]
    np.testing.assert_array_equal(first, second)  # [CLS], the query, [SEP]


READABLE = {
    "named": ("x.csv", "id,passage,query,label\n1,some text,what,2\n2,other text,who,0\n"),
    "by position": ("x.tsv", "what\tsome text\t2\nwho\tother text\t0\n"),
    "questions and answers": ("x.jsonl", '{"answer": "some text", "question": "what", "relevance": 2}\n'
                              '{"answer": "other text", "question": "who", "relevance": 0}\n'),
}  # fmt: skip


@pytest.mark.parametrize("kind", READABLE)
def test_columns_are_found_by_the_usual_names_or_by_position(tmp_path: Path, kind: str) -> None:
    name, content = READABLE[kind]
    (tmp_path / name).write_text(content)
    table = Ranking.read(str(tmp_path / name), "train", DataSettings())
    assert (table.texts, table.pairs, table.labels) == (["what", "who"], ["some text", "other text"], [2.0, 0.0])


LISTS = {"query": "what", "pos": ["some text", {"title": "Its title", "text": "more"}], "neg": ["other text"] * 3}
TRIPLETS = {
    "triples.tsv": "what\tsome text\tother text\nwho\t7\t8\nwhy\tso\tno\n",
    "named.csv": "id,negative,query,positive,score\n1,other text,what,some text,3\n2,8,who,7,1\n3,no,why,so,2\n",
    "lists.jsonl": '{"query": "what", "pos": ["some text"], "neg": ["other text"]}\n'
                   '{"query": "who", "pos": ["7"], "neg": ["8"]}\n{"query": "why", "pos": ["so"], "neg": ["no"]}\n',
}  # fmt: skip


@pytest.mark.parametrize("name", TRIPLETS)
def test_a_triplet_is_a_passage_that_answers_and_one_that_does_not(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TRIPLETS[name])
    table = Ranking.read(str(tmp_path / name), "train", DataSettings())
    assert table.texts == ["what", "what", "who", "who", "why", "why"]
    assert table.pairs == ["some text", "other text", "7", "8", "so", "no"]
    assert table.labels == [1.0, 0.0] * 3
    assert table.places[0] == table.places[1] != table.places[2]
    assert table.negatives is None
    if name == "named.csv":
        assert Ranking.read(str(tmp_path / name), "train", DataSettings(label="score")).labels == [3.0, 1.0, 2.0]
        with pytest.raises(UserError, match="a label is that of a pair alone"):
            Ranking.read(str(tmp_path / name), "train", DataSettings(label="score", negative="negative"))


def test_a_list_of_passages_is_as_many_rows(tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    rows = [LISTS, {"query": "who", "pos": [], "neg": ["no"]}, {"query": "why", "pos": ["so"], "neg": []}]
    path.write_text("\n".join(map(json.dumps, rows)))
    table = Ranking.read(str(path), "train", DataSettings())
    assert table.pairs == ["some text", "Its title more", *["other text"] * 3, "no", "so"]
    assert table.labels == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    for wrong, message in [
        ({"pos": [], "neg": []}, "line 2: an empty list of texts"),
        ({"pos": ["a", 3], "neg": ["b"]}, "line 2: text that is no string"),
        ({"pos": ["a", {"title": "b"}], "neg": ["b"]}, "line 2: text that is no string"),
        ({"pos": ["a", ""], "neg": ["b"]}, "line 2: empty text"),
        ({"pos": ["a"]}, "line 2: a column is missing"),
    ]:
        path.write_text(json.dumps(LISTS) + "\n" + json.dumps({"query": "q"} | wrong))
        with pytest.raises(UserError, match=message):
            Ranking.read(str(path), "train", DataSettings())
        left = Ranking.read(str(path), "train", DataSettings(bad_rows="skip"))
        assert (len(left), len(left.places)) == (5, 5)


BROKEN = {
    "no passage": ("query\tlabel\na\t1\nb\t0\n", "which column is the second text"),
    "no label": ("query\tpassage\na\tb\nc\td\n", "which column is the label"),
    "one grade": ("a\tb\t1\nc\td\t1\n", "passages of different relevance; here each has 1"),
    "negative": ("a\tb\t1\nc\td\t-1\n", "line 2: relevance -1 is not between 0 and 1"),
    "no number": ("a\tb\t1\nc\td\tyes\ne\tf\t0\n", "line 2: a label that is no number ('yes')"),
    "not finite": ("a\tb\t1\nc\td\tinf\n", "line 2: a label that is no finite number"),
    "no query": ("a\tb\t1\n \td\t0\n", "line 2: empty text"),
    "empty passage": ("a\tb\t1\nc\t \t0\n", "line 2: empty text"),
    "missing column": ("a\tb\t1\nc\t0\n", "line 2: wrong number of columns (2 instead of 3)"),
    "too many columns": ("1\ta\tb\t1\n2\tc\td\t0\n", "which column is the first text"),
    "empty label": ("a\tb\t1\nc\td\t\ne\tf\t0\n", "line 2: no label"),
    "nothing": ("", "no rows"),
    "header only": ("query\tpassage\tlabel\n", "a header line and no rows"),
}


def test_wrong_data_is_one_clear_line_and_leaves_nothing_behind(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = Path(__file__).parents[2] / "configs" / "msmarco_reranker.py"
    file = tmp_path / "train.tsv"
    settings = ["--model.init", str(tiny_model), "--data.max_length", "32", "--data.dev", "None", "--mesh.devices", "1"]
    for kind, (content, message) in BROKEN.items():
        file.write_text(content)
        command = ["train", str(preset), *settings, "--data.train", str(file), "--workdir", str(tmp_path / "run")]
        assert cli.main(command) == 2, kind
        error = capsys.readouterr().err
        assert message in error, kind
        assert (error[:7], error.count("\n")) == ("error: ", 1), error
    assert [path.name for path in tmp_path.iterdir()] == ["train.tsv"]


def test_relevance_beyond_that_of_training_is_an_error_or_left_out(tokenizer: TextTokenizer) -> None:
    table = Table("dev.tsv", ["q"] * 3, ["a", "b", "c"], [1.0, 5.0, 0.0], ["line 1", "line 2", "line 3"])
    with pytest.raises(UserError, match=r"dev\.tsv, line 2: relevance 5 is not between 0 and 2"):
        Ranking(Config(), tokenizer, 2.0).examples(table)
    examples, _ = Ranking(Config(data=DataSettings(bad_rows="skip")), tokenizer, 2.0).examples(table)
    assert examples.targets["labels"].tolist() == [0.5, 0.0]
    assert table.skipped == {"relevance out of range": 1}


def test_a_query_without_a_passage_is_answered(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", str(trained / "model"), "--text", "alone"]) == 2
    assert "a query needs its passage: --text_pair" in capsys.readouterr().err
