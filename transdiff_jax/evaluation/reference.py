"""Reference statistics and images: files of ADM, of torch-fidelity and of this package.

ADM's format is a `.npz` with `mu`, `sigma` (of features "2048"), optionally `mu_s`, `sigma_s` (of "spatial") and
optionally `arr_0` (uint8 images [n, height, width, 3]). Files written here also hold `num_images`, the number of images
behind the statistics; other readers ignore it. torch-fidelity's cache is a `.pt` with `mu`, `sigma`.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.inception.network import WIDTHS
from transdiff_jax.evaluation.statistics import Gaussian
from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.storage.files import atomic_path, write_errors
from transdiff_jax.storage.npz_files import NpzError, NpzFile
from transdiff_jax.storage.torch_file import read_arrays

_IMAGES = "arr_0"
_POOLED, _SPATIAL = ("mu", "sigma"), ("mu_s", "sigma_s")
_COUNT = "num_images"
_ASYMMETRY = 1e-6  # allowed in a covariance, relative to its largest entry; float32 files have some


class Reference(NamedTuple):
    """The content of a file of reference statistics."""

    pooled: Gaussian | None  # of the features "2048", for FID
    spatial: Gaussian | None  # of the features "spatial", for sFID
    num_images: int  # images in the file itself, which `read_images` reads; 0: none
    fitted_images: int | None = None  # images behind the statistics; None: the file does not say


def read_reference(path: Path, *, width: int = WIDTHS["2048"], spatial_width: int = WIDTHS["spatial"]) -> Reference:
    """Reads and checks the statistics of a file; does not read its images.

    Args:
        path: `.npz` or `.pt`, in a format that the module describes.
        width: width of the features behind `mu` and `sigma`.
        spatial_width: width of the features behind `mu_s` and `sigma_s`.

    Raises:
        UserError: the file does not exist, has another format, or its statistics have another width or impossible
            values.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix in (".pt", ".pth") and isinstance(path, BucketPath):
        raise UserError(f"{path}: PyTorch reads files of this machine only: copy it here")
    if path.suffix in (".pt", ".pth"):
        arrays, num_images = read_arrays(path), 0
    elif path.suffix == ".npz":
        arrays, num_images = _read_npz(path)
    else:
        raise UserError(f"{path} is not a reference: give a folder, a .npz or a torch-fidelity file (.pt)")
    pooled, spatial = _gaussian(arrays, _POOLED, width, path), _gaussian(arrays, _SPATIAL, spatial_width, path)
    if pooled is None and spatial is None and not num_images:
        raise UserError(f"{path} holds no reference: it has neither mu and sigma nor images {_IMAGES}")
    return Reference(pooled, spatial, num_images, _fitted_images(arrays, path))


def write_reference(path: Path, pooled: Gaussian, spatial: Gaussian, fitted_images: int) -> None:
    """Writes the statistics of `fitted_images` images in ADM's format, atomically.

    Raises:
        UserError: the file cannot be written.
    """
    (mu, sigma), (mu_s, sigma_s) = pooled, spatial
    with write_errors(path), atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, mu=mu, sigma=sigma, mu_s=mu_s, sigma_s=sigma_s, num_images=np.array(fitted_images))


def read_images(path: Path, batch_size: int) -> Iterator[UInt8[np.ndarray, "n height width channels"]]:
    """Yields the images `arr_0` of a `.npz` file in batches, because a published set does not fit into memory.

    Args:
        path: the file.
        batch_size: images in each batch but the last, which may be smaller.

    Raises:
        UserError: the file holds no such images, or is damaged.
    """
    try:
        with NpzFile(path) as file:
            _check_images(file, path)
            yield from file.batches(_IMAGES, batch_size)
    except (OSError, KeyError, NpzError) as error:
        raise UserError(f"{path}: its images {_IMAGES} cannot be read ({error})") from None


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], int]:
    """The arrays of the statistics, and the number of images."""
    try:
        with NpzFile(path) as file:
            found = {name: file[name] for name in (*_POOLED, *_SPATIAL, _COUNT) if name in file}
            return found, _check_images(file, path) if _IMAGES in file else 0
    except (OSError, NpzError) as error:
        raise UserError(f"{path} cannot be read as .npz ({error}); copy or download it again") from None


def _check_images(file: NpzFile, path: Path) -> int:
    """The number of images in a file; raises a UserError if they are none, and like `NpzFile.header`."""
    shape, dtype, column_major = file.header(_IMAGES)
    if dtype != np.uint8 or len(shape) != 4 or shape[-1] not in (1, 3) or column_major or not math.prod(shape):
        found = f"{dtype} {list(shape)}"
        raise UserError(f"{path}: its {_IMAGES} must be uint8 [n, height, width, 1 or 3], but it is {found}")
    return shape[0]


def _fitted_images(arrays: Mapping[str, np.ndarray], path: Path) -> int | None:
    if _COUNT not in arrays:
        return None
    count = arrays[_COUNT]
    if count.shape or count.dtype.kind not in "iu" or count < 2:
        raise UserError(f"{path}: {_COUNT} must be an integer of at least 2")
    return int(count)


def _gaussian(arrays: Mapping[str, np.ndarray], names: tuple[str, str], width: int, path: Path) -> Gaussian | None:
    missing = [name for name in names if name not in arrays]
    if len(missing) == len(names):
        return None
    if missing:
        raise UserError(f"{path} is not complete: {missing[0]} is missing, but {' and '.join(names)} belong together")
    found = {name: arrays[name] for name in names}
    for (name, array), shape in zip(found.items(), ((width,), (width, width)), strict=True):
        if array.shape != shape:
            raise UserError(f"{path}: {name} has shape {array.shape}; features of width {width} need {shape}")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise UserError(f"{path}: {name} holds values that are not finite numbers; copy or download the file again")
    mean, covariance = (array.astype(np.float64) for array in found.values())
    if np.abs(covariance - covariance.T).max() > _ASYMMETRY * np.abs(covariance).max() or covariance.trace() < 0:
        raise UserError(f"{path}: {names[1]} is not a covariance: it is not symmetric, or has a negative trace")
    return Gaussian(mean, covariance)
