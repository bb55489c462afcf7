"""Labelled texts that are no table: files in a folder for each class, and fastText's lines."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from jaxlm.data import files
from jaxlm.data.columns import KINDS_OF_SPLIT
from jaxlm.data.files import Row
from jaxlm.errors import UserError

_UNLABELLED = "unsup"  # the third folder of aclImdb (Maas et al. 2011), with texts of no class
_MARK = "__label__"


def class_folders(directory: Path, split: str) -> list[Path]:
    """The folders of the classes, as Keras and scikit-learn know them; what else lies there is left alone. Where all
    are called as splits are, those in that of `split`.

    Raises:
      UserError: there are fewer than two, one of them has no file, or no folder is that of the split.
    """
    folders = _folders(directory)
    kinds = [KINDS_OF_SPLIT.get(folder.name.lower()) for folder in folders]
    if kinds and None not in kinds:
        if split not in kinds:
            raise UserError(f"{directory}: no folder of {split} among {', '.join(folder.name for folder in folders)}")
        directory = folders[kinds.index(split)]
        folders = _folders(directory)
    if len(folders) < 2 or not all(any(_texts(folder)) for folder in folders):
        raise UserError(
            f"{directory} is a directory that prepare did not write, and not one of a folder of texts for each class; "
            "a file is meant"
        )
    return folders


def _folders(directory: Path) -> list[Path]:
    folders = [path for path in directory.iterdir() if path.is_dir() and path.name[0] not in "._"]
    return sorted(path for path in folders if path.name != _UNLABELLED)


def class_rows(directory: Path, split: str) -> Iterator[Row]:
    """A row for each file, `text` and `label`, in the order of their names; raises what `class_folders` does."""
    for folder in class_folders(directory, split):
        for path in sorted(_texts(folder)):
            place = f"{folder.name}/{path.name}"
            try:
                yield Row(0, {"text": path.read_text(encoding="utf-8-sig"), "label": folder.name}, part=place)
            except UnicodeDecodeError:
                yield Row(0, [], "not UTF-8", place)


def _texts(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_file() and path.name[0] not in "._")


def is_fasttext(path: Path) -> bool:
    """Whether a txt file's first line that is not blank begins as fastText's do."""
    if files.data_format(path) != ".txt":
        return False
    head = (line for _, line in itertools.islice(files.lines(path), 100) if line is None or line.strip())
    return (next(head, None) or "").lstrip().startswith(_MARK)


def fasttext_rows(path: Path) -> Iterator[Row]:
    """`__label__NAME` once or several times, and the text: `label`, a list where there are several, and `text`."""
    for number, line in files.lines(path):
        if line is None:
            yield Row(number, [], "not UTF-8")
        elif line.strip():
            words = line.split()
            labels = [word.removeprefix(_MARK) for word in itertools.takewhile(lambda w: w.startswith(_MARK), words)]
            text = line.split(maxsplit=len(labels))[len(labels) :]
            if labels and text:
                yield Row(number, {"text": text[0].strip(), "label": labels if len(labels) > 1 else labels[0]})
            else:
                yield Row(number, [], "no text after its label" if labels else f"no {_MARK} at its beginning")
