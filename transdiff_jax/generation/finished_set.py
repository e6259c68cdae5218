"""Reads a sample set that `transdiff sample` has finished, to score it. Changes nothing in the folder."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from transdiff_jax.errors import UserError
from transdiff_jax.generation.sample_set import IMAGES, RECORD, SHARD_SIZE, SUMS, sample_of
from transdiff_jax.storage.checksums import format_sum, parse_sums
from transdiff_jax.storage.files import Json

_AGAIN = "run the same transdiff sample command again to make what is missing"


class FinishedSet(NamedTuple):
    """A complete sample set."""

    folder: Path
    record: Json  # samples.json
    digests: dict[str, str]  # SHA-256 of the results by their names below the folder, in the order of the samples


def read_finished(folder: Path) -> FinishedSet:
    """The record and the digests of a complete set. The reader verifies image bytes.

    Raises:
        UserError: the set is not finished, its record and its digests cannot be read or do not fit each other, or an
            image is missing.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
        if "shards" not in record:
            raise UserError(f"{folder} is not finished; {_AGAIN}")
        sums = parse_sums((folder / SUMS).read_text(errors="replace"))
        digests = [_shard_digest(sums, shard["first"]) for shard in record["shards"]]
        intact = digests == [shard["sha256"] for shard in record["shards"]]
        count = sum(shard["samples"] for shard in record["shards"])
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be read: {error.strerror}; {_AGAIN}") from None
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{folder / RECORD} is not a record of transdiff sample ({error!r})") from None
    images = {name: digest for digest, name in sums if name.startswith(f"{IMAGES}/")}
    if not intact or len(images) != count:
        raise UserError(f"{folder / SUMS} has changed since transdiff sample wrote it; {_AGAIN}")
    for name in images:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; {_AGAIN}")
    return FinishedSet(folder, record, dict(sorted(images.items(), key=lambda item: sample_of(item[0]))))


def _shard_digest(sums: list[tuple[str, str]], first: int) -> str:
    """The digest of the shard that begins at a sample, computed from its lines as in the record."""
    lines = (format_sum(digest, name) for digest, name in sums if first <= sample_of(name) < first + SHARD_SIZE)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
