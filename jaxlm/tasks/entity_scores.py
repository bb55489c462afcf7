"""Precision, recall and F1 of entities: one is right where type and both ends are; and of tags that mark none.

As in the CoNLL shared tasks (Tjong Kim Sang and De Meulder 2003): over all entities together, equal to the official
script conlleval and to `seqeval` in its default mode.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from jaxlm.data.tags import entities

Tags = Sequence[Sequence[str]]  # of the words of each sentence


def entity_scores(truth: Tags, guess: Tags) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """Scores of all entities together (`precision`, `recall`, `f1`; 0 where nothing is to be divided by), and by type.

    The table by type holds `support`, the number of true entities, too.
    """
    right: Counter[str] = Counter()
    true: Counter[str] = Counter()
    guessed: Counter[str] = Counter()
    for one, other in zip(truth, guess, strict=True):
        expected, found = set(entities(one)), set(entities(other))
        right.update(entity.type for entity in expected & found)
        true.update(entity.type for entity in expected)
        guessed.update(entity.type for entity in found)
    by_type = {
        kind: {**_scores(right[kind], true[kind], guessed[kind]), "support": true[kind]}
        for kind in sorted({*true, *guessed})
    }
    return _scores(right.total(), true.total(), guessed.total()), by_type


def tag_scores(truth: Tags, guess: Tags) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """Of tags that mark no entities: the mean over them of their F1 (`macro_f1`), and scores by tag, by scikit-learn.

    "" in `guess` is no tag: a word that was given none.
    """
    from sklearn.metrics import precision_recall_fscore_support

    expected, found = ([tag for tags in side for tag in tags] for side in (truth, guess))
    kinds = sorted({*expected, *found} - {""})
    columns = precision_recall_fscore_support(expected, found, labels=kinds, zero_division=0)
    by_tag = {
        kind: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for kind, p, r, f, s in zip(kinds, *columns, strict=True)
    }
    return {"macro_f1": float(columns[2].mean())}, by_tag


def _scores(right: int, true: int, guessed: int) -> dict[str, float]:
    precision, recall = right / max(guessed, 1), right / max(true, 1)
    return {"precision": precision, "recall": recall, "f1": 2 * right / max(true + guessed, 1)}


def accuracy(truth: Tags, guess: Tags) -> float:
    """The share of words with the right tag."""
    pairs = [pair for one, other in zip(truth, guess, strict=True) for pair in zip(one, other, strict=True)]
    return sum(one == other for one, other in pairs) / max(len(pairs), 1)
