"""Linear layers with logical axes, LayerNorm, MLP, time features, adaptive modulation.

Matrix products take the compute dtype, to which inputs and float32 parameters are cast where they meet. The residual
stream between blocks, LayerNorm and modulation are float32, whatever the compute dtype: sums over many layers keep what
bfloat16 would round away.
"""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Float, Real

from transdiff_jax.nn.dropout import Dropout
from transdiff_jax.parallel import axes

Initializer = Callable[..., Array]

EMBEDDING_STDDEV = 0.02
TIME_FEATURES = 256
MAX_PERIOD = 10_000
PRODUCT = "product"  # by this name the remat policy "dots" knows what `linear` made

embedding_init = nn.initializers.normal(EMBEDDING_STDDEV)


def with_axes(init: Initializer, *names: str) -> Initializer:
    """An initializer whose parameter carries logical axis names."""
    # pyrefly: ignore[bad-return]  # It boxes the array. `nn.Module.param` unboxes it; Flax's first overload omits that.
    return nn.with_logical_partitioning(init, names)


def modulation_init(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Float[Array, "rows width"]:
    """N(0, 1/width) for a table of vectors."""
    return jax.random.normal(key, shape, dtype) / math.sqrt(shape[-1])


def linear(
    x: Float[Array, "*inputs"], kernel: Float[Array, "*kernel"], bias: Float[Array, "*features"], dtype: DTypeLike
) -> Float[Array, "*outputs"]:
    """The product of x's trailing axes and a kernel, plus a bias; the remat policy "dots" keeps it.

    It is computed as the product of two matrices. With more axes the gradient of the kernel would sum over rows and
    tokens, and XLA for GPUs turns arrays of the backward pass around to make one axis of the two.

    Args:
        x: [*lead, *summed].
        kernel: [*summed, *features].
        bias: [*features].
        dtype: of the computation and the result.

    Returns:
        [*lead, *features].
    """
    count = kernel.ndim - bias.ndim
    lead, inputs, outputs = x.shape[:-count], math.prod(kernel.shape[:count]), math.prod(bias.shape)
    matrix = kernel.astype(dtype).reshape(inputs, outputs)
    product = x.astype(dtype).reshape(-1, inputs) @ matrix + bias.astype(dtype).reshape(outputs)
    return checkpoint_name(product.reshape(*lead, *bias.shape), PRODUCT)


class Dense(nn.Module):
    """A layer that applies `linear` to the trailing axes; see `dense`."""

    features: tuple[int, ...]
    contract: int
    dtype: DTypeLike
    kernel_init: Initializer  # of the flattened matrix
    kernel_axes: tuple[str, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "*inputs"]) -> Float[Array, "*outputs"]:
        """Applies the layer."""
        shape = (*x.shape[-self.contract :], *self.features)
        kernel = self.param("kernel", with_axes(flat_init(self.kernel_init, self.contract), *self.kernel_axes), shape)
        zeros = with_axes(nn.initializers.zeros, *self.kernel_axes[self.contract :])
        return linear(x, kernel, self.param("bias", zeros, self.features), self.dtype)


