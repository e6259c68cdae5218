"""Reads and writes MRAR index files: JSON lines of groups, as in the release."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from transdiff_jax.data.latents.source import LatentSource
from transdiff_jax.data.shared_arrays import SharedArrays
from transdiff_jax.data.sources.base import Labelled
from transdiff_jax.errors import UserError
from transdiff_jax.storage.files import atomic_path, write_errors
from transdiff_jax.storage.json_files import JsonError, parse_json


def write_index(source: LatentSource, path: Path, groups: Iterator[np.ndarray]) -> int:
    """Writes groups, each the record indices [num_images] of a sequence in order, and returns their number."""
    count = 0
    with write_errors(path), atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for members in groups:
            file.write(json.dumps(_line(source, members.tolist())) + "\n")
            count += 1
    return count


def _line(source: LatentSource, members: list[int]) -> dict[str, str | list[str]]:
    """One line; if all ids begin with the same folder, it stands for the class, as in the release."""
    ids = [source.id(index) for index in members]
    folders = {name.partition("/")[0] for name in ids}
    if len(folders) == 1 and all("/" in name for name in ids):
        return {"cate": folders.pop(), "files": [name.partition("/")[2] for name in ids]}
    return {"cate": source.class_names[source.label(members[-1])], "files": ids}


class IndexedGroups:
    """The groups of an index file: JSON lines {"cate": class, "files": [image, ...]}, as in the release.

    The name of an image is the id of its record ("n01440764/n01440764_10026.JPEG"), with or without the class.

    Raises:
        UserError: the file cannot be read; or a line is not a group, does not have `num_images` files, or names files
            that the source does not have or that are of several classes.
    """

    def __init__(self, path: Path, source: Labelled, num_images: int) -> None:
        self._shared = SharedArrays(np.stack(list(_read_index(path, source, num_images))))

    def __len__(self) -> int:
        return len(self._shared.arrays[0])

    def members(self, row: int, generator: np.random.Generator) -> np.ndarray:
        """See `Groups`; draws nothing."""
        del generator
        return np.array(self._shared.arrays[0][row])


def _read_index(path: Path, source: Labelled, num_images: int) -> Iterator[np.ndarray]:
    labels, ids = source.labels_and_ids()
    records = {name: index for index, name in enumerate(ids)}
    count = 0
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"config.data.groups names the index {path}, which is not a file")
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    count += 1
                    yield _parse_group(f"{path}, line {number}", line, records, labels, num_images)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"config.data.groups names the index {path}, which cannot be read: {reason}") from None
    if not count:
        raise UserError(f"config.data.groups names the index {path}, which holds no groups")


def _text(value: object) -> str:
    """A name in an index; raises a TypeError for what is none."""
    if not isinstance(value, str | int):
        raise TypeError
    return str(value)


def _parse_group(place: str, line: str, records: dict[str, int], labels: np.ndarray, num_images: int) -> np.ndarray:
    try:
        group = parse_json(line.encode())
        if not isinstance(group, dict) or not isinstance(group["files"], list):
            raise TypeError
        category, *files = map(_text, (group["cate"], *group["files"]))
    except (JsonError, KeyError, TypeError):
        raise UserError(f'{place}: must be a group such as {{"cate": "n01440764", "files": ["a.JPEG", …]}}') from None
    if len(files) != num_images:
        raise UserError(f"{place}: {len(files)} files, but config.model.num_images={num_images}")
    found = [records.get(f"{category}/{name}", records.get(name)) for name in files]
    if None in found:
        raise UserError(f"{place}: config.data.source has no record {category}/{files[found.index(None)]}")
    members = np.array(found, np.int64)
    if len(set(labels[members].tolist())) > 1:
        raise UserError(f"{place}: the files are of classes {labels[members].tolist()}, but a group is of one class")
    return members
