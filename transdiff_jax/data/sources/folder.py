"""Images in a folder with one subfolder for each class."""

from pathlib import Path

import numpy as np
from absl import logging

from transdiff_jax.data.sources import imagenet
from transdiff_jax.data.sources.base import Record
from transdiff_jax.data.sources.folder_list import FolderList, list_folder
from transdiff_jax.data.sources.listing import Listing
from transdiff_jax.images.decoding import UnreadableImage, decode


def classes_of(folders: list[str]) -> tuple[tuple[str, ...], list[int]]:
    """The names of all classes, and the class of each class folder."""
    if not imagenet.are_wnids(folders):
        return tuple(folders), list(range(len(folders)))
    known = {wnid: index for index, wnid in enumerate(imagenet.wnids())}
    return imagenet.readable_names(tuple(known)), [known[name] for name in folders]


class FolderSource:
    """The images below a folder's subfolders, ordered by class folder and then by path.

    A subfolder is a class, and the index of the class is its place in sorted order. But if the names of all subfolders
    are ImageNet's wnids, the index is ImageNet's of 1,000, even if some are missing. Folders inside a class folder
    belong to the class; a link to a folder counts only as a class folder. Hidden files and folders, and files without
    one of `SUFFIXES`, are left out. The bytes of a file, not its suffix, decide its format.
    """

    def __init__(self, folder: Path, channels: int, listed: FolderList | None = None) -> None:
        """Opens a folder.

        Args:
            folder: the folder.
            channels: of the images, 1 or 3.
            listed: what is in the folder; None lists it.

        Raises:
            UserError: as from `list_folder`.
        """
        self._folder, self._channels = folder, channels
        listed = list_folder(folder) if listed is None else listed
        self.class_names, indices = classes_of(list(listed.classes))
        self._listing = Listing(listed.names, np.repeat(indices, list(listed.classes.values())))
        logging.info(
            "%s: %d images in %d class folders%s; %d other files left out",
            folder,
            len(self),
            len(listed.classes),
            " named by ImageNet's wnids" if imagenet.are_wnids(listed.classes) else "",
            listed.others,
        )

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
