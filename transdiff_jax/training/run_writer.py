"""The destinations of a run's numbers and images: files in its folder or bucket, and services that it names."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import SupportsFloat

from transdiff_jax.config import Config
from transdiff_jax.parallel.processes import is_first
from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.storage.files import write_errors
from transdiff_jax.training.metric_uploads import MetricUploads
from transdiff_jax.training.metric_writers import METRICS_FILE, JsonLinesWriter, TensorBoardWriter, metric_writers
from transdiff_jax.training.wandb_writer import WandbWriter


def make_writer(config: Config, workdir: Path, check: Callable[[], None] = lambda: None) -> metric_writers.MetricWriter:
    """All destinations of a run in the first process, none in the others.

    Its methods raise a UserError if a file cannot be written. `flush` leaves everything in the workdir, also in one in
    a bucket, which otherwise gets it every 30 seconds.

    Args:
        config: of the run; `train.loggers` names the destinations beside metrics.jsonl.
        workdir: of the run.
        check: called before anything is written to a bucket; raises a UserError if the run is another job's by now.

    Raises:
        UserError: a file cannot be written, or a service refuses.
    """
    if not is_first():
        return metric_writers.MultiWriter([])
    if not isinstance(workdir, BucketPath):
        return metric_writers.MultiWriter(_destinations(config, workdir, workdir))
    with write_errors(workdir):
        uploads = MetricUploads(workdir, METRICS_FILE, check)
    return _UploadedWriter(_destinations(config, workdir, uploads.folder), uploads)


def _destinations(config: Config, workdir: Path, folder: Path) -> list[metric_writers.MetricWriter]:
    writers: list[metric_writers.MetricWriter] = [JsonLinesWriter(folder / METRICS_FILE)]
    if "tensorboard" in config.train.loggers:
        writers.append(TensorBoardWriter(folder))
    if "wandb" in config.train.loggers:
        writers.append(WandbWriter(config, workdir))
    return writers


class _UploadedWriter(metric_writers.MultiWriter):
    """All destinations of a run in a bucket."""

    def __init__(self, writers: Sequence[metric_writers.MetricWriter], uploads: MetricUploads) -> None:
        super().__init__(writers)
        self._uploads = uploads

    def write_scalars(self, step: int, scalars: Mapping[str, SupportsFloat]) -> None:
        super().write_scalars(step, scalars)
        if self._uploads.due():
            self.flush()

    def flush(self) -> None:
        super().flush()
        self._uploads.upload()

    def close(self) -> None:
        super().close()
        self._uploads.upload(last=True)
