"""Weights of networks that are never trained here, on disk: `transdiff convert` makes them once, others read them.

A folder holds weights/ (Orbax), one JSON file that describes them, and manifest.json. The manifest is written last: a
folder without it is incomplete.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from transdiff_jax.errors import UserError
from transdiff_jax.storage.checksums import DamageError, check_files, read_manifest, write_manifest
from transdiff_jax.storage.files import Json, write_json
from transdiff_jax.storage.json_files import JsonError, read_json_object

FrozenParams = dict[str, Any]  # a tree of arrays by name
WEIGHTS = "weights"


def save_frozen(folder: Path, params: FrozenParams, note_name: str, note: Json) -> None:
    """Writes weights into an empty or new folder.

    Args:
        folder: where to write.
        params: the weights.
        note_name: name of the JSON file.
        note: content of the JSON file.

    Raises:
        UserError: the folder is not empty, or cannot be written.
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


def read_note(folder: Path, note_name: str, network: str) -> Json:
    """Checks every file of a folder against its manifest, then reads the JSON file beside the weights.

    Args:
        folder: written by `save_frozen`.
        note_name: name of the JSON file.
        network: name of the network, for the error message.

    Raises:
        UserError: a file has changed or is missing, or the folder belongs to another network.
    """
    try:
        check_files(folder, read_manifest(folder).digests)
        if not (folder / note_name).is_file():
            raise DamageError(f"{note_name} is missing")
        return read_json_object(folder / note_name)
    except JsonError as error:
        damage = f"{note_name} {error}"
    except DamageError as error:
        damage = str(error)
    raise UserError(
        f"{folder} does not hold intact {network} weights ({damage}); make them again with transdiff convert in a "
        "new or empty folder"
    )


def restore_frozen(folder: Path, shapes: FrozenParams) -> FrozenParams:
    """Reads the weights as NumPy arrays. They belong to no device, so a computation over any mesh can take them.

    Args:
        folder: written by `save_frozen`, and checked by `read_note`.
        shapes: the same tree with `jax.ShapeDtypeStruct` in place of arrays.

    Raises:
        UserError: the folder holds arrays of other names, shapes or types.
    """
    with ocp.PyTreeCheckpointer() as checkpointer:
        stored = checkpointer.metadata((folder / WEIGHTS).absolute()).item_metadata
        if _described(stored) != _described(shapes):
            raise UserError(
                f"{folder} holds arrays of other names or sizes than its description says; make them again with "
                "transdiff convert in a new or empty folder"
            )
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        return checkpointer.restore((folder / WEIGHTS).absolute(), item=shapes, restore_args=as_numpy)


def _described(tree: Any) -> dict[str, tuple]:
    """Shape and type of each array by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): (tuple(leaf.shape), np.dtype(leaf.dtype)) for path, leaf in leaves}
