"""The BERT encoder (Devlin et al. 2019, https://arxiv.org/abs/1810.04805) in Flax NNX.

Parameters are float32; `dtype` is what the matrix products compute in. Softmax and LayerNorm are float32 always.
Every module is a pure function of its arguments: dropout happens where a dropout site is passed, and only there.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxlm.models.attention import attend, gather_tokens, segment_mask
from jaxlm.models.config import BertConfig
from jaxlm.models.depth import run_layers
from jaxlm.models.dropout import DropoutSite, DropoutSites, dropout_tokens
from jaxlm.models.hub import PretrainedModel
from jaxlm.models.placement import axis_size, place, place_rows, platform
from jaxlm.models.products import Split, affine, precision_of, project_to_heads
from jaxlm.models.vocabulary import look_up


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _in_float32(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """An elementwise function, whose backward pass keeps `x` alone and as it came: half of what float32 would take."""
    return function(x.astype(jnp.float32)).astype(x.dtype)


def _forward(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _in_float32(function, x), x


def _backward(function: Callable[[jax.Array], jax.Array], x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    (result,) = jax.vjp(function, x.astype(jnp.float32))[1](gradient.astype(jnp.float32))
    return (result.astype(x.dtype),)


_in_float32.defvjp(_forward, _backward)


def _gelu(x: jax.Array) -> jax.Array:
    return x * 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))  # jax.nn.gelu takes erfc, a third slower on CPU


def _precise(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """In bfloat16 the 1 + erf of a GELU cancels: of its values in (-4, -3) nothing would be right."""
    return lambda x: function(x) if x.dtype == jnp.float32 else _in_float32(function, x)


ACTIVATION_FUNCTIONS = {
    "gelu": _precise(_gelu),
    "gelu_new": _precise(lambda x: jax.nn.gelu(x, approximate=True)),
    "relu": jax.nn.relu,
}


def _drawn(rngs: nnx.Rngs, config: BertConfig, *shape: int) -> nnx.Param:
    """From a normal of the config's `initializer_range`; float32 also where `jax_enable_x64` is set, as all are."""
    return nnx.Param(jax.random.normal(rngs.params(), shape, jnp.float32) * config.initializer_range)


