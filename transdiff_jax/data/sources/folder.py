"""Images in a folder with one subfolder for each class."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import logging

from transdiff_jax.data.sources import imagenet
from transdiff_jax.data.sources.base import Record
from transdiff_jax.data.sources.listing import Listing
from transdiff_jax.errors import UserError
from transdiff_jax.images.decoding import UnreadableImage, decode

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")  # in any case


class FolderSource:
    """The images below a folder's subfolders, ordered by class folder and then by path.

    A subfolder is a class, and the index of the class is its place in sorted order. But if the names of all subfolders
    are ImageNet's wnids, the index is ImageNet's of 1,000, even if some are missing. Folders inside a class folder
    belong to the class; a link to a folder counts only as a class folder. Hidden files and folders, and files without
    one of `SUFFIXES`, are left out. The bytes of a file, not its suffix, decide its format.
    """

    def __init__(self, folder: Path, channels: int) -> None:
        self._folder, self._channels = folder, channels
        self._others = 0
        names = _class_folders(folder)
        known = {wnid: index for index, wnid in enumerate(imagenet.wnids())}
        if known.keys() >= set(names):
            self.class_names = imagenet.readable_names(tuple(known))
            indices = [known[name] for name in names]
        else:
            self.class_names, indices = tuple(names), list(range(len(names)))
        self._listing = Listing(self._scan(names, indices))
        logging.info(
            "%s: %d images in %d class folders%s; %d other files left out",
            folder,
            len(self),
            len(names),
            " named by ImageNet's wnids" if known.keys() >= set(names) else "",
            self._others,
        )

    def _scan(self, names: list[str], indices: list[int]) -> Iterator[tuple[str, int]]:
        for name, index in zip(names, indices, strict=True):
            files = sorted(_files(self._folder / name, name))
            images = [path for path in files if path.lower().endswith(SUFFIXES)]
            if not images:
                raise _error(
                    self._folder, f"class folder {name} has no image ({', '.join(SUFFIXES)}): fill or remove it"
                )
            self._others += len(files) - len(images)
            yield from ((path, index) for path in images)

    def __len__(self) -> int:
        return len(self._listing)

    def __getitem__(self, index: int) -> Record:
        """See `Records`."""
        name = self.id(index)
        try:
            data = (self._folder / name).read_bytes()
        except OSError as error:
            raise UnreadableImage(error.strerror or type(error).__name__) from None
        return Record(image=decode(data, self._channels), label=self.label(index), id=name)

    def label(self, index: int) -> int:
        """See `Labelled`."""
        return int(self._listing.labels[index])

    def labels(self, records: range | None = None) -> np.ndarray:
        """See `Labelled`; reads nothing but the listing."""
        labels = np.asarray(self._listing.labels)
        return labels if records is None else labels[records.start : records.stop]

    def id(self, index: int) -> str:
        """The path below the folder, such as "n01440764/n01440764_10026.JPEG"."""
        return self._listing.path(index)

    def labels_and_ids(self) -> tuple[np.ndarray, list[str]]:
        """See `Labelled`; reads nothing but the listing."""
        return self.labels(), [self.id(index) for index in range(len(self))]


def _class_folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise _error(folder, f"{error.strerror}; name a folder with one subfolder of images for each class") from None
    if not names:
        raise _error(folder, "there are no subfolders; make one with images for each class")
    return names


def _files(folder: Path, name: str) -> Iterator[str]:
    """Paths of the files below a folder, each beginning with `name`."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = f"{name}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(folder / entry.name, path)
                else:
                    yield path
    except OSError as error:
        raise _error(folder, error.strerror or type(error).__name__) from None


def _error(folder: Path, problem: str) -> UserError:
    return UserError(f"config.data.source names the folder {folder}: {problem}")
