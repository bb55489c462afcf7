"""What a cell of a label column says: a class, a number, or any number of classes."""

import ast
import contextlib
import math
import re
from collections.abc import Collection, Iterable
from typing import Any, Literal

LabelKind = Literal["class", "number", "set"]
"""What a label column holds: the name of a class, a number, or any number of names (a list, or parts of a text)."""


def separator(cells: Iterable[Any]) -> str:
    """What parts the names in a column of texts: a bar or a semicolon where any has one, or else commas."""
    found = {mark for cell in cells if isinstance(cell, str) for mark in "|;" if mark in cell}
    return "|" if "|" in found else ";" if found else ","


def read_label(cell: Any, kind: LabelKind, parted_by: str = ",", known: Collection[str] = ()) -> Any:
    """The label in a cell; `ValueError(problem, detail)` where it holds none of this kind.

    Args:
      parted_by: of a set, what stands between its names where they are one text.
      known: labels that may have that in their names.
    """
    if kind == "set":
        items = _items(cell, parted_by, known)
        given = [item for item in items if not _is_missing(item)]
        if _is_missing(cell) or (items and not given):
            raise ValueError("no label", " (where none applies, an empty list or text is meant)")
        names = [name for item in given if (name := label_name(item))]
        if set(names) <= {"0", "1"} and len(set(names)) < len(names):
            raise ValueError("0 or 1 for each label; a list of those that apply is meant", f" ({cell!r})")
        return tuple(dict.fromkeys(names))
    name = label_name(cell)
    if _is_missing(cell) or name in ("", "-"):  # SNLI's - is where its annotators did not agree
        raise ValueError("no label", f" ({name})" if name else "")
    if isinstance(cell, (list, dict)):
        raise ValueError("a label that is neither name nor number", f" ({cell!r})")
    if kind == "class":
        return name
    try:
        number = float(name)
    except ValueError:
        raise ValueError("a label that is no number", f" ({name!r})") from None
    if not math.isfinite(number):
        raise ValueError("a label that is no finite number", f" ({name})")
    return number


def _is_missing(value: Any) -> bool:
    """What stands for no value: also a number that is none, an empty cell of a table of numbers."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _items(cell: Any, parted_by: str, known: Collection[str]) -> list[Any]:
    """The labels in a cell: a list, also one that a csv holds as text, or text; of an object with true and false, or 1
    and 0, for each label, those that apply."""
    if isinstance(cell, str):
        cell = _in_text(cell.strip())
    if isinstance(cell, dict):
        if absent := [name for name, value in cell.items() if value is None]:
            raise ValueError("neither 0 nor 1 for a label", f" ({absent[0]})")
        if not all(value in (0, 1) for value in cell.values()):
            raise ValueError("labels that are an object with other values than true and false", f" ({cell!r})")
        return [name for name, applies in cell.items() if applies]
    if isinstance(cell, list):
        return cell
    text = str(cell)
    if text.strip() not in known and re.fullmatch(r"[01](\s+[01])+", text.strip()):
        raise ValueError("0 or 1 for each label; a list of those that apply is meant", f" ({text!r})")
    return [text] if text.strip() in known else text.split(parted_by)


def _in_text(text: str) -> Any:
    """What a csv holds as text: a list, tuple or set as Python prints it, StackOverflow's `<a><b>`; else the text."""
    if text.startswith("[") and text.endswith("]"):
        return _list_in_text(text)
    if re.fullmatch("(<[^<>]+>)+", text):
        return re.findall("<([^<>]+)>", text)
    if text[:1] + text[-1:] in ("()", "{}"):
        with contextlib.suppress(ValueError, SyntaxError, TypeError):
            found = ast.literal_eval(text)
            if isinstance(found, (set, tuple)) or found == {}:
                return sorted(map(label_name, found))
    return text


_ITEM = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,'"]+""")


def _list_in_text(text: str) -> list[Any]:
    """`['joy', 'love']` as Python prints a list, `['joy' 'love']` or `[ 2 27]` as numpy does, or `[joy, love]`."""
    inside = text[1:-1]
    if "," not in _ITEM.sub("", inside):
        return [ast.literal_eval(item) if item[0] in "'\"" else _number_or_name(item) for item in _ITEM.findall(inside)]
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return inside.split(",")
    return found if isinstance(found, list) else [found]


def _number_or_name(text: str) -> Any:
    """numpy's `1.` is the number 1."""
    return float(text) if re.fullmatch(r"\d+\.0*", text) else text


def withheld(names: Collection[str]) -> str | None:
    """The name among those of a column that says that there is no label: -1, where the `datasets` library numbers three
    or more classes from 0. (Beside 0 and 1 it may be a class.)"""
    numbers = set(names) - {"-1"}
    counted = numbers == {str(number) for number in range(len(numbers))}
    return "-1" if "-1" in names and counted and len(numbers) > 2 else None


def label_name(cell: Any) -> str:
    """A cell as a label's name: whole numbers without a decimal point."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()
