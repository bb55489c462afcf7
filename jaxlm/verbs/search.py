"""`python -m jaxlm search`: makes an index of documents, and finds in it what is nearest to a query."""

import dataclasses
import functools
import importlib.util
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jaxlm.config import DataSettings, Dtype, MeshSettings
from jaxlm.console import duration
from jaxlm.errors import UserError
from jaxlm.flags import check_batch_size, check_output, parse
from jaxlm.parallel import distributed
from jaxlm.startup import start_jax

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxlm.console import Console
    from jaxlm.embed import Embedder
    from jaxlm.ranking_metrics import Ranking
    from jaxlm.search.collection import Entry
    from jaxlm.search.index import Index
    from jaxlm.search.qrels import Qrels
    from jaxlm.search.searcher import CrossEncoder, Hit, Search, Searcher

_USAGE = (
    "python -m jaxlm search MODEL --documents FILE --index DIR makes an index; "
    'python -m jaxlm search --index DIR --query "..." asks it'
)

_SAY_EVERY_S = 15
_RUN = 1000  # documents of each query that metrics look at: the customary depth of a run for trec_eval

log = logging.getLogger("jaxlm")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Search by meaning. With --documents: makes the index, or says that it is up to date. With --query, --queries or
    queries on standard input: answers from it. An index knows its model."""

    model: tyro.conf.Positional[str] = ""
    """Hub name or directory of the model that makes vectors; to ask, only where the index's own has moved."""
    index: str | None = None
    """Directory of the index."""
    documents: tuple[str, ...] = ()
    """Files or globs of documents: txt (one a line), csv, tsv, jsonl or parquet, plain, .gz or .xz, with columns of id,
    title and text."""
    query: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A query; may be given again and again."""
    queries: str | None = None
    """A file of queries: txt (one a line), or with columns of id and query."""
    top_k: int = 10
    """Documents for each query."""
    rerank: str | None = None
    """Hub name or directory of a cross-encoder (task ranking), which reads query and document together and puts the
    nearest documents in order."""
    rerank_top: int = 100
    """How many of the nearest documents it reads for each query."""
    qrels: str | None = None
    """Relevance judgements of `--queries` (TREC's format, or query, document, grade): MRR, NDCG@10, recall and MAP,
    too, of the 1000 nearest documents, or of all that were re-ranked."""
    output: str | None = None
    """A file for the answers, a JSON line a query. Without it: a table on a terminal, JSON lines in a pipe."""
    id_column: str | None = None
    """Column of the documents' ids, by name or position; `--data.text` is that of their text."""
    title_column: str | None = None
    """Column of the documents' titles."""
    document_prompt: str = ""
    """What the model wants before each document, such as "passage: "; the index remembers it, and the next."""
    query_prompt: str = ""
    """What the model wants before each query, such as "query: "."""
    approximate: bool = False
    """Search through a graph of neighbours instead of all documents: for millions of them. It is made once, in DIR:
    with the index, or for the first query."""
    vectors: Literal["float32", "float16"] = "float32"
    """How vectors are stored: float16 takes half the space."""
    data: DataSettings = dataclasses.field(default_factory=lambda: DataSettings(max_length=0))
    """How files are read, as for training; max_length 0 is the model's own."""
    mesh: MeshSettings = dataclasses.field(default_factory=MeshSettings)
    dtype: Dtype = "auto"
    """What products are computed in; auto is bfloat16 on TPU and GPU, float32 on CPU."""
    batch_size: int | None = None
    """What is computed at once: as many tokens as this many texts of 32 have, and pairs to re-rank; unset:
    what keeps the devices busy."""


def run(arguments: list[str]) -> int:
    args = parse(Arguments, arguments, "python -m jaxlm search")
    asks = _check(args)
    if distributed.join(args.mesh).processes > 1:
        raise UserError("search runs in one process: start it once, or with --mesh.distributed off")
    console = start_jax(args.mesh, sys.stderr)

    import jax.numpy as jnp

    from jaxlm.embed import Embedder
    from jaxlm.models import hub
    from jaxlm.parallel.mesh import compute_dtype, mesh_for
    from jaxlm.search.index import Index, sha256_of_model

    mesh = mesh_for(args.mesh)

    @functools.cache
    def embedder(name: str, max_length: int | None) -> Embedder:
        return Embedder(name, mesh, dtype=args.dtype, batch_size=args.batch_size, max_length=max_length)

    directory = Path(str(args.index))
    if args.documents:
        _build(args, directory, embedder, jnp.dtype(compute_dtype(args.dtype, mesh)).name, console)
    index = Index(directory)
    if not asks:
        if args.approximate:
            _search_of(args, index, mesh, console)
        return 0
    name = _lasting(args.model) if args.model else index.plan.model
    if not args.model and Path(name).is_absolute() and not Path(name).is_dir():
        raise UserError(f"{name}, the model of this index, is gone; where is it now? python -m jaxlm search MODEL ...")
    if sha256_of_model(hub.resolve(name)) != index.plan.model_sha256:
        raise UserError(
            f"{name} is not what {directory} was made with: the model has changed since; make the index again "
            "(--documents), or pass the model that it was made with"
        )
    score = None
    if args.rerank:
        from jaxlm.predict import Predictor
        from jaxlm.search.searcher import CrossEncoder

        score = CrossEncoder(Predictor(args.rerank, mesh, dtype=args.dtype, batch_size=args.batch_size), args.rerank)

    from jaxlm.search.qrels import read_qrels
    from jaxlm.search.searcher import Searcher

    qrels = read_qrels(Path(args.qrels)) if args.qrels else None
    if qrels is not None:
        _check_judged(args, qrels, index.ids(), console)
    embed = embedder(name, index.plan.max_length)
    embed.truncated = 0
    search = _search_of(args, index, mesh, console)
    depth = min(_depth(args), len(index))
    if qrels is not None:
        said = "re-ranked" if args.rerank else "nearest"
        console.say(f"metrics are of each query's {depth} {said} documents")
    _answer(args, Searcher(index, embed, search, rerank=score, depth=args.rerank_top), depth, qrels, console)
    _say_cut(embed, "queries embedded", console)
    if score is not None:
        _say_cut(score, "pairs re-ranked", console)
    return 0


def _search_of(args: Arguments, index: "Index", mesh: "Mesh", console: "Console") -> "Search":
    """Exact search of an index, or through its graph, which is made where there is none."""
    from jaxlm.search.exact import ExactSearch

    exact = ExactSearch(index.vectors, mesh)
    if not args.approximate:
        return exact
    from jaxlm.search.approximate import ApproximateSearch

    return ApproximateSearch(index, exact, console)


def _check(args: Arguments) -> bool:
    """What can be said before jax is imported. Returns whether there is something to ask."""
    if args.index is None:
        raise UserError(f"--index DIR is missing: {_USAGE}")
    if args.documents and not args.model:
        raise UserError("which model? python -m jaxlm search MODEL --documents FILE --index DIR")
    if args.query and args.queries:
        raise UserError("pass --query or --queries, not both")
    if not all(query.strip() for query in args.query):
        raise UserError("a --query is empty")
    if args.qrels and not args.queries:
        raise UserError("--qrels judges queries by their ids: pass --queries FILE with a column of ids")
    for name in ("queries", "qrels"):
        if (file := getattr(args, name)) and not Path(file).is_file():
            raise UserError(f"--{name} {file}: no such file")
    for name in ("top_k", "rerank_top"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}; it must be at least 1")
    if args.rerank and args.rerank_top < args.top_k:
        raise UserError(f"--rerank_top is {args.rerank_top}; it must be at least {args.top_k} (--top_k)")
    if args.approximate and importlib.util.find_spec("faiss") is None:
        raise UserError("--approximate needs faiss: pip install 'jaxlm[faiss]' (or faiss-cpu)")
    if args.data.max_length and args.data.max_length < 3:
        raise UserError(f"--data.max_length is {args.data.max_length}; it must be at least 3, or 0 for the model's own")
    asks, defaults = bool(args.query or args.queries or not args.documents), Arguments()
    for name in () if asks else ("rerank", "rerank_top", "top_k", "output"):
        if getattr(args, name) != getattr(defaults, name):
            raise UserError(f"--{name} belongs to asking: add --query or --queries, or leave it out")
    if not args.documents:
        for name in ("document_prompt", "query_prompt", "vectors", "id_column", "title_column"):
            if getattr(args, name) != getattr(defaults, name):
                raise UserError(f"--{name} belongs to making an index (--documents), which then remembers it")
        if args.data.max_length:
            raise UserError("--data.max_length belongs to making an index (--documents), which then remembers it")
    check_batch_size(args.batch_size)
    check_output(args.output)
    return asks


def _depth(args: Arguments) -> int:
    """How many documents are looked for: metrics look at all that were re-ranked, or at a run."""
    if args.qrels:
        return args.rerank_top if args.rerank else max(args.top_k, _RUN)
    return args.top_k


def _build(
    args: Arguments, directory: Path, embedder: "Callable[[str, int | None], Embedder]", products: str,
    console: "Console",
) -> None:  # fmt: skip
    """Makes the index, where it is not there yet.

    Args:
      products: the dtype that they are computed in.
    """
    from jaxlm.models import hub
    from jaxlm.search.collection import DOCUMENTS, Reader, paths_of
    from jaxlm.search.index import Index, Plan, build, note, read_manifest, sha256_of_files, sha256_of_model, state_of

    chosen = (args.id_column, args.title_column, args.data.text)
    columns = dataclasses.replace(DOCUMENTS, chosen=chosen, judged=args.qrels is not None)
    sources = paths_of(args.documents, columns)
    model = _lasting(args.model)
    how = (str(columns.chosen), args.data.header, args.data.bad_rows, *(source.name for source in sources))
    plan = Plan(
        model, sha256_of_model(hub.resolve(model)), tuple(map(str, sources)), sha256_of_files(sources, *how),
        args.document_prompt, args.query_prompt, args.data.max_length or None, args.vectors, products,
    )  # fmt: skip
    kept, stated = read_manifest(directory), plan
    if kept is not None:  # what it was made with serves, unless something else is asked for
        stated = dataclasses.replace(plan, query_prompt=plan.query_prompt or kept["plan"].query_prompt)
        if args.dtype == "auto":
            stated = dataclasses.replace(stated, products=kept["plan"].products)
    reason = state_of(directory, stated)
    if reason is None:
        note(directory, stated)
        console.say(f"the index {directory} is up to date: {len(Index(directory))} documents")
        return
    console.say(f"making the index {directory}: {reason}")
    load = functools.partial(embedder, model, plan.max_length)
    build(directory, plan, Reader(sources, columns, args.data), load, console)
    _say_cut(load(), "documents embedded", console)
    index = Index(directory)
    console.say(f"index: {directory}, {len(index)} documents, {index.vectors.shape[1]} dimensions")
    console.say(f'next: python -m jaxlm search --index {directory} --query "a query of your own"')


def _lasting(model: str) -> str:
    """A directory's absolute path, which serves wherever the index is asked from later; a hub name as it is."""
    path = Path(model).expanduser()
    return str(path.absolute()) if path.is_dir() else model


def _say_cut(model: "Embedder | CrossEncoder", what: str, console: "Console") -> None:
    if model.truncated:
        console.say(f"{model.truncated} of the {what} now were cut to {model.max_length} tokens")


def _check_judged(args: Arguments, qrels: "Qrels", known: Iterator[str], console: "Console") -> None:
    judged = {document for grades in qrels.values() for document in grades}
    absent = judged.difference(known)
    if absent == judged:
        raise UserError(
            f"--qrels {args.qrels}: the index has none of its documents, such as {min(judged)}; ids have to agree"
        )
    if absent:
        console.say(f"{len(absent)} of {len(judged)} judged documents are not in the index; they count as not found")


def _answer(
    args: Arguments, searcher: "Searcher", depth: int, qrels: "Qrels | None", console: "Console"
) -> None:  # fmt: skip
    """Writes the answers as they come, or into the output all at once; and how good they are, to the given depth."""
    from jaxlm.atomic import write_atomically
    from jaxlm.search.qrels import metrics_of_run, ranking_of

    on_terminal = sys.stdout.isatty() and not args.output
    lines: list[str] = []
    rankings: list[Ranking | None] = []
    for queries in _queries(args):
        if qrels is not None and not any(query.id in qrels for query in queries):
            raise UserError(
                f"--qrels {args.qrels} judges none of the queries, such as {queries[0].id!r}, but {min(qrels)!r} and "
                "others; ids have to agree (--queries FILE: a column called id, without a header line the first of "
                "two, and of a single one the numbers of lines)"
            )
        answers = searcher([query.text for query in queries], depth)
        if not on_terminal:
            answers = _told(answers, len(queries), console)
        for query, hits in zip(queries, answers, strict=True):
            if qrels is not None:
                judged, found = query.id in qrels, [(hit.document.id, hit.score) for hit in hits]
                rankings.append(ranking_of(found, qrels[query.id]) if judged else None)
            if on_terminal:
                print(table(query.text, hits[: args.top_k], shutil.get_terminal_size().columns))
                continue
            records = [hit.record(rank, bool(args.rerank)) for rank, hit in enumerate(hits[: args.top_k], 1)]
            line = json.dumps(
                {"id": query.id, "query": query.text, "hits": records}, ensure_ascii=False, allow_nan=False
            )
            lines.append(line) if args.output else print(line, flush=True)
    if args.output:
        write_atomically(Path(args.output), "".join(f"{line}\n" for line in lines))
    if qrels is not None:
        stream = sys.stdout if on_terminal or args.output else sys.stderr  # a pipe gets JSON lines and nothing else
        for name, value in metrics_of_run(rankings, recall_at=args.top_k).items():
            print(f"{name}: {value:.6g}", file=stream)


def _told(answers: "Iterator[list[Hit]]", count: int, console: "Console") -> "Iterator[list[Hit]]":
    """The answers; every few seconds it is said how many there are."""
    started = said = time.perf_counter()
    for done, hits in enumerate(answers, 1):
        yield hits
        now = time.perf_counter()
        if now - said > _SAY_EVERY_S:
            said, left = now, (count - done) * (now - started) / done
            console.say(f"answered: {done}/{count} queries, {duration(left)} left")


def _queries(args: Arguments) -> Iterator[list["Entry"]]:
    """The queries in groups that are answered together: all of them, or, from a person at a terminal, one by one."""
    from jaxlm.data.sources import counted
    from jaxlm.search.collection import JUDGED_QUERIES, QUERIES, Entry, Reader, paths_of

    if args.query:
        yield [Entry(str(number), "", query.strip()) for number, query in enumerate(args.query, 1)]
    elif args.queries:
        columns = QUERIES if args.qrels is None else JUDGED_QUERIES
        reader = Reader(paths_of([args.queries], columns), columns, dataclasses.replace(args.data, text=None))
        queries = list(reader)
        if reader.skipped:
            log.warning("%s: queries left out: %s", args.queries, counted(reader.skipped))
        yield queries
    elif sys.stdin.isatty():
        for number, line in enumerate(_prompted(), 1):
            yield [Entry(str(number), "", line)]
    else:
        yield _from_pipe(sys.stdin.buffer.read())


def _prompted() -> Iterator[str]:
    while True:
        print("query (Ctrl-D ends): ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)
            return
        if line.strip():
            yield line.strip()


def _from_pipe(content: bytes) -> list["Entry"]:
    from jaxlm.search.collection import Entry

    found = []
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            text = line.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise UserError(f"standard input, line {number}: not UTF-8") from None
        if text:
            found.append(Entry(str(number), "", text))
    if not found:
        raise UserError(f"standard input holds no query: {_USAGE}")
    return found


def table(query: str, hits: Sequence["Hit"], width: int) -> str:
    """An answer as a person reads it: rank, score, id and what fits into a line of the text."""
    longest = max((len(hit.document.id) for hit in hits), default=0)
    lines = [query]
    for rank, hit in enumerate(hits, 1):
        text = " ".join(f"{hit.document.title}  {hit.document.text}".split())
        start = f"{rank:4}  {hit.score:7.4f}  {hit.document.id:{longest}}  "
        room = max(width - len(start), 20)
        lines.append(start + (text if len(text) <= room else text[: room - 3] + "..."))
    return "\n".join([*lines, ""])