class Linear(nnx.Module):
    """`x @ kernel + bias`, kernel `[inputs, outputs]` drawn from a normal of the config's `initializer_range`.

    `split` is what the devices along a mesh's `tensor` axis share: its inputs, its outputs, or nothing.
    """

    def __init__(
        self, inputs: int, outputs: int, config: BertConfig, dtype: jnp.dtype, rngs: nnx.Rngs, split: Split = None
    ):
        self.kernel = _drawn(rngs, config, inputs, outputs)
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32))
        self.dtype = dtype
        self.split: Split = split

    def __call__(self, x: jax.Array) -> jax.Array:
        return affine(x.astype(self.dtype), self.kernel[...], self.bias[...], self.split)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis (Ba et al. 2016), in float32, returned in `dtype`."""

    def __init__(self, config: BertConfig, dtype: jnp.dtype):
        self.scale = nnx.Param(jnp.ones(config.hidden_size, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(config.hidden_size, jnp.float32))
        self.eps = config.layer_norm_eps
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + self.eps) * self.scale[...] + self.bias[...]
        return normed.astype(self.dtype)


def sinusoids(positions: int, width: int) -> jax.Array:
    """Sines, then cosines, of wavelengths from 2 pi to 2 pi `positions`, `[positions, width]`, of mean square 1.

    As Vaswani et al. 2017, section 3.5, whose longest is 2 pi 10,000. A neighbour is the same rotation away everywhere.
    """
    half = width // 2
    angles = jnp.arange(positions)[:, None] * positions ** (-jnp.arange(half) / half)
    return jnp.sqrt(2.0) * jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


class Embeddings(nnx.Module):
    """Word + position + token-type embeddings, normalised.

    With `position_init` "sinusoidal", positions begin as sinusoids, and are learnt from there as others are: from
    independent vectors, a model has to learn for each position apart which ones are beside it.
    """

    def __init__(self, config: BertConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        def table(size: int) -> nnx.Param:
            return _drawn(rngs, config, size, config.hidden_size)

        self.word = table(config.vocab_size)
        self.position = table(config.max_position_embeddings)
        if config.position_init == "sinusoidal":
            waves = sinusoids(config.max_position_embeddings, config.hidden_size)
            self.position = nnx.Param((waves * config.initializer_range).astype(jnp.float32))
        self.token_type = table(config.type_vocab_size)
        self.norm = LayerNorm(config, dtype)
        self.rate = config.hidden_dropout_prob

    def __call__(
        self, input_ids: jax.Array, token_type_ids: jax.Array, positions: jax.Array, site: DropoutSite | None
    ) -> jax.Array:
        # A table of one or two rows is read by a product: the gradient of indexing would scatter every token into them.
        types = self.token_type[...]
        chosen = jax.nn.one_hot(token_type_ids, types.shape[0], dtype=types.dtype)
        type_vectors = jnp.matmul(chosen, types, precision=precision_of(types))
        places = place_rows(place(self.position[...], None, None)[positions])
        x = place_rows(look_up(self.word[...], input_ids)) + places + type_vectors
        return dropout_tokens(self.norm(x), self.rate, site)


class SelfAttention(nnx.Module):
    """Multi-head attention, its output projection, and the residual connection's LayerNorm.

    Query, key and value are one product: `qkv_kernel [hidden, 3, heads, head_dim]`.
    """

    def __init__(self, config: BertConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        shape = (3, config.num_attention_heads, config.head_dim)
        self.qkv_kernel = _drawn(rngs, config, config.hidden_size, *shape)
        self.qkv_bias = nnx.Param(jnp.zeros(shape, jnp.float32))
        self.output = Linear(config.hidden_size, config.hidden_size, config, dtype, rngs, split="inputs")
        self.norm = LayerNorm(config, dtype)
        self.attention_rate = config.attention_probs_dropout_prob
        self.hidden_rate = config.hidden_dropout_prob
        self.fused = config.attention == "fused"
        self.recomputed, self.in_a_loop = config.remat == "attention", config.scan_layers
        self.dtype = dtype

    def __call__(
        self,
        x: jax.Array,
        segment_ids: jax.Array,
        weights_site: DropoutSite | None,
        output_site: DropoutSite | None,
        tokens: jax.Array | None,
    ) -> jax.Array:
        """`tokens [rows, n]`: compute these tokens' outputs only, `[rows, n, hidden]`; they still see the whole row."""
        kernel, bias = self.qkv_kernel[...], self.qkv_bias[...]

        def project(x: jax.Array, parts: slice) -> jax.Array:
            """`[rows, length, parts, heads, head_dim]`"""
            weights, offsets = kernel[:, parts], bias[parts]
            if platform() == "tpu":
                return project_to_heads(x, weights, offsets)
            if axis_size("tensor") == 1:
                projected = affine(x, weights.reshape(x.shape[-1], -1), offsets.reshape(-1))
                return projected.reshape(*x.shape[:2], *offsets.shape)
            # Heads first, so that the outputs of the product are split as the heads are.
            weights, offsets = weights.swapaxes(1, 2), offsets.swapaxes(0, 1)
            projected = affine(x, weights.reshape(x.shape[-1], -1), offsets.reshape(-1), "outputs")
            projected = place(projected.reshape(*x.shape[:2], *offsets.shape), "rows", None, "tensor", None, None)
            return projected.swapaxes(2, 3)

        key_positions = None if weights_site is None else weights_site.positions
        if tokens is None:
            qkv = project(x, slice(0, 3))
            query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        else:
            x, whole = gather_tokens(x, tokens), x
            query, key_value = project(x, slice(0, 1))[:, :, 0], project(whole, slice(1, 3))
            key, value = key_value[:, :, 0], key_value[:, :, 1]
            weights_site = weights_site and weights_site.at(tokens)
            output_site = output_site and output_site.at(tokens)
        if self.fused and tokens is None:
            from jaxlm.models.fused_attention import fused_attend  # not every platform has Pallas

            mixed = fused_attend(query, key, value, segment_ids, self.attention_rate, weights_site)
        else:
            mask = segment_mask(segment_ids if tokens is None else gather_tokens(segment_ids, tokens), segment_ids)
            attention = attend
            if self.recomputed:  # on `prevent_cse`, see `jaxlm.models.depth`
                attention = jax.checkpoint(attend, prevent_cse=not self.in_a_loop, static_argnums=4)
            mixed = attention(query, key, value, mask, self.attention_rate, weights_site, key_positions)
        y = self.output(mixed.reshape(*x.shape))
        return self.norm(x + dropout_tokens(y, self.hidden_rate, output_site))


