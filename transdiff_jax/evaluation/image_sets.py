"""Sets of images to score: a sample set of `transdiff sample`, a folder of image files, or an ADM `.npz`.

Images are read a few at a time and in a fixed order; a process reads only the image files that its own devices take. A
set with a damaged or missing image, or with images of several sizes, has no score: reading it raises.
"""

import concurrent.futures
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Int, UInt8

from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.features import Images
from transdiff_jax.evaluation.reference import read_images
from transdiff_jax.generation.finished_set import FinishedSet, read_finished
from transdiff_jax.generation.sample_files import RECORD
from transdiff_jax.generation.sample_reader import decode_image, read_file
from transdiff_jax.parallel.processes import check_same
from transdiff_jax.parallel.progress import Progress
from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.storage.files import Json

ReadFile = Callable[[str], bytes]  # from a name

THREADS = 8
SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images in order, and what is known about them."""

    source: str  # where they are, or how they are made
    kind: str
    batches: Callable[[int], Iterator[Images]]  # from the batch size; the last may be smaller. 1 or 3 channels
    record: Json | None = None  # samples.json; only sample sets have one

    @property
    def labels(self) -> list[int] | None:
        """The class of each image; None if unknown."""
        return None if self.record is None else self.record["settings"]["labels"]

    @property
    def num_classes(self) -> int | None:
        """The number of classes of the model that made the images; None if unknown."""
        return None if self.record is None else self.record["config"]["model"]["num_classes"]


def open_images(path: Path, flag: str) -> ImageSet:
    """Opens the set in a folder or a file; the images are read later. All processes call this together.

    Args:
        path: a sample set of `transdiff sample` (it has samples.json and is checked against it), a folder of PNG and
            JPEG files at any depth (in the order of their paths; links to folders are followed, hidden files and
            folders are skipped), or a `.npz` with `arr_0`.
        flag: the user's name for the set, for error messages.

    Raises:
        UserError: there is no such set, one of its folders cannot be read, the sample set is not complete, or the
            processes see different content.
    """
    if path.is_file():
        if path.suffix != ".npz":
            raise UserError(f"{flag}={path} is neither a folder of images nor a .npz file")
        _check_seen_by_all(path, flag, path.stat().st_size)
        # Every process reads the whole file: compressed data is read from its start only, and the checksum that finds
        # damage covers all bytes.
        return ImageSet(str(path), "npz", functools.partial(read_images, path))
    if not path.is_dir():
        raise UserError(f"{flag}={path}: no such folder or file")
    if (path / RECORD).exists():
        finished = read_finished(path)
        _check_seen_by_all(path, flag, finished.digests)
        return _sample_set(finished)
    found = sorted(_files_in_bucket(path) if isinstance(path, BucketPath) else _files(path))
    files = [name for name in found if name.lower().endswith(SUFFIXES)]
    if not files:
        raise UserError(f"{flag}={path} holds no images ({', '.join(SUFFIXES)}) and no {RECORD} of transdiff sample")
    logging.info("%s: %d images; %d other files left out", path, len(files), len(found) - len(files))
    _check_seen_by_all(path, flag, files)
    read = functools.partial(_read_file, path)
    return ImageSet(str(path), "folder", functools.partial(_file_batches, path, files, read))


def _check_seen_by_all(path: Path, flag: str, content: object) -> None:
    message = f"{flag}={path} differs between the processes of the job: put it where all of them see one copy"
    check_same(str(content), message)


def _sample_set(finished: FinishedSet) -> ImageSet:
    batches = functools.partial(_file_batches, finished.folder, finished.names(), finished.reader().read)
    return ImageSet(str(finished.folder), "sample set", batches, finished.record)


def _files_in_bucket(folder: BucketPath) -> list[str]:
    return [name for name in folder.sizes() if not any(part.startswith(".") for part in name.split("/"))]


def _files(folder: Path, prefix: str = "", above: tuple[Path, ...] = ()) -> Iterator[str]:
    """Yields the path of each file below a folder, after `prefix`; `above` holds the folders on the way here.

    Links are followed, because the class folders of ImageNet often are links. A link back to a folder above it is
    skipped: it would never end, and it adds no image.
    """
    place = folder.resolve()
    if place in above:
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from _files(folder / entry.name, f"{prefix}{entry.name}/", (*above, place))
                else:
                    yield prefix + entry.name
    except OSError as error:
        raise UserError(
            f"{error.filename or folder} cannot be read ({error.strerror}): fix its permissions or remove it"
        ) from None


def _file_batches(folder: Path, names: Sequence[str], read: ReadFile, size: int) -> Iterator[Images]:
    """Yields batches of images, as RGB, of files that `read` reads by their names below a folder."""
    shape = decode_image(folder / names[0], read(names[0]), 3).shape
    progress = Progress("scored", "images", len(names))
    for start in range(0, len(names), size):
        part = names[start : start + size]
        yield _FileBatch(folder, part, read, names[0], shape)
        progress.add(len(part))


@dataclasses.dataclass(frozen=True)
class _FileBatch:
    """Image files of one size, each read on demand."""

    folder: Path
    names: Sequence[str]
    read: ReadFile
    first: str  # first file of the whole set; every process reads it, so that all compare sizes with the same image
    shape: tuple[int, ...]  # of the image in `first`

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: Int[np.ndarray, " m"], /) -> UInt8[np.ndarray, "m height width channels"]:
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            images = list(pool.map(self._read, (self.names[row] for row in rows)))
        return np.array(images, np.uint8).reshape(len(rows), *self.shape)

    def _read(self, name: str) -> np.ndarray:
        image = decode_image(self.folder / name, self.read(name), 3)
        if image.shape != self.shape:
            raise UserError(
                f"{self.folder / name} has {_size(image.shape)} pixels, but {self.folder / self.first} has "
                f"{_size(self.shape)}: all images of a set must have one size"
            )
        return image


def _read_file(folder: Path, name: str) -> bytes:
    return read_file(folder / name, None)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def sampler_settings(record: Json) -> Json:
    """The settings that a set was sampled with; `num_labels` replaces the labels themselves."""
    settings = json.loads(json.dumps(record["settings"]))
    settings["num_labels"] = len(settings.pop("labels"))
    return settings
