"""Masked-language-model targets (Devlin et al. 2019, section 3.1), a pure function of (seed, step, example, position).

Nothing depends on where an example lies, so that a packed batch is masked as the same examples unpacked are.
"""

from typing import NamedTuple

import numpy as np

from jaxlm.config import ObjectiveSettings
from jaxlm.data.hashing import Purpose, random_bits, uniform


class Vocabulary(NamedTuple):
    """What masking needs to know of a tokenizer."""

    size: int
    special_ids: dict[str, int]  # of pad, unk, cls, sep and mask
    continues: np.ndarray  # [size] bool: the token continues a word ("##ing")


def most_predictions(row_length: int, slots: int, settings: ObjectiveSettings, specials: int = 0) -> int:
    """Places for targets that a row of `row_length` tokens and at most `slots` examples needs, whatever their number;
    `specials` of each example's tokens are never chosen.

    That is the row's quota and four standard deviations of its rounding. Each example's is at most half of the word
    that reaches the quota: of one token, or of two, as words are taken to have (spans are cut between words). Of single
    tokens, one example a row never needs more, and several do with a probability below 0.04 % (Hoeffding). Of words
    there is no such bound, since any may be long: at most 1 row in 15,000 of English text loses one with BERT's
    vocabulary or one of 8,192, 1 in 2,000 with one of 1,500 (1.4 tokens a word).
    """
    examples = np.arange(1, slots + 1)
    quota = settings.mask_rate * np.maximum(row_length - specials * examples, 0)
    if settings.mask_unit == "token":
        needed = np.minimum(np.ceil(quota + 2 * np.sqrt(examples)), np.ceil(quota) + examples - 1)
    else:
        needed = np.ceil(quota + 4 * np.sqrt(examples))
    return min(row_length, int(needed.max()))


def mask_tokens(
    batch: dict[str, np.ndarray],
    *,
    seed: int,
    step: int,
    settings: ObjectiveSettings,
    predictions: int,
    vocabulary: Vocabulary,
) -> dict[str, np.ndarray]:
    """Chooses tokens to predict and hides them.

    An example of `n` tokens (special ones never count) has a quota of `mask_rate * n`. Its units are taken in random
    order: tokens; whole words, as google-research/bert does; or spans of words, as SpanBERT (Joshi et al. 2020, section
    3.1) does. The word in which the quota is reached is taken whole or not at all, at random, so that an example's
    expected share is `mask_rate` exactly, whatever the unit. Where an example is so short that words or spans outgrow
    its quota, it is more often short words that are chosen, and those that start a span.

    Of the chosen, `mask_share` become [MASK], `random_share` a random token, the rest stays; that is drawn for each
    token, but for spans once for the whole span.

    Args:
      batch: a packed batch, `[rows, length]`, each example's tokens next to each other; not changed.
      predictions: the static number of places a row has for targets, see `most_predictions`. Where a row chooses more,
        its last examples lose the words that were taken last.

    Returns:
      The batch with `input_ids` masked, and `predict_positions`, `predict_labels` (int32) and `predict_weights`
      (float32), each `[rows, predictions]`, in the order of the text; weight 0 fills up.
    """
    rows, length = batch["input_ids"].shape
    ids = batch["input_ids"].ravel()
    special = np.zeros(vocabulary.size, bool)
    special[list(vocabulary.special_ids.values())] = True

    # From here on arrays are flat, over all rows: [tokens] of what can be chosen, [words], [examples], [targets].
    tokens = np.flatnonzero((batch["segment_ids"].ravel() > 0) & ~special[ids])
    example_ids, positions = batch["example_ids"].ravel()[tokens], batch["positions"].ravel()[tokens]

    def draw(purpose: Purpose, at: np.ndarray) -> np.ndarray:
        return random_bits((seed, step, purpose), example_ids[at], positions[at])

    # Positions begin anew where the same example follows itself: a small corpus fills a batch with copies.
    new_example = (np.diff(example_ids, prepend=-1) != 0) | (np.diff(positions, prepend=-1) <= 0)
    parted = new_example | (np.diff(tokens, prepend=-2) != 1)
    continues = (settings.mask_unit != "token") & vocabulary.continues[ids[tokens]]
    words = np.flatnonzero(parted | ~continues)
    lengths = np.diff(words, append=len(tokens))
    units = words
    if settings.mask_unit == "span":
        starts = parted[words] | (uniform(draw(Purpose.NEW_SPAN, words)) < 0.2)
        units = words[_span_starts(starts, settings.longest_span)]

    examples = np.flatnonzero(new_example)
    quotas = settings.mask_rate * np.diff(examples, append=len(tokens))
    rounding = uniform(random_bits((seed, step, Purpose.MASK_ROUNDING), example_ids[examples]))
    example = (np.cumsum(new_example) - 1)[words]
    # The order moves words within their example only: `example` and `row` are the same before and after it.
    order = np.argsort(example.astype(np.uint64) << np.uint64(32) | draw(Purpose.MASK_ORDER, units), kind="stable")
    sizes = lengths[order]
    before = np.cumsum(sizes) - sizes - examples[example]
    taken = rounding[example] * sizes < quotas[example] - before

    row = tokens[words] // length
    running = np.concatenate([[0], np.cumsum(sizes * taken)])
    taken &= running[1:] - running[np.searchsorted(row, np.arange(rows))][row] <= predictions

    chosen = np.empty_like(taken)
    chosen[order] = taken
    targets = np.flatnonzero(np.repeat(chosen, lengths))
    places = tokens[targets]
    decided = np.repeat(units, lengths)[targets] if settings.mask_unit == "span" else targets
    fate = uniform(draw(Purpose.MASK_FATE, decided))
    ordinary = np.flatnonzero(~special)
    random = ordinary[draw(Purpose.RANDOM_TOKEN, targets) % np.uint32(len(ordinary))]
    hidden = np.where(fate < settings.mask_share + settings.random_share, random, ids[places])
    shown = ids.astype(np.int32)
    shown[places] = np.where(fate < settings.mask_share, vocabulary.special_ids["mask"], hidden)

    row, column = np.divmod(places, length)
    rank = np.arange(len(places)) - np.searchsorted(row, row)

    def scatter(values: np.ndarray | float, dtype: type) -> np.ndarray:
        table: np.ndarray = np.zeros((rows, predictions), dtype)
        table[row, rank] = values
        return table

    return batch | {
        "input_ids": shown.reshape(rows, length),
        "predict_positions": scatter(column, np.int32),
        "predict_labels": scatter(ids[places], np.int32),
        "predict_weights": scatter(1, np.float32),
    }


def _span_starts(drawn: np.ndarray, longest: int) -> np.ndarray:
    """For each word, the index of the word that its span starts with; `drawn [words]` says where spans must start.

    Where `drawn` has probability p, lengths are min(Geometric(p), longest): of p = 0.2 and 10 words, 4.5 on average
    (SpanBERT scales the geometric distribution cut at 10 to sum to 1 instead: 3.8).
    """
    index = np.arange(len(drawn))
    since = index - np.maximum.accumulate(np.where(drawn, index, 0))
    return index - since % longest
