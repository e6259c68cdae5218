"""A set of samples on disk: what is there, what is missing, and the record of how it was made.

    images/000000.png …         the result of each sample
    references/000000_1.png …   earlier images of its MRAR sequence, on request
    samples.npz                 all results as one array, on request: `arr_0`, uint8 [n, height, width, channels]
    grid.png                    the first samples of the first classes
    samples.json                settings, machines and versions, and the SHA-256 of each shard once all is there
    SHA256SUMS                  the SHA-256 of each file: `sha256sum --check SHA256SUMS`
    progress/                   the same in journals of a job that has not ended, one for each process

Images are plain PNG files, which people and scoring tools can read. Each file is written and repaired by itself: it
counts if it matches its noted digest, and otherwise it is made again. A shard is a run of SHARD_SIZE samples, whatever
the batch size, devices and processes; its digest is that of its lines in SHA256SUMS.
"""

import concurrent.futures
import hashlib
import json
import math
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from absl import logging

from transdiff_jax.errors import UserError
from transdiff_jax.images.png import load_png
from transdiff_jax.storage.checksums import format_sum, intact_files, parse_sums, sha256
from transdiff_jax.storage.files import Json, atomic_path, remove_temporaries, write_bytes, write_errors, write_json

RECORD, SUMS, NPZ, GRID = "samples.json", "SHA256SUMS", "samples.npz", "grid.png"
IMAGES, REFERENCES, PROGRESS = "images", "references", "progress"
SHARD_SIZE = 1000
THREADS = 8


def image_path(out: Path, index: int) -> Path:
    """The file of a sample's result."""
    return out / IMAGES / f"{index:06d}.png"


def reference_path(out: Path, index: int, image: int) -> Path:
    """The file of image number `image` (from 1) of a sample's MRAR sequence, if it is not the last."""
    return out / REFERENCES / f"{index:06d}_{image}.png"


