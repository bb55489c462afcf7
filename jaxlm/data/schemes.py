"""Data that is named, not stored in a file: `tfds:glue/sst2`, `hf:NAME[:SPLIT]`, `docs:topics`."""

import importlib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np

from jaxlm.data.files import Row
from jaxlm.errors import UserError

ClassNames = dict[str, list[str]]  # the names of numbered classes, by column
SPLITS = {"train": ("train",), "dev": ("validation", "dev", "valid", "val"), "test": ("test",)}


def is_scheme(spec: str) -> bool:
    """Whether a setting names data by scheme (`tfds:NAME`) and not by path."""
    scheme, _, name = spec.partition(":")
    return bool(name) and scheme in SCHEMES


def scheme_rows(spec: str, split: str) -> Iterator[Row]:
    """The rows of `tfds:NAME[:SPLIT]` and its like, one after the other."""
    scheme, _, name = spec.partition(":")
    return SCHEMES[scheme](name, split)[1]


def _tfds(name: str, split: str) -> tuple[ClassNames, Iterator[Row]]:
    """A tensorflow-datasets text set by random access, without TensorFlow."""
    try:
        import tensorflow_datasets as tfds

        importlib.import_module("tensorflow_datasets.text")  # registers glue and the other text sets
    except ImportError as error:
        raise UserError(f"tfds:{name} needs the package tensorflow-datasets ({error})") from None
    dataset, _, asked = name.partition(":")
    try:
        builder = tfds.builder(dataset, file_format="array_record")
        if not builder.data_path.exists():
            _check_reachable(f"tfds:{dataset}", list(builder.url_infos or ()))
        builder.download_and_prepare()
        source = builder.as_data_source(split=_split(f"tfds:{dataset}", asked, split, list(builder.info.splits)))
    except UserError:
        raise
    except Exception as error:  # tfds raises many kinds, from a misspelt name to a host that cannot be reached
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"tfds:{name}: {reason}") from None
    classes, of_items = _class_names(builder.info.features)

    def decode(key: str, value: Any) -> Any:
        if key in classes:
            return classes[key][int(value)] if int(value) >= 0 else None  # GLUE's test labels are -1: withheld
        if key in of_items:
            return [of_items[key][int(item)] if int(item) >= 0 else None for item in value]
        if isinstance(value, (list, np.ndarray)) and getattr(value, "ndim", 1) == 1:
            return [decode("", item) for item in value]
        if isinstance(value, bytes):
            return value.decode("utf-8")
        return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value

    def rows() -> Iterator[Row]:
        for index in range(len(source)):
            yield Row(index + 1, {key: decode(key, value) for key, value in source[index].items()})

    return classes, rows()


def _check_reachable(source: str, urls: list[str]) -> None:
    """tfds tries for minutes before it says that there is no network; one question says so at once."""
    for url in urls[:1]:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10).close()
        except urllib.error.HTTPError:
            pass  # somebody is there
        except OSError as error:
            host = urllib.parse.urlsplit(url).hostname
            raise UserError(
                f"{source} is not on this machine yet, and {host} cannot be reached to download it ({error}); "
                "bring its prepared directory along (TFDS_DATA_DIR), or pass files"
            ) from None


def _hf(name: str, split: str) -> tuple[ClassNames, Iterator[Row]]:
    try:
        import datasets
    except ImportError:
        raise UserError(f"hf:{name} needs the package datasets: pip install datasets") from None
    dataset, _, asked = name.partition(":")
    path, _, subset = (
        dataset.partition("/") if dataset.count("/") == 1 and dataset.startswith("glue/") else (dataset, "", "")
    )
    try:
        available = datasets.get_dataset_split_names(path, subset or None)
        loaded = datasets.load_dataset(path, subset or None, split=_split(f"hf:{dataset}", asked, split, available))
    except UserError:
        raise
    except Exception as error:  # the hub client's many kinds
        raise UserError(f"hf:{name}: {str(error).strip().splitlines()[0]}") from None
    classes, of_items = _class_names(loaded.features)

    def named(names: list[str], number: int | None) -> str | None:
        return names[number] if number is not None and number >= 0 else None

    def decode(key: str, value: Any) -> Any:
        if key in of_items:
            return [named(of_items[key], item) for item in value]
        return named(classes[key], value) if key in classes else value

    rows = (Row(i, {k: decode(k, v) for k, v in row.items()}) for i, row in enumerate(loaded, 1))
    return classes, rows


def _class_names(features: Any) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The names of numbered columns, and of columns with lists of such numbers, of a tfds or hf data set."""
    single: dict[str, list[str]] = {}
    listed: dict[str, list[str]] = {}
    for key, feature in features.items():
        inner = getattr(feature, "feature", None)  # of a list; in tfds a list also has all that the inner one has
        if hasattr(kind := feature if inner is None else inner, "names"):
            (single if inner is None else listed)[key] = kind.names
    return single, listed


def _split(source: str, asked: str, split: str, available: list[str]) -> str:
    if asked:
        if asked.split("[")[0] not in available:
            raise UserError(f"{source} has no split {asked!r}; it has {', '.join(available)}")
        return asked
    for name in SPLITS[split]:
        if name in available:
            return name
    raise UserError(f"{source} has no {split} split; it has {', '.join(available)}: say which, as in {source}:NAME")


_PASSAGES_PER_TOPIC = {"train": 60, "dev": 60, "test": 60}  # of docs:topics, so that no topic outweighs the others


def _docs(name: str, split: str) -> tuple[ClassNames, Iterator[Row]]:
    """The documentation that the installation carries; `topics` is labelled, `text` is not."""
    from jaxlm.data import installed_docs

    kind, _, asked = name.partition(":")
    part = cast(installed_docs.Split, _split(f"docs:{kind}", asked, split, ["train", "dev", "test"]))
    if kind == "topics":
        try:
            passages = installed_docs.topic_passages(part, _PASSAGES_PER_TOPIC[part])
        except installed_docs.TooFewTopics as error:
            raise UserError(f"docs:{name}: {error}") from None
        rows = (Row(i, {"text": text, "label": label}) for i, (text, label, _) in enumerate(passages, 1))
    elif kind == "text":
        rows = (Row(i, {"text": text}) for i, text in enumerate(installed_docs.pretraining_texts(part), 1))
    else:
        raise UserError(f"docs:{name}: there are docs:topics and docs:text")
    return {}, rows


SCHEMES: dict[str, Callable[[str, str], tuple[ClassNames, Iterator[Row]]]] = {
    "tfds": _tfds,
    "hf": _hf,
    "docs": _docs,
}
