"""Question answering, from features to the command line."""

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from jaxlm import cli
from jaxlm.config import AnswerSettings, Config, DataSettings, TrainSettings
from jaxlm.config_checks import validate
from jaxlm.data.loader import Batch, Examples, lay_out
from jaxlm.data.packing import Layout, plan
from jaxlm.data.sources import Table
from jaxlm.data.squad import QuestionTable, read_questions
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, BertForQuestionAnswering, BertModel
from jaxlm.parallel.mesh import make_mesh
from jaxlm.predict import Predictor
from jaxlm.tasks import task_of
from jaxlm.tasks.answer_spans import Candidate, Candidates
from jaxlm.tasks.question_answering import QuestionAnswering

from ..models.reference import assert_gradients_equal, flat_params, quick_jit, random_params

PEOPLE = ["Anna Weber", "Li Wei", "José Díaz", "Ada Okoye", "Ivan Petrov", "Mary Stone", "Omar Haddad", "Yuki Mori"]
CITIES = ["Rome", "北京", "Lagos", "São Paulo", "Cairo", "Oslo", "Quito", "Perth"]


CONTEXT = "This film was a long work. {person} made it in {city}, and it was shown there for {years} years."


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SQuAD 2.0's json of eight films: one question about each, and to every other one that nobody answers."""
    path = tmp_path_factory.mktemp("films") / "films.json"
    paragraphs = []
    for number, (person, city) in enumerate(zip(PEOPLE, CITIES, strict=True)):
        context = CONTEXT.format(person=person, city=city, years=number + 3)
        question, answer = (("Who made the film?", person), ("Where was it made?", city))[number % 2]
        answers = [{"text": answer, "answer_start": context.index(answer)}]
        qas = [{"id": f"{number}-0", "question": question, "answers": answers, "is_impossible": False}]
        if number % 2:
            qas.append({"id": f"{number}-1", "question": "Who paid?", "answers": [], "is_impossible": True})
        paragraphs.append({"context": context, "qas": qas})
    path.write_text(json.dumps({"version": "2.0", "data": [{"title": "films", "paragraphs": paragraphs}]}))
    return path


STAGE = Config(
    task="question_answering",
    data=DataSettings(max_length=30),
    qa=AnswerSettings(stride=6, max_question_length=8, max_answer_length=9, n_best=5),
)
SHAPE = BertConfig(
    vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
    max_position_embeddings=32, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.4,
)  # fmt: skip


class Prepared(NamedTuple):
    task: QuestionAnswering
    examples: Examples
    packed: Batch
    unpacked: Batch


@pytest.fixture(scope="module")
def prepared(films: Path) -> Prepared:
    """The windows of the films, several to a row and one to a row."""
    table = read_questions(str(films), "train", STAGE.data)
    tokenizer = TextTokenizer.train([*table.texts, *table.contexts], 300, lowercase=True)
    task = QuestionAnswering.for_training(STAGE, tokenizer, table, SHAPE)
    examples, cut = task.examples(table, training=True)
    count, lengths = len(examples), examples.lengths
    assert count > len(table) + 4
    assert cut == 0
    assert (examples.targets["start_positions"] > 0).sum() > 4
    packed = Layout(*(part[0] for part in plan(lengths[None, ::-1], 70)))
    packed = Layout(*(part[::-1] for part in packed))
    alone = Layout(np.arange(count), np.zeros(count, int), np.zeros(count, int))
    return Prepared(task, examples, lay(examples, packed, 70), lay(examples, alone, 40))


def lay(examples: Examples, layout: Layout, length: int) -> Batch:
    shape = (layout.rows + 1, length, layout.slots + 1)  # with a row and a slot that stay empty
    ids = np.arange(len(examples))
    batch = lay_out(examples.input_ids, examples.token_type_ids, examples.lengths, ids, layout, shape=shape)
    for name, values in examples.targets.items():
        batch[name] = np.zeros_like(batch["slot_examples"])
        batch[name][layout.row, layout.slot] = values
    return batch


@functools.cache
def model() -> tuple[nnx.GraphDef, Any]:
    return BertForQuestionAnswering.abstract(SHAPE)[0], random_params(BertForQuestionAnswering, SHAPE)


