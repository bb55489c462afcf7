"""Texts to vectors with a trained sentence encoder."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from jaxlm.config import Dtype
from jaxlm.data.loader import Batch, lay_out
from jaxlm.data.packing import Layout
from jaxlm.data.rows import fit
from jaxlm.data.tokenizer import Encoded, TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import SentenceEncoder, hub
from jaxlm.parallel import distributed
from jaxlm.parallel.mesh import (
    by_rows,
    compute_dtype,
    fetch_rows,
    in_context,
    put_batch,
    row_shards,
    row_slice,
    tokens_at_once,
)
from jaxlm.parallel.sharding import check_model, put_params
from jaxlm.search.index import sha256_of_model
from jaxlm.tasks.embedding import sentence_vectors

log = logging.getLogger("jaxlm")

# (longest text of a class, tokens of its rows, most texts in one row). Texts are packed with others of about their
# length, two or more to a row, or one that fills most of it; shorter ones fill what is left. Few shapes, so that the
# cache of compiled programs is hit; rows of 192 and 256 serve two classes each.
_CLASSES = ((32, 64, 32), (64, 128, 8), (96, 192, 8), (128, 256, 8), (192, 192, 8), (256, 256, 8),
            (384, 384, 8), (512, 512, 8))  # fmt: skip
# A CPU feels every token of a row that is computed alone, as of a query.
_ALONE_ON_CPU = (16, 24, 32, 40, 48)
_SHORT = _CLASSES[0][0]
_AT_ONCE = 1 << 14  # texts that are tokenised and sorted together


class Embedder:
    """A sentence encoder's directory, loaded and ready.

    Args:
      name_or_dir: hub name or directory, of sentence-transformers or of a bare BERT, whose tokens are averaged.
      mesh: the devices.
      batch_size: what is computed at once: as many tokens as this many texts of 32 have. None: what keeps the devices
        busy.
      max_length: tokens where a text is cut, [CLS] and [SEP] included; None for what the directory says.
      dtype: what products are computed in; auto is bfloat16 on TPU and GPU, float32 on CPU.

    Raises:
      CheckpointError, UserError: the directory cannot be used.
    """

    def __init__(
        self, name_or_dir: str, mesh: Mesh, *, batch_size: int | None = None, max_length: int | None = None,
        dtype: Dtype = "auto",
    ):  # fmt: skip
        directory = hub.resolve(name_or_dir)
        if jax.process_count() > 1:
            distributed.agree(name_or_dir, sha256_of_model(directory))
        self._name = name_or_dir
        self.config = SentenceEncoder.read_config(directory)
        self.tokenizer = TextTokenizer.load(directory)
        self.max_length = text_length(self.config, self.tokenizer, max_length)
        self.truncated = 0  # texts that were cut so far
        if self.config.pooling is None:
            log.info("%s does not say how it makes one vector of a text: the mean of its tokens is taken", name_or_dir)
        self._mesh = mesh
        self._tokens_at_once = tokens_at_once(mesh) if batch_size is None else batch_size * _SHORT
        check_model(self.config, mesh)
        self._params = put_params(SentenceEncoder.load_params(directory, self.config, jax.random.key(0)), mesh)
        graphdef: nnx.GraphDef = SentenceEncoder.abstract(self.config, compute_dtype(dtype, mesh))[0]

        def embed(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
            with in_context(mesh):
                return sentence_vectors(nnx.merge(graphdef, params), batch, None)

        self._embed = jax.jit(embed, in_shardings=(None, by_rows(mesh)), out_shardings=by_rows(mesh))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The texts' vectors in their order, `[texts, hidden]` float32.

        Raises:
          TypeError: `texts` is a single string.
          UserError: the model gives no finite numbers, or has no embedding for a token.
        """
        if isinstance(texts, str):
            raise TypeError("a list of texts is meant, not one text")
        vectors = np.zeros((len(texts), self.config.hidden_size), np.float32)
        for start in range(0, len(texts), _AT_ONCE):
            encoded = self.tokenizer.encode(texts[start : start + _AT_ONCE], max_length=self.max_length)
            check_ids(self.config, self.tokenizer, encoded.input_ids, encoded.token_type_ids)
            self.truncated += encoded.truncated
            for indices, layout, found in self._run(encoded):
                vectors[start + indices] = fetch_rows(found)[layout.row, layout.slot]
            check_finite(self._name, vectors[start : start + _AT_ONCE])
        return vectors

    def _run(self, encoded: Encoded) -> Iterator[tuple[np.ndarray, Layout, jax.Array]]:
        """(text numbers, where they lie, vectors on the device), one step behind so that the device never waits."""
        waiting = None
        for indices, layout, batch in self._batches(encoded):
            result = indices, layout, self._embed(self._params, put_batch(batch, self._mesh))
            if waiting is not None:
                yield waiting
            waiting = result
        if waiting is not None:
            yield waiting

    def _batches(self, encoded: Encoded) -> Iterator[tuple[np.ndarray, Layout, Batch]]:
        lengths = np.diff(encoded.offsets)
        left = np.arange(len(lengths))  # texts that are in no row yet
        classes = list(_classes(self.max_length))[::-1]
        for (_, row_length, slots), (shorter, *_) in zip(classes, [*classes[1:], (0,)], strict=True):
            if lengths[left].max(initial=0) <= shorter:
                continue
            layout, packed = _pack(lengths[left], row_length, slots, shorter)
            members, left = left[packed], left[~packed]
            most = max(1, self._tokens_at_once // row_length)
            for first in range(0, layout.rows, most):
                here = (layout.row >= first) & (layout.row < first + most)
                part = Layout(layout.row[here] - first, layout.start[here], layout.slot[here])
                rows = self._rows(part.row.max() + 1, most)
                length = self._alone(lengths[members[here]].sum(), row_length) if rows == 1 else row_length
                yield members[here], part, self._batch(encoded, members[here], part, (rows, length, slots))

    def _rows(self, needed: int, most: int) -> int:
        """The number of rows to compute: a few sizes, which the mesh divides."""
        rows = shards = row_shards(self._mesh)
        while rows < needed:
            rows *= 4
        return min(rows, -(-most // shards) * shards)

    def _alone(self, tokens: int, row_length: int) -> int:
        """The length of the only row, of so many tokens."""
        shorter = _ALONE_ON_CPU if self._mesh.devices.flat[0].platform == "cpu" else ()
        return next((length for length in shorter if tokens <= length < row_length), row_length)

    def _batch(self, encoded: Encoded, indices: np.ndarray, layout: Layout, shape: tuple[int, int, int]) -> Batch:
        """This process's slice of the rows."""
        process, processes = row_slice(self._mesh)
        share = shape[0] // processes
        first = process * share
        mine = (layout.row >= first) & (layout.row < first + share)
        indices, layout = indices[mine], Layout(layout.row[mine] - first, layout.start[mine], layout.slot[mine])
        spans = [np.arange(encoded.offsets[index], encoded.offsets[index + 1]) for index in indices]
        tokens = np.concatenate([np.zeros(0, np.int64), *spans])
        lengths = np.diff(encoded.offsets)[indices]
        return lay_out(encoded.input_ids[tokens], encoded.token_type_ids[tokens], lengths, indices, layout,
                       shape=(share, *shape[1:]))  # fmt: skip


def _pack(lengths: np.ndarray, row_length: int, slots: int, shorter: int) -> tuple[Layout, np.ndarray]:
    """Rows for all texts that are longer than `shorter`, and which texts are in them, `[texts]`: those and such as fit
    in beside them."""
    rows = fit(lengths, row_length)
    order = np.lexsort((-lengths, rows))  # the longest of a row first: they must have a slot
    ends, firsts = np.cumsum(lengths[order]), np.searchsorted(rows[order], rows[order])
    layout = Layout(rows.copy(), rows.copy(), rows.copy())
    layout.start[order] = ends - lengths[order] - (ends - lengths[order])[firsts]
    layout.slot[order] = np.arange(len(order)) - firsts
    needed = np.unique(rows[lengths > shorter])
    packed = np.isin(rows, needed) & (layout.slot < slots)
    return Layout(np.searchsorted(needed, rows[packed]), layout.start[packed], layout.slot[packed]), packed


def _classes(max_length: int) -> Iterator[tuple[int, int, int]]:
    yield from _CLASSES
    if max_length > _CLASSES[-1][0]:
        longest = -(-max_length // 128) * 128
        yield longest, longest, 1


def check_ids(config: Any, tokenizer: TextTokenizer, input_ids: np.ndarray, token_type_ids: np.ndarray) -> None:
    """Makes sure that the model has an embedding for each token.

    Raises:
      UserError: it has not; computed all the same, such a token would pass for the last one that it has.
    """
    if (largest := int(input_ids.max(initial=0))) >= config.vocab_size:
        raise UserError(
            f"the tokenizer gives {tokenizer.token(largest)!r} the id {largest}, and the model has {config.vocab_size} "
            "tokens: are the two of the same model?"
        )
    if int(token_type_ids.max(initial=0)) >= config.type_vocab_size:
        raise UserError("the model has one token type (type_vocab_size 1) and reads no pairs of texts")


def check_finite(model: str, *results: np.ndarray | float) -> None:
    """Makes sure that what a model gave are numbers; of weights that are none, nothing else would tell.

    Raises:
      UserError: one is infinite or not a number.
    """
    if not all(np.isfinite(result).all() for result in results):
        raise UserError(f"{model} gives results that are not finite numbers: its weights are damaged, or overflow")


def text_length(config: Any, tokenizer: TextTokenizer, asked: int | None) -> int:
    """Where texts are cut, in tokens: as asked, as the pooling or the tokenizer says, or where the positions end.

    Raises:
      UserError: more is asked for than the model has positions, or too little for a text.
    """
    positions = config.max_position_embeddings
    if asked is not None and not 3 <= asked <= positions:
        raise UserError(f"max_length is {asked}; it must be at least 3, and the model has {positions} positions")
    stated = config.pooling.max_length if config.pooling is not None else None
    return min(asked or stated or tokenizer.max_length or positions, positions)