class FeedForward(nnx.Module):
    """The two-layer perceptron of a Transformer block, with its residual connection's LayerNorm."""

    def __init__(self, config: BertConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.up = Linear(config.hidden_size, config.intermediate_size, config, dtype, rngs, split="outputs")
        self.down = Linear(config.intermediate_size, config.hidden_size, config, dtype, rngs, split="inputs")
        self.norm = LayerNorm(config, dtype)
        self.activation = config.hidden_act
        self.rate = config.hidden_dropout_prob

    def __call__(self, x: jax.Array, site: DropoutSite | None) -> jax.Array:
        y = self.down(ACTIVATION_FUNCTIONS[self.activation](self.up(x)))
        return self.norm(x + dropout_tokens(y, self.rate, site))


class Layer(nnx.Module):
    """One Transformer block, post-norm as in the paper."""

    def __init__(self, config: BertConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.attention = SelfAttention(config, dtype, rngs)
        self.feed_forward = FeedForward(config, dtype, rngs)

    def __call__(
        self,
        x: jax.Array,
        segment_ids: jax.Array,
        sites: DropoutSites | None,
        number: int | jax.Array,
        tokens: jax.Array | None,
    ) -> jax.Array:
        weights, attended, fed = [sites and sites.site(number, site) for site in range(3)]
        x = self.attention(x, segment_ids, weights, attended, tokens)
        return self.feed_forward(x, fed if fed is None or tokens is None else fed.at(tokens))


class BertOutput(NamedTuple):
    last_hidden_state: jax.Array  # [rows, length, hidden]
    pooler_output: jax.Array | None  # [rows, hidden], or [rows, n, hidden] where n pool positions a row were given


class Inputs(NamedTuple):
    """What a packed or a plain batch has in common once the defaults are filled in; all `[rows, length]`."""

    input_ids: jax.Array
    segment_ids: jax.Array
    positions: jax.Array
    token_type_ids: jax.Array
    sites: DropoutSites | None

    @classmethod
    def fill(
        cls,
        config: BertConfig,
        input_ids: jax.Array,
        attention_mask: jax.Array | None,
        token_type_ids: jax.Array | None,
        position_ids: jax.Array | None,
        segment_ids: jax.Array | None,
        example_ids: jax.Array | None,
        dropout_key: jax.Array | None,
    ) -> "Inputs":
        input_ids = jnp.asarray(input_ids)
        if input_ids.ndim != 2:
            raise ValueError(f"input_ids has shape {input_ids.shape}; [rows, length] is meant")
        if segment_ids is not None and attention_mask is not None:
            raise ValueError("pass segment_ids (packed rows) or attention_mask (one example a row), not both")
        rows, length = input_ids.shape
        given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids, "segment_ids": segment_ids}
        for name, array in given.items():
            if array is not None and jnp.shape(array) != input_ids.shape:
                raise ValueError(f"{name} has shape {jnp.shape(array)}; that of input_ids is meant, {input_ids.shape}")
        packed = segment_ids is not None
        if packed and position_ids is None:
            raise ValueError("packed rows need position_ids, which start again at 0 in each example")
        if packed and example_ids is None and dropout_key is not None:
            raise ValueError("packed rows with dropout need example_ids: they key each example's dropout mask")
        if segment_ids is None:
            segment_ids = jnp.ones_like(input_ids) if attention_mask is None else jnp.asarray(attention_mask)
        if position_ids is None:
            if length > config.max_position_embeddings:
                raise ValueError(
                    f"{length} tokens a row, and the model has {config.max_position_embeddings} position embeddings"
                )
            position_ids = jnp.arange(length)[None]
        if example_ids is None:
            example_ids = jnp.arange(rows)[:, None]
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        token_type_ids = jnp.asarray(token_type_ids)
        positions = jnp.broadcast_to(jnp.asarray(position_ids), (rows, length))
        _check_range("input_ids", input_ids, config.vocab_size)
        _check_range("token_type_ids", token_type_ids, config.type_vocab_size)
        _check_range("position_ids", positions, config.max_position_embeddings)
        examples = jnp.broadcast_to(jnp.asarray(example_ids), (rows, length))
        sites = None
        if dropout_key is not None:
            sites = DropoutSites.create(dropout_key, config.num_hidden_layers, examples, positions)
        return cls(input_ids, jnp.asarray(segment_ids, jnp.int32), positions, token_type_ids, sites)


def _check_range(name: str, ids: jax.Array, size: int) -> None:
    """Stops at an id without an embedding, where values can be seen: indexing would take the table's last row."""
    if isinstance(ids, jax.core.Tracer) or not ids.is_fully_addressable or not ids.size:
        return
    values = np.asarray(ids)  # inside of a trace jax would only note the question
    least, largest = int(values.min()), int(values.max())
    if least < 0 or largest >= size:
        wrong = least if least < 0 else largest
        raise ValueError(f"{name} holds {wrong}, and the model has embeddings for 0 to {size - 1}")


class BertModel(PretrainedModel):
    """The encoder and the pooler: tokens in, one vector a token and one vector an example out.

    Args:
      config: the shape.
      dtype: compute dtype of the matrix products; parameters are float32 whatever it is.
      with_pooler: False leaves the pooler out; `pooler_output` is then None.
      rngs: a stream of keys for the initial parameters, e.g. `nnx.Rngs(0)`.
    """

    _prefix = "bert."

    def __init__(self, config: BertConfig, *, with_pooler: bool = True, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.embeddings = Embeddings(config, dtype, rngs)
        self.layers = nnx.List([Layer(config, dtype, rngs) for _ in range(config.num_hidden_layers)])
        self.pooler = Linear(config.hidden_size, config.hidden_size, config, dtype, rngs) if with_pooler else None

    def encode(self, inputs: Inputs, tokens: jax.Array | None = None) -> jax.Array:
        """The encoder without the pooler: `[rows, length, hidden]`.

        With `tokens [rows, n]`, only these tokens of each row, `[rows, n, hidden]`. A head that reads a few tokens
        spares the last layer the others: of a BERT of six layers, a seventh of all products.
        """
        config, sites = self.config, inputs.sites
        site = sites and sites.site(config.num_hidden_layers, 0)
        x = self.embeddings(inputs.input_ids, inputs.token_type_ids, inputs.positions, site)

        def run(layers: Sequence[Layer], x: jax.Array, first: int, tokens: jax.Array | None) -> jax.Array:
            def call(layer: Layer, x: jax.Array, number: int | jax.Array) -> jax.Array:
                return layer(x, inputs.segment_ids, sites, number, tokens)

            return run_layers(layers, x, call, scan=config.scan_layers, remat=config.remat, first=first)

        if tokens is None:
            return run(self.layers, x, 0, None)
        *others, last = self.layers
        return run([last], run(others, x, 0, None), len(others), tokens)

    def pool(self, first: jax.Array) -> jax.Array:
        """tanh of a linear map of the hidden state of each example's first token, `[..., hidden]`."""
        if self.pooler is None:
            raise ValueError("this model was made without a pooler")
        return jnp.tanh(self.pooler(first))

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        position_ids: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        *,
        pool_positions: jax.Array | None = None,
        example_ids: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> BertOutput:
        """Encodes a batch; all arrays are integers of shape `[rows, length]`.

        Args:
          input_ids: token ids.
          attention_mask: 1 for tokens, 0 for padding; the simple form, one example a row.
          token_type_ids: 0 for the first text of a pair, 1 for the second. Default 0.
          position_ids: default 0, 1, 2, ...; in packed rows they restart in each example and must be given.
          segment_ids: the packed form: 0 for padding, 1, 2, ... for the examples of a row.
          pool_positions: `[rows, n]` where the pooler finds the first token of each of `n` examples of a row.
          example_ids: which example a token belongs to, for dropout that does not depend on packing. Default: the
            row's number in this call, so that parts of a batch that share a key drop the same.
          dropout_key: a typed key (`jax.random.key(0)`), new for each step; None computes without dropout.

        Raises:
          ValueError: the packed and the simple form are mixed, the packed form lacks an array, the rows of the simple
            form are longer than the model has positions, or, outside of `jax.jit`, which sees no values, an id has no
            embedding.
        """
        inputs = Inputs.fill(self.config, input_ids, attention_mask, token_type_ids,
                             position_ids, segment_ids, example_ids, dropout_key)  # fmt: skip
        hidden = self.encode(inputs)
        first = hidden[:, 0] if pool_positions is None else gather_tokens(hidden, pool_positions)
        return BertOutput(hidden, None if self.pooler is None else self.pool(first))
