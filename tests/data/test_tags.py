"""Tags mean what seqeval says they mean, whatever their scheme."""

import random

import pytest
from seqeval.metrics.sequence_labeling import get_entities

from jaxlm.data.tags import Entity, as_iob2, as_said_by, entities, guesses_as_iob2, is_tag, render
from jaxlm.errors import UserError


def random_tags(draw: random.Random, prefixes: str = "BI") -> list[str]:
    """Any tags in any order: most sequences are ill-formed."""
    kinds = ["PER", "LOC", "air-line.code"]
    return [
        "O" if draw.random() < 0.3 else f"{draw.choice(prefixes)}-{draw.choice(kinds)}"
        for _ in range(draw.randint(0, 12))
    ]


@pytest.mark.parametrize("prefixes", ["BI", "BIES"])
def test_entities_are_seqevals_of_ill_formed_sequences_too(prefixes: str) -> None:
    draw = random.Random(0)
    for _ in range(3000):
        tags = random_tags(draw, prefixes)
        expected = [(kind, start, last + 1) for kind, start, last in get_entities(tags)]
        assert entities(tags) == expected, tags


ENTITIES = [Entity("PER", 0, 2), Entity("PER", 2, 3), Entity("LOC", 3, 4), Entity("PER", 5, 8)]
RENDERED = {
    "IOB1": "I-PER I-PER B-PER I-LOC O I-PER I-PER I-PER",
    "IOB2": "B-PER I-PER B-PER B-LOC O B-PER I-PER I-PER",
    "IOBES": "B-PER E-PER S-PER S-LOC O B-PER I-PER E-PER",
    "BILOU": "B-PER L-PER U-PER U-LOC O B-PER I-PER L-PER",
}


@pytest.mark.parametrize("scheme", RENDERED)
def test_every_scheme_is_recognised_and_becomes_iob2(scheme: str) -> None:
    tags = RENDERED[scheme].split()
    assert render(ENTITIES, 8, scheme) == tags
    assert entities(tags) == ENTITIES
    found, remark = as_iob2("file", ["line 1"], [tags])
    assert found == [RENDERED["IOB2"].split()]
    assert remark == f"tags in {scheme}" + ("" if scheme == "IOB2" else ", taken as IOB2")


def test_ill_formed_sentences_are_counted_in_the_scheme_that_fits_most() -> None:
    sentences = ["B-PER I-PER O B-LOC", "B-LOC O", "O I-PER B-PER"]
    found, remark = as_iob2("file", ["a", "b", "c"], [sentence.split() for sentence in sentences])
    assert found[2] == ["O", "B-PER", "B-PER"]
    assert remark == "tags in IOB2 (1 ill-formed sentences are read as conlleval reads them)"


def test_a_file_of_two_schemes_is_an_error_that_says_where() -> None:
    with pytest.raises(UserError, match=r"file: tags of two schemes.*IOBES; line 1.*BILOU; line 9"):
        as_iob2("file", ["line 1", "line 9"], [["S-PER"], ["U-PER"]])


def test_what_a_model_says_in_another_scheme_is_read_as_iob2() -> None:
    spoken = {
        "BMES": ["B-LOC", "M-LOC", "E-LOC", "O", "S-PER"],
        "IOBES": ["B-LOC", "I-LOC", "E-LOC", "O", "S-PER"],
        "BILOU": ["B-LOC", "I-LOC", "L-LOC", "O", "U-PER"],
        "IOB1": ["I-LOC", "I-LOC", "I-LOC", "O", "I-PER"],
    }
    for scheme, tags in spoken.items():
        assert entities(tags) == [Entity("LOC", 0, 3), Entity("PER", 4, 5)], scheme
        assert guesses_as_iob2([tags]) == [["B-LOC", "I-LOC", "I-LOC", "O", "B-PER"]], scheme
    ill_formed = ["I-LOC", "O", "B-PER", "B-PER"]  # IOB2 with a slip stays what the model said
    assert guesses_as_iob2([ill_formed, ["O"]]) == [ill_formed, ["O"]]


def test_a_tag_is_o_or_has_a_prefix_and_a_type() -> None:
    assert all(map(is_tag, ["O", "B-PER", "I-a-b", "E-x", "S-x", "L-x", "U-x"]))
    assert not any(map(is_tag, ["o", "B-", "PER", "X-PER", "BPER", "", None, 3, "b-PER"]))


@pytest.mark.parametrize("scheme", ["IOB2", "IOB1", "IOBES", "BILOU", "BMES", "types alone"])
def test_tags_are_said_as_a_model_says_them(scheme: str) -> None:
    found = [Entity("LOC", 0, 3), Entity("PER", 4, 5), Entity("PER", 6, 8)]
    tags = render(found, 9, {"BMES": "IOBES"}.get(scheme, scheme))
    if scheme == "BMES":
        tags = [tag.replace("I-", "M-") for tag in tags]
    if scheme == "types alone":
        tags = ["LOC", "LOC", "LOC", "O", "PER", "O", "PER", "PER", "O"]
    assert as_said_by({*tags, "O"}, [render(found, 9)]) == [tags]
