"""The right of one job to write latents into a folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from transdiff_jax.data.latents.format import LABELS
from transdiff_jax.errors import UserError
from transdiff_jax.storage.files import check_lock, lock, remove_temporaries
from transdiff_jax.storage.leases import Lease

PROGRESS, LOCK = "progress", ".lock"


class Claim:
    """The claim on a folder, which one process of the job takes for all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: IO[str] | Lease | None = None

    def take(self) -> None:
        """Makes the folder if need be, and holds it until `close`.

        Raises:
            UserError: the folder cannot be used, is in use, or holds something else.
        """
        with out_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._check_is_ours()
            self._lock = lock(self._folder / LOCK)
            for folder in (self._folder, self._folder / PROGRESS):
                remove_temporaries(folder)

    def check(self) -> None:
        """Raises a UserError if this process took the claim and lost it, as a bucket allows; makes no request."""
        check_lock(self._lock)

    def close(self) -> None:
        """Releases the folder to other jobs."""
        if self._lock is not None:
            self._lock.close()

    def _check_is_ours(self) -> None:
        others = sorted(path.name for path in self._folder.iterdir() if not path.name.startswith("."))
        if others and not {PROGRESS, LABELS} & set(others):
            raise UserError(f"out={self._folder} holds other files ({others[0]}, …); choose an empty folder")


@contextlib.contextmanager
def out_errors(folder: Path) -> Iterator[None]:
    """Turns an error of the file system into one line; raises a UserError if the block raised an OSError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"out={folder} cannot be used: {error}") from None