@functools.partial(quick_jit, static_argnums=0)
def _loss_and_gradients(task: QuestionAnswering, params: Any, batch: Any, key: jax.Array | None) -> tuple[Any, Any]:
    def loss(params: Any) -> jax.Array:
        return task.loss_sums(nnx.merge(model()[0], params), batch, key) / task.loss_weights(batch)

    return jax.value_and_grad(loss)(params)


def loss_and_gradients(task: QuestionAnswering, batch: Batch, seed: int | None) -> tuple[Any, dict[str, Any]]:
    arrays = {name: jnp.asarray(value) for name, value in batch.items()}
    key = None if seed is None else jax.random.key(seed)
    value, gradients = _loss_and_gradients(task, model()[1], arrays, key)
    return value, flat_params(gradients)


@pytest.mark.parametrize("seed", [None, 8], ids=["without dropout", "with dropout"])
def test_packed_loss_and_gradients_equal_unpacked(prepared: Prepared, seed: int | None) -> None:
    loss, gradients = loss_and_gradients(prepared.task, prepared.packed, seed)
    expected, expected_gradients = loss_and_gradients(prepared.task, prepared.unpacked, seed)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for name in ("qa_outputs.bias", "bert.layers.0.feed_forward.norm.bias"):  # 0 but for rounding: softmax is relative
        assert np.linalg.norm(gradients.pop(name)) < 1e-6
        expected_gradients.pop(name)
    assert_gradients_equal(gradients, expected_gradients, 1e-5)
    if seed is not None:
        assert abs(float(loss) - float(loss_and_gradients(prepared.task, prepared.packed, 9)[0])) > 1e-3


def torch_twin(directory: Path) -> Any:
    return transformers.BertForQuestionAnswering.from_pretrained(directory).eval()


def windows_of(examples: Examples) -> list[dict[str, torch.Tensor]]:
    """Each window as transformers takes it, one a batch and without padding."""
    slices = [slice(start, end) for start, end in zip(examples.offsets, examples.offsets[1:], strict=False)]
    return [
        {"input_ids": torch.tensor(examples.input_ids[None, here]),
         "token_type_ids": torch.tensor(examples.token_type_ids[None, here], dtype=torch.int32)} for here in slices
    ]  # fmt: skip


def test_the_loss_is_that_of_transformers_on_the_same_windows(prepared: Prepared, tmp_path: Path) -> None:
    BertForQuestionAnswering.save_params(tmp_path, prepared.task.configure(SHAPE), model()[1])
    twin, targets = torch_twin(tmp_path), prepared.examples.targets
    with torch.no_grad():
        expected = [
            float(twin(**inputs, start_positions=torch.tensor([start]), end_positions=torch.tensor([end])).loss)
            for inputs, start, end in zip(
                windows_of(prepared.examples),
                *(targets[f"{n}_positions"].tolist() for n in ("start", "end")),
                strict=True,
            )
        ]
    for batch in (prepared.packed, prepared.unpacked):
        loss, _ = loss_and_gradients(prepared.task, batch, None)
        np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)


def candidates_of(case: dict[str, Any]) -> Candidates:
    null = Candidate("", None, None, case["null_difference"])
    return Candidates([Candidate(case["prediction"], 0, 1, 0.0)], null)


