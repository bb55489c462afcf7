"""Rows of local files: csv, tsv, jsonl, json, parquet and txt."""

import csv
import itertools
import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxlm.data.files import Row, data_format, is_json_object, lines, parse_json, read_json
from jaxlm.errors import UserError

_HEAD = 100  # lines by which a csv's separator is found
_LONGEST_FIELD = 1 << 28  # characters; the csv module's own limit is shorter than many a document
LINES = object()  # in place of the content of a json file that has an object a line


def read_rows(path: Path, splits: Sequence[str] = (), *, columns: bool = False) -> Iterator[Row]:
    """The rows of a file; blank lines of csv, tsv and jsonl are no rows. Rows that cannot be read carry a `problem`.

    Args:
      splits: names of the part that is wanted of a json file that holds several.
      columns: one text a line will not do: a txt file is one of columns with tabs between them.
    """
    if (suffix := data_format(path)) == ".json":
        return rows_of_json(path, read_json_or_lines(path), splits)
    if suffix == ".txt" and columns:
        return _tsv(path)
    readers = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".parquet": _parquet, ".txt": _txt}
    return readers[suffix](path)


def read_json_or_lines(path: Path) -> Any:
    """The content of a json file; `LINES` where it has an object a line, as the `datasets` library writes.

    Raises:
      UserError: there is no such file, or it is damaged or no JSON.
    """
    try:
        return read_json(path)
    except UserError:
        rows = list(itertools.islice(_jsonl(path), 2))
        if any(row.problem for row in rows) or len(rows) < 2:
            raise
        return LINES


def rows_of_json(path: Path, content: Any, splits: Sequence[str]) -> Iterator[Row]:
    """The rows in what `read_json_or_lines` gave: of a list, or of an object of several lists by split, as CLINC150
    comes (`train`, `oos_train`, `val`, ...)."""
    if content is LINES:
        yield from _jsonl(path)
        return
    parts = {"": content}
    if isinstance(content, dict):
        parts = {key: value for key, value in content.items() if key.removeprefix("oos_") in splits}
        if not parts and _is_row(content):
            parts = {"": [content]}
        if not parts:
            meant = f"one of {', '.join(splits)} among its keys is meant" if splits else "a list of rows is meant"
            raise UserError(f"{path}: it holds an object with keys {', '.join(content)[:200]}; {meant}")
    for key, items in parts.items():
        if not isinstance(items, list):
            raise UserError(f"{path}: {f'{key} is' if key else 'it holds'} no list of rows")
        for number, item in enumerate(items, 1):
            if isinstance(item, (list, dict)):
                yield Row(number, item, part=key)
            else:
                yield Row(number, [], "neither a list of values nor an object", key)


def _is_row(content: dict[str, Any]) -> bool:
    """Whether an object is a single row, and none of rows by split or by another name."""
    from jaxlm.data.schemes import SPLITS  # which reads files itself

    splits, values = set(itertools.chain(*SPLITS.values())), content.values()
    lists = [value for value in values if isinstance(value, list)]
    if any(key.removeprefix("oos_") in splits for key in content if isinstance(content[key], (list, dict))):
        return False
    if any(isinstance(item, (list, dict)) for value in lists for item in value):
        return False
    if any(isinstance(value, str) for value in values):
        return True
    words = bool({"tokens", "words"} & content.keys())  # else, of lists alone, it holds columns
    return words and [] not in lists and not any(isinstance(value, dict) for value in values)


def _txt(path: Path) -> Iterator[Row]:
    for number, line in lines(path):
        yield Row(number, [line]) if line is not None else Row(number, [], "not UTF-8")


def _tsv(path: Path) -> Iterator[Row]:
    """Rows of values with tabs between them. A tsv knows no quotes, as GLUE's files hold bare ones; but one in which
    all that is no number is in quotes, as R and pandas write it, is a csv with tabs."""
    head = [line for _, line in itertools.islice(lines(path), _HEAD) if line and line.strip()]
    if _all_quoted(head):
        yield from _csv(path, "\t")
        return
    for number, line in lines(path):
        if line is None:
            yield Row(number, [], "not UTF-8")
        elif line.strip():
            yield Row(number, line.split("\t"))


_QUOTED, _NUMBER = re.compile('"(?:[^"]|"")*"'), re.compile(r"-?[0-9.]+(e[+-]?[0-9]+)?|NA|NaN|TRUE|FALSE|True|False|")


def _all_quoted(head: Sequence[str]) -> bool:
    cells = [line.split("\t") for line in head]
    if len(head) < 2 or min(map(len, cells)) < 2 or not all(map(_QUOTED.fullmatch, cells[0])):
        return False
    return all(_QUOTED.fullmatch(cell) or _NUMBER.fullmatch(cell) for row in cells for cell in row)


