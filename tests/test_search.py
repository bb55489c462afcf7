"""`python -m jaxlm search` as a person meets it."""

import io
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import pytrec_eval

from jaxlm import cli
from jaxlm.config import Config
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.embed import Embedder
from jaxlm.models import BertConfig, BertForSequenceClassification
from jaxlm.parallel.mesh import make_mesh
from jaxlm.search.collection import Entry
from jaxlm.search.index import Index
from jaxlm.search.searcher import CrossEncoder, Hit
from jaxlm.tasks.ranking import Ranking
from jaxlm.verbs.search import table

from .conftest import make_sentences
from .search.broken import DOCUMENT_FILES, QRELS

DOCUMENTS = [(f"d{number}", text) for number, (text, _) in enumerate(make_sentences(40, 5))]
ASKED = [("q1", "good film"), ("q2", "the awful ending"), ("q3", "music")]
ONE_DEVICE = ["--mesh.devices", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Documents, queries, judgements, an index and a cross-encoder with random weights."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "documents.tsv").write_text("".join(f"{number}\t{text}\n" for number, text in DOCUMENTS))
    (folder / "queries.tsv").write_text("".join(f"{number}\t{text}\n" for number, text in ASKED))
    (folder / "qrels.txt").write_text("q1 0 d3 1\nq1 0 d7 2\nq2 0 d20 1\nq2 0 d21 0\nq2 0 gone 1\n")
    shutil.copytree(tiny_model, folder / "model")
    assert cli.main(building(folder)) == 0
    tokenizer = TextTokenizer.load(tiny_model)
    task = Ranking(Config(), tokenizer, 1.0)
    shape = task.configure(BertConfig.from_json(tiny_model / "config.json"))
    tokenizer.save(folder / "reranker", max_length=64)
    task.save(folder / "reranker", shape, BertForSequenceClassification.initial_params(shape, jax.random.key(1)))
    return folder


def building(folder: Path, *more: str) -> list[str]:
    return [
        "search", str(folder / "model"), "--documents", str(folder / "documents.tsv"), "--index",
        str(folder / "index"), "--document_prompt", "a ", "--query_prompt", "the ", *ONE_DEVICE, *more,
    ]  # fmt: skip


def asking(folder: Path, *more: str) -> list[str]:
    return ["search", "--index", str(folder / "index"), *ONE_DEVICE, *more]


def expected_order(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Cosines `[queries, documents]`, and the documents from best to worst."""
    embed = Embedder(str(folder / "model"), make_mesh(1))
    vectors, queries = (
        embed([prompt + text for _, text in texts]) for prompt, texts in (("a ", DOCUMENTS), ("the ", ASKED))
    )
    vectors, queries = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (vectors, queries))
    cosines = queries @ vectors.T
    return cosines, np.argsort(-cosines, axis=1, kind="stable")


def test_an_approximate_search_answers_as_the_exact_one_does(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder / "index", tmp_path / "index")
    command = ["search", "--index", str(tmp_path / "index"), *ONE_DEVICE, "--query", "good film", "--query", "music"]
    answers = []
    for more in ([], ["--approximate"], ["--approximate"]):
        assert cli.main([*command, *more]) == 0
        answers.append([json.loads(line)["hits"] for line in capsys.readouterr().out.splitlines()])
        assert (tmp_path / "index" / "graph.faiss").exists() == bool(more)
    for found in answers[1:]:
        assert [[hit["id"] for hit in hits] for hits in found] == [[hit["id"] for hit in hits] for hits in answers[0]]
    monkeypatch.setattr("jaxlm.verbs.search.importlib.util.find_spec", lambda name: None)
    assert cli.main([*command, "--approximate"]) == 2
    assert "--approximate needs faiss: pip install 'jaxlm[faiss]'" in capsys.readouterr().err


def test_the_graph_is_made_with_the_index(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("faiss")
    command = ["search", str(folder / "model"), "--documents", str(folder / "documents.tsv"), "--index",
               str(tmp_path / "index"), "--approximate", *ONE_DEVICE]  # fmt: skip
    for made in (True, False):  # at the second time it is there
        assert cli.main(command) == 0
        assert ("connecting documents" in capsys.readouterr().err) == made
        assert (tmp_path / "index" / "graph.faiss").exists()


def test_answers_are_the_documents_of_the_largest_cosines_as_json_lines_in_a_pipe(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [part for _, text in ASKED for part in ("--query", text)]
    assert cli.main(asking(folder, *flags, "--top_k", "7")) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    cosines, order = expected_order(folder)
    assert [line["query"] for line in lines] == [text for _, text in ASKED]
    for row, line in enumerate(lines):
        assert [hit["rank"] for hit in line["hits"]] == list(range(1, 8))
        assert [hit["id"] for hit in line["hits"]] == [DOCUMENTS[number][0] for number in order[row, :7]]
        assert [hit["text"] for hit in line["hits"]] == [DOCUMENTS[number][1] for number in order[row, :7]]
        found = [hit["score"] for hit in line["hits"]]
        assert found == pytest.approx(cosines[row, order[row, :7]].tolist(), abs=1e-5)
    output = tmp_path / "answers.jsonl"
    assert cli.main(asking(folder, "--queries", str(folder / "queries.tsv"), "--output", str(output))) == 0
    written = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["id"] for line in written] == ["q1", "q2", "q3"]
    assert [line["hits"][:7] for line in written] == [line["hits"] for line in lines]


def test_queries_and_the_cross_encoder_compute_in_the_dtype_that_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores: dict[str, list[list[float]]] = {}
    for dtype in ("auto", "float32", "bfloat16"):
        scores[dtype] = []
        for more in ([], ["--rerank", str(folder / "reranker")]):
            assert cli.main(asking(folder, "--query", "good film", "--dtype", dtype, *more)) == 0
            (line,) = capsys.readouterr().out.splitlines()
            scores[dtype].append([hit["score"] for hit in json.loads(line)["hits"]])
    assert scores["auto"] == scores["float32"]
    for rounded, exact in zip(scores["bfloat16"], scores["float32"], strict=True):
        assert rounded != exact
        assert rounded == pytest.approx(exact, abs=0.05)


def test_a_model_that_indexes_and_answers_is_loaded_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = []

    class Counted(Embedder):
        def __init__(self, name: str, *arguments: Any, **settings: Any):
            loaded.append(name)
            super().__init__(name, *arguments, **settings)

    monkeypatch.setattr("jaxlm.embed.Embedder", Counted)
    monkeypatch.chdir(folder)  # a relative directory is kept by its absolute path
    index = ["--documents", "documents.tsv", "--index", str(tmp_path / "index")]
    assert cli.main(["search", "model", *index, "--query", "good film", *ONE_DEVICE]) == 0
    assert loaded == [str(folder / "model")]


def test_queries_come_from_standard_input_too(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"good film\n\nmusic\r\n")))
    assert cli.main(asking(folder, "--top_k", "1")) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["id"], line["query"], len(line["hits"])) for line in lines] == [
        ("1", "good film", 1), ("3", "music", 1),
    ]  # fmt: skip


def test_a_person_at_a_terminal_asks_line_by_line_and_reads_a_table(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["good film\n", "\n", "music\n", ""])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True, readline=lambda: next(lines)))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(asking(folder, "--top_k", "2")) == 0
    shown = capsys.readouterr()
    first, second, end = shown.out.split("\n\n")
    assert (first.splitlines()[0], second.splitlines()[0], end) == ("good film", "music", "")
    assert [line.split()[0] for line in first.splitlines()[1:]] == ["1", "2"]
    assert shown.err.count("query (Ctrl-D ends): ") == 4


def test_a_table_shows_rank_score_id_and_what_fits_of_the_text() -> None:
    hits = [
        Hit(Entry("d1", "A title", "with some text that is longer than the line"), 0.5, 0.5),
        Hit(Entry("longer", "", "short"), -2.25, 0.25),
    ]
    assert table("what?", hits, 50).splitlines() == [
        "what?",
        "   1   0.5000  d1      A title with some text t...",
        "   2  -2.2500  longer  short",
    ]


def test_the_same_command_again_says_that_the_index_is_up_to_date(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "index").iterdir()}
    assert cli.main(building(folder, "--query", "music", "--top_k", "1")) == 0
    shown = capsys.readouterr()
    assert "is up to date: 40 documents" in shown.err
    assert json.loads(shown.out)["query"] == "music"
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "index").iterdir()} == before


def test_an_index_notes_where_its_model_has_moved_and_in_which_dtype_its_vectors_were_computed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "model", tmp_path / "old")
    command = ["--documents", str(folder / "documents.tsv"), "--index", str(tmp_path / "index"), *ONE_DEVICE]
    assert cli.main(["search", str(tmp_path / "old"), *command, "--dtype", "bfloat16"]) == 0
    (tmp_path / "old").rename(tmp_path / "new")
    assert cli.main(["search", str(tmp_path / "new"), *command, "--dtype", "bfloat16"]) == 0
    assert "is up to date" in capsys.readouterr().err
    assert cli.main(["search", "--index", str(tmp_path / "index"), "--query", "music", *ONE_DEVICE]) == 0
    assert cli.main(["search", str(tmp_path / "new"), *command]) == 0  # auto takes what is there
    assert "is up to date" in capsys.readouterr().err
    assert cli.main(["search", str(tmp_path / "new"), *command, "--dtype", "float32"]) == 0
    assert "products were computed in bfloat16, and are in float32 now" in capsys.readouterr().err


def test_a_prompt_for_queries_is_kept_until_another_is_given(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "index", tmp_path / "index")
    command = building(folder)
    command[command.index("--index") + 1] = str(tmp_path / "index")
    at = command.index("--query_prompt")
    for given, kept in (([], "the "), (["--query_prompt", "ask: "], "ask: "), ([], "ask: ")):
        assert cli.main([*command[:at], *given, *command[at + 2 :]]) == 0
        assert Index(tmp_path / "index").plan.query_prompt == kept


def test_a_model_that_has_changed_or_moved_is_an_error_that_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, moved = folder / "model", tmp_path / "moved"
    shutil.copytree(model, moved)
    file = model / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        assert cli.main(asking(folder, "--query", "music")) == 2
        assert "the model has changed since; make the index again" in capsys.readouterr().err
    finally:
        file.write_bytes(content)
    model.rename(folder / "elsewhere")
    try:
        assert cli.main(asking(folder, "--query", "music")) == 2
        assert "the model of this index, is gone; where is it now?" in capsys.readouterr().err
        assert cli.main(["search", str(moved), *asking(folder, "--query", "music")[1:]]) == 0
    finally:
        (folder / "elsewhere").rename(model)


def test_judgements_give_the_metrics_of_trec_eval_whatever_is_shown(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judging = ["--queries", str(folder / "queries.tsv"), "--qrels", str(folder / "qrels.txt")]
    judged = {"q1": {"d3": 1, "d7": 2}, "q2": {"d20": 1, "d21": 0, "gone": 1}}
    measures = {"recip_rank", "ndcg_cut.10", "recall.3", "map"}
    reranking = ["--rerank", str(folder / "reranker"), "--rerank_top"]
    for run_depth, flags, deepest, said in (
        (1000, [], 40, "metrics are of each query's 40 nearest documents"),
        (30, [], 30, "metrics are of each query's 30 nearest documents"),
        (1000, [*reranking, "25"], 25, "metrics are of each query's 25 re-ranked documents"),
    ):
        monkeypatch.setattr("jaxlm.verbs.search._RUN", run_depth)
        assert cli.main(asking(folder, *judging[:2], *flags, "--top_k", str(deepest))) == 0
        lines = list(map(json.loads, capsys.readouterr().out.splitlines()))
        run = {line["id"]: {hit["id"]: hit["score"] for hit in line["hits"]} for line in lines}
        expected = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(run)
        assert cli.main(asking(folder, *judging, *flags, "--top_k", "3")) == 0
        shown = capsys.readouterr()
        assert [len(json.loads(line)["hits"]) for line in shown.out.splitlines()] == [3, 3, 3]
        found = dict(line.split(": ") for line in shown.err.splitlines() if line.count(": ") == 1)
        theirs = {"mrr": "recip_rank", "ndcg@10": "ndcg_cut_10", "recall@3": "recall_3", "map": "map"}
        for ours, name in theirs.items():
            mean = np.mean([expected[query][name] for query in judged])
            assert float(found[ours]) == pytest.approx(mean, rel=1e-4), (ours, flags)
        assert (found["queries"], found["queries_left_out"]) == ("2", "1")
        assert said in shown.err
        assert "1 of 5 judged documents are not in the index" in shown.err


def test_columns_and_the_type_of_the_vectors_are_those_that_are_told(folder: Path, tmp_path: Path) -> None:
    documents = tmp_path / "documents.csv"
    documents.write_text("id,title,text,a,b\n1,no,film,Alpha,x\n2,no,plot,Beta,y\n")
    columns = ["--id_column", "b", "--title_column", "a", "--vectors", "float16"]
    command = ["search", str(folder / "model"), "--documents", str(documents), "--index", str(tmp_path / "index")]
    assert cli.main([*command, *columns, *ONE_DEVICE]) == 0
    index = Index(tmp_path / "index")
    assert [index.document(number) for number in range(2)] == [Entry("x", "Alpha", "film"), Entry("y", "Beta", "plot")]
    assert index.vectors.dtype == np.float16


def test_reranking_orders_the_nearest_by_the_cross_encoders_scores(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--rerank", str(folder / "reranker"), "--rerank_top", "6", "--top_k", "3"]
    assert cli.main(asking(folder, "--query", "good film", *flags)) == 0
    hits: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["hits"]
    nearest = expected_order(folder)[1][0, :6]
    pairs = [("good film", DOCUMENTS[number][1]) for number in nearest]
    (tmp_path / "pairs.tsv").write_text("".join(f"{query}\t{text}\n" for query, text in pairs))
    assert cli.main(["predict", str(folder / "reranker"), "--input", str(tmp_path / "pairs.tsv"), *ONE_DEVICE]) == 0
    scores = np.array([json.loads(line)["score"] for line in capsys.readouterr().out.splitlines()])
    order = np.argsort(-scores)[:3]
    assert [hit["id"] for hit in hits] == [DOCUMENTS[nearest[place]][0] for place in order]
    assert [hit["score"] for hit in hits] == pytest.approx(scores[order].tolist(), abs=1e-5)
    assert [hit["cosine"] for hit in hits] == pytest.approx(
        expected_order(folder)[0][0, nearest[order]].tolist(), abs=1e-5
    )


def test_answers_are_written_as_they_come_and_how_many_there_are_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxlm.verbs.search._SAY_EVERY_S", 0)
    monkeypatch.setattr("jaxlm.search.searcher._FEWEST_PAIRS", 10)
    written: list[int] = []

    def score(model: CrossEncoder, queries: list[str], passages: list[str]) -> np.ndarray:
        written.append(capsys.readouterr().out.count("\n"))
        return np.zeros(len(queries))

    monkeypatch.setattr(CrossEncoder, "__call__", score)
    flags = ["--queries", str(folder / "queries.tsv"), "--rerank", str(folder / "reranker"), "--rerank_top", "10"]
    assert cli.main(asking(folder, *flags)) == 0
    assert written == [0, 1]  # the second group is the other two queries
    assert "answered: 3/3 queries, 0:00 left" in capsys.readouterr().err


def test_what_is_cut_is_counted(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "long.txt").write_text("film\n" + "music " * 100 + "\n")
    command = ["search", str(folder / "model"), "--documents", str(tmp_path / "long.txt"), "--index",
               str(tmp_path / "index"), "--data.max_length", "8", *ONE_DEVICE]  # fmt: skip
    assert cli.main([*command, "--query", "good " * 100]) == 0
    said = capsys.readouterr().err
    assert "1 of the documents embedded now were cut to 8 tokens" in said
    assert "1 of the queries embedded now were cut to 8 tokens" in said
    asked = ["search", "--index", str(tmp_path / "index"), "--query", "music", "--query", "film", *ONE_DEVICE]
    assert cli.main([*asked, "--rerank", str(folder / "reranker")]) == 0
    said = capsys.readouterr().err
    assert "2 of the pairs re-ranked now were cut to 64 tokens\n" in said
    assert "--data.max_length" not in said


def test_wrong_files_are_one_clear_line_and_leave_nothing_behind(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answered(arguments: list[str], message: str) -> None:
        assert cli.main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert message in error, arguments
        expected = re.compile("making|reading|.*: no column names: ids are")
        assert [line[:7] for line in error.splitlines() if not expected.match(line)] == ["error: "]

    for name, (content, message, _) in DOCUMENT_FILES.items():
        file = tmp_path / name.split()[0]
        file.write_bytes(content)
        answered(["search", str(folder / "model"), "--documents", str(file), "--index", str(tmp_path / "x")], message)
        file.unlink()
    for content, message in QRELS.values():
        (tmp_path / "qrels").write_bytes(content)
        answered(asking(folder, "--queries", str(folder / "queries.tsv"), "--qrels", str(tmp_path / "qrels")), message)
    good = str(folder / "documents.tsv")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis").write_text("")
    (tmp_path / "qrels").write_text("q1 0 other 1\n")
    model, queries = str(folder / "model"), str(folder / "queries.tsv")
    answered(["search", model, "--documents", good, "--index", str(tmp_path / "full")], "is not empty and holds no")
    answered(["search", model, "--documents", good, "--index", good], "is a file; a directory is meant")
    answered(["search", model, "--documents", good, "--index", f"{good}/b"], "documents.tsv is a file, and no")
    answered(["search", model, "--documents", str(tmp_path / "*.tsv"), "--index", str(tmp_path / "x")], "no such file")
    answered(["search", str(tmp_path), "--documents", good, "--index", str(tmp_path / "x")], "no config.json")
    answered(asking(folder, "--queries", queries, "--qrels", str(tmp_path / "qrels")), "ids have to agree")
    (tmp_path / "qrels").write_text("other 1 d3 1\n")
    assert cli.main(asking(folder, "--queries", queries, "--qrels", str(tmp_path / "qrels"))) == 2
    assert "judges none of the queries, such as 'q1', but 'other'" in capsys.readouterr().err
    (tmp_path / "named.csv").write_text("query,text,key\ngood film,,q1\nmusic,,q2\n")
    judging = ["--queries", str(tmp_path / "named.csv"), "--qrels", str(folder / "qrels.txt")]
    assert cli.main(asking(folder, *judging)) == 2
    assert "--qrels judges by ids: which column are they (query, text, key)?" in capsys.readouterr().err
    (tmp_path / "named.csv").unlink()
    answered(asking(folder, "--query", "music", "--rerank", str(folder / "model")), "has no head that a task")
    answered(["search", "--index", str(tmp_path / "x"), "--query", "music"], "holds no index; make one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "qrels"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--query", "a"], "--index DIR is missing"),
        (["--index", "x", "--documents", "a.txt"], "which model?"),
        (["--index", "x", "--query", "a", "--queries", "b"], "not both"),
        (["--index", "x", "--query", " "], "a --query is empty"),
        (["--index", "x", "--query", "a", "--qrels", "b"], "pass --queries FILE"),
        (["--index", "x", "--queries", "absent.tsv"], "no such file"),
        (["--index", "x", "--query", "a", "--top_k", "0"], "--top_k is 0; it must be at least 1"),
        (["--index", "x", "--query", "a", "--rerank", "m", "--rerank_top", "5"], "it must be at least 10"),
        (["--index", "x", "--query", "a", "--vectors", "float16"], "--vectors belongs to making an index"),
        (["--index", "x", "--query", "a", "--data.max_length", "9"], "--data.max_length belongs to making an index"),
        (["m", "--index", "x", "--documents", "a.txt", "--rerank", "m"], "--rerank belongs to asking: add --query"),
        (["m", "--index", "x", "--documents", "a.txt", "--rerank_top", "9"], "--rerank_top belongs to asking"),
        (["m", "--index", "x", "--documents", "a.txt", "--output", "o"], "--output belongs to asking"),
        (["m", "--index", "x", "--documents", "a.txt", "--top_k", "3"], "--top_k belongs to asking"),
        (["--index", "x", "--query", "a", "--output", "no/such/x"], "there is no directory"),
        (["--index", "x", "--query", "a", "--batch_size", "0"], "--batch_size is 0"),
        (["--index", "x", "--quer", "a"], "did you mean --query?"),
    ],
)
def test_wrong_flags_are_answered(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
