"""Which images lie in a folder with one subfolder for each class, and when its subfolders last changed."""

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

from transdiff_jax.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")  # in any case
# Seconds. A subfolder that changed so recently may change again without another time, and clocks differ.
SETTLED = 60.0


@dataclasses.dataclass(frozen=True)
class FolderList:
    """The images of a folder, ordered by class folder and then by path."""

    folder: str  # its path in the process that listed it
    classes: dict[str, int]  # the number of images in each class folder, in order
    names: bytes  # paths below the folder, each with a zero byte behind it
    changes: dict[str, int]  # of every subfolder: when it changed, in nanoseconds; 0: the file system does not tell
    others: int  # files that were left out

    def is_current(self, folder: Path) -> bool:
        """Whether this is the folder, with the same subfolders, none of which has changed; looks at no image."""
        try:
            if os.fspath(folder) != self.folder or class_folders(folder) != list(self.classes):
                return False
            return all(changed and _changed(folder / name) == changed for name, changed in self.changes.items())
        except OSError:
            return False


def list_folder(folder: Path) -> FolderList:
    """Lists a folder.

    Raises:
        UserError: it cannot be read, has no subfolders, or a subfolder without images.
    """
    classes, names, changes, others = {}, bytearray(), {}, 0
    started = time.time_ns()
    for name in class_folders(folder):
        files = sorted(_files(folder / name, name, changes))
        images = [path for path in files if path.lower().endswith(SUFFIXES)]
        if not images:
            raise folder_error(folder, f"class folder {name} has no image ({', '.join(SUFFIXES)}): fill or remove it")
        classes[name] = len(images)
        names += b"".join(os.fsencode(path) + b"\0" for path in images)
        others += len(files) - len(images)
    settled = started - int(SETTLED * 1e9)
    known = {path: changed if 0 < changed < settled else 0 for path, changed in changes.items()}
    return FolderList(os.fspath(folder), classes, bytes(names), known, others)


def class_folders(folder: Path) -> list[str]:
    """The names of the class folders, sorted; raises a UserError if there are none or they cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        problem = f"{error.strerror}; name a folder with one subfolder of images for each class"
        raise folder_error(folder, problem) from None
    if not names:
        raise folder_error(folder, "there are no subfolders; make one with images for each class")
    return names


def folder_error(folder: Path, problem: str) -> UserError:
    """The error for a folder that cannot be used."""
    return UserError(f"config.data.source names the folder {folder}: {problem}")


def _changed(folder: Path) -> int:
    """When entries of a folder or the folder itself last changed; programs can set back other times, not this one."""
    return folder.stat().st_ctime_ns


def _files(folder: Path, name: str, changes: dict[str, int]) -> Iterator[str]:
    """Paths of the files below a folder, each beginning with `name`; notes in `changes` when the folders changed."""
    try:
        changes[name] = _changed(folder)  # before it is read, so that a change meanwhile counts as one
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = f"{name}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(folder / entry.name, path, changes)
                else:
                    yield path
    except OSError as error:
        raise folder_error(folder, error.strerror or type(error).__name__) from None
