"""Reads a sample set that `transdiff sample` has finished, to score it. Changes nothing in the folder."""

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
    archive_path,
    describe_shards,
    image_path,
    is_archive,
    read_noted,
    sample_of,
)
from transdiff_jax.generation.sample_reader import AGAIN, SampleReader, decode_image, read_file
from transdiff_jax.generation.sample_record import read_record, settings_digest, sound_parts
from transdiff_jax.storage.files import Json
from transdiff_jax.storage.json_files import JsonError
from transdiff_jax.storage.paths import missing_files


class FinishedSet(NamedTuple):
    """A complete sample set."""

    folder: Path
    record: Json  # samples.json
    digests: dict[str, str]  # SHA-256 of the results, or of their archives, by name, in the order of the samples
    earlier: dict[str, str]  # SHA-256 of the earlier images of MRAR sequences, by name; empty if they are in archives

    def names(self) -> list[str]:
        """The names of the results, in the order of the samples."""
        return [image_path(Path(), index).as_posix() for index in range(len(self.record["settings"]["labels"]))]

    def reader(self) -> SampleReader:
        """What reads the results by name."""
        return SampleReader(self.folder, self.digests)


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
        raise UserError(f"{error.filename or folder} cannot be read: {error.strerror}; {AGAIN}") from None
    except JsonError as error:
        raise UserError(f"{folder / RECORD} {error}; {AGAIN}") from None
    if "shards" not in record:
        raise UserError(f"{folder} is not finished; {AGAIN}")
    if not (folder / SUMS).is_file():
        raise UserError(f"{folder / SUMS} is missing; {AGAIN}")
    _check_record(folder / RECORD, record, noted)
    count, digests = len(record["settings"]["labels"]), {name: sums[-1] for name, sums in noted.files.items()}
    images = {name: digest for name, digest in digests.items() if name.startswith(f"{IMAGES}/")}
    path_of = archive_path if any(map(is_archive, images)) else image_path
    names = {path_of(Path(), index).as_posix() for index in range(count)}
    if record["shards"] != describe_shards(digests, count) or images.keys() != names:
        raise UserError(f"{folder / SUMS} or {RECORD} has changed since transdiff sample wrote it; {AGAIN}")
    missing = missing_files(folder, images)
    if missing:
        raise UserError(f"{folder / missing[0]} is missing; {AGAIN}")
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
    return decode_image(path, read_file(path, digest), channels)


def _check_record(path: Path, record: Json, noted: Noted) -> None:
    """Raises a UserError if a part of a record that scores need is not as it was written."""
    settings = record.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    labels = settings.get("labels")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels) or "seed" not in settings:
        raise UserError(f"{path} holds no labels and seed; {AGAIN}")
    if noted.settings not in (None, settings_digest(settings)):
        raise UserError(f"{path} has other settings than those noted in {SUMS}; {AGAIN}")
    if "config" not in sound_parts(record):
        raise UserError(f"{path} holds no configuration; {AGAIN}")
