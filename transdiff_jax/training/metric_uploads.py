"""Metrics of a run in a bucket: written on this machine, where files can grow, and uploaded as whole files."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from absl import logging

from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.storage.files import write_errors

UPLOAD_SECONDS = 30


class MetricUploads:
    """A folder on this machine whose files are copied to a run's folder in a bucket."""

    def __init__(self, workdir: BucketPath, continued: str, check: Callable[[], None]) -> None:
        """Makes the folder.

        Args:
            workdir: the run's folder.
            continued: the name of the file that a resumed run continues.
            check: called before an upload; raises a UserError if the run is another job's by now.

        Raises:
            OSError: that file cannot be read.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="transdiff_metrics_"))
        self._workdir, self._check = workdir, check
        self._uploaded: dict[str, int] = {}  # sizes by name
        self._next = time.monotonic() + UPLOAD_SECONDS
        try:
            data = (workdir / continued).read_bytes()
        except FileNotFoundError:
            return
        (self.folder / continued).write_bytes(data)
        self._uploaded[continued] = len(data)

    def due(self) -> bool:
        """Whether it is time to upload."""
        return time.monotonic() >= self._next

    def upload(self, *, last: bool = False) -> None:
        """Uploads the files that have grown. All of it is in them: their writers have flushed.

        Args:
            last: whether nothing follows; until then, a failure is a warning and the next call tries again.

        Raises:
            UserError: the last upload failed, or the run is another job's by now.
        """
        self._next = time.monotonic() + UPLOAD_SECONDS
        self._check()
        try:
            with write_errors(self._workdir):
                self._upload()
        except Exception as error:
            if last:
                raise
            logging.warning("metrics are not uploaded yet: %s", error)
        if last:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _upload(self) -> None:
        for path in sorted(self.folder.iterdir()):
            size = path.stat().st_size
            if self._uploaded.get(path.name) != size:
                self._workdir.joinpath(path.name).upload(path)
                self._uploaded[path.name] = size
