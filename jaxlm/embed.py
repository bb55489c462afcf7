"""Texts to vectors with a trained sentence encoder."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from jaxlm.data.loader import Batch, lay_out
from jaxlm.data.packing import Layout, plan
from jaxlm.data.tokenizer import Encoded, TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import SentenceEncoder, hub
from jaxlm.parallel import distributed
from jaxlm.parallel.mesh import by_rows, fetch_rows, in_context, put_batch, row_shards, row_slice
from jaxlm.parallel.sharding import check_model, put_params
from jaxlm.search.index import sha256_of_model
from jaxlm.tasks.embedding import sentence_vectors

log = logging.getLogger("jaxlm")

# (longest text of a class, tokens of its rows, most texts of the class in one row). Texts are packed with others of
# about their length: two or more to a row, or one that fills most of it. Few shapes, so that the cache of compiled
# programs is hit; rows of 192 and 256 serve two classes each.
_CLASSES = ((32, 64, 32), (64, 128, 3), (96, 192, 2), (128, 256, 2), (192, 192, 2), (256, 256, 2),
            (384, 384, 1), (512, 512, 1))  # fmt: skip
_SHORT = _CLASSES[0][0]
_AT_ONCE = 1 << 14  # texts that are tokenised and sorted together


class Embedder:
    """A sentence encoder's directory, loaded and ready.

    Args:
      name_or_dir: hub name or directory, of sentence-transformers or of a bare BERT, whose tokens are averaged.
      mesh: the devices.
      batch_size: what is computed at once: as many tokens as this many texts of 32 have.
      max_length: tokens where a text is cut, [CLS] and [SEP] included; None for what the directory says.
      dtype: compute dtype.

    Raises:
      CheckpointError, UserError: the directory cannot be used.
    """

    def __init__(
        self, name_or_dir: str, mesh: Mesh, *, batch_size: int = 128, max_length: int | None = None,
        dtype: Any = jnp.float32,
    ):  # fmt: skip
        directory = hub.resolve(name_or_dir)
        if jax.process_count() > 1:
            distributed.agree(name_or_dir, sha256_of_model(directory))
        self.config = SentenceEncoder.read_config(directory)
        self.tokenizer = TextTokenizer.load(directory)
        self.max_length = text_length(self.config, self.tokenizer, max_length)
        self.truncated = 0  # texts that were cut so far
        if self.config.pooling is None:
            log.info("%s does not say how it makes one vector of a text: the mean of its tokens is taken", name_or_dir)
        self._mesh, self._batch_size = mesh, batch_size
        check_model(self.config, mesh)
        self._params = put_params(SentenceEncoder.load_params(directory, self.config, jax.random.key(0)), mesh)
        graphdef: nnx.GraphDef = SentenceEncoder.abstract(self.config, dtype)[0]

        def embed(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
            with in_context(mesh):
                return sentence_vectors(nnx.merge(graphdef, params), batch, None)

        self._embed = jax.jit(embed, in_shardings=(None, by_rows(mesh)), out_shardings=by_rows(mesh))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The texts' vectors in their order, `[texts, hidden]` float32.

        Raises:
          TypeError: `texts` is a single string.
        """
        if isinstance(texts, str):
            raise TypeError("a list of texts is meant, not one text")
        vectors = np.zeros((len(texts), self.config.hidden_size), np.float32)
        for start in range(0, len(texts), _AT_ONCE):
            encoded = self.tokenizer.encode(texts[start : start + _AT_ONCE], max_length=self.max_length)
            self.truncated += encoded.truncated
            for indices, layout, found in self._run(encoded):
                vectors[start + indices] = fetch_rows(found)[layout.row, layout.slot]
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
        shortest = 0
        for longest, row_length, slots in _classes(self.max_length):
            members = np.flatnonzero((lengths > shortest) & (lengths <= longest))
            shortest = longest
            if not len(members):
                continue
            packed = plan(lengths[members][None], row_length)
            layout = Layout(*(part[0] for part in packed))
            most = max(1, self._batch_size * _SHORT // row_length)
            for first in range(0, packed.rows, most):
                here = (layout.row >= first) & (layout.row < first + most)
                part = Layout(layout.row[here] - first, layout.start[here], layout.slot[here])
                rows = self._rows(part.row.max() + 1, most)
                yield members[here], part, self._batch(encoded, members[here], part, (rows, row_length, slots))

    def _rows(self, needed: int, most: int) -> int:
        """The number of rows to compute: a few sizes, which the mesh divides."""
        rows = shards = row_shards(self._mesh)
        while rows < needed:
            rows *= 4
        return min(rows, -(-most // shards) * shards)

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


def _classes(max_length: int) -> Iterator[tuple[int, int, int]]:
    yield from _CLASSES
    if max_length > _CLASSES[-1][0]:
        longest = -(-max_length // 128) * 128
        yield longest, longest, 1


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
