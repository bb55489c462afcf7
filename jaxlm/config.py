"""Every setting of a run. Presets in `configs/` are instances of `Config`; `--section.name VALUE` overrides one.

This module imports nothing heavy, so that a wrong flag is answered at once. `resume` in a field's metadata says what
happens when a run is resumed with another value: "apply" takes the new value, "refuse" (the default) stops, because
the run would no longer be the run that was started.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

TaskName = Literal[
    "classification",
    "regression",
    "multi_label",
    "token_classification",
    "intent_slots",
    "question_answering",
    "embedding",
    "ranking",
    "multi_task",
    "masked_lm",
]
PartTask = Literal[
    "classification",
    "regression",
    "multi_label",
    "token_classification",
    "intent_slots",
    "question_answering",
    "ranking",
]
Dtype = Literal["auto", "float32", "bfloat16"]


def _apply(default: Any) -> Any:
    return field(default=default, metadata={"resume": "apply"})


@dataclass(frozen=True)
class ModelSettings:
    init: str | None = None
    """Hub name or directory to start from: its shape, tokenizer and weights. Unset: the shape below, at random."""
    random_init: bool = False
    """Take only shape and tokenizer of `init`, and start from random weights."""
    new_head: bool = False
    """Start a new classifier even where `init` has one (needed where its number of labels differs)."""
    dtype: Dtype = "auto"
    """Compute dtype; auto is bfloat16 on TPU and GPU, float32 on CPU. Parameters are float32 always."""
    layers: Literal["auto", "scan", "unroll"] = _apply("auto")
    """How the layers are compiled: as a loop (scan), in a fraction of the time, or one by one (unroll), which runs
    faster; the numbers are the same. auto is scan on GPU, and on TPU for more than 12 layers, else unroll."""
    remat: Literal["none", "attention", "dots", "full"] = _apply("none")
    """What the backward pass computes again, to save memory: nothing; scores and weights of attention, which grow with
    the square of the length; all but products with weights (dots); or every layer from its input (full), for a third
    more arithmetic."""
    attention: Literal["xla", "fused"] = _apply("xla")
    """What computes attention: XLA, or a kernel for GPUs that keeps scores out of memory (fused); the numbers are the
    same."""
    hidden_dropout: float | None = None
    """Dropout of hidden states; unset: what the model's config says (0.1)."""
    attention_dropout: float | None = None
    """Dropout of attention weights; unset: what the model's config says (0.1)."""
    hidden_size: int = 768
    """Width, for a model from scratch; so the next seven."""
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int | None = None
    """Width of the feed-forward layer; unset: 4 x hidden_size."""
    max_position_embeddings: int = 512
    hidden_act: Literal["gelu", "gelu_new", "relu"] = "gelu"
    initializer_range: float = 0.02
    """Standard deviation of new weights; 0.02 suits a width of 768, and a narrower model wants more."""
    position_init: Literal["normal", "sinusoidal"] = "normal"
    """How the table of positions begins. From sinusoids a small model learns from its neighbours much sooner."""


STRUCTURE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
             "hidden_act")  # fmt: skip
"""Model settings that weights are bound to."""


