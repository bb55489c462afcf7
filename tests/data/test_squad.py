import gzip
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from jaxlm.config import DataSettings
from jaxlm.data import schemes
from jaxlm.data.files import Row
from jaxlm.data.squad import QuestionTable, questions_of_texts, read_questions
from jaxlm.errors import UserError

CONTEXT = "  Müller met 李雷 in 北京. It was\u00a01999 👍🏽."  # spaces in front count too
QUESTIONS = [
    {"id": "q1", "question": "Who met 李雷?", "answers": [{"text": "Müller", "answer_start": 2}]},
    {"id": "q2", "question": "When?", "answers": [{"text": "1999", "answer_start": CONTEXT.index("1999")}] * 2},
]
NONE = {"id": "q3", "question": "Why?", "answers": [], "is_impossible": True}


def squad(*questions: Any, context: Any = CONTEXT) -> str:
    return json.dumps(
        {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]}
    )


def rows(*questions: dict[str, Any]) -> list[dict[str, Any]]:
    """As tfds and hf have them."""
    columns = [{key: [answer[key] for answer in q["answers"]] for key in ("text", "answer_start")} for q in questions]
    return [
        {"id": q["id"], "title": "t", "context": CONTEXT, "question": q["question"], "answers": answers}
        for q, answers in zip(questions, columns, strict=True)
    ]


def jsonl(values: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in values)


def read(path: Path | str, *, labelled: bool = True, split: str = "train", **settings: str) -> QuestionTable:
    return read_questions(str(path), split, DataSettings(**settings), labelled=labelled)


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "wb") as file:
        file.write(data)
    return path


def facts(table: QuestionTable) -> tuple[Any, ...]:
    return table.ids, table.texts, table.pairs, table.answers, table.impossible


EXPECTED = (
    ["q1", "q2", "q3"],
    ["Who met 李雷?", "When?", "Why?"],
    [CONTEXT] * 3,
    [[("Müller", 2)], [("1999", 30)] * 2, []],
    [False, False, True],
)
FLAT = [
    {"id": "q1", "question": "Who met 李雷?", "context": CONTEXT, "answer": "Müller", "answer_start": 2},
    {"id": "q3", "question": "Why?", "context": CONTEXT, "answer": None, "answer_start": None},
]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", squad(*QUESTIONS, NONE)),
        ("a.json.gz", squad(*QUESTIONS, NONE)),
        ("a.json.xz", "\ufeff" + squad(*QUESTIONS, NONE)),
        ("rows.json", json.dumps(rows(*QUESTIONS, NONE))),
        ("rows_under_data.json", json.dumps({"data": rows(*QUESTIONS, NONE)})),
        ("a.jsonl", jsonl(rows(*QUESTIONS, NONE))),
        ("a.jsonl.gz", jsonl([{**q, "context": CONTEXT} for q in (*QUESTIONS, NONE)])),
    ],
)
def test_every_format_gives_the_same_questions(tmp_path: Path, name: str, content: str) -> None:
    assert facts(read(write(tmp_path / name, content))) == EXPECTED


def test_rows_of_a_json_file_may_be_lines_or_lists_by_split(tmp_path: Path) -> None:
    lines = write(tmp_path / "train.json", jsonl(rows(*QUESTIONS, NONE)))  # as datasets.to_json writes
    assert facts(read(lines)) == EXPECTED
    both = write(tmp_path / "both.json", json.dumps({"train": rows(*QUESTIONS, NONE), "validation": rows(NONE)}))
    assert facts(read(both)) == EXPECTED
    assert read(both, split="dev").places == ["item 1 of validation"]
    with pytest.raises(UserError, match="keys train, validation; one of test"):
        read(both, split="test")


def test_ids_have_other_names_too_or_are_the_places_of_questions(tmp_path: Path) -> None:
    named = [{"guid": "klue-1", **QUESTIONS[0]}, QUESTIONS[1], {"qid": 7, **QUESTIONS[1]}]
    questions = [{key: value for key, value in question.items() if key != "id"} for question in named]
    assert read(write(tmp_path / "klue.json", squad(*questions))).ids == ["klue-1", "1.1.2", "7"]
    lines = jsonl([{**question, "context": CONTEXT} for question in questions])
    assert read(write(tmp_path / "klue.jsonl", lines)).ids == ["klue-1", "2", "7"]


