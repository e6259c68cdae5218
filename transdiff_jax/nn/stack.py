"""A stack of equal blocks as one scanned module, so that compile time does not grow with depth."""

from typing import Any

import flax.linen as nn
import jax

from transdiff_jax.parallel import axes

REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": None,
}


def stack(
    block: type[nn.Module], length: int, *, in_axes: tuple[Any, ...], remat: str, unroll: bool
) -> type[nn.Module]:
    """A module of `length` copies of `block`, their parameters stacked on a leading axis named "layers".

    Args:
        block: its call takes (carry, *inputs) and returns (carry, None).
        in_axes: for each input, the axis that holds its layers, or `nn.broadcast` for the same value in all.
        remat: what the backward pass finds stored: "none" (no rematerialisation), "dots", "full".
        unroll: write the layers out instead of looping: the same numbers from the same parameters. A loop compiles
            fast and suits training; inside the sampler's own loop unrolled layers need less memory.
    """
    if remat != "none":
        block = nn.remat(block, policy=REMAT_POLICIES[remat], prevent_cse=False)
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=in_axes,
        length=length,
        unroll=length if unroll else 1,
        metadata_params={nn.PARTITION_NAME: axes.LAYERS},
    )
