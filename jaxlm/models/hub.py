"""Model directories in the Hugging Face layout: reading any, writing one that any Hugging Face tool opens."""

import dataclasses
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxlm.models.config import BertConfig, CheckpointError, refuse_pointer
from jaxlm.models.names import CLASSIFIERS, canonical, head_of, rules_for
from jaxlm.models.torch_pickle import read_torch_checkpoint
from jaxlm.models.weights import INDEX, MAX_SHARD_SIZE, SINGLE, Source, is_writer, replace_file, whole, write_weights

log = logging.getLogger("jaxlm")

WEIGHT_FILES = (SINGLE, INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
SENTENCE_FILES = ("modules.json", "sentence_*_config.json", "config_sentence_transformers.json",
                  "*_Pooling/config.json")  # fmt: skip
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json",
                   "added_tokens.json")  # fmt: skip


def resolve(name_or_dir: str | os.PathLike, *, weights: bool = True) -> Path:
    """The local directory of a model: a directory is itself, a hub name (`org/name`) is downloaded or found in a cache.

    Args:
      weights: whether they are wanted too, and not only config and tokenizer.

    Raises:
      CheckpointError: there is no such directory, and the hub has no such model or cannot be reached.
    """
    path = Path(name_or_dir).expanduser()
    if path.is_dir():
        return path
    name = str(name_or_dir)
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise CheckpointError(f"{name} is no directory (a model directory holds config.json and model.safetensors)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    wanted = ["config.json", *TOKENIZER_FILES, *SENTENCE_FILES]
    try:
        safetensors = ["*.safetensors", "*.safetensors.index.json"] if weights else []
        found = Path(snapshot_download(name, allow_patterns=[*wanted, *safetensors]))
        if weights and not any((found / file).exists() for file in WEIGHT_FILES):
            found = Path(snapshot_download(name, allow_patterns=[*wanted, "pytorch_model*"]))
        return found
    except HFValidationError:
        raise CheckpointError(f"{name!r} is neither a directory nor a hub name such as bert-base-uncased") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{name} is no directory here, and the hub did not give a model of that name ({reason}). "
            "Check the spelling, or download it where there is a network and pass its directory"
        ) from None