@dataclass(frozen=True)
class DataSettings:
    train: str | None = None
    """A csv, tsv, jsonl, parquet or txt file (also .gz, .xz), `tfds:NAME[:SPLIT]`, `hf:NAME[:SPLIT]` or `docs:NAME`;
    for pre-training also a directory that `prepare` wrote, for tagged words a CoNLL file, or a directory of seq.in,
    seq.out and label. `prepare` itself takes globs and lists (a.txt,b/*.jsonl)."""
    dev: str | None = None
    """The same for the data that early stopping and the best checkpoint are judged by."""
    test: str | None = None
    """The same for the data evaluated once, at the end."""
    text: str | None = None
    """Column of the text, by name or position (0, 1, ...). Unset: found by its name, or the only possible one."""
    text_pair: str | None = None
    """Column of the second text of a pair, where there is one."""
    pairs: bool = _apply(False)
    """Whether rows have to have a second text; then a file without a column of it is an error."""
    negative: str | None = None
    """Column of a text that does not fit the first one, where there is one (task embedding)."""
    label: str | None = None
    """Column of the label, by name or position; of tagged words, of the intent."""
    words: str | None = None
    """Column of a sentence's words: name, or position in a CoNLL file. Unset: found by its name, or the first."""
    tags: str | None = None
    """Column of the words' tags. Unset: found by its name; of a CoNLL file, the last column (-1) or, where
    that holds no tags of entities, the only one that does."""
    documents: Literal["blank_lines", "file", "line"] = "blank_lines"
    """What a document of running text (txt) is: what blank lines part, a whole file, or a line."""
    mixture: tuple[str, ...] = ()
    """Prepared directories with weights, `DIRECTORY=WEIGHT` each, instead of `train`: rows are drawn in proportion."""
    validation: float = 0.005
    """Share of the documents (by hash) that `prepare` keeps apart for validation."""
    header: Literal["auto", "yes", "no"] = "auto"
    """Whether csv and tsv files start with a line of column names."""
    bad_rows: Literal["error", "skip"] = "error"
    """What to do with rows that cannot be read (columns, UTF-8, unknown label, empty text): stop, or skip and count."""
    max_length: int = 128
    """Tokens of an example, [CLS] and [SEP] included; longer texts are cut, and counted. In pre-training: of a row."""
    row_length: int | None = None
    """Tokens of a packed row; unset: the length that wastes least."""
    tokenizer: str | None = None
    """Hub name or directory of a tokenizer, for a model from scratch. Unset: one is trained on the training texts."""
    vocab_size: int = 8192
    """Size of a WordPiece vocabulary that is trained."""
    lowercase: bool = True
    """Whether a tokenizer that is trained lowercases and strips accents."""


@dataclass(frozen=True)
class ObjectiveSettings:
    """What a pre-training learns (task masked_lm)."""

    mask_rate: float = 0.15
    """Share of tokens to predict."""
    mask_unit: Literal["token", "word", "span"] = "token"
    """What is hidden together: single tokens, whole words, or spans of words (SpanBERT, section 3.1)."""
    longest_span: int = 10
    """Most words in a span."""
    mask_share: float = 0.8
    """Of the tokens to predict, how many become [MASK] (BERT, section 3.1) ..."""
    random_share: float = 0.1
    """... and how many a random token; the rest stays as it is."""
    next_sentence: bool = False
    """Also predict whether the second half of a window follows the first (BERT, section 3.1); needs prepared data."""


@dataclass(frozen=True)
class LabelSettings:
    """What labels mean (tasks classification and multi_label)."""

    out_of_scope: str | None = None
    """A label of rows that belong to none of the classes: it is not learnt, but told by low confidence; dev sets how
    low (task classification)."""
    threshold: float | None = None
    """Probability from which on a label is given (task multi_label); unset: chosen on dev, or 0.5 without dev."""


@dataclass(frozen=True)
class TagSettings:
    """How words are tagged (tasks token_classification and intent_slots)."""

    overlap: float = 0.5
    """Sentences longer than data.max_length are read in windows; the share of a window that the next one repeats."""
    intent_weight: float = 1.0
    """What the loss of the intents counts beside that of the slots (task intent_slots)."""


@dataclass(frozen=True)
class AnswerSettings:
    """How answers are looked for in their contexts (task question_answering)."""

    stride: int = 128
    """Tokens by which each window of a long context starts after the one before it (doc_stride of BERT's run_squad.py;
    the doc_stride of transformers' run_qa.py is what two windows share: here, the window's context less the stride)."""
    max_question_length: int = 64
    """Tokens of a question; longer ones are cut, and counted."""
    max_answer_length: int = 30
    """Most tokens of an answer that is predicted."""
    n_best: int = 20
    """Answers that `predict` lists for a question, and over which their probabilities add up to 1."""
    null_threshold: float | None = None
    """A question has no answer where the score of none exceeds the best answer's by more than this (SQuAD 2.0's
    null_score_diff_threshold); unset: chosen on dev for the best F1, or 0 without dev."""


@dataclass(frozen=True)
class RankingSettings:
    """What the label column of queries and passages means (task ranking)."""

    largest: float | None = None
    """The relevance that is learnt as probability 1; unset: the largest of the training data."""
    relevant: float | None = None
    """The relevance from which on a passage counts as relevant in MRR, recall and MAP; unset: 1, or half of the largest
    where that is less."""


