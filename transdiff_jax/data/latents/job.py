"""The job that makes a folder of latents: which files exist and are intact, and how a new one is written.

    progress/settings.json   the settings of the job, so that no other job continues it
    progress/00007.json      written after file 7 has its name: its digest, labels and ids

A file of records exists whole or not at all, and counts if it matches its noted digest. When all files exist, labels,
ids and the manifest are written, and progress/ is removed.
"""

import contextlib
import dataclasses
import errno
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from transdiff_jax.data.latents.claim import PROGRESS, Claim, out_errors
from transdiff_jax.data.latents.format import (
    WRITER_OPTIONS,
    LatentSettings,
    Manifest,
    Shard,
    intact,
    read_ids,
    read_labels,
    read_manifest,
    read_sealed,
    settings_from,
    shard_name,
    write_manifest,
    write_sealed,
)
from transdiff_jax.errors import UserError
from transdiff_jax.storage.checksums import MANIFEST, sha256
from transdiff_jax.storage.files import atomic_path, write_errors
from transdiff_jax.storage.paths import delete_tree

SETTINGS = "settings.json"


@dataclasses.dataclass
class ShardContent:
    """The content of one file of records."""

    path: Path
    writer: ArrayRecordWriter
    labels: list[int] = dataclasses.field(default_factory=list)
    ids: list[str] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)  # ids of unreadable records

    def add(self, moments: np.ndarray, label: int, name: str) -> None:
        """Appends one record, [2, h, w, 2c]."""
        with _write_errors(self.path):
            self.writer.write(moments.tobytes())
        self.labels.append(label)
        self.ids.append(name)


class LatentJob:
    """The files. One process opens and finishes the job; all verify files and write them.

    Args:
        folder: of the files.
        settings: of the job.
        claim: on the folder.
    """

    def __init__(self, folder: Path, settings: LatentSettings, claim: Claim) -> None:
        self._folder, self._settings, self._claim = folder, settings, claim

    def open(self) -> np.ndarray:
        """Starts the job in a claimed folder, or goes on with it.

        Returns:
            Whether each file of records is noted as finished, bool [num_shards].

        Raises:
            UserError: the folder cannot be used, or holds latents of other settings.
        """
        with out_errors(self._folder):
            self._check_settings()
            if (self._folder / MANIFEST).exists():
                self._notes_of_complete()
            found = {path.name for path in (self._folder / PROGRESS).iterdir()}
        return np.array([self._progress(shard).name in found for shard in range(self._settings.num_shards)], bool)

    def intact(self, shards: list[int]) -> set[int]:
        """Those of some noted files that are what was noted; reads every byte of the files."""
        notes = {shard: self._read_note(shard) for shard in shards}
        digests = {shard: note[0].sha256 for shard, note in notes.items() if note is not None}
        return intact(self._folder, digests, self._settings.num_shards)

    def reopen(self) -> None:
        """Makes a complete folder incomplete, because files of it must be made again."""
        if (self._folder / MANIFEST).exists():
            (self._folder / MANIFEST).unlink()

    @contextlib.contextmanager
    def write_shard(self, shard: int) -> Iterator[ShardContent]:
        """A context that writes a new file with the records that its block adds; without a file if the block raises.

        Raises:
            UserError: the file cannot be written.
        """
        path = self._path(shard)
        with atomic_path(path) as temporary:
            content = ShardContent(path, ArrayRecordWriter(str(temporary), WRITER_OPTIONS))
            try:
                yield content
            except BaseException:
                with contextlib.suppress(RuntimeError):
                    content.writer.close()
                raise
            with _write_errors(path):
                content.writer.close()
                digest = sha256(temporary)
            self._claim.check()
            written = Shard(len(content.labels), temporary.stat().st_size, digest, tuple(content.skipped))
        self._claim.check()
        with write_errors(self._progress(shard)):
            self._note(shard, written, content.labels, content.ids)

    def finish(self) -> Manifest:
        """Completes the folder when all files of records exist.

        Raises:
            UserError: a file is missing, or something cannot be written.
        """
        self._claim.check()
        if not (self._folder / MANIFEST).exists():
            notes = [self._read_note(shard) for shard in range(self._settings.num_shards)]
            if None in notes:
                raise UserError(f"{self._path(notes.index(None))} is missing: run the command again")
            shards, labels, ids = zip(*notes, strict=True)
            together = [list(itertools.chain.from_iterable(lists)) for lists in (labels, ids)]
            with write_errors(self._folder / MANIFEST):
                write_manifest(self._folder, self._settings, list(shards), *together)
        delete_tree(self._folder / PROGRESS)
        return read_manifest(self._folder)

    def skipped(self) -> int:
        """The number of unreadable records that all processes have met so far."""
        notes = map(self._read_note, range(self._settings.num_shards))
        return sum(len(note[0].skipped) for note in notes if note is not None)

    def _path(self, shard: int) -> Path:
        return self._folder / shard_name(shard, self._settings.num_shards)

    def _progress(self, shard: int) -> Path:
        return self._folder / PROGRESS / f"{shard:05d}.json"

    def _check_settings(self) -> None:
        """Refuses a folder of other settings; notes the settings in an empty one."""
        noted = self._folder / PROGRESS / SETTINGS
        if (self._folder / MANIFEST).exists():
            found = read_manifest(self._folder).settings
        elif noted.exists():
            try:
                found = settings_from(read_sealed(noted))
            except ValueError as error:
                raise UserError(f"{noted} is damaged ({error}): delete {self._folder} and start anew") from None
        else:
            found = self._settings
        differing = [
            f"{field.name}={getattr(found, field.name)}"
            for field in dataclasses.fields(LatentSettings)
            if getattr(found, field.name) != getattr(self._settings, field.name)
        ]
        if differing:
            raise UserError(f"out={self._folder} holds latents made with {', '.join(differing)}; choose another folder")
        noted.parent.mkdir(exist_ok=True)
        write_sealed(noted, dataclasses.asdict(self._settings))

    def _notes_of_complete(self) -> None:
        """Writes the notes from which a complete folder was completed."""
        manifest = read_manifest(self._folder)
        first = 0
        labels, ids = read_labels(self._folder, manifest).tolist(), read_ids(self._folder, manifest)
        for index, shard in enumerate(manifest.shards):
            rows = slice(first, first + shard.records)
            self._note(index, shard, labels[rows], ids[rows])
            first += shard.records

    def _note(self, shard: int, written: Shard, labels: list[int], ids: list[str]) -> None:
        write_sealed(self._progress(shard), {"shard": dataclasses.asdict(written), "labels": labels, "ids": ids})

    def _read_note(self, shard: int) -> tuple[Shard, list[int], list[str]] | None:
        try:
            value = read_sealed(self._progress(shard))
        except (OSError, ValueError):  # it was not written or is cut short, so the file is made again
            return None
        written = Shard(**value["shard"] | {"skipped": tuple(value["shard"]["skipped"])})
        return written, value["labels"], value["ids"]


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """`write_errors` for ArrayRecord, which reports errors of the file system as RuntimeError."""
    with write_errors(path):
        try:
            yield
        except RuntimeError as error:
            raise OSError(errno.EIO, str(error).splitlines()[0]) from error