def flat_init(init: Initializer, contract: int) -> Initializer:
    """An initializer that sees a kernel as a matrix: its first `contract` axes as one, the others as one."""

    def flat(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Float[Array, "..."]:
        matrix = (math.prod(shape[:contract]), math.prod(shape[contract:]))
        return init(key, matrix, dtype).reshape(shape)

    return flat


def dense(
    features: int | tuple[int, ...],
    kernel_axes: tuple[str, ...],
    dtype: DTypeLike,
    *,
    contract: int = 1,
    kernel_init: Initializer | None = None,
    name: str | None = None,
) -> Dense:
    """A linear layer with bias, initialised Xavier-uniform over its flattened matrix.

    Args:
        features: output axes; several for heads.
        kernel_axes: logical names of the kernel's axes, inputs first.
        dtype: of the computation.
        contract: how many trailing input axes are summed over.
        kernel_init: another initializer.
        name: of the submodule.
    """
    out = (features,) if isinstance(features, int) else features
    init = nn.initializers.xavier_uniform() if kernel_init is None else kernel_init
    return Dense(out, contract, dtype, init, kernel_axes, name=name)


def layer_norm(*, affine: bool = True, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm over the last axis, in float32, with epsilon 1e-6 and the two-pass variance (the fast one cancels)."""
    return nn.LayerNorm(
        epsilon=1e-6,
        dtype=jnp.float32,
        use_bias=affine,
        use_scale=affine,
        scale_init=with_axes(nn.initializers.ones, axes.NORM),
        bias_init=with_axes(nn.initializers.zeros, axes.NORM),
        use_fast_variance=False,
        name=name,
    )


def repeat_rows(x: Float[Array, "b ..."], rows: int) -> Float[Array, "more_rows ..."]:
    """Repeats each row next to itself until there are `rows`; leaves as many or more as they are."""
    return jnp.repeat(x, max(1, rows // len(x)), axis=0)


def constrain_tokens(x: Float[Array, "b *tokens width"]) -> Float[Array, "b *tokens width"]:
    """Splits over the rows alone."""
    return axes.constrain(x, axes.BATCH, *[None] * (x.ndim - 1))


@jax.custom_vjp
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Exact (erf) GELU.

    It is computed in float32: the operations of bfloat16 would round one after the other, and XLA makes two kernels of
    them. So is its derivative. Value and derivative share no part: XLA would store that in float32 between two kernels.
    """
    return nn.gelu(x.astype(jnp.float32), approximate=False).astype(x.dtype)


def _gelu_forward(x: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    return gelu(x), x


def _gelu_backward(x: Float[Array, "*shape"], cotangent: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"]]:
    wide = x.astype(jnp.float32)
    below = (1 + jax.lax.erf(wide * math.sqrt(0.5))) / 2
    slope = below + wide * jnp.exp(-(wide**2) / 2) * (1 / math.sqrt(2 * math.pi))
    return ((cotangent.astype(jnp.float32) * slope).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


class Mlp(nn.Module):
    """width -> 4 width -> width with exact (erf) GELU; dropout after the activation and at the end."""

    width: int
    dropout: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b tokens width"]) -> Float[Array, "b tokens width"]:
        x = dense(4 * self.width, (axes.EMBED, axes.MLP), self.dtype, name="up")(x)
        x = axes.constrain(x, axes.BATCH, None, axes.MLP)
        x = Dropout(self.dropout)(gelu(x))
        x = dense(self.width, (axes.MLP, axes.EMBED), self.dtype, name="down")(x)
        return Dropout(self.dropout)(x)


def time_features(timesteps: Real[Array | np.ndarray, "*times"]) -> Float[Array, "*times 256"]:
    """Sinusoidal features (cosines, then sines) of times in [0, 1000], in float32."""
    half = TIME_FEATURES // 2
    frequencies = jnp.exp(-math.log(MAX_PERIOD) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = timesteps.astype(jnp.float32)[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimeEmbedding(nn.Module):
    """Embeds times, and makes the part of the modulation that all blocks share."""

    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        timesteps: Real[Array | np.ndarray, "*times"],
        rows: str | None = None,
        more: Float[Array, "*times width"] | None = None,
    ) -> tuple[Float[Array, "*times width"], Float[Array, "*times 6 width"]]:
        """Embedding and shared modulation.

        Args:
            timesteps: in [0, 1000].
            rows: logical name of the leading axis.
            more: what else the blocks must know, added to the embedding; None for nothing.
        """

        def constrain(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
            return axes.constrain(x, rows, *[None] * (x.ndim - 1))

        x = constrain(time_features(timesteps).astype(self.dtype))
        x = constrain(dense(self.width, (axes.TIME, axes.EMBED), self.dtype, name="up")(x))
        embedding = constrain(dense(self.width, (axes.EMBED, axes.TIME), self.dtype, name="down")(nn.silu(x)))
        embedding = embedding if more is None else constrain(embedding + more)
        names = (axes.TIME, axes.MODULATION, axes.EMBED)
        modulation = dense((6, self.width), names, self.dtype, name="modulation")(nn.silu(embedding))
        return embedding, constrain(modulation)
