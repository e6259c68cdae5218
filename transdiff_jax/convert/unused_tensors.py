"""The tensors of the release that our layout has no place for: kept beside the weights, so that they can go back."""

from pathlib import Path

import numpy as np

from transdiff_jax.errors import UserError
from transdiff_jax.storage.npz_files import NpzError, NpzFile
from transdiff_jax.storage.torch_file import Tensors

UNUSED_FILE = "unused_tensors.npz"


def save_unused(folder: Path, tensors: Tensors) -> None:
    """Writes tensors, named "model/" or "ema/" and PyTorch's name, into a folder; no file if there are none."""
    if tensors:
        # pyrefly: ignore[bad-argument-type]  # NumPy's stub takes any array for its own flag `allow_pickle`
        np.savez(folder / UNUSED_FILE, **tensors)


def load_unused(folder: Path, name: str) -> Tensors:
    """The tensors of "model" or "ema" in a folder, by PyTorch's names; none if there is no file.

    Raises:
        UserError: the file cannot be read.
    """
    path = folder / UNUSED_FILE
    try:
        with NpzFile(path) as arrays:
            return {key.removeprefix(f"{name}/"): arrays[key] for key in arrays.names if key.startswith(f"{name}/")}
    except FileNotFoundError:
        return {}
    except (OSError, NpzError) as error:
        raise UserError(f"{path} cannot be read ({error}): copy it again, or convert again") from None
