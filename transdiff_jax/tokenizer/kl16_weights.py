"""KL-16 weights on disk: a folder of frozen weights, with the autoencoder's sizes beside them."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from transdiff_jax.errors import UserError
from transdiff_jax.storage.checksums import MANIFEST, sha256
from transdiff_jax.storage.frozen_weights import FrozenParams, read_note, restore_frozen, save_frozen
from transdiff_jax.storage.paths import user_path
from transdiff_jax.tokenizer.kl16 import Kl16Autoencoder, Kl16Config, Kl16Tokenizer

SIZES = "sizes.json"


def save_weights(folder: Path, params: FrozenParams, config: Kl16Config) -> None:
    """Writes an autoencoder into an empty or new folder.

    Raises:
        UserError: the folder is not empty, or cannot be written.
    """
    # The dtype belongs to the computation, not to the weights.
    sizes = {name: value for name, value in dataclasses.asdict(config).items() if name != "dtype"}
    save_frozen(folder, params, SIZES, sizes)


def weights_digest(folder: str) -> str:
    """The SHA-256 of a folder's manifest, which identifies the weights wherever they are.

    Raises:
        UserError: the folder holds no weights, or is no path.
    """
    try:
        return sha256(user_path(folder, "config.tokenizer.weights") / MANIFEST)
    except OSError as error:
        raise UserError(
            f"config.tokenizer.weights={folder!r} holds no KL-16 weights ({error}); make them with transdiff convert "
            "--kind=kl16"
        ) from None


def load_tokenizer(folder: Path, dtype: Literal["float32", "bfloat16"], slice_size: int) -> Kl16Tokenizer:
    """Reads an autoencoder.

    Args:
        folder: written by `save_weights`.
        dtype: of the computation.
        slice_size: images that each device encodes or decodes at once.

    Raises:
        UserError: the folder does not exist, or has changed since it was written.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; make one with transdiff convert --kind=kl16 --out={folder}")
    sizes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in read_note(folder, SIZES, "KL-16").items()
    }
    config = Kl16Config(**sizes, dtype=dtype)
    images = jax.ShapeDtypeStruct((1, config.factor, config.factor, config.image_channels), jnp.float32)
    shapes = jax.eval_shape(Kl16Autoencoder(config).init, jax.random.key(0), images)["params"]
    return Kl16Tokenizer(restore_frozen(folder, shapes), config, slice_size)
