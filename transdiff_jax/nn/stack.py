"""A stack of equal blocks as one scanned module, so that compile time does not grow with depth."""

from typing import Literal, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from transdiff_jax.nn.layers import PRODUCT
from transdiff_jax.parallel import axes

Tree = TypeVar("Tree")  # of arrays

REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),
    "full": None,
}


def stack(
    block: type[nn.Module],
    length: int,
    *,
    in_axes: tuple[object, ...],
    remat: Literal["none", "dots", "full"],
) -> type[nn.Module]:
    """A module of `length` copies of `block`, whose parameters are stacked on a leading axis named "layers".

    Args:
        block: its call takes (carry, *inputs) and returns (carry, output of the layer).
        length: number of layers.
        in_axes: for each input, the number of the axis that holds its layers, or `nn.broadcast` for one value in all.
        remat: what the backward pass recomputes: nothing ("none"), all but the results of linear layers ("dots"), or
            everything ("full").
    """
    if remat != "none":
        block = nn.remat(block, policy=REMAT_POLICIES[remat], prevent_cse=False)
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=in_axes,
        length=length,
        metadata_params={nn.PARTITION_NAME: axes.LAYERS},
    )


def unstack(tree: Tree) -> tuple[Tree, ...]:
    """The layers of a tree whose leaves stack them on their leading axis."""
    leaves, structure = jax.tree.flatten(tree)
    return tuple(jax.tree.unflatten(structure, layer) for layer in zip(*map(jnp.unstack, leaves), strict=True))
