"""Reads and writes `.pth` files: the one place that uses PyTorch.

A pickle may run any code when it is loaded. This module uses only PyTorch's weights-only reader, which accepts tensors
and containers and nothing else. It additionally accepts `argparse.Namespace`, in which the release keeps its flags.
"""

import argparse
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from transdiff_jax.errors import UserError
from transdiff_jax.storage.files import atomic_path

Shape = tuple[int, ...]
Tensors = Mapping[str, np.ndarray]

_MODEL, _EMA, _ARGS = "model", "model_ema", "args"
_ZIP_START = b"PK\x03\x04"


class Checkpoint(NamedTuple):
    """The parts of a `.pth` file that a conversion needs."""

    model: "MappedTensors"
    ema: "MappedTensors | None"  # None if the file has none
    args: dict[str, Any]  # the release's flags; empty if the file has none


class MappedTensors(Mapping[str, np.ndarray]):
    """Tensors of a file by name, in float32; each is read into memory on access."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> np.ndarray:
        """A view of the mapped file, or a float32 copy of a tensor of another type."""
        return self._tensors[name].detach().float().numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shapes(self) -> dict[str, Shape]:
        """Shapes by name, without reading a tensor."""
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint of the release, or a bare dictionary of tensors; runs no code from the file.

    Args:
        path: a file of `torch.save`. It is mapped, not read: a tensor costs memory only when it is used.

    Raises:
        UserError: PyTorch is missing, or the file is absent, damaged, not a checkpoint, or holds more than data.
    """
    content = _load(Path(path))
    if not isinstance(content, Mapping):
        raise UserError(f"{path} is not a checkpoint: it holds a {type(content).__name__}, not a dictionary of tensors")
    model = next((content[key] for key in (_MODEL, "state_dict") if key in content), content)
    args = content.get(_ARGS)
    return Checkpoint(
        model=_tensors(model, path, _MODEL),
        ema=_tensors(content[_EMA], path, _EMA) if _EMA in content else None,
        args=vars(args) if isinstance(args, argparse.Namespace) else {},
    )


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads a dictionary of tensors or NumPy arrays, as float64; runs no code from the file.

    Args:
        path: a file of `torch.save`.

    Raises:
        UserError: PyTorch is missing, or the file is absent, damaged, or holds anything else.
    """
    # A pickled NumPy array consists of plain bytes and these names. NumPy 2 moved the first one.
    rebuild = np.empty(0).__reduce__()[0]
    dtypes = [type(np.dtype(name)) for name in ("float32", "float64")]
    names = [(rebuild, f"{module}.multiarray._reconstruct") for module in ("numpy.core", "numpy._core")]
    torch, content = require_torch(path), _load(path, [*names, np.ndarray, np.dtype, *dtypes])
    if not isinstance(content, Mapping) or not all(isinstance(v, np.ndarray | torch.Tensor) for v in content.values()):
        raise UserError(f"{path} does not hold a dictionary of arrays")
    return {str(name): torch.as_tensor(value).detach().double().numpy() for name, value in content.items()}


def _load(path: Path, allowed: Sequence[Any] = (argparse.Namespace,)) -> Any:
    torch = require_torch(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    zipped = _check_archive(path)
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is refused: {_refusal(str(error))}") from None
    except Exception as error:
        # On a file that is not a checkpoint the reader may raise anything, a KeyError for instance.
        raise UserError(f"{path} is not a checkpoint, or damaged ({type(error).__name__})") from None


def _check_archive(path: Path) -> bool:
    """Whether the file is a zip archive, as all but very old checkpoints are.

    PyTorch's reader checks neither the archive's end nor the checksums of mapped tensors: a flipped bit would become a
    wrong weight.

    Raises:
        UserError: the archive is damaged.
    """
    with path.open("rb") as file:
        start = file.read(len(_ZIP_START))
    if start != _ZIP_START:
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    # zipfile raises NotImplementedError for a compression that it does not know, which flipped bits can name.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError):
        raise UserError(f"{path} is damaged or cut short: its archive has no end; copy or download it again") from None
    if damaged is not None:
        raise UserError(f"{path} is damaged: {damaged} in it does not match its checksum; copy or download it again")
    return True


def _refusal(message: str) -> str:
    named = re.search(r"GLOBAL (\S+)", message)
    asked = f"it asks for {named[1]}" if named else "its pickle is not one of plain tensors"
    return f"{asked}, and loading that could run code; only tensors and containers are read"


def _tensors(content: Any, path: str | Path, key: str) -> MappedTensors:
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path} is not a checkpoint: its {key!r} is not a dictionary of tensors")
    tensor = require_torch(path).Tensor
    others = [name for name, value in content.items() if not isinstance(value, tensor)]
    if others:
        raise UserError(f"{path} is not a checkpoint: {others[0]!r} of its {key!r} is not a tensor")
    return MappedTensors(content)


def write_checkpoint(path: Path, model: Tensors, ema: Tensors | None, args: Mapping[str, Any]) -> None:
    """Writes a checkpoint in the release's format: weights, average, flags.

    Raises:
        UserError: PyTorch is missing, or the file cannot be written.
    """
    torch = require_torch(path)

    def tensors(arrays: Tensors) -> dict[str, Any]:
        return {name: torch.from_numpy(np.require(array, requirements="W")) for name, array in arrays.items()}

    content: dict[str, Any] = {_MODEL: tensors(model)}
    if ema is not None:
        content[_EMA] = tensors(ema)
    content |= {"epoch": 0, _ARGS: argparse.Namespace(**args)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} cannot be written: {str(error).splitlines()[0]}") from None


def require_torch(path: str | Path) -> ModuleType:
    """Imports PyTorch only when a file needs it, because it is an optional extra and takes seconds to load.

    Raises:
        UserError: it is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise UserError(
            f"{path} needs PyTorch, which is not installed: pip install torch (a CPU build will do)"
        ) from None
    return torch