@dataclass(frozen=True)
class EmbeddingSettings:
    """How texts become vectors, and what these learn (task embedding)."""

    loss: Literal["contrastive", "cosine", "cosent"] = "contrastive"
    """contrastive: tell the second text of a pair from those of all other pairs in the batch, and from the negatives
    (MultipleNegativesRankingLoss of sentence-transformers). cosine: the cosine of a pair's vectors is its score, by
    mean squared error (its CosineSimilarityLoss). cosent: of two pairs in the batch, the one with the higher score has
    the higher cosine (its CoSENTLoss)."""
    pooling: Literal["mean", "cls"] | None = None
    """The mean of a text's tokens, or its first one; unset: what `model.init` says, or the mean."""
    normalize: bool | None = None
    """Whether vectors have length 1; unset: what `model.init` says, or no."""
    scale: float = 20.0
    """Of the cosines in a contrastive loss or in cosent: 1 / temperature."""
    symmetric: bool = False
    """Of a contrastive loss: also tell the first text from those of the other pairs, and take the mean of both."""
    positive: str | None = None
    """Label of the pairs that belong together, where a contrastive loss is to learn from labelled ones; the others are
    left out, and counted."""
    lowest: float | None = None
    """The score that is cosine 0, to loss cosine; unset: the lowest of the training data. Lower ones are errors in a
    run's files."""
    highest: float | None = None
    """The score that is cosine 1, to loss cosine; unset: the highest of the training data. Higher ones are errors in a
    run's files."""
    candidates: int = 64
    """Pairs without scores are evaluated in blocks of so many rows of the file: each first text looks for its own
    second text among those of its block."""


@dataclass(frozen=True)
class Part:
    """One of the tasks that share an encoder (task multi_task); `--parts.NAME.data.train FILE` sets what is in it."""

    name: str = ""
    """Of the part: in flags, metrics, and as its directory in the model's. Small letters, digits and _."""
    task: PartTask = "classification"
    data: DataSettings = DataSettings()
    """Its files, columns and lengths; the tokenizer is that of the run's `data`."""
    labels: LabelSettings = LabelSettings()
    tags: TagSettings = TagSettings()
    qa: AnswerSettings = AnswerSettings()
    ranking: RankingSettings = RankingSettings()
    weight: float = 1.0
    """What the mean of its losses counts in the sum over the parts."""
    batch_size: int | None = None
    """Its examples a step. Unset: of train.batch_size the share that the part has of all examples, at least 1."""
    metric: str | None = None
    """Metric of dev that the part brings into the mean over the parts; unset: the task's own."""


@dataclass(frozen=True)
class Phase:
    """A part of a pre-training with its own row length or batch size; weights and optimizer go on from the last one."""

    steps: int
    max_length: int | None = None
    """Tokens of a row; unset: data.max_length."""
    batch_size: int | None = None
    """Rows a step; unset: train.batch_size."""
    learning_rate: float | None = None
    """A peak of its own, which starts the schedule anew: over this phase and those after it without one. Unset: the
    schedule goes on."""
    warmup: float | None = None
    """Of the schedule that starts here, as optim.warmup, which holds where this is unset."""


@dataclass(frozen=True)
class TrainSettings:
    epochs: float = 3.0
    """Passes over the training data."""
    steps: int | None = None
    """Optimizer steps; overrides epochs."""
    batch_size: int = 32
    """Examples a step, over all devices; rows, where the data was prepared."""
    micro_batches: int = 1
    """Gradient accumulation: parts that a step is computed in, one after the other, to save memory."""
    phases: tuple[Phase, ...] = ()
    """Parts of a pre-training on prepared data, one after the other, instead of epochs or steps."""
    label_smoothing: float = 0.0
    eval_every: int | None = _apply(None)
    """Steps between evaluations on dev; unset: once an epoch."""
    eval_batch_size: int = _apply(128)
    patience: int | None = _apply(None)
    """Stop after this many evaluations on dev without a better result."""
    metric: str | None = None
    """Metric of dev that the best checkpoint, patience and target go by; unset: the task's own."""
    target: float | None = _apply(None)
    """Stop once dev is this good: accuracy at least this, or, in pre-training, loss at most this."""
    checkpoint_every: int = _apply(500)
    """Steps between checkpoints; evaluations save one too."""
    log_every: int = _apply(20)
    """Steps between log lines."""
    max_shard_size: float = _apply(5.0)
    """Gigabytes (10^9 bytes) of a weight file in the model's directory; a larger model is written in several."""


