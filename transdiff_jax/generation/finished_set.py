"""Reads a sample set that `transdiff sample` has finished, to score it. Changes nothing in the folder."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from transdiff_jax.errors import UserError
from transdiff_jax.generation.sample_files import (
    IMAGES,
    RECORD,
    REFERENCES,
    SUMS,
    Noted,
    describe_shards,
    image_path,
    read_noted,
    sample_of,
)
from transdiff_jax.generation.sample_record import read_record, settings_digest, sound_parts
from transdiff_jax.images.decoding import UnreadableImage, decode
from transdiff_jax.storage.files import Json
from transdiff_jax.storage.json_files import JsonError

_AGAIN = "run the same transdiff sample command again, which mends it"


class FinishedSet(NamedTuple):
    """A complete sample set."""

    folder: Path
    record: Json  # samples.json
    digests: dict[str, str]  # SHA-256 of the results by their names below the folder, in the order of the samples
    earlier: dict[str, str]  # SHA-256 of the earlier images of MRAR sequences, by name


def read_finished(folder: Path) -> FinishedSet:
    """The record and the digests of a complete set. The reader verifies image bytes.

    Raises:
        UserError: the set is not finished, its record and its digests cannot be read or do not fit each other, or an
            image is missing.
    """
    try:
        record = read_record(folder / RECORD)
        noted = read_noted(folder)
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be read: {error.strerror}; {_AGAIN}") from None
    except JsonError as error:
        raise UserError(f"{folder / RECORD} {error}; {_AGAIN}") from None
    if "shards" not in record:
        raise UserError(f"{folder} is not finished; {_AGAIN}")
    if not (folder / SUMS).is_file():
        raise UserError(f"{folder / SUMS} is missing; {_AGAIN}")
    _check_record(folder / RECORD, record, noted)
    count, digests = len(record["settings"]["labels"]), {name: sums[-1] for name, sums in noted.files.items()}
    images = {name: digest for name, digest in digests.items() if name.startswith(f"{IMAGES}/")}
    names = {image_path(Path(), index).as_posix() for index in range(count)}
    if record["shards"] != describe_shards(digests, count) or images.keys() != names:
        raise UserError(f"{folder / SUMS} or {RECORD} has changed since transdiff sample wrote it; {_AGAIN}")
    for name in images:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; {_AGAIN}")
    earlier = {name: digest for name, digest in digests.items() if name.startswith(f"{REFERENCES}/")}
    return FinishedSet(folder, record, dict(sorted(images.items(), key=lambda item: sample_of(item[0]))), earlier)


def read_image(path: Path, digest: str | None, channels: int) -> UInt8[np.ndarray, "height width {channels}"]:
    """The pixels of an image file.

    Args:
        path: the file.
        digest: the SHA-256 that `transdiff sample` noted; None of a file that it did not write.
        channels: 1 for grey, 3 for RGB.

    Raises:
        UserError: the file cannot be read, does not match the digest, or is no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise UserError(
            f"{path} has changed since transdiff sample wrote it; run the same command again, which remakes it"
        )
    try:
        return decode(data, channels)
    except UnreadableImage as error:
        raise UserError(f"{path} cannot be read as an image ({error}); replace or remove it") from None


def _check_record(path: Path, record: Json, noted: Noted) -> None:
    """Raises a UserError if a part of a record that scores need is not as it was written."""
    settings = record.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    labels = settings.get("labels")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels) or "seed" not in settings:
        raise UserError(f"{path} holds no labels and seed; {_AGAIN}")
    if noted.settings not in (None, settings_digest(settings)):
        raise UserError(f"{path} has other settings than those noted in {SUMS}; {_AGAIN}")
    if "config" not in sound_parts(record):
        raise UserError(f"{path} holds no configuration; {_AGAIN}")
