"""The files of a sample set: their names, and the digests that say which of them are intact.

    images/000000.png …         the result of each sample
    references/000000_1.png …   earlier images of its MRAR sequence, on request
    images/001000.zip …         instead of these two: the archive with the images of 1,000 samples from this one on
    samples.npz                 all results as one array, on request: `arr_0`, uint8 [n, height, width, channels]
    grid.png                    the first samples of the first classes
    samples.json                settings, machines and versions, and the SHA-256 of each shard once all is there
    SHA256SUMS                  the SHA-256 of each file: `sha256sum --check SHA256SUMS`; a comment holds that of the
                                settings, so that damage of samples.json can be told from other settings
    progress/                   of a job that has not ended: digests in journals, one for each process, and what is
                                known of its speed
    .lock                       held by the job that works in the folder

Images are plain PNG files, which people and scoring tools can read, or such files in archives. Each file is written and
repaired by itself: it counts if it matches its noted digest, and otherwise it is made again. A shard is a run of
SHARD_SIZE samples, whatever the batch size, devices and processes; its digest is that of its lines in SHA256SUMS.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from transdiff_jax.storage.checksums import format_sum, intact_files, parse_sums
from transdiff_jax.storage.files import Json, write_bytes, write_errors

RECORD, SUMS, NPZ, GRID = "samples.json", "SHA256SUMS", "samples.npz", "grid.png"
IMAGES, REFERENCES, PROGRESS, FIGURES_FILE = "images", "references", "progress", "figures.json"
LOCK = ".lock"
SHARD_SIZE = 1000
FORMATS = ("png", "zip")  # of the images
_SAMPLE = re.compile(rf"{IMAGES}/([0-9]{{6,12}})\.(?:png|zip)|{REFERENCES}/([0-9]{{6,12}})_[0-9]{{1,6}}\.png")
_SETTINGS = re.compile(r"# settings ([0-9a-f]{64})")


def image_path(out: Path, index: int) -> Path:
    """The file of a sample's result."""
    return out / IMAGES / f"{index:06d}.png"


def reference_path(out: Path, index: int, image: int) -> Path:
    """The file of image number `image` (from 1) of a sample's MRAR sequence, if it is not the last."""
    return out / REFERENCES / f"{index:06d}_{image}.png"


def archive_path(out: Path, index: int) -> Path:
    """The archive with the images of a sample's shard, if the set has archives."""
    return out / IMAGES / f"{index // SHARD_SIZE * SHARD_SIZE:06d}.zip"


def is_archive(name: str) -> bool:
    """Whether a file of a set is an archive."""
    return name.endswith(".zip")


def sample_of(name: str) -> float:
    """The sample that a file belongs to, the first one of an archive; infinity if it belongs to none."""
    match = _SAMPLE.fullmatch(name)
    return int(match[1] or match[2]) if match else math.inf


def journals(folder: Path) -> list[Path]:
    """The journals of jobs that have not ended."""
    return sorted(path for path in (folder / PROGRESS).glob("*") if path.name != FIGURES_FILE)


class Noted(NamedTuple):
    """What SHA256SUMS and the journals say."""

    files: dict[str, list[str]]  # digests by name, the newest last; a file that was made twice has two
    settings: str | None  # digest of the settings; None: not noted, as in sets of version 0.1


def read_noted(folder: Path) -> Noted:
    """All digests noted so far. Lines that are damaged, or name no file of a sample set, are left out.

    Raises:
        OSError: a list cannot be read.
    """
    texts = [path.read_text(errors="replace") for path in (folder / SUMS, *journals(folder)) if path.exists()]
    files: dict[str, list[str]] = {}
    for text in texts:
        for digest, name in parse_sums(text):
            if name == NPZ or sample_of(name) < math.inf:
                files.setdefault(name, []).append(digest)
    settings = _SETTINGS.fullmatch(next(iter("".join(texts[:1]).splitlines()), ""))
    return Noted(files, settings[1] if settings else None)


def intact(folder: Path, noted: Noted) -> dict[str, str]:
    """Names and digests of the files that match a noted digest."""
    return intact_files(folder, {name: sums for name, sums in noted.files.items() if (folder / name).is_file()})


def describe_shards(digests: Mapping[str, str], count: int) -> list[Json]:
    """What the record says of the shards of `count` samples with these digests."""
    return [
        {"first": first, "samples": min(SHARD_SIZE, count - first), "sha256": hashlib.sha256(text.encode()).hexdigest()}
        for first, text in zip(range(0, count, SHARD_SIZE), _lines(digests, count), strict=False)
    ]


def _lines(digests: Mapping[str, str], count: int) -> list[str]:
    """The lines of each shard, and those of all other files."""
    parts: list[list[str]] = [[] for _ in range(0, count, SHARD_SIZE)]
    others: list[str] = []
    for name in sorted(digests, key=lambda name: (sample_of(name), name)):
        index = sample_of(name)
        lines = parts[int(index) // SHARD_SIZE] if index < count else others
        lines.append(format_sum(digests[name], name))
    return ["".join(lines) for lines in (*parts, others)]


def write_sums(folder: Path, digests: Mapping[str, str], count: int, settings: str) -> None:
    """Writes SHA256SUMS, and deletes the journals, which it replaces.

    Args:
        folder: of the set.
        digests: of its files.
        count: number of samples.
        settings: digest of the settings.

    Raises:
        UserError: the list cannot be written.
    """
    with write_errors(folder / SUMS):
        write_bytes(folder / SUMS, "".join([f"# settings {settings}\n", *_lines(digests, count)]).encode())
        for journal in journals(folder):
            journal.unlink()
