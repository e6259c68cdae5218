"""The decoder's weights as the steps of a solver read them."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.typing import DTypeLike

from transdiff_jax.nn.qkv import split_qkv
from transdiff_jax.nn.stack import unstack

Weights = Mapping[str, Any]  # a tree of arrays by name


def step_weights(params: Weights, dtype: DTypeLike) -> Weights:
    """Parameters for `VelocityDecoder.velocity_at`, made once before a solver's loop.

    Those of matrix products have the compute dtype. The blocks, which training keeps stacked, stand alone as "0", "1"
    and so on, and so do the projections to queries, keys and values. So the body of the loop neither casts nor slices,
    which for few rows would cost more than the products.

    Args:
        params: of the decoder.
        dtype: of the computation.
    """
    blocks = [_cast(_split(block), dtype) for block in unstack(params["blocks"])]
    alone = {name: params[name] for name in ("position_embedding", "output_modulation", "output_projection")}
    alone["input_projection"] = _cast(params["input_projection"], dtype)
    return alone | {"blocks": {str(index): block for index, block in enumerate(blocks)}}


def _split(block: Weights) -> Weights:
    attention = block["attention"]
    return {**block, "attention": {**attention, "qkv": split_qkv(attention["qkv"])}}


def _cast(tree: Weights, dtype: DTypeLike) -> Weights:
    """Casts what has a kernel, not norms and tables, which the network reads in float32."""
    if "kernel" in tree:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)
    return {name: _cast(entry, dtype) if isinstance(entry, Mapping) else entry for name, entry in tree.items()}
