"""Reads and writes safetensors files, which hold arrays by name and nothing that could run."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from transdiff_jax.errors import UserError
from transdiff_jax.storage.files import atomic_path, write_errors


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes arrays atomically.

    Raises:
        UserError: safetensors is missing, or the file cannot be written.
    """
    library = _require_safetensors(path)
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    with write_errors(path), atomic_path(path) as temporary:
        library.save_file(contiguous, temporary, metadata={"format": "np"})


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, by name.

    Raises:
        UserError: safetensors is missing, or the file is absent or damaged.
    """
    library = _require_safetensors(path)
    damage = (OSError, importlib.import_module("safetensors").SafetensorError)
    unknown = (KeyError, TypeError, ValueError)  # for a type of numbers that NumPy lacks
    try:
        return library.load_file(path)
    except (*damage, *unknown) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read as safetensors ({reason}): copy or download it again") from None


def _require_safetensors(path: Path) -> ModuleType:
    try:
        return importlib.import_module("safetensors.numpy")
    except ModuleNotFoundError:
        raise UserError(f"{path} needs an extra that is not installed: pip install safetensors") from None
