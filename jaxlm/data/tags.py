"""Tags of words, such as `B-PER I-PER O`, and the entities that they mark.

Four schemes are in use. IOB2 starts every entity with B-; IOB1, CoNLL-2003's own, only one that follows another of its
type; IOBES also marks the last word (E-) and the only one (S-), which BILOU calls L- and U-; BMES, for Chinese, writes
M- for I-. All are read by the rules of the shared tasks' script conlleval
(https://www.clips.uantwerpen.be/conll2000/chunking/conlleval.txt), with seqeval's for E- and S-; to them no sequence is
ill-formed: an I- that nothing started starts an entity.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from jaxlm.errors import UserError

OUTSIDE = "O"
_TAG = re.compile(r"O|[BIESLUM]-.+", re.DOTALL)
_FORMS = (
    re.compile(r"(?P<prefix>[BIESLUM])(?P<sign>[-_:])(?P<type>.+)", re.DOTALL),
    re.compile(r"(?P<type>.+)(?P<sign>[-_:])(?P<prefix>[BIESLUM])", re.DOTALL),
)
_TO_IOBES = {"L": "E", "U": "S", "M": "I"}
_TO_BILOU = {"E": "L", "S": "U"}


class Entity(NamedTuple):
    """Words `start` to `end` - 1 of a sentence."""

    type: str
    start: int
    end: int


def is_tag(tag: object) -> bool:
    """Whether this is O, or one of B-, I-, E-, S-, L-, U- with a type."""
    return isinstance(tag, str) and _TAG.fullmatch(tag) is not None


def types_of(tags: Collection[str]) -> set[str]:
    return {tag[2:] for tag in tags if tag != OUTSIDE and is_tag(tag)}


def usual_form(tags: Iterable[str], known: Collection[str] = ()) -> dict[str, str]:
    """The usual form of tags that are written as `B_PER`, `B:PER`, `PER_B` or `PER-B`, perhaps with - for O (Naver's
    Korean NER); {} where all have it, or they are no such tags.

    All have to be of one form. A type such as `B_cell` has it by chance: one type has to occur with two prefixes, or
    several with B alone, or all of the tags are `known`, to a model or from its training data.
    """
    tags = set(tags)
    outside = {"-"} & tags if OUTSIDE not in tags else set()
    names = tags - {OUTSIDE} - outside
    of_known = usual_form(known) if known else {}
    if not names or names <= types_of(known) or (names <= set(known) and not of_known):
        return dict.fromkeys(outside - set(known), OUTSIDE) if OUTSIDE in known else {}
    for form in _FORMS:
        found = [match for name in names if (match := form.fullmatch(name))]
        if len(found) < len(names) or len({match["sign"] for match in found}) > 1:
            continue
        usual = {match[0]: f"{match['prefix']}-{match['type']}" for match in found}
        if names == set(usual.values()):  # but for what is outside
            return dict.fromkeys(outside, OUTSIDE)
        two_prefixes = len({match["type"] for match in found}) < len(names)
        several_begin = len(names) > 1 and {match["prefix"] for match in found} == {"B"}
        if two_prefixes or several_begin or set(usual.values()) <= {*known, *of_known.values()}:
            return usual | dict.fromkeys(outside, OUTSIDE)
    return {}


def in_usual_form(tags: Collection[str]) -> list[str]:
    """The tags of a model as `B-PER`, whatever form they are written in."""
    usual = usual_form(tags)
    return [usual.get(tag, tag) for tag in tags]


def _split(tag: str) -> tuple[str, str]:
    """(prefix, type) of a tag, with IOBES's prefixes; a label without one, as some models have, is inside its type."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, dash, kind = tag.partition("-")
    if not dash or prefix not in "BIESLUM" or len(prefix) != 1:
        return "I", tag
    return _TO_IOBES.get(prefix, prefix), kind


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence, as conlleval reads them, in order."""
    found: list[Entity] = []
    start, kind, before = 0, "", OUTSIDE
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, its_kind = _split(tag)
        goes_on = before in "BI" and prefix in "IE" and its_kind == kind
        if before != OUTSIDE and not goes_on:
            found.append(Entity(kind, start, place))
        if prefix != OUTSIDE and not goes_on:
            start, kind = place, its_kind
        before = prefix
    return found


def render(found: Sequence[Entity], words: int, scheme: str = "IOB2") -> list[str]:
    """The tags of a sentence of so many words in a scheme."""
    tags = [OUTSIDE] * words
    previous = Entity("", 0, 0)
    for entity in found:
        kind, start, end = entity
        inside = [f"I-{kind}"] * (end - start)
        if scheme == "IOB2" or (scheme == "IOB1" and previous.end == start and previous.type == kind):
            inside[0] = f"B-{kind}"
        elif scheme in ("IOBES", "BILOU"):
            names = _TO_BILOU if scheme == "BILOU" else {"E": "E", "S": "S"}
            inside[0], inside[-1] = f"B-{kind}", f"{names['E']}-{kind}"
            if len(inside) == 1:
                inside[0] = f"{names['S']}-{kind}"
        tags[start:end] = inside
        previous = entity
    return tags


def guesses_as_iob2(sequences: Sequence[Sequence[str]]) -> list[list[str]]:
    """What a model says of each sentence in IOB2, where it was trained on another scheme: where fewer than half of its
    entities begin with B-, or a tag is none of IOB2's. Otherwise as it is, ill-formed tags too."""
    found = [entities(tags) for tags in sequences]
    begun = [tags[entity.start].startswith("B-") for of, tags in zip(found, sequences, strict=True) for entity in of]
    strange = any(tag[:2] in ("E-", "S-", "L-", "U-", "M-") for tags in sequences for tag in tags)
    if not strange and sum(begun) >= len(begun) / 2:
        return [list(tags) for tags in sequences]
    return [render(of, len(tags)) for of, tags in zip(found, sequences, strict=True)]


