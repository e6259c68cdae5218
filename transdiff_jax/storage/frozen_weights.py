"""Weights of a network that is never trained here, on disk: made once by cli.convert, read many times.

Layout of a folder: weights/ (Orbax), one JSON file that says what they are, manifest.json. The manifest is written
last: without it the folder is not complete.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from transdiff_jax.errors import UserError
from transdiff_jax.storage.checksums import find_damage, write_manifest
from transdiff_jax.storage.files import write_json

WEIGHTS = "weights"


def save_frozen(folder: Path, params: dict, note_name: str, note: Any) -> None:
    """Writes weights into an empty or new folder.

    Args:
        folder: where to.
        params: a tree of arrays.
        note_name: name of the JSON file.
        note: what it holds.

    Raises:
        UserError: the folder holds something, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; choose another folder")
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save((folder / WEIGHTS).absolute(), params)
        write_json(folder / note_name, note)
        write_manifest(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}: {error.filename}") from None


def read_note(folder: Path, note_name: str, network: str) -> Any:
    """The JSON value beside the weights, after every file of the folder has been found as it was written.

    Args:
        folder: written by `save_frozen`.
        note_name: name of the JSON file.
        network: what to call the network in an error.

    Raises:
        UserError: something has changed or is missing, or the folder is of another network.
    """
    damage = find_damage(folder)
    if damage is None and not (folder / note_name).is_file():
        damage = f"{note_name} is missing"
    if damage is not None:
        raise UserError(
            f"{folder} does not hold intact {network} weights ({damage}); make them again with cli.convert, which "
            "wants a new or an empty folder"
        )
    return json.loads((folder / note_name).read_text())


def restore_frozen(folder: Path, shapes: dict) -> dict:
    """The weights as NumPy arrays, which belong to no device: a computation over any mesh takes them.

    Args:
        folder: written by `save_frozen`, and checked by `read_note`.
        shapes: the tree with `jax.ShapeDtypeStruct` in place of arrays.
    """
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore((folder / WEIGHTS).absolute(), item=shapes, restore_args=as_numpy)
