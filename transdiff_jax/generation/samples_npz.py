"""Writes the results of a sample set as one array, which the ADM evaluation reads."""

import concurrent.futures
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from transdiff_jax.generation.sample_files import NPZ, SHARD_SIZE, image_path
from transdiff_jax.generation.sample_reader import SampleReader
from transdiff_jax.images.png import decode_png
from transdiff_jax.storage.checksums import sha256
from transdiff_jax.storage.files import atomic_path, write_errors

THREADS = 8


def write_samples_npz(folder: Path, digests: Mapping[str, str], count: int, channels: int) -> str:
    """Streams all results into samples.npz; memory holds one shard at a time.

    Args:
        folder: of the set.
        digests: of its files, by name.
        count: number of samples.
        channels: of the images.

    Returns:
        The SHA-256 of the file. The same images give the same bytes.

    Raises:
        UserError: an image has changed, or the file cannot be written.
    """
    names = [image_path(Path(), index).as_posix() for index in range(count)]
    reader = SampleReader(folder, digests)

    def load(name: str) -> np.ndarray:
        return decode_png(reader.read(name), channels)

    shape = (count, *load(names[0]).shape)
    with (
        write_errors(folder / NPZ),
        concurrent.futures.ThreadPoolExecutor(THREADS) as pool,
        atomic_path(folder / NPZ) as temporary,
    ):
        with (
            zipfile.ZipFile(temporary, "w") as archive,
            archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as file,
        ):
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for first in range(0, count, SHARD_SIZE):
                for image in pool.map(load, names[first : first + SHARD_SIZE]):
                    file.write(image.tobytes())
        return sha256(temporary)