class SampleSet:
    """A folder of `count` samples with `num_images` images each: the result, after the earlier images if there are any.

    With several processes, one of them opens and finishes the set, and all write files into it.
    """

    def __init__(self, folder: Path, count: int, num_images: int) -> None:
        self.folder = folder
        self._count = count
        self._num_images = num_images
        self._digests: dict[str, str] = {}  # of the intact files

    def names(self, index: int) -> list[str]:
        """A sample's files relative to the folder, in the order of its images."""
        earlier = [reference_path(Path(), index, image) for image in range(1, self._num_images)]
        return [path.as_posix() for path in (*earlier, image_path(Path(), index))]

    def read_record(self) -> Json:
        """The content of samples.json."""
        return json.loads((self.folder / RECORD).read_text())

    def open(self, settings: Json, details: Json, run: Json) -> np.ndarray:
        """Creates the set or continues it.

        Args:
            settings: what decides the images; a set with other settings is refused.
            details: the rest of a new set's record.
            run: the machine and the versions, noted for each call that has something to sample.

        Returns:
            Whether each sample is missing, bool [count].

        Raises:
            UserError: the folder cannot be used, or holds other samples.
        """
        record = self._open_folder(json.loads(json.dumps(settings)), details)
        noted = self._read_sums()
        self._digests = self._intact(noted)
        damaged = len({name for _, name in noted}) - len(self._digests)
        if damaged:
            logging.warning("%d files of %s have changed or are gone", damaged, self.folder)
        missing = np.array([not self._digests.keys() >= set(self.names(index)) for index in range(self._count)])
        if missing.any() or damaged or self._journals():
            record.pop("shards", None)
            record["runs"] = [*record.get("runs", []), *([run] if missing.any() else [])]
            with write_errors(self.folder / RECORD):
                write_json(self.folder / RECORD, record)
                (self.folder / PROGRESS).mkdir(exist_ok=True)
            self._write_sums()
        return missing

    def _open_folder(self, settings: Json, details: Json) -> Json:
        try:
            for name in (IMAGES, *([REFERENCES] if self._num_images > 1 else [])):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            for name in (".", IMAGES, REFERENCES):
                remove_temporaries(self.folder / name)
            if not (self.folder / RECORD).exists():
                if any((self.folder / IMAGES).iterdir()):
                    raise UserError(f"out={self.folder} holds images but no {RECORD}; choose an empty folder")
                write_json(self.folder / RECORD, {"settings": settings, **details})
            record = self.read_record()
            previous = record["settings"]
        except (OSError, ValueError, LookupError) as error:
            raise UserError(f"out={self.folder} cannot be used: {error}") from None
        differing = [name for name in settings if previous.get(name) != settings[name]]
        if differing:
            raise UserError(f"out={self.folder} holds samples with other {', '.join(differing)}; choose another folder")
        return record

    def _read_sums(self) -> list[tuple[str, str]]:
        """All digests noted so far; a file that was made twice has two."""
        lists = [path for path in (self.folder / SUMS, *self._journals()) if path.exists()]
        try:
            return [entry for path in lists for entry in parse_sums(path.read_text(errors="replace"))]
        except OSError as error:
            raise UserError(f"out={self.folder} cannot be used: {error}") from None

    def _journals(self) -> list[Path]:
        return sorted((self.folder / PROGRESS).glob("*"))

    def _intact(self, noted: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Names and digests of the files that match a noted digest."""
        accepted: dict[str, set[str]] = {}
        for digest, name in noted:
            accepted.setdefault(name, set()).add(digest)
        return intact_files(self.folder, accepted)

    def _write_sums(self) -> list[Json]:
        """Writes the known digests into SHA256SUMS, deletes the journals, and describes the shards."""
        shards = [
            {"first": first, "samples": min(SHARD_SIZE, self._count - first), "lines": []}
            for first in range(0, self._count, SHARD_SIZE)
        ]
        others = []
        for name in sorted(self._digests, key=lambda name: (sample_of(name), name)):
            index = sample_of(name)
            lines = shards[int(index) // SHARD_SIZE]["lines"] if index < self._count else others
            lines.append(format_sum(self._digests[name], name))
        texts = ["".join(shard.pop("lines")).encode() for shard in shards]
        with write_errors(self.folder / SUMS):
            write_bytes(self.folder / SUMS, b"".join([*texts, "".join(others).encode()]))
            for journal in self._journals():
                journal.unlink()
        return [shard | {"sha256": hashlib.sha256(text).hexdigest()} for shard, text in zip(shards, texts, strict=True)]

    def finish(self, figures: Json, *, npz: bool, channels: int, draw: Callable[[], None]) -> None:
        """Completes the record when all files are written; leaves a complete set alone.

        Args:
            figures: counts and times of this call.
            npz: also write samples.npz; an existing one follows the images in any case.
            channels: of the images.
            draw: draws the grid; called if there is something new to show.

        Raises:
            UserError: a file is missing, or something cannot be written.
        """
        record = self.read_record()
        written = {name: digest for digest, name in self._read_sums()}
        made = bool(written.keys() - self._digests.keys())
        self._digests |= written
        self._check_complete()
        complete = "shards" in record
        if (npz or (self.folder / NPZ).exists()) and (made or NPZ not in self._digests):
            self._write_npz(channels)
        elif complete:
            return
        if not complete:
            draw()
        record |= (figures if made or "seconds" not in record else {}) | {"shards": self._write_sums()}
        with write_errors(self.folder / RECORD):
            write_json(self.folder / RECORD, record)
        shutil.rmtree(self.folder / PROGRESS, ignore_errors=True)

    def _check_complete(self) -> None:
        for index in range(self._count):
            for name in self.names(index):
                if name not in self._digests:
                    raise UserError(
                        f"{self.folder / name} is missing: another job is working in this folder; end one of them "
                        "and run the command again"
                    )

    def _write_npz(self, channels: int) -> None:
        """Streams all results into one array; memory holds one shard at a time."""
        paths = [image_path(self.folder, index) for index in range(self._count)]
        shape = (self._count, *load_png(paths[0], channels).shape)
        with (
            write_errors(self.folder / NPZ),
            concurrent.futures.ThreadPoolExecutor(THREADS) as pool,
            atomic_path(self.folder / NPZ) as temporary,
        ):
            # The date is fixed, so that the same images give the same bytes.
            with (
                zipfile.ZipFile(temporary, "w") as archive,
                archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as file,
            ):
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for first in range(0, self._count, SHARD_SIZE):
                    for image in pool.map(lambda path: load_png(path, channels), paths[first : first + SHARD_SIZE]):
                        file.write(image.tobytes())
            self._digests[NPZ] = sha256(temporary)


def sample_of(name: str) -> float:
    """The sample that a file belongs to; infinity if it belongs to none."""
    match = re.fullmatch(rf"{IMAGES}/(\d+)\.png|{REFERENCES}/(\d+)_\d+\.png", name)
    return int(match[1] or match[2]) if match else math.inf
