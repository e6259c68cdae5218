"""Between grids, their square patches, and rows of tokens."""

from jax import Array
from jaxtyping import Shaped


def patchify(
    grid: Shaped[Array, "*lead h w c"], patch: int
) -> Shaped[Array, "*lead h//{patch} w//{patch} c*{patch}**2"]:
    """Makes each patch one position, whose features are ordered by channel, then row, then column.

    Raises:
        ValueError: `patch` does not divide both sides.
    """
    *lead, height, width, channels = grid.shape
    if height % patch or width % patch:
        raise ValueError(f"patches of {patch}x{patch} do not divide a grid of shape {grid.shape}")
    rows, columns = height // patch, width // patch
    axis = len(lead)
    split = grid.reshape(*lead, rows, patch, columns, patch, channels)
    order = (*range(axis), axis, axis + 2, axis + 4, axis + 1, axis + 3)
    return split.transpose(order).reshape(*lead, rows, columns, channels * patch**2)


def unpatchify(
    grid: Shaped[Array, "*lead h w features"], patch: int
) -> Shaped[Array, "*lead h*{patch} w*{patch} features//{patch}**2"]:
    """The inverse of `patchify`.

    Raises:
        ValueError: the channels are not a multiple of patch**2.
    """
    *lead, rows, columns, features = grid.shape
    if features % patch**2:
        raise ValueError(f"{features} channels of a grid of shape {grid.shape} are not patches of {patch}x{patch}")
    channels = features // patch**2
    axis = len(lead)
    split = grid.reshape(*lead, rows, columns, channels, patch, patch)
    order = (*range(axis), axis, axis + 3, axis + 1, axis + 4, axis + 2)
    return split.transpose(order).reshape(*lead, rows * patch, columns * patch, channels)


def latent_to_tokens(latents: Shaped[Array, "*lead h w c"]) -> Shaped[Array, "*lead h*w c"]:
    """Flattens the grid, row-major."""
    *lead, height, width, channels = latents.shape
    return latents.reshape(*lead, height * width, channels)


def tokens_to_latent(
    tokens: Shaped[Array, "*lead {size}*{size} c"], size: int
) -> Shaped[Array, "*lead {size} {size} c"]:
    """The inverse of `latent_to_tokens` for a square grid."""
    *lead, _, channels = tokens.shape
    return tokens.reshape(*lead, size, size, channels)
