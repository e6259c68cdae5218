"""KL-16 weights on disk: a folder of frozen weights, with the autoencoder's sizes beside them."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from transdiff_jax.errors import UserError
from transdiff_jax.storage.checksums import MANIFEST, sha256
from transdiff_jax.storage.files import Json
from transdiff_jax.storage.frozen_weights import FrozenParams, read_note, restore_frozen, save_frozen
from transdiff_jax.storage.paths import location
from transdiff_jax.tokenizer.kl16 import NORM_GROUPS, Kl16Autoencoder, Kl16Config, Kl16Tokenizer

SIZES = "sizes.json"
_LARGEST = 4096  # many times the largest size of any such network
_MOST_LEVELS = 12  # which make 2,048 x 2,048 pixels one latent position


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
        return sha256(location(folder, "config.tokenizer.weights") / MANIFEST)
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
        UserError: the folder does not exist, has changed since it was written, or does not describe an autoencoder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; make one with transdiff convert --kind=kl16 --out={folder}")
    config = parse_sizes(read_note(folder, SIZES, "KL-16"))
    if config is None:
        raise UserError(
            f"{folder / SIZES} does not hold the sizes of an autoencoder: make the weights again with transdiff "
            "convert --kind=kl16"
        )
    config = dataclasses.replace(config, dtype=dtype)
    return Kl16Tokenizer(restore_frozen(folder, param_shapes(config)), config, slice_size)


def param_shapes(config: Kl16Config) -> FrozenParams:
    """The tree of an autoencoder's parameters, with `jax.ShapeDtypeStruct` in place of arrays."""
    images = jax.ShapeDtypeStruct((1, config.factor, config.factor, config.image_channels), jnp.float32)
    return jax.eval_shape(Kl16Autoencoder(config).init, jax.random.key(0), images)["params"]


def parse_sizes(value: Json) -> Kl16Config | None:
    """The configuration, of float32, that JSON describes by all of its sizes; None if it describes no autoencoder."""
    sizes: Json = {name: tuple(size) if isinstance(size, list) else size for name, size in value.items()}
    return Kl16Config(**sizes) if _describe_an_autoencoder(sizes) else None


def _describe_an_autoencoder(sizes: dict[str, Any]) -> bool:
    kinds = {field.name: type(field.default) for field in dataclasses.fields(Kl16Config) if field.name != "dtype"}
    if {name: type(value) for name, value in sizes.items()} != kinds:
        return False
    counts = [count for value in sizes.values() for count in (value if isinstance(value, tuple) else (value,))]
    positive = [
        sizes["width"],
        sizes["blocks"],
        sizes["latent_channels"],
        sizes["image_channels"],
        *sizes["multipliers"],
    ]
    return (
        all(type(count) is int and 0 <= count <= _LARGEST for count in counts)
        and min(positive) > 0
        and sizes["width"] % NORM_GROUPS == 0
        and 0 < len(sizes["multipliers"]) <= _MOST_LEVELS
    )