def mrqa(*found: Any) -> str:
    start = CONTEXT.index("1999")
    spans = [{"text": "1999", "char_spans": [[start, start + 3]], "token_spans": [[9, 9]]}, *found]
    question = {"qid": "m1", "question": "When?", "answers": ["1999"], "detected_answers": spans}
    header = {"header": {"dataset": "SQuAD", "split": "train"}}
    return jsonl([header, {"id": "", "context": CONTEXT, "qas": [question], "context_tokens": [["Müller", 2]]}])


def test_mrqa_says_where_answers_end(tmp_path: Path) -> None:
    met = {"text": "müller", "char_spans": [[2, 7], [13, 14]]}
    table = read(write(tmp_path / "mrqa.jsonl.gz", mrqa(met)))
    assert facts(table)[:4] == (["m1"], ["When?"], [CONTEXT], [[("1999", 30), ("Müller", 2), ("李雷", 13)]])
    assert table.places == ["line 2, question m1"]
    for wrong in ("1999", {"text": "1999"}, {"text": "x", "char_spans": [["2", "3"]]}):
        with pytest.raises(UserError, match="line 2, question m1: an answer"):
            read(write(tmp_path / "wrong.jsonl", mrqa(wrong)))
        assert read(tmp_path / "wrong.jsonl", labelled=False).texts == ["When?"]


def test_mrqa_is_scored_by_all_its_answers_and_known_by_its_qid(tmp_path: Path) -> None:
    content = mrqa().replace('"answers": ["1999"]', '"answers": ["1999", "in 99"]').replace('"qid"', '"id": "x", "qid"')
    table = read(write(tmp_path / "mrqa.jsonl", content))
    assert (table.ids, table.answers, table.truths) == (["m1"], [[("1999", 30)]], [["1999", "in 99"]])
    assert table.choose([0]).truths == table.truths
    objects = content.replace('["1999", "in 99"]', '[{"text": "1999", "answer_start": 30}]')
    assert read(write(tmp_path / "mrqa.jsonl", objects)).truths == [["1999"]]
    spans = {"text": ["1999"], "char_spans": [{"start": [30], "end": [33]}]}  # as the hub has it
    question = {"question": "When?", "answers": ["1999", "in 99"]}
    row = {"qid": "m1", "context": CONTEXT, "detected_answers": spans, **question}
    listed = [{"text": "1999", "char_spans": [{"start": 30, "end": 33}]}]
    for number, kind in enumerate((spans, listed)):
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist([row | {"detected_answers": kind}]), path := tmp_path / f"{number}.parquet"
        )
        assert (facts(read(path)), read(path).truths) == (facts(table), table.truths)
    assert read(write(tmp_path / "a.json", squad(*QUESTIONS, NONE))).truths == [["Müller"], ["1999", "1999"], []]


@pytest.mark.parametrize(
    ("none", "more"),
    [
        ([{"text": "", "answer_start": -1}], {}),
        ({"text": [""], "answer_start": [-1.0]}, {}),
        ([{"text": "", "answer_start": 0}], {"is_impossible": True}),
    ],
)
def test_an_empty_answer_that_is_nowhere_is_none(tmp_path: Path, none: Any, more: dict[str, bool]) -> None:
    question = {"id": "q3", "question": "Why?", "context": CONTEXT, "answers": none, **more}
    assert read(write(tmp_path / "a.jsonl", jsonl([question]))).impossible == [True]
    with pytest.raises(UserError, match="no answers"):
        read(write(tmp_path / "b.jsonl", jsonl([{**question, "answers": [], "is_impossible": False}])))


