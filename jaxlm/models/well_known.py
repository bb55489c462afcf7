"""Shapes of the models that people start from most, as their `config.json` on the hub states them.

For programs that are compiled where the hub cannot be reached; nothing is loaded or trained by this table.
"""

from typing import Any

from jaxlm.models.config import BertConfig

_LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_MINI: dict[str, Any] = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}

_SHAPES: dict[str, dict[str, Any]] = {
    "google-bert/bert-base-uncased": {},
    "google-bert/bert-base-cased": {"vocab_size": 28996},
    "google-bert/bert-base-chinese": {"vocab_size": 21128},
    "google-bert/bert-base-multilingual-cased": {"vocab_size": 119547},
    "google-bert/bert-base-multilingual-uncased": {"vocab_size": 105879},
    "google-bert/bert-large-uncased": _LARGE,
    "google-bert/bert-large-uncased-whole-word-masking": _LARGE,
    "google-bert/bert-large-cased": {"vocab_size": 28996, **_LARGE},
    "google-bert/bert-large-cased-whole-word-masking": {"vocab_size": 28996, **_LARGE},
    "sentence-transformers/all-MiniLM-L6-v2": {"num_hidden_layers": 6, **_MINI},
    "sentence-transformers/all-MiniLM-L12-v2": _MINI,
}


def well_known_shape(name: str) -> BertConfig | None:
    """The shape of a hub model by its name, with or without `google-bert/`; None where the table lacks it."""
    shape = _SHAPES.get(name, _SHAPES.get(f"google-bert/{name}"))
    return None if shape is None else BertConfig(**shape)