def _safetensors(path: Path, *, values: bool = True) -> Iterator[tuple[str, np.ndarray | None]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:  # bfloat16 too: ml_dtypes, which jax imports, teaches it to numpy
            for name in file.offset_keys():
                yield name, file.get_tensor(name) if values else None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    except (AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} holds a tensor of a dtype that numpy does not know: {error}") from None


def read_tensors(directory: Path, *, values: bool = True) -> dict[str, np.ndarray]:
    """All tensors of a model directory under their Hugging Face names, from whichever of the four layouts is there.

    Args:
      values: False asks for the names; the tensors are then None where their file does not have to be read for it.

    Raises:
      CheckpointError: no weights, a shard that is missing, or a damaged file.
    """
    tensors: dict[str, Any] = {}
    for path in _weight_files(directory):
        is_pickle = path.suffix == ".bin"
        tensors.update(read_torch_checkpoint(path) if is_pickle else _safetensors(path, values=values))
    return tensors


def _weight_files(directory: Path) -> list[Path]:
    """The files that hold a model directory's weights."""
    found = next((name for name in WEIGHT_FILES if (directory / name).is_file()), None)
    if found is None:
        raise CheckpointError(f"{directory} holds no weights (looked for {', '.join(WEIGHT_FILES)})")
    refuse_pointer(directory / found)
    if not found.endswith(".index.json"):
        return [directory / found]
    try:
        shards = sorted(set(json.loads((directory / found).read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{directory / found} is no index of shards: {error}") from None
    for name in shards:
        if not (directory / name).is_file():
            raise CheckpointError(f"{directory / found} names the shard {name}, which is not there")
        refuse_pointer(directory / name)
    return [directory / name for name in shards]


def files_of(directory: Path) -> list[Path]:
    """The files that loading a model directory reads: config, tokenizer, pooling and the weights that are taken, of
    heads in directories of their own, too. What else lies there (metrics, an index, weights in a second layout) decides
    nothing.

    Raises:
      CheckpointError: there is no config, or there are no weights.
    """
    heads = BertConfig.from_json(directory / "config.json").facts.get("heads", ())
    patterns = ("config.json", *TOKENIZER_FILES, *SENTENCE_FILES)
    named = [path for pattern in patterns for path in sorted(directory.glob(pattern)) if path.is_file()]
    of_heads = [path for head in heads if (directory / head).is_dir() for path in files_of(directory / head)]
    return named + _weight_files(directory) + of_heads


def heads_in(directory: Path) -> set[str]:
    """The heads (by the names in `jaxlm.models.names.HEADS`) that a model directory has weights for."""
    return {head for name in read_tensors(directory, values=False) if (head := head_of(canonical(name))) is not None}


def match(tensors: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], config: BertConfig, source: str,
          *, new_heads: bool = False) -> tuple[dict[str, np.ndarray], list[str], list[str]]:  # fmt: skip
    """Turns Hugging Face tensors into our parameters.

    Args:
      tensors: by Hugging Face name.
      shapes: our parameters' shapes by dotted name, with the `bert.` prefix.
      config: the model's shape.
      source: what error messages call the checkpoint.
      new_heads: leave the checkpoint's classifiers out, whatever they hold.

    Returns:
      The float32 parameters found; the names of those that a missing head leaves to be initialised; the heads of the
      checkpoint that this model has no use for.

    Raises:
      CheckpointError: a tensor is missing, left over, of the wrong shape or of whole numbers, or a tied tensor is not
        tied.
    """
    given = {canonical(name): tensor for name, tensor in tensors.items()}
    given.pop("bert.embeddings.position_ids", None)  # a buffer of older transformers: 0, 1, 2, ...
    if new_heads:
        given = {name: tensor for name, tensor in given.items() if head_of(name) not in CLASSIFIERS}
    for tied, original in (
        ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ):
        copy = given.pop(tied, None)
        tells = copy is not None and not np.array_equal(copy, given.setdefault(original, copy))
        if tells and any(head_of(name) == head_of(tied) for name in shapes):
            raise CheckpointError(f"{source}: {tied} differs from {original}; jaxlm computes tied decoders only")
    params: dict[str, np.ndarray] = {}
    fresh: list[str] = []
    missing: list[str] = []
    rules = rules_for(config)
    for ours, shape in shapes.items():
        rule = rules[ours]
        absent = [name for name in rule.theirs if name not in given]
        if absent:
            head = head_of(ours)
            whole_head_is_absent = head is not None and not any(head_of(name) == head for name in given)
            if whole_head_is_absent:
                fresh.append(ours)
            else:
                missing += absent
            continue
        expected = [part.shape for part in rule.save(np.broadcast_to(np.float32(0), shape))]
        parts = [given[name] for name in rule.theirs]
        for name, part, want in zip(rule.theirs, parts, expected, strict=True):
            if part.shape != want:
                remedy = "; a new classifier starts with new_heads=True, in a run with --model.new_head"
                remedy = remedy if head_of(name) in CLASSIFIERS else ""
                raise CheckpointError(f"{source}: {name} has shape {part.shape}, the config asks for {want}{remedy}")
            if not jnp.issubdtype(part.dtype, jnp.floating):
                raise CheckpointError(f"{source}: {name} holds {part.dtype}; jaxlm reads no quantised weights")
        params[ours] = np.ascontiguousarray(rule.load(config, [part.astype(np.float32) for part in parts]))
    used = {name for ours in shapes for name in rules[ours].theirs}
    left = [name for name in given if name not in used]
    unknown = [name for name in left if head_of(name) is None]
    if missing:
        instead = f"; it has {_some(unknown, 1)} instead" if unknown else ""
        raise CheckpointError(f"{source}: missing {_some(missing)}{instead}")
    unused_heads = sorted({head for name in left if (head := head_of(name)) is not None})
    if unknown:
        raise CheckpointError(f"{source}: left over {_some(unknown)}; config.json describes a smaller or another model")
    return params, fresh, unused_heads


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class PretrainedModel(nnx.Module):
    """What all models share: reading from and writing to model directories."""

    config: BertConfig
    _prefix: ClassVar[str] = ""  # what this model's parameter names lack of the table's
    _unread: ClassVar[tuple[str, ...]] = ()  # heads that this model has and makes no use of

    def __init__(self, config: BertConfig, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        raise NotImplementedError(f"{type(self).__name__} is no model of its own")

    @classmethod
    def abstract(cls, config: BertConfig, dtype: Any = jnp.float32) -> tuple[nnx.GraphDef, dict[str, Any]]:
        """The model's structure and its parameters' shapes, without making any parameter."""
        graphdef, state = nnx.split(nnx.eval_shape(lambda: cls(config, dtype=dtype, rngs=nnx.Rngs(0))))
        return graphdef, nnx.to_pure_dict(state)

    @classmethod
    def initial_params(cls, config: BertConfig, key: jax.Array) -> dict[str, Any]:
        """Random parameters as nested dicts of arrays; under `jax.jit`, those that nothing uses cost nothing."""
        return nnx.to_pure_dict(nnx.state(cls(config, rngs=nnx.Rngs(params=key))))

    @classmethod
    def read_config(cls, directory: Path) -> BertConfig:
        """The config of a directory, with what this model needs to know beyond `config.json`.

        Raises:
          CheckpointError: a file is missing or damaged, or describes a model that jaxlm does not compute.
        """
        return BertConfig.from_json(directory / "config.json")

    @classmethod
    def load_params(
        cls, directory: Path, config: BertConfig, key: jax.Array, *, new_heads: bool = False, whole: bool = False
    ) -> dict[str, Any]:
        """A directory's parameters as nested dicts of float32 arrays; a head that it lacks is drawn from `key`.

        Raises:
          CheckpointError: as `match` says; or a head is lacking, and the model is to be `whole`.
        """
        theirs = config.architecture
        # Both call it `classifier`, but one reads texts and the other tokens.
        alike = {"BertForSequenceClassification", "BertForTokenClassification"}
        new_heads = new_heads or (theirs != cls.__name__ and {theirs, cls.__name__} <= alike)
        leaves, tree = jax.tree_util.tree_flatten_with_path(cls.abstract(config)[1])
        names = [cls._prefix + ".".join(str(part.key) for part in path) for path, _ in leaves]
        shapes = {name: leaf.shape for name, (_, leaf) in zip(names, leaves, strict=True)}
        params, fresh, unused = match(read_tensors(directory), shapes, config, str(directory), new_heads=new_heads)
        if fresh:
            lacking = " and no ".join(sorted({str(head_of(name)) for name in fresh}.difference(cls._unread)))
            if lacking and whole:
                raise CheckpointError(f"{directory} has no {lacking}, without which its output means nothing")
            if lacking:
                # Who has not asked for information has to hear this all the same.
                level = logging.INFO if log.isEnabledFor(logging.INFO) else logging.WARNING
                log.log(level, "%s has no %s that serves here: initialised at random", directory, lacking)

            @jax.jit
            def draw(key: jax.Array) -> dict[str, jax.Array]:
                values = jax.tree.leaves(cls.initial_params(config, key))
                return {name: value for name, value in zip(names, values, strict=True) if name in fresh}

            params |= {name: np.asarray(value) for name, value in draw(key).items()}
        if unused:
            log.info("%s: not used here: %s", directory, ", ".join(unused))
        return jax.tree.unflatten(tree, [params[name] for name in names])

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | os.PathLike,
        *,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
        new_heads: bool = False,
        **changes: Any,
    ) -> Self:
        """Loads a model from a hub name or a directory, in float32.

        Args:
          name_or_dir: e.g. `bert-base-uncased`, or a directory with `config.json` and weights (`model.safetensors` or
            `pytorch_model.bin`, in one file or sharded).
          dtype: compute dtype. Products of float32 are computed in float32 on TPUs and GPUs, too, unless
            `jax.default_matmul_precision` is set.
          new_heads: start new classifiers, whatever the checkpoint's are.
          changes: fields of the config with other values than the checkpoint's, such as `id2label`, `remat`,
            `scan_layers` or `hidden_dropout_prob`.
          rngs: where a head that the checkpoint lacks draws its parameters from; default `nnx.Rngs(0)`.

        Raises:
          CheckpointError: not a BERT, or a tensor is missing, left over or of the wrong shape; the message names it.
          TypeError: a change is of no field of the config.
        """
        directory = resolve(name_or_dir)
        config = dataclasses.replace(cls.read_config(directory), **changes)
        params = cls.load_params(directory, config, (rngs or nnx.Rngs(0)).params(), new_heads=new_heads)
        return nnx.merge(cls.abstract(config, dtype)[0], jax.tree.map(jnp.asarray, params))

    def save_pretrained(self, directory: str | os.PathLike, *, max_shard_size: int = MAX_SHARD_SIZE) -> None:
        """Writes `config.json` and the weights, which `transformers` opens in the class of the same name.

        Args:
          max_shard_size: bytes of a weight file; where the weights have more, there are several, and an index.
        """
        params = nnx.to_pure_dict(nnx.state(self))
        type(self).save_params(directory, self.config, params, max_shard_size=max_shard_size)

    @classmethod
    def save_params(
        cls,
        directory: str | os.PathLike,
        config: BertConfig,
        params: dict[str, Any],
        *,
        max_shard_size: int = MAX_SHARD_SIZE,
    ) -> None:
        """`save_pretrained` for parameters that are not in a module, on any mesh: they are gathered one by one.

        Where they are split between processes, every process has to call this; the first one writes.
        """
        rules = rules_for(config)

        def source(path: tuple[Any, ...], value: Any) -> Source:
            rule = rules[cls._prefix + ".".join(str(part.key) for part in path)]
            names = [name.removeprefix(cls._prefix) for name in rule.theirs]
            shapes = [part.shape for part in rule.save(np.broadcast_to(np.float32(0), value.shape))]

            def read() -> dict[str, np.ndarray]:
                tensors = rule.save(whole(value).astype(np.float32, copy=False))
                return {name: np.ascontiguousarray(t) for name, t in zip(names, tensors, strict=True)}

            return Source(dict(zip(names, shapes, strict=True)), read)

        directory, writes = Path(directory), is_writer(params)
        sources = [source(path, value) for path, value in jax.tree_util.tree_flatten_with_path(params)[0]]
        text = config.to_json(cls.__name__)  # before anything is written: what JSON cannot hold stops here
        write_weights(directory, sources, max_shard_size, writes=writes)
        if writes:
            replace_file(directory / "config.json", text)
