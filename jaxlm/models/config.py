"""The shape of a BERT, as Hugging Face's `config.json` states it."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal, get_args

ACTIVATIONS = ("gelu", "gelu_new", "relu")
PoolingMode = Literal["mean", "cls"]
Remat = Literal["none", "attention", "dots", "full"]
Attention = Literal["xla", "fused"]
PositionInit = Literal["normal", "sinusoidal"]
FUSED_HEAD_DIMS = (16, 32, 64, 128)  # widths of heads that the fused kernel serves
_HOW_COMPUTED = ("scan_layers", "remat", "attention")  # in no file, since they change no number


class CheckpointError(ValueError):
    """A model directory that cannot be read; the message names the file or tensor and the remedy."""


@dataclasses.dataclass(frozen=True)
class Pooling:
    """How a `SentenceEncoder` makes one vector of a text. `CheckpointError` where that is none that it computes."""

    mode: PoolingMode = "mean"  # of all tokens, [CLS] and [SEP] included, or the first one, [CLS]
    normalize: bool = False  # to length 1
    max_length: int | None = None  # tokens where a text is cut; None: what the tokenizer's files say
    prompts: tuple[tuple[str, str], ...] = ()  # by name, for its users: nothing here puts one before a text

    def __post_init__(self):
        if self.mode not in get_args(PoolingMode):
            raise CheckpointError(f"pooling mode {self.mode!r} is not one of {', '.join(get_args(PoolingMode))}")
        length = self.max_length
        if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 3):
            raise CheckpointError(f"pooling max_length is {length!r}; a number of tokens is meant, at least 3")


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Field names and defaults are those of `transformers.BertConfig` (bert-base-uncased).

    Raises `CheckpointError` on construction when the values do not describe a BERT that this package computes.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"  # one of ACTIVATIONS: exact (erf), tanh approximation, rectifier
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None  # None: hidden_dropout_prob
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    position_init: PositionInit = "normal"
    """How the table of positions begins (`jaxlm.models.bert.Embeddings`). No field of transformers."""
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    id2label: dict[int, str] = (
        dataclasses.field(  # not hashed: a model's GraphDef holds its config, and jax.jit hashes it
            default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"}, hash=False
        )
    )  # a list of names serves, too
    id2intent: dict[int, str] = dataclasses.field(default_factory=dict, compare=False)
    """The intents of `BertForIntentAndSlots`, whose `id2label` are the tags of slots. No field of transformers."""
    problem_type: Literal["regression", "single_label_classification", "multi_label_classification"] | None = None
    architecture: str | None = dataclasses.field(default=None, compare=False)  # named first under `architectures`
    score_activation: str | None = dataclasses.field(default=None, compare=False)
    """The torch class that sentence-transformers' `CrossEncoder` puts on a single logit; None: it is no such model."""
    pooling: Pooling | None = dataclasses.field(default=None, compare=False)
    """Of a `SentenceEncoder`, in files of its own (`jaxlm.models.embedding`); None: not said, the mean is taken."""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    """What the program that trained the model wants to remember; under `jaxlm` in the file, where others pass it by."""
    scan_layers: bool = False
    """Whether the layers run as a loop (`jaxlm.models.depth`)."""
    remat: Remat = "none"
    attention: Attention = "xla"
    """What computes attention: XLA, or `jaxlm.models.fused_attention`'s kernel for GPUs."""

    def __post_init__(self):
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                     "max_position_embeddings", "type_vocab_size"):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise CheckpointError(f"{name} is {value!r}; it must be a whole number of at least 1")
        if self.hidden_size % self.num_attention_heads:
            raise CheckpointError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise CheckpointError(f"hidden_act {self.hidden_act!r} is not one of {', '.join(ACTIVATIONS)}")
        for name, choices in (("remat", Remat), ("attention", Attention), ("position_init", PositionInit)):
            if (value := getattr(self, name)) not in get_args(choices):
                raise CheckpointError(f"{name} is {value!r}; it is one of {', '.join(get_args(choices))}")
        if self.position_init == "sinusoidal" and self.hidden_size % 2:
            raise CheckpointError(f"sinusoidal positions come in pairs, and hidden_size is {self.hidden_size}")
        if self.attention == "fused" and self.head_dim not in FUSED_HEAD_DIMS:
            raise CheckpointError(
                f"attention is fused and heads are {self.head_dim} wide; the kernel serves "
                f"{', '.join(map(str, FUSED_HEAD_DIMS))}"
            )
        for name in ("layer_norm_eps", "initializer_range"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value > 0:
                raise CheckpointError(f"{name} is {value!r}; it must be a number above 0")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            rate = getattr(self, name)
            if rate is None and name == "classifier_dropout":
                continue
            if not isinstance(rate, int | float) or not 0 <= rate < 1:
                raise CheckpointError(f"{name} is {rate!r}; a dropout rate lies in [0, 1)")
        for name in ("id2label", "id2intent"):
            object.__setattr__(self, name, _numbered(name, getattr(self, name)))
        if not self.id2label:
            raise CheckpointError("id2label names no class")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @classmethod
    def from_json(cls, path: str | Path) -> "BertConfig":
        """Reads a Hugging Face `config.json`.

        Raises:
          CheckpointError: the file is missing, is not JSON, or describes something other than a BERT encoder.
        """
        path = Path(path)
        try:
            raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            reason = refusal_of_old_layout(path.parent) or "is no model directory: it has no config.json"
            raise CheckpointError(f"{path.parent} {reason}") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            refuse_pointer(path)
            raise CheckpointError(f"{path} is not JSON: {error}") from None
        if not isinstance(raw, dict):
            raise CheckpointError(f"{path} holds no JSON object")
        if raw.get("model_type", "bert") != "bert":
            raise CheckpointError(f"{path}: model_type is {raw['model_type']!r}; jaxlm reads 'bert'")
        unsupported = {
            "position_embedding_type": ("absolute", None),
            "is_decoder": (False, None),
            "add_cross_attention": (False, None),
        }
        for name, allowed in unsupported.items():
            if raw.get(name) not in allowed:
                raise CheckpointError(f"{path}: {name} is {raw[name]!r}; jaxlm computes {allowed[0]!r} only")
        ours = {"id2label", "id2intent", "architecture", "score_activation", "pooling", "facts", *_HOW_COMPUTED}
        known = {field.name for field in dataclasses.fields(cls)} - ours
        values = {name: value for name, value in raw.items() if name in known}
        architectures, facts = raw.get("architectures"), raw.get("jaxlm")
        values["architecture"] = architectures[0] if isinstance(architectures, list) and architectures else None
        values["facts"] = facts if isinstance(facts, dict) else {}
        values["score_activation"] = _score_activation(path, raw)
        for key in ("id2label", "id2intent"):
            if raw.get(key):
                values[key] = raw[key]
        if "id2label" not in values and isinstance(raw.get("num_labels"), int):
            values["id2label"] = {index: f"LABEL_{index}" for index in range(raw["num_labels"])}
        try:
            return cls(**values)
        except (CheckpointError, TypeError) as error:
            raise CheckpointError(f"{path}: {error}") from None

    def to_json(self, architecture: str) -> str:
        """The text of a `config.json` that `transformers` opens as `architecture` (a class name)."""
        values = dataclasses.asdict(self)
        for name in ("architecture", "pooling", *_HOW_COMPUTED):
            del values[name]
        if activation := values.pop("score_activation"):
            values["sentence_transformers"] = {"activation_fn": activation}
        if facts := values.pop("facts"):
            values["jaxlm"] = facts
        labels = self.id2label
        if architecture == "BertForQuestionAnswering":  # its head has an output a label there: start and end
            labels = {0: "LABEL_0", 1: "LABEL_1"}
        values["id2label"] = {str(index): name for index, name in labels.items()}
        values["id2intent"] = {str(index): name for index, name in self.id2intent.items()}
        if not self.id2intent:
            del values["id2intent"]
        if self.position_init == "normal":
            del values["position_init"]
        values["label2id"] = {name: index for index, name in labels.items()}
        values |= {"model_type": "bert", "architectures": [architecture], "position_embedding_type": "absolute"}
        return json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def refuse_pointer(path: Path) -> None:
    """Stops at what a clone without Git LFS has in place of a file."""
    with open(path, "rb") as file:
        if file.read(32).startswith(b"version https://git-lfs"):
            raise CheckpointError(f"{path} is a pointer of Git LFS and not the file: run git lfs pull in {path.parent}")


def refusal_of_old_layout(directory: Path) -> str | None:
    """Why a directory of sentence-transformers with its BERT in a folder (`0_BERT`) is not read; None of another."""
    try:
        place = json.loads((directory / "modules.json").read_text(encoding="utf-8"))[0]["path"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not place:
        return None
    return (
        f"has its Transformer in {place}, as old sentence-transformers wrote it; move what is in {place} up, and make "
        f'its path in modules.json ""'
    )


def _numbered(field: str, names: Any) -> dict[int, str]:
    """The names of classes in order, each with its number."""
    given = dict(enumerate(names)) if isinstance(names, list | tuple) else names
    try:
        found = dict(sorted((int(number), str(name)) for number, name in given.items()))
    except (AttributeError, TypeError, ValueError):
        raise CheckpointError(f"{field} is {names!r}; it must map class numbers to names") from None
    if list(found) != list(range(len(given))):
        raise CheckpointError(f"{field} numbers its classes {list(found)}, not 0, 1, 2, ...")
    if twice := sorted(name for name, count in Counter(found.values()).items() if count > 1):
        raise CheckpointError(f"{field} gives several classes the name {twice[0]!r}")
    return found


def _score_activation(path: Path, raw: dict[str, Any]) -> str | None:
    """Where sentence-transformers has noted it: from its version 4 on, from 6 on, and before."""
    noted: Any = raw.get("sentence_transformers")
    beside = path.with_name("config_sentence_transformers.json")
    if noted is None and beside.is_file():
        try:
            noted = json.loads(beside.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{beside} is not JSON: {error}") from None
        if isinstance(noted, dict) and noted.get("model_type") != "CrossEncoder":
            noted = None
    activation = noted.get("activation_fn") if isinstance(noted, dict) else None
    return activation or raw.get("sbert_ce_default_activation_function")
