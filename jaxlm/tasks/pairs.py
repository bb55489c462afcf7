"""What vectors of texts that come in pairs, or with a negative, lose, and how good they are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import EmbeddingSettings
from jaxlm.tasks.base import Metrics
from jaxlm.tasks.regression import correlation


def contrastive_losses(
    vectors: jax.Array, same: jax.Array, there: jax.Array, scale: float, symmetric: bool = False
) -> jax.Array:
    """Cross-entropy of finding each group's second text by its first one, `[groups]`.

    MultipleNegativesRankingLoss of sentence-transformers (Henderson et al. 2017, https://arxiv.org/abs/1705.00652,
    section 4.4, with scaled cosines), but for one thing: candidates that are no negatives are left out. These are the
    first and the second text themselves, and what fits an equal text in another group.

    Args:
      vectors: `[groups, members, hidden]` of length 1: a first text, a second one, and perhaps a negative.
      same: `[groups, members]`, equal numbers for equal texts.
      there: `[groups]`, 0 for a group that is none.
      scale: of the cosines.
      symmetric: also find each first text among all by the second one, and take the mean of both.
    """

    def losses(asked: int, candidates: jax.Array, texts: jax.Array, real: jax.Array) -> jax.Array:
        queries = vectors[:, asked]
        scores = scale * jnp.matmul(queries, candidates.T, precision="highest")
        own = jnp.eye(scores.shape[0], scores.shape[1], dtype=bool)
        excluded = (_not_negative(same, texts, asked) | (real == 0)[None]) & ~own
        return jax.nn.logsumexp(jnp.where(excluded, -jnp.inf, scores), axis=1) - jnp.diagonal(scores)

    candidates, texts = _candidates(vectors), _candidates(same)
    forward = losses(0, candidates, texts, jnp.tile(there, vectors.shape[1] - 1))
    return (forward + losses(1, vectors[:, 0], same[:, 0], there)) / 2 if symmetric else forward


def cosent_loss(found: jax.Array, scores: jax.Array, there: jax.Array, scale: float) -> jax.Array:
    """How far the order of the pairs' cosines is from that of their scores: a scalar, of the batch as a whole.

    log(1 + sum of exp(scale (found_i - found_j)) over all i and j with scores_i < scores_j): CoSENT (Su 2022,
    https://kexue.fm/archives/8847, equation 6), the CoSENTLoss of sentence-transformers.

    Args:
      found: the cosine of each pair, `[pairs]`.
      scores: `[pairs]`; their order alone matters.
      there: `[pairs]`, 0 for a pair that is none.
      scale: of the cosines.
    """
    real = there != 0
    ordered = (scores[:, None] < scores[None]) & real[:, None] & real[None]
    excess = jnp.where(ordered, scale * (found[:, None] - found[None]), -jnp.inf)
    return jax.nn.logsumexp(jnp.append(excess, 0.0))


_losses = jax.jit(contrastive_losses, static_argnames="symmetric")


def _candidates(values: Any) -> Any:
    """All second texts, then all negatives, of `values [groups, members, ...]`."""
    return values[:, 1:].swapaxes(0, 1).reshape(-1, *values.shape[2:])


def _not_negative(same: Any, texts: Any, asked: int) -> jax.Array:
    """`[groups, candidates]`: whose text is the group's first or second one, or fits a text that is equal to the one
    that is asked with, member `asked` of the group. The groups' own counterparts come first among the candidates."""
    itself = (texts[None] == same[:, :1]) | (texts[None] == same[:, 1:2])
    equal = same[:, asked][:, None] == same[:, asked][None]
    return itself | jnp.pad(equal, ((0, 0), (0, len(texts) - len(equal))))


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """`[pairs]` of two `[pairs, hidden]`, in float64."""
    return (_unit(one) * _unit(other)).sum(-1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def score_metrics(groups: np.ndarray, scores: np.ndarray, settings: EmbeddingSettings) -> Metrics:
    """Correlations of the pairs' cosines with their scores, by scipy, as tasks of similarity are judged (Reimers et al.
    2016, https://aclanthology.org/C16-1009); and the mean squared error, where that is what was learnt.

    Args:
      groups: `[pairs, 2, hidden]`.
      scores: `[pairs]`, float64.
    """
    found = cosines(groups[:, 0], groups[:, 1])
    metrics: Metrics = {}
    if settings.loss == "cosine" and settings.lowest is not None and settings.highest is not None:
        wanted = (scores - settings.lowest) / (settings.highest - settings.lowest)
        metrics["loss"] = float(np.square(found - wanted).mean())
    return metrics | {
        "spearman": correlation("spearmanr", found, scores),
        "pearson": correlation("pearsonr", found, scores),
        "examples": len(scores),
    }


def pair_metrics(groups: np.ndarray, same: np.ndarray, settings: EmbeddingSettings) -> Metrics:
    """How well each first text finds its second one among those of its block, and among its block's negatives.

    A block has at most `settings.candidates` rows of the file, all blocks about as many. Candidates that are no
    negatives, as in `contrastive_losses`, do not count. `accuracy` is the share that comes first, `mrr` the mean
    reciprocal rank, equal cosines counted as better ones; `loss` is that of `contrastive_losses`.

    Args:
      groups: `[rows, members, hidden]`: first and second texts, and perhaps negatives.
      same: `[rows, members]`, equal numbers for equal texts.
    """
    vectors = _unit(groups)
    losses, ranks = [], []
    blocks = np.array_split(np.arange(len(groups)), -(-len(groups) // settings.candidates))
    for rows in blocks:
        found = vectors[rows, 0] @ _candidates(vectors[rows]).T
        own = np.arange(len(rows))[:, None] == np.arange(found.shape[1])
        others = ~np.asarray(_not_negative(same[rows], _candidates(same[rows]), 0)) & ~own
        ranks.append(1 + ((found >= np.diagonal(found)[:, None]) & others).sum(1))
        there = jnp.ones(len(rows))
        losses.append(_losses(vectors[rows], same[rows], there, settings.scale, symmetric=settings.symmetric))
    rank = np.concatenate(ranks)
    return {
        "loss": float(np.concatenate(losses).mean(dtype=np.float64)),
        "accuracy": float((rank == 1).mean()),
        "mrr": float((1 / rank).mean()),
        "candidates": len(blocks[0]),
        "examples": len(rank),
    }
