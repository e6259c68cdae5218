"""Records whose images cannot be decoded: their replacements, and the report on them."""

import itertools
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from absl import logging

from transdiff_jax.config import DataConfig
from transdiff_jax.data.sources.base import Records
from transdiff_jax.errors import UserError
from transdiff_jax.images.decoding import UnreadableImage
from transdiff_jax.storage.files import Json, write_errors, write_json
from transdiff_jax.storage.json_files import read_json_object

AnyRecord = TypeVar("AnyRecord")

_NAMED = 3  # records in an error message
_FIELDS = ("index", "id", "reason")  # of a record in the report
_REPORTS = "unreadable_records{process}.json"


def read_members(source: Records[AnyRecord], members: np.ndarray) -> tuple[list[AnyRecord], np.ndarray, np.ndarray]:
    """The records of one row, all of which can be decoded.

    A record that cannot be decoded is replaced by the next one of its class that can be and is not in the row. The
    search follows the source's order and goes on at its beginning, so the result depends on the source and the members
    alone.

    Args:
        source: where the records are.
        members: their indices, int64 [n].

    Returns:
        The records; their indices, int64 [n]; the index of the record that each replaces, or -1, int64 [n].

    Raises:
        UserError: a class has too few records that can be decoded.
    """
    records, found, replaced = [], members.astype(np.int64), np.full(len(members), -1, np.int64)
    for position, member in enumerate(members.tolist()):
        try:
            records.append(source[member])
        except UnreadableImage:
            found[position], record = _next_readable(source, member, set(found.tolist()))
            records.append(record)
            replaced[position] = member
    return records, found, replaced


def _next_readable(source: Records[AnyRecord], index: int, taken: set[int]) -> tuple[int, AnyRecord]:
    label, count = source.label(index), len(source)
    for candidate in itertools.chain(range(index + 1, count), range(index)):
        if candidate not in taken and source.label(candidate) == label:
            try:
                return candidate, source[candidate]
            except UnreadableImage:
                continue
    raise UserError(
        f"class {label} ({source.class_names[label]}) of config.data.source has no other image that can be decoded to "
        f"replace {source.id(index)}: repair its images or remove the class"
    )


class UnreadableReport:
    """The unreadable records that a run has met, in files of its workdir that a resumed run continues.

    Each process of a run writes its own file about the records that it has read; the limit applies to all files
    together.
    """

    def __init__(self, workdir: Path, source: Records[object], config: DataConfig) -> None:
        process = f".{jax.process_index()}" if jax.process_count() > 1 else ""
        self.path = workdir / _REPORTS.format(process=process)
        self._source, self._limit = source, config.max_unreadable
        # An index means the same only for the same records.
        self._origin = {"source": config.source, "split": config.split, "records": len(source)}
        self._entries = self._from_before()
        self._check()

    def add(self, replaced: np.ndarray) -> None:
        """Notes the failed records of a batch (-1: none).

        Raises:
            UserError: all processes together now have more than `config.data.max_unreadable` allows, or the file
                cannot be written.
        """
        new = set(replaced[replaced >= 0].tolist()) - self._entries.keys()
        if not new:
            return
        for index in sorted(new):
            self._entries[index] = entry = {"index": index, "id": self._source.id(index), "reason": self._reason(index)}
            logging.warning("record %(id)s (%(index)d) cannot be decoded: %(reason)s; another takes its place", entry)
        with write_errors(self.path):
            write_json(self.path, {**self._origin, "unreadable": list(self._entries.values())})
        self._check()

    def _reason(self, index: int) -> str:
        """Why a record failed; it is read again, because a batch holds the index alone."""
        try:
            self._source[index]
        except UnreadableImage as error:
            return str(error)
        return "read without an error at the second attempt"

    def _from_before(self) -> dict[int, Json]:
        if not self.path.exists():
            return {}
        entries = self._read(self.path)
        if entries is None:
            logging.warning("%s is of other data: it will be written anew", self.path)
            return {}
        logging.info("%d unreadable record(s) in %s from before", len(entries), self.path)
        return entries

    def _read(self, path: Path) -> dict[int, Json] | None:
        """The entries of a report by index; None if the report is of other data."""
        try:
            report = read_json_object(path)
            entries = {
                int(entry["index"]): {field: entry[field] for field in _FIELDS} for entry in report.pop("unreadable")
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path} is not a report of unreadable records: delete or repair it") from None
        return entries if report == self._origin else None

    def _check(self) -> None:
        """Raises a UserError if the reports of all processes, and of the run's earlier parts, hold too many records."""
        failed = dict(self._entries)
        every = self.path.parent / _REPORTS.format(process="*")
        for path in sorted(every.parent.glob(every.name)):
            if path != self.path:
                failed |= self._read(path) or {}
        share = len(failed) / len(self._source)
        if share > self._limit:
            first = ", ".join(entry["id"] for entry in list(failed.values())[:_NAMED])
            raise UserError(
                f"{len(failed)} of {len(self._source)} records ({share:.2%}) of config.data.source="
                f"{self._origin['source']!r} cannot be decoded, more than config.data.max_unreadable={self._limit}: "
                f"{first}{', ...' if len(failed) > _NAMED else ''}; repair them and delete {every}, which names them "
                "all, or raise that limit"
            )
