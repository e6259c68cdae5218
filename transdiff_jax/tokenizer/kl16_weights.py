"""KL-16 weights on disk: a folder of frozen weights with the autoencoder's sizes beside them."""

import dataclasses
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp

from transdiff_jax.errors import UserError
from transdiff_jax.storage.checksums import MANIFEST, sha256
from transdiff_jax.storage.frozen_weights import read_note, restore_frozen, save_frozen
from transdiff_jax.tokenizer.kl16 import Kl16Autoencoder, Kl16Config, Kl16Tokenizer

SIZES = "sizes.json"


def save_weights(folder: Path, params: dict, config: Kl16Config) -> None:
    """Writes an autoencoder into an empty or new folder.

    Raises:
        UserError: the folder holds something, or cannot be written.
    """
    sizes = dataclasses.asdict(config)
    del sizes["dtype"]  # of the computation, not of the weights
    save_frozen(folder, params, SIZES, sizes)


def weights_digest(folder: str) -> str:
    """The SHA-256 of a folder's manifest, which stands for the weights wherever they are.

    Raises:
        UserError: there are no weights.
    """
    try:
        return sha256(Path(folder) / MANIFEST)
    except OSError as error:
        raise UserError(
            f"config.tokenizer.weights={folder!r} holds no KL-16 weights made by cli.convert --kind=kl16 ({error})"
        ) from None


def load_tokenizer(folder: Path, dtype: Literal["float32", "bfloat16"], slice_size: int) -> Kl16Tokenizer:
    """The autoencoder of a folder.

    Args:
        folder: written by `save_weights`.
        dtype: of the computation.
        slice_size: images of a shard encoded or decoded at once.

    Raises:
        UserError: there is no such folder, or it is not as it was written.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; make one with cli.convert --kind=kl16 --out={folder}")
    sizes = read_note(folder, SIZES, "KL-16")
    sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in sizes.items()}
    config = Kl16Config(**sizes, dtype=dtype)
    images = jax.ShapeDtypeStruct((1, config.factor, config.factor, config.image_channels), jnp.float32)
    shapes = jax.eval_shape(Kl16Autoencoder(config).init, jax.random.key(0), images)["params"]
    return Kl16Tokenizer(restore_frozen(folder, shapes), config, slice_size)
