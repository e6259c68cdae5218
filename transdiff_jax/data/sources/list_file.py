"""The list of an image folder in a file, so that one process of a job lists a million images and the others read it.

<SHA-256 of the rest, in hexadecimal>
zlib: a line of JSON (the folder, and `FolderList` without its names), then the names
"""

import dataclasses
import hashlib
import json
import os
import zlib
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from transdiff_jax.data.sources.folder_list import FolderList, class_folders, folder_error, list_folder
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.processes import do_in_first_process
from transdiff_jax.storage.files import write_bytes, write_errors
from transdiff_jax.storage.json_files import parse_json, read_bytes, unreadable

LIST = "image_folder.list"
MOST_BYTES = 2**30
_LOOKED_FOR = 64  # images that each process looks for in its folder
_HEADER = {field.name for field in dataclasses.fields(FolderList)} - {"names"}
_LEVEL = 1  # of compression: names of files compress well at any


def list_once(folder: Path, kept: Path) -> FolderList:
    """The list of a folder, made by the first process if there is none of the folder as it is now.

    Every process must call this. Each looks for its class folders and some of the images.

    Args:
        folder: the images; on each host the same folder, or a copy of it.
        kept: a folder that all processes see, where the list stays for the next start.

    Raises:
        UserError: the folder cannot be listed, the list cannot be written or read, or, in all processes, the folder of
            one of them has other images.
    """
    path = kept / LIST
    do_in_first_process(lambda: _refresh(path, folder))
    try:
        listed = read_list(path)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): start again, which lists the images anew") from None
    if jax.process_count() > 1:
        _check_own(folder, listed)
    return listed


def _refresh(path: Path, folder: Path) -> None:
    """Writes the list unless the one that is there is of the folder as it is now."""
    try:
        if read_list(path).is_current(folder):
            return
        logging.info("%s is of another folder, or of before a change: listing %s again", path, folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        logging.warning("%s is not used (%s): listing %s again", path, error, folder)
    with write_errors(path):
        write_list(path, list_folder(folder))


def write_list(path: Path, listed: FolderList) -> None:
    """Writes a list atomically, in a folder that is made if need be."""
    header = dataclasses.asdict(listed)
    names = header.pop("names")
    data = zlib.compress(json.dumps(header).encode() + b"\n" + names, _LEVEL)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


def read_list(path: Path) -> FolderList:
    """Reads a list.

    Raises:
        ValueError: the file is damaged, or of another version.
        OSError: it is missing or cannot be read.
    """
    digest, _, data = read_bytes(path, MOST_BYTES).partition(b"\n")
    if digest.decode("latin-1") != hashlib.sha256(data).hexdigest():
        raise ValueError("its content does not match its own digest")
    line, _, names = zlib.decompress(data).partition(b"\n")
    header = parse_json(line)
    if not isinstance(header, dict) or header.keys() != _HEADER:
        raise ValueError("it is of another version")
    return FolderList(names=names, **header)


def _check_own(folder: Path, listed: FolderList) -> None:
    """Compares the list with this process's folder; all processes learn whether one of them has another."""
    other = np.flatnonzero(multihost_utils.process_allgather(np.array(not _has_some(folder, listed))))
    if other.size:
        raise folder_error(
            folder,
            f"process {other[0]} does not find in it what process 0 lists: give "
            "all processes one folder, or copies of it",
        )


def _has_some(folder: Path, listed: FolderList) -> bool:
    names = listed.names.split(b"\0")[:-1]
    shown = names[:: max(1, len(names) // _LOOKED_FOR)]
    try:
        same_classes = class_folders(folder) == list(listed.classes)
    except UserError:
        return False
    return same_classes and all((folder / os.fsdecode(name)).exists() for name in shown)
