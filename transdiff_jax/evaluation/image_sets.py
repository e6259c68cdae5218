"""Sets of images to score: a sample set of cli.sample, a folder of image files, an ADM `.npz`.

All are read a few at a time and in a fixed order. What does not fit together ends in one line: a set with a damaged or
missing image, or with images of several sizes, has no score.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from transdiff_jax.data.decoding import UnreadableImage, decode
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.reference import read_images
from transdiff_jax.finished_set import FinishedSet, read_finished
from transdiff_jax.sample_set import RECORD, THREADS

SUFFIXES = (".png", ".jpg", ".jpeg")
PIECE = 256  # images read at once


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images in order, and what is known of them."""

    source: str  # where they are, or how they are made
    kind: str
    read: Callable[[], Iterator[np.ndarray]]  # pieces uint8 [n, height, width, 1 or 3], of one size
    record: Mapping[str, Any] | None = None  # samples.json, of a sample set

    @property
    def labels(self) -> list[int] | None:
        """The class of each image, where it is known."""
        return None if self.record is None else self.record["settings"]["labels"]

    @property
    def num_classes(self) -> int | None:
        """Of the model that made the images, where it is known."""
        return None if self.record is None else self.record["config"]["model"]["num_classes"]


def open_images(path: Path, flag: str) -> ImageSet:
    """The set that a folder or a file holds; images themselves are read later.

    Args:
        path: a sample set of cli.sample (it has samples.json, and is checked against it), a folder of PNG and JPEG
            files at any depth (in the order of their paths; hidden ones are left out), or a `.npz` with `arr_0`.
        flag: how the user named it, for errors.

    Raises:
        UserError: there is no such set, or it is a sample set that is not complete.
    """
    if path.is_file():
        if path.suffix != ".npz":
            raise UserError(f"{flag}={path} is neither a folder of images nor a .npz file")
        return ImageSet(str(path), "npz", lambda: read_images(path, PIECE))
    if not path.is_dir():
        raise UserError(f"{flag}={path}: no such folder or file")
    if (path / RECORD).exists():
        return _sample_set(read_finished(path))
    files = sorted(_image_files(path))
    if not files:
        raise UserError(f"{flag}={path} holds no images ({', '.join(SUFFIXES)}), and no {RECORD} of cli.sample")
    return ImageSet(str(path), "folder", lambda: _read_files(path, dict.fromkeys(files)))


def _sample_set(finished: FinishedSet) -> ImageSet:
    try:
        labels, _ = finished.record["settings"]["labels"], finished.record["config"]["model"]["num_classes"]
    except (LookupError, TypeError) as error:
        raise UserError(f"{finished.folder / RECORD} is not a record of cli.sample ({error!r} in it)") from None
    if len(labels) != len(finished.digests):
        raise UserError(f"{finished.folder} has {len(finished.digests)} images for {len(labels)} labels")
    read = functools.partial(_read_files, finished.folder, finished.digests)
    return ImageSet(str(finished.folder), "sample set", read, finished.record)


def _image_files(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield (Path(parent) / name).relative_to(folder).as_posix()


def _read_files(folder: Path, digests: Mapping[str, str | None]) -> Iterator[np.ndarray]:
    """Pieces of uint8 [n, height, width, 3] of files below a folder; a digest that is given must match."""
    names = list(digests)
    first: tuple[int, ...] | None = None
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(names), PIECE):
            piece = names[start : start + PIECE]
            images = list(pool.map(lambda name: _read_image(folder / name, digests[name]), piece))
            first = images[0].shape if first is None else first
            for name, image in zip(piece, images, strict=True):
                if image.shape != first:
                    raise UserError(
                        f"{folder / name} has {_size(image.shape)} pixels, and {folder / names[0]} {_size(first)}: "
                        "scores are of images of one size"
                    )
            yield np.stack(images)


def _read_image(path: Path, digest: str | None) -> np.ndarray:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise UserError(
            f"{path} is not as cli.sample wrote it; run the same cli.sample command again, which remakes it"
        )
    try:
        return decode(data, channels=3)
    except UnreadableImage as error:
        raise UserError(f"{path} holds no image that can be read ({error}); replace it, or take it out") from None


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def sampler_settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a set was sampled with, its labels as their number alone."""
    settings = json.loads(json.dumps(record["settings"]))
    settings["num_labels"] = len(settings.pop("labels"))
    return settings
