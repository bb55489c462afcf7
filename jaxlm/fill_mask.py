"""What a masked language model would put for each [MASK] of a text."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, BertForMaskedLM, hub

_LENGTHS = 32  # rows are rounded up to a multiple, so that few shapes are compiled


class FillMask:
    """A masked-LM model directory, loaded and ready.

    Raises:
      CheckpointError, UserError: the directory cannot be used, or its model has no masked-LM head.
    """

    def __init__(self, name_or_dir: str):
        directory = hub.resolve(name_or_dir)
        if "masked-LM head" not in hub.heads_in(directory):
            raise UserError(
                f"{name_or_dir} has no masked-LM head; fill-mask needs a pre-trained model that kept its own"
            )
        self._config = BertConfig.from_json(directory / "config.json")
        self._tokenizer = TextTokenizer.load(directory)
        self._params = BertForMaskedLM.load_params(directory, self._config, jax.random.key(0))
        graphdef: nnx.GraphDef = BertForMaskedLM.abstract(self._config, jnp.float32)[0]

        def probabilities(params: Any, ids: jax.Array, mask: jax.Array, places: jax.Array) -> jax.Array:
            model = nnx.merge(graphdef, params)
            return jax.nn.softmax(model(ids, attention_mask=mask, predict_positions=places).logits, axis=-1)

        self._probabilities = jax.jit(probabilities)

    def __call__(self, texts: Sequence[str], top_k: int = 5) -> list[dict[str, Any]]:
        """For each text `{"text": ..., "masks": [[{"token": "capital", "probability": 0.99}, ...], ...]}`.

        Raises:
          UserError: a text has no [MASK], or is longer than the model reads.
        """
        return [{"text": text, "masks": self._fill(text, top_k)} for text in texts]

    def _fill(self, text: str, top_k: int) -> list[list[dict[str, Any]]]:
        positions = self._config.max_position_embeddings
        encoded = self._tokenizer.encode([text], max_length=positions)
        places = np.flatnonzero(encoded.input_ids == self._tokenizer.special_ids["mask"])
        if encoded.truncated:
            raise UserError(f"the text has more than the {positions} tokens that the model reads: {text[:60]!r} ...")
        if not len(places):
            raise UserError(f"there is no {self._tokenizer.token(self._tokenizer.special_ids['mask'])} in {text!r}")
        length = min(-(-len(encoded.input_ids) // _LENGTHS) * _LENGTHS, positions)
        ids = np.zeros((1, length), np.int32)
        ids[0, : len(encoded.input_ids)] = encoded.input_ids
        mask = (np.arange(length) < len(encoded.input_ids))[None].astype(np.int32)
        found = np.asarray(self._probabilities(self._params, ids, mask, places[None]))[0]
        best = np.argsort(-found, axis=1)[:, :top_k]
        return [
            [{"token": self._tokenizer.token(int(i)), "probability": float(row[i])} for i in chosen]
            for row, chosen in zip(found, best, strict=True)
        ]
