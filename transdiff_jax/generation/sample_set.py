"""A set of samples on disk: opened, told what is missing, finished. sample_files.py describes the folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from absl import logging

from transdiff_jax.errors import UserError
from transdiff_jax.generation import sample_files as files
from transdiff_jax.generation import sample_record as records
from transdiff_jax.generation.sample_files import (
    FIGURES_FILE,
    IMAGES,
    LOCK,
    NPZ,
    PROGRESS,
    RECORD,
    REFERENCES,
    SUMS,
    Noted,
)
from transdiff_jax.generation.sample_reader import SampleReader
from transdiff_jax.generation.samples_npz import write_samples_npz
from transdiff_jax.storage.files import Json, check_lock, lock, remove_temporaries, write_errors, write_json
from transdiff_jax.storage.json_files import JsonError, read_json_object
from transdiff_jax.storage.leases import Lease
from transdiff_jax.storage.paths import delete_tree

_SHORTEST = 1e-3  # seconds; the clocks of file systems may be coarse


class SampleSet:
    """A folder of `count` samples with `num_images` images each: the result, after the earlier images if there are any.

    With several processes, one of them opens and finishes the set, and all write files into it.
    """

    def __init__(self, folder: Path, count: int, num_images: int, *, archives: bool = False) -> None:
        self.folder = folder
        self.archives = archives
        self._count = count
        self._num_images = num_images
        self._record: Json = {}
        self._digests: dict[str, str] = {}  # of the intact files
        self._lock: IO[str] | Lease | None = None  # held by the process that opens the set

    def names(self, index: int) -> list[str]:
        """The files that hold a sample, relative to the folder."""
        return [files.archive_path(Path(), index).as_posix()] if self.archives else self.images(index)

    def images(self, index: int) -> list[str]:
        """The names of a sample's images, in their order; without archives, they are its files."""
        earlier = [files.reference_path(Path(), index, image) for image in range(1, self._num_images)]
        return [path.as_posix() for path in (*earlier, files.image_path(Path(), index))]

    def read_record(self) -> Json:
        """The content of samples.json."""
        return records.read_record(self.folder / RECORD)

    def open(self, settings: Json, details: Json, run: Json) -> np.ndarray:
        """Creates the set or continues it, and mends its record.

        Args:
            settings: what decides the images; a set with other settings is refused.
            details: the rest of a new set's record.
            run: the machine and the versions, noted for each call that has something to sample.

        Returns:
            Whether each sample is missing, bool [count].

        Raises:
            UserError: the folder cannot be used, is in use by another job, or holds other samples.
        """
        settings = json.loads(json.dumps(settings))
        try:
            noted = self._open_folder()
            self._check_format(noted)
            found = self._found_record(noted, settings)
            self._digests = files.intact(self.folder, noted)
        except OSError as error:
            raise UserError(f"out={self.folder} cannot be used: {error}") from None
        self._record = details | records.sound_parts(found) | {"settings": settings}
        damaged = len(noted.files) - len(self._digests)
        if damaged:
            logging.warning("%d files of %s have changed or are gone", damaged, self.folder)
        missing = np.array([not self._digests.keys() >= set(self.names(index)) for index in range(self._count)])
        complete = self._record.keys() >= set(records.FIGURES) and (
            self._record.get("shards") == files.describe_shards(self._digests, self._count)
        )
        mended = {**found, "settings": settings} != self._record or (
            noted.settings is not None and (noted.settings != self._settings() or found.get("settings") != settings)
        )
        if missing.any() or damaged or not complete or mended or files.journals(self.folder):
            self._continue(missing, run)
        return missing

    def _open_folder(self) -> Noted:
        for name in (IMAGES, *([REFERENCES] if self._num_images > 1 and not self.archives else [])):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._lock = lock(self.folder / LOCK)
        for name in (".", IMAGES, REFERENCES):
            remove_temporaries(self.folder / name)
        return files.read_noted(self.folder)

    def _check_format(self, noted: Noted) -> None:
        samples = [name for name in noted.files if name != NPZ]
        if samples and files.is_archive(samples[0]) != self.archives:
            found = "png" if self.archives else "zip"
            raise UserError(f"out={self.folder} holds samples in the format {found}: give --format={found}")

    def _found_record(self, noted: Noted, settings: Json) -> Json:
        """The record that is there, perhaps with damaged parts; empty for a new set.

        Raises:
            UserError: the samples that are there have other settings, or unknown ones.
        """
        ours = noted.settings == records.settings_digest(settings)
        try:
            record = records.read_record(self.folder / RECORD)
        except FileNotFoundError:
            if not ours and any((self.folder / IMAGES).iterdir()):
                raise UserError(f"out={self.folder} holds images but no {RECORD}; choose an empty folder") from None
            return {}
        except JsonError as error:
            if not ours and any((self.folder / IMAGES).iterdir()):
                raise self._unknown(str(error)) from None
            logging.warning("%s %s: it is written anew", self.folder / RECORD, error)
            return {}
        if not ours:
            self._check_settings(record, settings, noted)
        return record

    def _check_settings(self, record: Json, settings: Json, noted: Noted) -> None:
        """Raises a UserError unless the settings in a record are those given."""
        previous = records.recorded_settings(record)
        differing = records.differing_settings(previous, settings)
        if differing is None:
            raise self._unknown("has lost its settings")
        if differing and noted.settings not in (None, records.settings_digest(record["settings"])):
            raise self._unknown("has changed since it was written")
        if differing:
            remedy = f", or the dtype {previous['dtype']}" if differing == ["dtype"] else ""
            names = ", ".join(differing)
            raise UserError(f"out={self.folder} holds samples with other {names}; choose another folder{remedy}")

    def _unknown(self, damage: str) -> UserError:
        return UserError(
            f"{self.folder / RECORD} {damage}, and {SUMS} notes other settings or none: give the command that made the "
            f"samples, or delete {self.folder}, and this command makes all of them again"
        )

    def _settings(self) -> str:
        return records.settings_digest(self._record["settings"])

    def _continue(self, missing: np.ndarray, run: Json) -> None:
        """Notes in the folder that the set is not complete."""
        record = self._record
        record.pop("shards", None)
        if missing.any():
            record["runs"] = [*record.get("runs", []), run]
            for name in records.FIGURES:
                record.pop(name, None)
        elif "images_per_second" not in record:
            record |= self._stopped_figures()
        with write_errors(self.folder / RECORD):
            write_json(self.folder / RECORD, record)
            (self.folder / PROGRESS).mkdir(exist_ok=True)
        files.write_sums(self.folder, self._digests, self._count, self._settings())

    def check_lock(self) -> None:
        """Raises a UserError in the process that opened the set if another job has it, as a bucket allows."""
        check_lock(self._lock)

    def close(self) -> None:
        """Lets other jobs use the folder."""
        if self._lock is not None:
            self._lock.close()

    def lacks(self, name: str) -> bool:
        """Whether the record of the opened set has no such part."""
        return name not in self._record

    def begin(self, figures: Json) -> None:
        """Notes what is known when sampling begins, so that the record of a job that a kill stops at the end has it.

        Args:
            figures: images to make, and seconds of compilation.

        Raises:
            UserError: it cannot be written.
        """
        path = self.folder / PROGRESS / FIGURES_FILE
        with write_errors(path):
            write_json(path, figures)

    def _stopped_figures(self) -> Json:
        """The figures of a job that ended between its last image and the record; empty if they are not known."""
        path = self.folder / PROGRESS / FIGURES_FILE
        try:
            figures = records.sound_parts(read_json_object(path))
            made, compile_seconds = figures["images_made"], figures["compile_seconds"]
            ends = [written.stat().st_mtime for written in files.journals(self.folder) or [self.folder / SUMS]]
            seconds = max(max(ends) - path.stat().st_mtime, _SHORTEST)
            figures = (made, compile_seconds + seconds, compile_seconds, made / seconds)
            return dict(zip(records.FIGURES, figures, strict=True))
        except (OSError, JsonError, KeyError, TypeError):
            return {}

    def finish(
        self, figures: Json, additions: Json, *, npz: bool, channels: int, draw: Callable[[SampleReader], None]
    ) -> None:
        """Completes the record when all files are written; leaves a complete set alone.

        Args:
            figures: counts and times of this call.
            additions: other parts for the record; empty for none.
            npz: also write samples.npz; an existing one follows the images in any case.
            channels: of the images.
            draw: draws the grid, with what reads the images; called if there is something new to show.

        Raises:
            UserError: a file is missing, or something cannot be written.
        """
        self.check_lock()
        record, complete = self._record, "shards" in self._record
        written = {name: sums[-1] for name, sums in files.read_noted(self.folder).files.items()}
        made = bool(written.keys() - self._digests.keys())
        self._digests |= written
        self._check_complete()
        if (npz or (self.folder / NPZ).exists()) and (made or NPZ not in self._digests):
            self._digests[NPZ] = write_samples_npz(self.folder, self._digests, self._count, channels)
        elif complete and not additions:
            return
        if not complete:
            draw(SampleReader(self.folder, self._digests))
        files.write_sums(self.folder, self._digests, self._count, self._settings())
        shards = files.describe_shards(self._digests, self._count)
        record |= (figures if made else figures | record) | additions | {"shards": shards}
        with write_errors(self.folder / RECORD):
            write_json(self.folder / RECORD, record)
        delete_tree(self.folder / PROGRESS)

    def _check_complete(self) -> None:
        names = (name for index in range(self._count) for name in self.names(index))
        missing = next((name for name in names if name not in self._digests), None)
        if missing is not None:
            raise UserError(f"{self.folder / missing} is missing: somebody removed it while the job ran; run it again")