def metrics_of(cases: list[dict[str, Any]], task: QuestionAnswering, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The task's metrics of given answers, through all but the model."""
    candidates = [candidates_of(case) for case in cases]
    monkeypatch.setattr("jaxlm.tasks.question_answering.find_answers", lambda *_: iter(candidates))
    names = [str(number) for number in range(len(cases))]
    answers = [[(text, 0) for text in case["truths"]] for case in cases]
    accepted = [case.get("accepted", []) for case in cases]
    table = QuestionTable("file", names, names, None, names, ids=names, answers=answers, accepted=accepted)
    windows = type("Windows", (), {"table": table})()
    examples = Examples(np.zeros(0), np.zeros(0), np.arange(len(cases) + 1), {}, names, "file", records=windows)
    outputs = {"start_logits": np.zeros(0), "end_logits": np.zeros(0)}
    task.calibrate(outputs, examples)
    return task.metrics({"loss": 6.0, "weight": 4.0}, outputs, examples)


def test_metrics_are_the_official_scripts(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    official = json.loads(Path(__file__).with_name("squad_scores.json").read_text(encoding="utf-8"))
    cases, tokenizer = official["cases"], prepared.task.tokenizer
    given = dataclasses.replace(STAGE, qa=dataclasses.replace(STAGE.qa, null_threshold=official["threshold"]))
    found = metrics_of(cases, QuestionAnswering(given, tokenizer, unanswerable=True), monkeypatch)
    assert found["loss"] == 1.5
    for name, value in official["at_threshold"].items():
        ours = {"exact": "exact_match", "total": "examples"}.get(name, name)
        assert found[ours] == pytest.approx(value, abs=1e-9), name
    answerable = [case for case in cases if case["truths"]]
    found = metrics_of(answerable, QuestionAnswering(STAGE, tokenizer, unanswerable=False), monkeypatch)
    for name, value in official["answerable_by_version_1"].items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
    assert "NoAns_f1" not in found


def test_answers_that_are_listed_apart_are_those_that_count(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MRQA's official script counts: by `answers`, not by those that were found in the context."""
    case = {"truths": ["1815"], "accepted": ["in 15"], "null_difference": 0.0}
    cases = [case | {"prediction": "In 15"}, case | {"prediction": "1815"}]
    found = metrics_of(cases, QuestionAnswering(STAGE, prepared.task.tokenizer, unanswerable=False), monkeypatch)
    assert (found["exact_match"], found["f1"]) == (50.0, 50.0)
    table = QuestionTable("file", ["q"], ["c"], None, ["1"], ids=["1"], answers=[[("1815", 0)]], accepted=[["in 15"]])
    assert prepared.task.verdict({"answer": "1815"}, table, 0) == 'it is "in 15"'


def test_the_threshold_is_chosen_on_dev_as_the_official_script_chooses_and_kept_in_the_model(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = json.loads(Path(__file__).with_name("squad_scores.json").read_text(encoding="utf-8"))
    task = QuestionAnswering(STAGE, prepared.task.tokenizer, unanswerable=True)
    found = metrics_of(official["cases"], task, monkeypatch)
    differences = np.array([case["null_difference"] for case in official["cases"]])
    threshold = official["best"]["best_f1_thresh"]
    assert threshold < found["null_threshold"] < differences[differences > threshold].min()
    assert found["null_threshold"] == task.null_threshold
    assert found["f1"] == pytest.approx(official["best"]["best_f1"], abs=1e-9)
    config = dataclasses.replace(SHAPE, facts=task.facts())
    again = QuestionAnswering.for_model(Config(data=STAGE.data), task.tokenizer, config)
    assert (again.null_threshold, again.unanswerable, again.stage.qa) == (task.null_threshold, True, STAGE.qa)


def test_whether_others_models_may_say_nothing_is_told_by_the_questions(prepared: Prepared, films: Path) -> None:
    task = QuestionAnswering.for_model(
        STAGE, prepared.task.tokenizer, dataclasses.replace(SHAPE, facts={"max_question_length": 8})
    )
    table = read_questions(str(films), "train", STAGE.data)
    answered = [row for row, given in enumerate(table.answers or []) if given]
    assert 0 < len(answered) < len(table)
    for of, may in ((table, True), (table.choose(answered), False), (dataclasses.replace(table, answers=None), False)):
        task.examples(of)
        assert task.unanswerable == may


def test_a_model_of_few_positions_shares_them_between_question_and_context(prepared: Prepared) -> None:
    few = dataclasses.replace(Config(), data=dataclasses.replace(STAGE.data, max_length=43))
    for facts, expected in (({}, 20), ({"max_question_length": 8}, 8)):
        task = QuestionAnswering.for_model(few, prepared.task.tokenizer, dataclasses.replace(SHAPE, facts=facts))
        assert task.stage.qa.max_question_length == expected


def test_a_tokenizer_without_token_types_gives_questions_none(prepared: Prepared, films: Path) -> None:
    """As in transformers, by `model_input_names`."""
    table = read_questions(str(films), "train", STAGE.data)
    content = prepared.task.tokenizer.to_json()
    for names, types in ((["input_ids", "token_type_ids"], True), (["input_ids"], False)):
        told = content | {"settings": content["settings"] | {"model_input_names": names}}
        task = QuestionAnswering(STAGE, TextTokenizer.from_json(told), unanswerable=False)
        assert task.examples(table)[0].token_type_ids.any() == types


def test_of_several_answers_the_first_is_learnt(prepared: Prepared) -> None:
    table = QuestionTable(
        "train.json", ["Who made it?"], ["Ada Okoye or Omar Haddad"], None, ["one"], ids=["1"],
        answers=[[("Omar Haddad", 13), ("Ada Okoye", 0)]],
    )  # fmt: skip
    windows, _ = prepared.task.examples(table, training=True)
    start, end = (windows.targets[f"{name}_positions"].tolist() for name in ("start", "end"))
    found = [windows.input_ids[o + s : o + e + 1] for o, s, e in zip(windows.offsets, start, end, strict=False) if s]
    expected = prepared.task.tokenizer.encode(["Omar Haddad"], max_length=30).input_ids[1:-1]
    assert found
    assert all(tokens.tolist() == expected.tolist() for tokens in found)


def test_an_answer_without_a_token_is_an_error_with_its_place_or_left_out(prepared: Prepared) -> None:
    context = "a \u200b film"
    table = QuestionTable(
        "train.json", ["Who?", "What?"], [context] * 2, None, ["one", "two"], ids=["1", "2"],
        answers=[[("film", 4)], [("\u200b", 2)]],
    )  # fmt: skip
    with pytest.raises(UserError, match=r"train\.json, two: the answer '\\u200b' has no token"):
        prepared.task.examples(table)
    skipping = dataclasses.replace(STAGE, data=dataclasses.replace(STAGE.data, bad_rows="skip"))
    examples, _ = QuestionAnswering(skipping, prepared.task.tokenizer, unanswerable=True).examples(table)
    assert examples.places == ["one"]
    assert table.skipped == {"answer without a token": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qa": AnswerSettings(stride=0)}, "--qa.stride is 0; it must be at least 1"),
        ({"qa": AnswerSettings(max_answer_length=0)}, "--qa.max_answer_length is 0"),
        ({"qa": AnswerSettings(n_best=0)}, "--qa.n_best is 0"),
        ({"qa": AnswerSettings(max_question_length=0)}, "--qa.max_question_length is 0"),
        ({"qa": AnswerSettings(null_threshold=float("nan"))}, "--qa.null_threshold is nan"),
        ({"qa": AnswerSettings()}, "--data.max_length is 30; it must be at least 195"),
        ({"train": TrainSettings(label_smoothing=0.1)}, "--train.label_smoothing is 0.1; it must be 0"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, Any], message: str) -> None:
    good = dataclasses.replace(STAGE, data=dataclasses.replace(STAGE.data, train="x.json"))
    validate(good)
    with pytest.raises(UserError, match=re.escape(message)):
        validate(dataclasses.replace(good, **change))


PRESET = """
from jaxlm.config import *
config = Config(
    task="question_answering",
    model=ModelSettings(init={model!r}),
    data=DataSettings(train={train!r}, dev={train!r}, max_length=44),
    qa=AnswerSettings(stride=12, max_question_length=20),
    train=TrainSettings(steps=200, batch_size=8, eval_every=200, log_every=50),
    optim=OptimSettings(learning_rate=4e-3, clip_norm=1.0),
    mesh=MeshSettings(devices=1),
)
"""


@pytest.fixture(scope="module")
def init(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder for the films."""
    directory = tmp_path_factory.mktemp("init")
    table = read_questions(str(films), "train", DataSettings())
    tokenizer = TextTokenizer.train([*table.texts, *table.contexts], 300, lowercase=True)
    config = dataclasses.replace(
        SHAPE,
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2, max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.1, id2label={0: "of", 1: "another", 2: "task"},
    )  # fmt: skip
    tokenizer.save(directory, max_length=64)
    BertModel.save_params(directory, config, BertModel.initial_params(config, jax.random.key(0)))
    return directory


@pytest.fixture(scope="module")
def trained(films: Path, init: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished run."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "preset.py").write_text(PRESET.format(model=str(init), train=str(films)))
    assert cli.main(["train", str(folder / "preset.py"), "--workdir", str(folder / "run")]) == 0
    return folder / "run"


def test_a_tiny_model_learns_a_handful_of_questions_by_heart(trained: Path, films: Path, tmp_path: Path) -> None:
    directory, table = str(trained / "model"), read_questions(str(films), "dev", DataSettings())
    metrics, out = tmp_path / "metrics.json", tmp_path / "predictions.jsonl"
    assert cli.main(["evaluate", directory, "--data.test", str(films), "--output", str(metrics)]) == 0
    found = json.loads(metrics.read_text())
    assert [found[name] for name in ("exact_match", "f1", "HasAns_f1", "NoAns_f1")] == [100.0] * 4
    assert found == pytest.approx(json.loads((trained / "summary.json").read_text())["dev"], abs=1e-4)
    assert cli.main(["predict", directory, "--input", str(films), "--output", str(out)]) == 0
    predictions = [json.loads(line) for line in out.read_text().splitlines()]
    assert [prediction["id"] for prediction in predictions] == table.ids
    for prediction, context, answers in zip(predictions, table.contexts, table.answers or [], strict=True):
        for text, start in answers[:1]:
            assert (prediction["answer"], prediction["start"]) == (text, start)
            assert context[start : prediction["end"]] == text
        if not answers:
            assert (prediction["answer"], prediction["start"], prediction["end"]) == ("", None, None)
        assert sum(listed["probability"] for listed in prediction["n_best"]) == pytest.approx(1)
        assert "" in [listed["answer"] for listed in prediction["n_best"]]
    assert "--text_pair" in (trained / "model" / "README.md").read_text()


def test_a_question_of_the_command_line_is_answered(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = "  " + CONTEXT.format(person="Anna Weber", city="Rome", years=3)
    command = ["predict", str(trained / "model"), "--text", "Who made the film?"]
    assert cli.main([*command, "--text_pair", context]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["id"], found["answer"], found["start"], found["end"]) == ("1", "Anna Weber", 29, 39)
    assert cli.main(command) == 2
    assert "--text_pair CONTEXT" in capsys.readouterr().err


def test_the_exported_directory_gives_the_same_logits_in_transformers_and_is_recognised(
    trained: Path, films: Path
) -> None:
    directory = trained / "model"
    config = BertConfig.from_json(directory / "config.json")
    assert config.architecture == "BertForQuestionAnswering"
    assert task_of(directory, dataclasses.replace(config, facts={})) is QuestionAnswering
    predictor = Predictor(str(directory), make_mesh(2), batch_size=5)
    examples, _ = predictor.task.examples(read_questions(str(films), "dev", DataSettings()))
    _, outputs = predictor._outputs(examples)
    twin = torch_twin(directory)
    with torch.no_grad():
        logits = [twin(**inputs) for inputs in windows_of(examples)]
    for name in ("start_logits", "end_logits"):
        expected = torch.cat([output[name][0] for output in logits]).numpy()
        np.testing.assert_allclose(outputs[name], expected, atol=1e-4)


def test_the_cards_own_code_finds_the_answer(trained: Path) -> None:
    task = QuestionAnswering(STAGE, TextTokenizer.load(trained / "model"), unanswerable=False)
    code = task.usage().replace("PATH_OF_THIS_DIRECTORY", str(trained / "model"))
    code = code.replace("Who wrote Emma?", "Who made the film?")
    code = code.replace("Emma is a novel by Jane Austen.", CONTEXT.format(person="Anna Weber", city="Rome", years=3))
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["answer"] == "Anna Weber"


def test_a_table_of_the_report_is_read_with_its_answers(prepared: Prepared, films: Path) -> None:
    table: Table = QuestionAnswering.read(str(films), "dev", DataSettings())
    right = {"answer": "the Anna Weber.", "probability": 0.5}
    assert prepared.task.verdict({"answer": "北京", "probability": 0.5}, table, 1) == "right"
    assert prepared.task.verdict(right, table, 0) == "right"
    assert prepared.task.verdict(right, table, 1) == 'it is "北京"'
    assert prepared.task.verdict(right, table, 2) == "it has no answer there"
    assert prepared.task.summary(right) == '"the Anna Weber." (0.50)'
    assert prepared.task.summary({"answer": "", "probability": 0.5}) == "no answer (0.50)"
