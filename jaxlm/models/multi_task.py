"""One encoder under several heads (Liu et al. 2019, "MT-DNN", https://aclanthology.org/P19-1441, section 3)."""

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxlm.models.bert import BertModel
from jaxlm.models.config import BertConfig, CheckpointError
from jaxlm.models.heads import BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification
from jaxlm.models.hub import PretrainedModel
from jaxlm.models.intent_slots import BertForIntentAndSlots
from jaxlm.models.weights import MAX_SHARD_SIZE

_CLASSES: dict[str, type[PretrainedModel]] = {
    kind.__name__: kind
    for kind in (
        BertForSequenceClassification,
        BertForTokenClassification,
        BertForQuestionAnswering,
        BertForIntentAndSlots,
    )
}


class Head(NamedTuple):
    """A model that reads the shared encoder; its config is the encoder's, with labels of its own."""

    architecture: str  # one of _CLASSES
    config: BertConfig

    @property
    def model(self) -> type[PretrainedModel]:
        return _CLASSES[self.architecture]


@dataclasses.dataclass(frozen=True)
class SharedConfig(BertConfig):
    """The shape of an encoder, and the heads on it by name."""

    heads: dict[str, Head] = dataclasses.field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, shape: BertConfig, heads: dict[str, Head]) -> "SharedConfig":
        values = {item.name: getattr(shape, item.name) for item in dataclasses.fields(BertConfig)}
        return cls(**values, heads=heads)

    def encoder(self) -> BertConfig:
        """The same without the heads."""
        return BertConfig(**{item.name: getattr(self, item.name) for item in dataclasses.fields(BertConfig)})


def shape_of_head(shape: BertConfig, name: str) -> BertConfig:
    """The encoder's shape with the labels that the head `name` of a shared model has; else with those of no model."""
    own = shape.heads[name].config if isinstance(shape, SharedConfig) and name in shape.heads else BertConfig()
    if isinstance(shape, SharedConfig):
        shape = shape.encoder()
    return dataclasses.replace(
        shape, id2label=own.id2label, id2intent=own.id2intent, problem_type=None, architecture=None,
        score_activation=None, pooling=None, facts={},
    )  # fmt: skip


class MultiTaskBert(PretrainedModel):
    """BERT with several heads: `part(name)` is a model of the head's class, and all of them have the same `bert`.

    A saved directory is that of the encoder, which opens as `BertModel`; each head has a directory in it, by its name,
    which opens in the class of its own and holds the encoder, too.
    """

    config: SharedConfig

    def __init__(self, config: SharedConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        parts: list[Any] = [head.model(head.config, dtype=dtype, rngs=rngs) for head in config.heads.values()]
        with_pooler = any(part.bert.pooler is not None for part in parts)
        self.bert = BertModel(config.encoder(), with_pooler=with_pooler, dtype=dtype, rngs=rngs)
        for part in parts:
            part.bert = self.bert  # nnx knows an object that it meets twice: its parameters are there once, as `bert`
        self.parts = nnx.List(parts)

    def part(self, name: str) -> Any:
        """The model that the encoder and one head are."""
        return self.parts[list(self.config.heads).index(name)]

    @classmethod
    def read_config(cls, directory: Path) -> SharedConfig:
        """The config of a directory and of its heads; of a directory that has none of ours, the encoder's alone."""
        config = BertModel.read_config(directory)
        heads = {}
        for name in config.facts.get("heads", ()):
            own = BertConfig.from_json(directory / name / "config.json")
            if own.architecture not in _CLASSES:
                raise CheckpointError(
                    f"{directory / name} is a {own.architecture}; one of {', '.join(_CLASSES)} is meant"
                )
            heads[name] = Head(own.architecture, own)
        return SharedConfig.of(config, heads)

    @classmethod
    def load_params(
        cls, directory: Path, config: BertConfig, key: jax.Array, *, new_heads: bool = False, whole: bool = False
    ) -> dict[str, Any]:
        """The encoder of any BERT's directory, and of one of ours the heads, too; others are drawn from `key`.

        Raises:
          CheckpointError: as `match` says; or a head of this name is of another class.
        """
        shared = _shared(config)
        saved = {} if new_heads else cls.read_config(directory).heads
        encoder = BertModel.load_params(directory, shared.encoder(), key, whole=whole)
        wanted = cls.abstract(shared)[1]["bert"]
        parts = jax.jit(lambda key: cls.initial_params(shared, key)["parts"])(key)
        for number, (name, head) in enumerate(shared.heads.items()):
            if name in saved:
                if saved[name].architecture != head.architecture:
                    raise CheckpointError(
                        f"{directory / name} is a {saved[name].architecture}, a {head.architecture} is asked for; "
                        "new heads start with new_heads=True, in a run with --model.new_head"
                    )
                parts[number] = head.model.load_params(directory / name, head.config, key)
                del parts[number]["bert"]
        return {"bert": {name: encoder[name] for name in wanted}, "parts": jax.tree.map(np.asarray, parts)}

    @classmethod
    def params_of(cls, config: BertConfig, params: dict[str, Any], name: str) -> dict[str, Any]:
        """The parameters of one head's model by itself."""
        heads = _shared(config).heads
        head, own = heads[name], params["parts"][list(heads).index(name)]
        return {"bert": {part: params["bert"][part] for part in head.model.abstract(head.config)[1]["bert"]}, **own}

    @classmethod
    def save_params(
        cls,
        directory: str | os.PathLike,
        config: BertConfig,
        params: dict[str, Any],
        *,
        max_shard_size: int = MAX_SHARD_SIZE,
    ) -> None:
        shared, directory = _shared(config), Path(directory)
        for name, head in shared.heads.items():
            own = cls.params_of(shared, params, name)
            head.model.save_params(directory / name, head.config, own, max_shard_size=max_shard_size)
        cls.save_encoder(directory, shared, params, max_shard_size=max_shard_size)

    @classmethod
    def save_encoder(
        cls, directory: Path, config: SharedConfig, params: dict[str, Any], *, max_shard_size: int = MAX_SHARD_SIZE
    ) -> None:
        """Writes what of a saved directory is not in the heads'."""
        config = dataclasses.replace(config, facts=config.facts | {"heads": list(config.heads)})
        BertModel.save_params(directory, config.encoder(), params["bert"], max_shard_size=max_shard_size)


def _shared(config: BertConfig) -> SharedConfig:
    if not isinstance(config, SharedConfig):
        raise TypeError("the config of a MultiTaskBert names its heads: a SharedConfig is meant")
    return config