def _csv(path: Path, delimiter: str | None = None) -> Iterator[Row]:
    """Rows of values with commas, semicolons or tabs between them: what parts the first lines into equally many. With
    tabs there are no quotes, as in a tsv.

    A quoted field may span several lines. Where that leads to no row, only the line on which the row began is left out,
    and reading goes on with the next.
    """
    numbered = lines(path)
    waiting: deque[tuple[int, str | None]] = deque(itertools.islice(numbered, _HEAD))
    if waiting and delimiter is None and (said := re.fullmatch("sep=(.)", waiting[0][1] or "")):  # by Excel
        delimiter = said[1]
        waiting.popleft()
    if delimiter is None:
        head = [line for _, line in waiting if line and line.strip()]
        if head and is_json_object(head[0]):
            raise UserError(f"{path}: its first line is a JSON object; name it .jsonl")
        if (delimiter := _separator(head)) == "\t":
            yield from _tsv(path)
            return
    consumed: list[tuple[int, str | None]] = []  # lines of the record at hand
    broken: list[int] = []

    def feed() -> Iterator[str]:
        while True:
            item = waiting.popleft() if waiting else next(numbered, None)
            if item is None:
                return
            number, line = item
            if line is None:
                broken.append(number)
            else:
                consumed.append(item)
                yield line + "\n"

    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(feed(), strict=True, delimiter=delimiter)
    while True:
        consumed.clear()
        try:
            values = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            spanned = "" if len(consumed) < 2 else f"; is a quote open? it would span {len(consumed)} lines"
            yield Row(consumed[0][0] if consumed else 0, [], f"no csv: {error}{spanned}")
            waiting.extendleft(reversed(consumed[1:]))
            reader = csv.reader(feed(), strict=True, delimiter=delimiter)
            continue
        finally:
            yield from (Row(number, [], "not UTF-8") for number in broken)
            broken.clear()
        if values and consumed:
            yield Row(consumed[0][0], values)


def _separator(head: Sequence[str]) -> str:
    """What stands between the values of a csv whose first lines are these."""
    unquoted = [re.sub('"[^"]*"?', "", line) for line in head]
    counts = {sign: [line.count(sign) for line in unquoted] for sign in ",\t;"}
    there = [sign for sign, count in counts.items() if count and count[0]]
    even = [sign for sign in there if len(set(counts[sign])) == 1]
    if "\t" in there and len({line.count("\t") for line in head}) == 1:  # a bare quote hides tabs
        even.append("\t")
    return next(iter(even or there), ",")


def _jsonl(path: Path) -> Iterator[Row]:
    """Rows of values by name; or by position, where the first line is a list."""
    first, lists = True, False
    for number, line in lines(path):
        if line is None:
            yield Row(number, [], "not UTF-8")
        elif line.strip():
            try:
                value = parse_json(line)
            except json.JSONDecodeError as error:
                if first and line.strip() in ("[", "[{") and data_format(path) == ".jsonl":
                    raise UserError(f"{path}: a JSON list over several lines; name it .json") from None
                yield Row(number, [], f"no JSON: {error}")
                continue
            if first and isinstance(value, list):
                if data_format(path) == ".jsonl" and value and all(isinstance(item, dict) for item in value):
                    raise UserError(f"{path}: a JSON list of rows in one line; name it .json")
                lists = True
            first = False
            fits = isinstance(value, dict) or (lists and isinstance(value, list))
            yield Row(number, value) if fits else Row(number, [], "no JSON object")


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    named = stated_names(path)

    def by_name(cell: Any, names: list[str]) -> Any:
        if isinstance(cell, list):
            return [by_name(item, names) for item in cell]
        if not isinstance(cell, int) or cell >= len(names):
            return cell
        return names[cell] if cell >= 0 else None  # the library's -1: no class

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for value in batch.to_pylist():
                    number += 1
                    yield Row(number, value | {key: by_name(value[key], named[key]) for key in named if key in value})
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: no parquet file ({str(error).splitlines()[0]})") from None


def stated_names(path: Path) -> dict[str, list[str]]:
    """The names of classes by column, where the `datasets` library wrote a parquet file and noted them in it; rows are
    read with these names for its numbers."""
    import pyarrow
    import pyarrow.parquet

    try:
        noted = (pyarrow.parquet.read_schema(path).metadata or {}).get(b"huggingface", b"{}")
        features = dict(json.loads(noted).get("info", {}).get("features", {}))
    except (pyarrow.ArrowException, OSError, ValueError, AttributeError, TypeError):
        return {}  # a note of another kind, or none: reading the rows says what is wrong with the file
    found: dict[str, list[str]] = {}
    for name, feature in features.items():
        if isinstance(feature, dict) and "feature" in feature:
            feature = feature["feature"]
        if isinstance(feature, list) and feature:  # how older releases note a list of such
            feature = feature[0]
        if isinstance(feature, dict) and isinstance(feature.get("names"), list):
            found[name] = list(feature["names"])
    return found