def as_said_by(known: Collection[str], sequences: Sequence[Sequence[str]]) -> list[list[str]]:
    """IOB2's tags in the scheme of a model that knows `known`: types alone, IOBES or BMES, BILOU, or IOB1 without any
    B-. Of other models they stay: IOB1 with B- has the same tags as IOB2."""
    names = [name for name in known if name != OUTSIDE]
    prefixes = {name[0] for name in names}
    if names and not any(map(is_tag, names)):
        return [[tag if tag == OUTSIDE else tag[2:] for tag in tags] for tags in sequences]
    scheme = "IOBES" if prefixes & {*"ES"} else "BILOU" if prefixes & {*"LU"} else "IOB2" if "B" in prefixes else "IOB1"
    if scheme == "IOB2":
        return [list(tags) for tags in sequences]
    found = [render(entities(tags), len(tags), scheme) for tags in sequences]
    return [[f"M{tag[1:]}" if "M" in prefixes and tag[:2] == "I-" else tag for tag in tags] for tags in found]


def as_iob2(source: str, places: Sequence[str], sequences: Sequence[Sequence[str]]) -> tuple[list[list[str]], str]:
    """Finds out the scheme of a file's tags and rewrites them in IOB2.

    Args:
      places: of the sentences, for messages.
      sequences: of each sentence, tags that `is_tag` holds for.

    Returns:
      The tags, and a remark that names the scheme and counts the sentences that are ill-formed in it.

    Raises:
      UserError: the file mixes IOBES with BILOU.
    """
    sequences = [[f"I{tag[1:]}" if tag.startswith("M-") else tag for tag in tags] for tags in sequences]
    ends: dict[str, str] = {}  # scheme -> where its own prefixes were met first
    for place, tags in zip(places, sequences, strict=True):
        prefixes = {tag[0] for tag in tags}
        for scheme, own in (("IOBES", "ES"), ("BILOU", "LU")):
            if prefixes & set(own):
                ends.setdefault(scheme, place)
    if len(ends) > 1:
        raise UserError(
            f"{source}: tags of two schemes: E- or S- (IOBES; {ends['IOBES']}) and L- or U- (BILOU; {ends['BILOU']}); "
            "write the file in one of them"
        )
    found = [entities(tags) for tags in sequences]
    ill_formed = {
        scheme: sum(render(of, len(tags), scheme) != list(tags) for of, tags in zip(found, sequences, strict=True))
        for scheme in (ends or ("IOB2", "IOB1"))
    }
    scheme = min(ill_formed, key=lambda name: ill_formed[name])
    remark = f"tags in {scheme}" + ("" if scheme == "IOB2" else ", taken as IOB2")
    if ill_formed[scheme]:
        remark += f" ({ill_formed[scheme]} ill-formed sentences are read as conlleval reads them)"
    return [render(of, len(tags)) for of, tags in zip(found, sequences, strict=True)], remark