@dataclass(frozen=True)
class OptimSettings:
    learning_rate: float = 5e-5
    """The peak."""
    optimizer: Literal["adamw", "lamb"] = "adamw"
    """LAMB (You et al. 2020) is for batches of many thousand rows."""
    schedule: Literal["linear", "cosine", "constant", "wsd"] = "linear"
    """Decay after the warm-up, down to 0; wsd (warm-up, stable, decay) stays at the peak until the last `decay`."""
    warmup: float = 0.06
    """Warm-up: a share of all steps where below 1, a number of steps otherwise."""
    decay: float = 0.1
    """Of schedule wsd: the part that decays, a share of all steps where below 1, a number of steps otherwise."""
    weight_decay: float = 0.01
    """Decoupled (AdamW), on kernels and embeddings; biases and LayerNorm are left alone."""
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float | None = 1.0
    """Largest global norm of the gradient; None does not clip."""


@dataclass(frozen=True)
class MeshSettings:
    devices: int | None = _apply(None)
    """How many devices to use; unset: all."""
    fsdp: int = _apply(1)
    """Devices over which parameters and optimizer state are split (and rows, too): memory for communication."""
    tensor: int = _apply(1)
    """Devices that share heads, feed-forward layers and vocabulary of the same rows; they must be closely connected."""
    distributed: Literal["auto", "off", "explicit"] = _apply("auto")
    """Several processes: auto takes JAXLM_COORDINATOR (HOST:PORT of process 0), JAXLM_NUM_PROCESSES and
    JAXLM_PROCESS_ID, or what SkyPilot, Open MPI, SLURM, a TPU slice or a Kubernetes Job tell; explicit insists on the
    three variables; off is one process."""


@dataclass(frozen=True)
class Stage:
    """What one training needs: a task, a model, data, and how to train."""

    task: TaskName = "classification"
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    labels: LabelSettings = LabelSettings()
    tags: TagSettings = TagSettings()
    qa: AnswerSettings = AnswerSettings()
    ranking: RankingSettings = RankingSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    parts: tuple[Part, ...] = ()
    """The tasks that share an encoder (task multi_task)."""
    train: TrainSettings = TrainSettings()
    optim: OptimSettings = OptimSettings()


@dataclass(frozen=True)
class Config(Stage):
    """A run."""

    workdir: str | None = None
    """Directory of the run. Unset: runs/NAME-HASH, of the preset's name and the settings. The same command resumes."""
    seed: int = 0
    """Seed of everything random: new parameters, order, masks, dropout."""
    dry_run: bool = False
    """Walk the whole road once in a scratch directory, and say what the real run would take."""
    mesh: MeshSettings = MeshSettings()
    pretrain: Stage | None = None
    """A training that comes first, into WORKDIR/pretrain; the run starts from its model."""
    compare_from_scratch: bool = False
    """After a run with `pretrain`: the same run from random weights, in WORKDIR/from_scratch, and a report of both."""


SHARED_BY_PARTS = ("tokenizer", "vocab_size", "lowercase")  # in DataSettings, what parts share
S = TypeVar("S", bound=Stage)


WITHOUT_LABELS = ("question_answering", "regression", "embedding", "masked_lm")  # nothing there can be smoothed


def as_part(config: S, part: Part) -> S:
    """The settings that one part of a run would have as a run of its own."""
    shared = {name: getattr(config.data, name) for name in SHARED_BY_PARTS}
    train = dataclasses.replace(
        config.train,
        batch_size=part.batch_size or config.train.batch_size,
        metric=part.metric,
        label_smoothing=0.0 if part.task in WITHOUT_LABELS else config.train.label_smoothing,
        patience=None,  # these two are the run's
        target=None,
    )
    return dataclasses.replace(
        config, task=part.task, parts=(), data=dataclasses.replace(part.data, **shared), labels=part.labels,
        tags=part.tags, qa=part.qa, ranking=part.ranking, train=train,
    )  # fmt: skip
