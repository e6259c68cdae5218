"""KL-16 weights on disk: an Orbax checkpoint, its sizes, and the manifest that both must match.

Layout of a folder: weights/ (Orbax), sizes.json, manifest.json. The manifest is written last: without it the folder
is not complete.
"""

import dataclasses
import json
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from transdiff_jax.errors import UserError
from transdiff_jax.files import write_json
from transdiff_jax.manifest import MANIFEST, find_damage, sha256, write_manifest
from transdiff_jax.tokenizer.kl16 import Kl16Autoencoder, Kl16Config, Kl16Tokenizer

WEIGHTS, SIZES = "weights", "sizes.json"


def save_weights(folder: Path, params: dict, config: Kl16Config) -> None:
    """Writes an autoencoder into an empty or new folder.

    Raises:
        UserError: the folder holds something, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; choose another folder")
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save((folder / WEIGHTS).absolute(), params)
        sizes = dataclasses.asdict(config)
        del sizes["dtype"]  # of the computation, not of the weights
        write_json(folder / SIZES, sizes)
        write_manifest(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}: {error.filename}") from None


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
        slice_size: images encoded or decoded at once.

    Raises:
        UserError: there is no such folder, or it is not as it was written.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; make one with cli.convert --kind=kl16 --out={folder}")
    damage = find_damage(folder)
    if damage is not None:
        raise UserError(f"{folder} does not hold intact KL-16 weights ({damage}); make them again with cli.convert")
    sizes = json.loads((folder / SIZES).read_text())
    sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in sizes.items()}
    config = Kl16Config(**sizes, dtype=dtype)
    images = jax.ShapeDtypeStruct((1, config.factor, config.factor, config.image_channels), jnp.float32)
    shapes = jax.eval_shape(Kl16Autoencoder(config).init, jax.random.key(0), images)["params"]
    # As NumPy arrays they belong to no device: a computation over any mesh takes them.
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
    with ocp.PyTreeCheckpointer() as checkpointer:
        params = checkpointer.restore((folder / WEIGHTS).absolute(), item=shapes, restore_args=as_numpy)
    return Kl16Tokenizer(params, config, slice_size)
