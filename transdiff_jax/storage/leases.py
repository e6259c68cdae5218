"""A lock in a bucket: a file that names its holder, who writes it again and again.

Every write names the generation of the file that it replaces, and the server refuses it if another process was faster.
So a lease has one holder, and a holder whose write is refused knows that it has lost the lease. A holder that died
stops writing; after a while another process may replace its file.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from typing import Any

from absl import logging

from transdiff_jax.errors import UserError
from transdiff_jax.storage.bucket_client import errors_of
from transdiff_jax.storage.bucket_path import BucketPath

SECONDS = "TRANSDIFF_LEASE_SECONDS"  # of silence after which a holder counts as dead
DEFAULT_SECONDS = 90
BEATS = 6  # writes of a holder in that time
MOST_BYTES = 2**10  # of the file; a larger one is none of ours


class Lease:
    """A lease that this process holds until `close`."""

    def __init__(self, path: BucketPath) -> None:
        """Takes the lease. If its holder has died, this waits until its time is over.

        Raises:
            UserError: another process holds it.
            OSError: the file cannot be written.
        """
        self._path, self._seconds = path, _seconds()
        self._owner = f"{socket.gethostname()}, process {os.getpid()}, {secrets.token_hex(4)}"
        self._closed, self._lost = threading.Event(), False
        self._writing = threading.Lock()
        self._generation = 0  # of a file that does not exist
        replaced = 0
        while not self._write():
            self._wait_for_holder()
            replaced = self._generation
        if replaced:
            logging.warning("%s: its holder is silent and counts as dead; this process takes over", path)
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises a UserError if the lease is lost; asks the server nothing."""
        if self._lost or time.monotonic() - self._written > self._seconds:
            raise UserError(
                f"{self._path.parent} was taken over by another process, since the server of the bucket has not heard "
                f"from this one for {self._seconds} s, or its {self._path.name} was deleted: nothing more is written"
            )

    def renew(self) -> None:
        """Writes now. After it, nobody else holds the lease for most of its time.

        Raises:
            UserError: the lease is lost, or the server cannot be reached.
        """
        try:
            self._write_or_lose()
        except OSError as error:
            raise UserError(
                f"{self._path} could not be renewed ({error.strerror}): run the same command again when the bucket can "
                "be written; finished files are kept"
            ) from None
        self.check()

    def close(self) -> None:
        """Gives the lease back."""
        self._closed.set()
        self._thread.join()
        if not self._lost:
            with contextlib.suppress(OSError), errors_of(self._path):
                self._path.blob().delete(if_generation_match=self._generation)

    def _write(self) -> bool:
        """Writes the file if it is still the one that this process has seen last; returns whether it was."""
        while True:
            found, begun = self._path.blob(), time.monotonic()
            try:
                with errors_of(self._path):
                    found.upload_from_string(json.dumps({"holder": self._owner}), if_generation_match=self._generation)
            except FileExistsError:
                # The answer to an earlier attempt may have been lost on its way; its time is not known.
                seen = self._look()
                if seen is None or holder_of(self._path, seen) != self._owner:
                    return False
                self._generation = seen.generation
            else:
                self._generation, self._written = found.generation, begun
                return True

    def _write_or_lose(self) -> None:
        with self._writing:
            if not self._lost and not self._write():
                self._lost = True

    def _beat(self) -> None:
        while not self._closed.wait(self._seconds / BEATS):
            try:
                self._write_or_lose()
            except (OSError, UserError) as error:
                logging.warning("%s could not be renewed: %s", self._path, error)
            if self._lost:
                return

    def _wait_for_holder(self) -> None:
        """Returns when the lease may be taken: it is free, or its holder has been silent for its time.

        Raises:
            UserError: its holder is at work.
        """
        seen = self._look()
        if seen is None:
            return
        generation, age = seen.generation, self._server_time() - seen.updated.timestamp()
        silent_until = time.monotonic() + self._seconds - age
        if age < self._seconds:
            holder = holder_of(self._path, seen)
            logging.info("%s is held by %s: waiting to see whether it is at work", self._path, holder)
        while time.monotonic() < silent_until:
            time.sleep(min(1.0, self._seconds / BEATS))
            seen = self._look()
            if seen is None:
                return
            if seen.generation != generation:
                holder = holder_of(self._path, seen)
                raise UserError(
                    f"{self._path.parent} is in use by another process ({holder}); wait for it to end, or choose "
                    "another folder"
                )
        self._generation = generation

    def _look(self) -> Any | None:
        """What the server says of the file; None, and then this process may create it, if there is none."""
        found = self._path.blob()
        try:
            with errors_of(self._path):
                found.reload()
        except FileNotFoundError:
            self._generation = 0
            return None
        return found

    def _server_time(self) -> float:
        """The time of the server's clock, as of a file written now: clocks of other machines may be wrong."""
        probe = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}.tmp")
        found = probe.blob()
        with errors_of(probe):
            found.upload_from_string(b"")
            found.delete()
        return found.updated.timestamp()


def holder_of(path: BucketPath, seen: Any) -> str:
    """Who wrote the file of a lease; empty if it is gone, or none of ours.

    Args:
        path: the file.
        seen: what the server says of it; a newer one is not read.

    Raises:
        OSError: it cannot be read.
    """
    if seen.size > MOST_BYTES:
        return ""
    try:
        with errors_of(path):
            content = json.loads(path.blob(generation=seen.generation).download_as_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return ""
    holder = content.get("holder") if isinstance(content, dict) else None
    return holder if isinstance(holder, str) and holder.isprintable() else ""


def _seconds() -> float:
    text = os.environ.get(SECONDS, str(DEFAULT_SECONDS))
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"{SECONDS}={text} must be a whole number of seconds, at least 1")
    return int(text)