@pytest.mark.parametrize("start", [2.0, "2"])
def test_an_answer_may_start_at_a_number_of_another_kind_and_be_in_flat_columns(tmp_path: Path, start: Any) -> None:
    row = {"id": "q1", "question": "Who?", "context": CONTEXT}
    for more in (
        {"answers": [{"text": "Müller", "answer_start": start}]},
        {"answers.text": ["Müller"], "answers.answer_start": [start]},
    ):
        assert read(write(tmp_path / "a.jsonl", jsonl([row | more]))).answers == [[("Müller", 2)]]


def test_parquet_gives_the_same_questions(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows(*QUESTIONS, NONE)), tmp_path / "a.parquet")
    assert facts(read(tmp_path / "a.parquet")) == EXPECTED


def test_tfds_rows_of_bytes_and_arrays_give_the_same_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    def source(name: str, split: str) -> tuple[None, Any]:
        assert (name, split) == ("squad/v2.0", "dev")
        found = rows(*QUESTIONS, NONE)
        for row in found:
            texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
            row["answers"] = {
                "text": np.array([text.encode() for text in texts], object), "answer_start": np.array(starts, np.int32)
            }  # fmt: skip
        return None, (Row(number, row) for number, row in enumerate(found, 1))

    monkeypatch.setitem(schemes.SCHEMES, "tfds", source)
    assert facts(read("tfds:squad/v2.0", split="dev")) == EXPECTED


def test_flat_columns_and_columns_of_other_names_serve_too(tmp_path: Path) -> None:
    table = read(write(tmp_path / "flat.jsonl", jsonl(FLAT)))
    assert (table.ids, table.answers) == (["q1", "q3"], [[("Müller", 2)], []])
    renamed = [{"q": "Who?", "body": CONTEXT, "gold": {"text": ["李雷"], "answer_start": [13]}}]
    table = read(write(tmp_path / "own.jsonl", jsonl(renamed)), text="q", text_pair="body", label="gold")
    assert (table.ids, table.texts, table.answers) == (["1"], ["Who?"], [[("李雷", 13)]])
    with pytest.raises(UserError, match=r"which column is the question\? Columns: q, body, gold"):
        read(tmp_path / "own.jsonl")
    with pytest.raises(UserError, match=r"--data\.label answers: no such column"):
        read(tmp_path / "own.jsonl", text="q", text_pair="body", label="answers")


def test_true_and_false_may_be_text(tmp_path: Path) -> None:
    questions = ({**QUESTIONS[0], "is_impossible": "false"}, {**NONE, "is_impossible": "True"})
    assert read(write(tmp_path / "cail.json", squad(*questions))).impossible == [False, True]


def test_answers_are_not_looked_at_where_they_are_not_asked_for(tmp_path: Path) -> None:
    questions = [{"id": "a", "question": "Who?"}, {"id": "b", "question": "When?", "answers": "nonsense"}]
    table = read(write(tmp_path / "a.json", squad(*questions)), labelled=False)
    assert (table.ids, table.answers, table.impossible) == (["a", "b"], None, None)
    chosen = read(write(tmp_path / "b.json", squad(*QUESTIONS, NONE))).choose([2, 0])
    assert (chosen.ids, chosen.impossible, chosen.places[0]) == (
        ["q3", "q1"],
        [True, False],
        "article 1, paragraph 1, question q3",
    )


