"""The projection of tokens to queries, keys and values."""

from collections.abc import Mapping

import flax.linen as nn
import jax
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from transdiff_jax.nn.layers import flat_init, linear, with_axes
from transdiff_jax.parallel import axes

Heads = Float[Array, "b tokens heads head_dim"]

_QKV = ("query", "key", "value")  # in the order of the fused parameter


def constrain_heads(x: Heads) -> Heads:
    """Splits over rows and heads."""
    return axes.constrain(x, axes.BATCH, None, axes.HEADS, None)


def split_qkv(fused: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Kernel and bias of queries, of keys and of values, from those of the fused projection."""
    return {
        name: {"kernel": fused["kernel"][:, index], "bias": fused["bias"][index]} for index, name in enumerate(_QKV)
    }


class QkvProjection(nn.Module):
    """Queries, keys and values of tokens: one parameter, three products.

    One product would leave the three side by side in memory, and kernels of attention would need a copy of each. The
    parameters may be those of `split_qkv` instead: then nothing is left to split.
    """

    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b tokens width"]) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values."""
        if self.has_variable("params", _QKV[0]):
            parts = self.variables["params"]
        else:
            names = (axes.EMBED, axes.QKV, axes.HEADS, axes.HEAD_DIM)
            shape = (3, self.heads, x.shape[-1] // self.heads)
            init = flat_init(nn.initializers.xavier_uniform(), 1)
            kernel = self.param("kernel", with_axes(init, *names), (x.shape[-1], *shape))
            bias = self.param("bias", with_axes(nn.initializers.zeros, *names[1:]), shape)
            parts = split_qkv({"kernel": kernel, "bias": bias})
        # Products of one array XLA may merge, and then it copies their results apart.
        inputs = jax.lax.optimization_barrier((x.astype(self.dtype),) * len(_QKV))
        query, key, value = (
            constrain_heads(linear(each, **parts[name], dtype=self.dtype))
            for each, name in zip(inputs, _QKV, strict=True)
        )
        return query, key, value
