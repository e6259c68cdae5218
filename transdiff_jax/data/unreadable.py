"""Records whose images cannot be decoded: what takes their place, and the report on them."""

import itertools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from transdiff_jax.config import DataConfig
from transdiff_jax.data.decoding import UnreadableImage
from transdiff_jax.data.records import Record, Source
from transdiff_jax.errors import UserError
from transdiff_jax.files import write_errors, write_json

_NAMED = 3  # records in the message of an error


def read_members(source: Source, members: np.ndarray) -> tuple[list[Record], np.ndarray, np.ndarray]:
    """The records of one row, each of which can be decoded.

    In place of one that cannot be comes the next of its class, in the source's order and from its end on from its
    beginning, that can be and is not in the row: a function of the source and the members alone.

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


def _next_readable(source: Source, index: int, taken: set[int]) -> tuple[int, Record]:
    label, count = source.label(index), len(source)
    for candidate in itertools.chain(range(index + 1, count), range(index)):
        if candidate not in taken and source.label(candidate) == label:
            try:
                return candidate, source[candidate]
            except UnreadableImage:
                continue
    raise UserError(
        f"class {label} ({source.class_names[label]}) of config.data.source has no other image that can be decoded to "
        f"take the place of {source.id(index)}: mend its images, or remove the class"
    )


class UnreadableReport:
    """What a run has met of them, kept in a file of its workdir that a resumed run goes on with.

    Each process of a run has a file of its own, and counts what it has read itself.
    """

    def __init__(self, workdir: Path, source: Source, config: DataConfig) -> None:
        process = f".{jax.process_index()}" if jax.process_count() > 1 else ""
        self.path = workdir / f"unreadable_records{process}.json"
        self._source, self._limit = source, config.max_unreadable
        # Indices mean the same only in the same records.
        self._origin = {"source": config.source, "split": config.split, "records": len(source)}
        self._entries = self._read()
        self._check()

    def add(self, replaced: np.ndarray) -> None:
        """Notes the failed records of a batch (-1: none).

        Raises:
            UserError: they are now more than `config.data.max_unreadable` allows, or the file cannot be written.
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
        """Why a record failed where only its index is known."""
        try:
            self._source[index]
        except UnreadableImage as error:
            return str(error)
        return "read without an error at the second attempt"

    def _read(self) -> dict[int, dict[str, Any]]:
        if not self.path.exists():
            return {}
        try:
            report = json.loads(self.path.read_text())
            entries = {int(entry["index"]): entry for entry in report.pop("unreadable")}
            ids = [entry["id"] for entry in entries.values()]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{self.path} is no report of unreadable records: delete it, or mend it") from None
        if report != self._origin:
            logging.warning("%s is of other data (%s): it will be written anew", self.path, report)
            return {}
        logging.info("%d unreadable record(s) in %s from before", len(ids), self.path)
        return entries

    def _check(self) -> None:
        share = len(self._entries) / len(self._source)
        if share > self._limit:
            first = ", ".join(entry["id"] for entry in list(self._entries.values())[:_NAMED])
            raise UserError(
                f"{len(self._entries)} of {len(self._source)} records ({share:.2%}) of config.data.source="
                f"{self._origin['source']!r} cannot be decoded, more than config.data.max_unreadable={self._limit}: "
                f"{first}{', ...' if len(self._entries) > _NAMED else ''}; mend them and delete {self.path}, where all "
                "are named, or raise that limit"
            )