GOOD = QUESTIONS[0]
ROW = rows(GOOD)[0]
BAD: dict[str, tuple[str, str, str]] = {
    "offset.json": (
        squad(GOOD, {**QUESTIONS[1], "answers": [{"text": "Müller", "answer_start": 3}]}),
        "article 1, paragraph 1, question q2", "not at its offset ('Müller' at 3: 'üller ' is there; it occurs at 2)",
    ),
    "absent.json": (
        squad(GOOD, {**QUESTIONS[1], "answers": [{"text": "Meier", "answer_start": -1}]}),
        "question q2", "it does not occur in the context",
    ),
    "none.json": (squad(GOOD, {"id": "x", "question": "Who?"}), "question x", "no answers"),
    "both.json": (squad(GOOD, {**QUESTIONS[1], "is_impossible": True}), "question q2", "question that is_impossible"),
    "strange.json": (
        squad(GOOD, {**NONE, "is_impossible": "perhaps"}), "question q3", "neither true nor false ('perhaps')"
    ),
    "neither.json": (squad(GOOD, {**NONE, "is_impossible": False}), "question q3", "no answers"),
    "twice.json": (squad(GOOD, GOOD), "question q1", "an id that occurred before"),
    "object.json": (squad(GOOD, "Who?"), "paragraph 1, question 2", "no JSON object"),
    "question.json": (squad(GOOD, {**QUESTIONS[1], "question": " "}), "question q2", "an empty question"),
    "number.json": (squad(GOOD, {**QUESTIONS[1], "question": 7}), "question q2", "a question that is no string (7)"),
    "start.json": (
        squad(GOOD, {**QUESTIONS[1], "answers": [{"text": "1999", "answer_start": 32.5}]}),
        "question q2", "an answer_start that is no whole number (32.5)",
    ),
    "large.json": (
        squad(GOOD, {**QUESTIONS[1], "answers": [{"text": "1999", "answer_start": 10**400}]}),
        "question q2", "an answer",
    ),
    "text.json": (
        squad(GOOD, {**QUESTIONS[1], "answers": [{"text": "", "answer_start": 0}]}), "question q2", "an empty answer",
    ),
    "shape.json": (squad(GOOD, {**QUESTIONS[1], "answers": ["1999"]}), "question q2", "an answer that is no object"),
    "paragraphs.json": (squad(GOOD)[:-2] + ', {"title": "u"}]}', "article 2", "no list of paragraphs"),
    "qas.json": (squad(GOOD)[:-4] + ', {"context": "c"}]}]}', "article 1, paragraph 2", 'no list of questions ("qas")'),
    "context.jsonl": (jsonl([ROW, {**ROW, "id": "y", "context": None}]), "line 2", "no context"),
    "columns.jsonl": (
        jsonl([ROW, {**ROW, "id": "y", "answers": {"text": ["Müller"], "answer_start": []}}]),
        "line 2", "answers without as many texts as starts",
    ),
    "line.jsonl": (jsonl([ROW]) + "{\n", "line 2", "no JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_broken_question_is_an_error_with_its_place_or_skipped_and_counted(tmp_path: Path, name: str) -> None:
    content, place, problem = BAD[name]
    path = write(tmp_path / name, content)
    with pytest.raises(UserError) as error:
        read(path)
    for part in (str(path), place, problem, "--data.bad_rows skip"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    table = read(path, bad_rows="skip")
    assert table.ids == ["q1"]
    assert sum(table.skipped.values()) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere.json", None, "no such file"),
        ("cut.json", squad(GOOD)[:-4], "line 1: no JSON"),
        ("latin.json", squad(GOOD).encode() + b"\xff", "not UTF-8"),
        ("damaged.json.xz", None, "damaged"),
        ("other.json", '{"articles": []}', 'no list of articles under "data"'),
        ("number.json", "7", "neither a SQuAD file nor a list of rows"),
        ("empty.json", '{"data": []}', "no questions"),
        ("all_bad.json", squad({**GOOD, "question": ""}), "no usable question"),
        ("a.csv", "question,context\n", "not as .csv"),
        ("no_context.jsonl", '{"question": "Who?"}\n', "which column is the context"),
    ],
)
def test_an_unusable_file_is_named(tmp_path: Path, name: str, content: str | bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        write(path, content)
    elif name.endswith(".xz"):
        path.write_bytes(lzma.compress(squad(GOOD).encode())[:-20])
    with pytest.raises(UserError) as error:
        read(path, bad_rows="skip" if name == "all_bad.json" else "error")
    assert message in str(error.value)
    assert name in str(error.value)


def test_questions_of_the_command_line_keep_their_contexts_as_they_are() -> None:
    table = questions_of_texts("--text", ["Who?", "When?"], [CONTEXT, "c"], DataSettings())
    assert (table.ids, table.texts, table.pairs, table.answers) == (["1", "2"], ["Who?", "When?"], [CONTEXT, "c"], None)
    with pytest.raises(UserError, match="--text_pair CONTEXT"):
        questions_of_texts("--text", ["Who?"], None, DataSettings())
    assert "tensorflow" not in sys.modules
