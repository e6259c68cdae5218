"""Writers of a run's numbers and images, to metrics.jsonl and TensorBoard, with clu's interface."""

import importlib
import json
import sys
import time
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import SupportsFloat

import numpy as np
from jaxtyping import UInt8

from transdiff_jax.errors import UserError
from transdiff_jax.storage.files import write_errors
from transdiff_jax.storage.json_files import JsonError, is_number, parse_json, read_bytes, unreadable


class _NoSummaryWriter(types.ModuleType):
    """Stands in for the module of clu's event writer."""

    SummaryWriter = None


def _load_clu_writers() -> types.ModuleType:
    """`clu.metric_writers` without its event writer, for which clu imports TensorFlow.

    A stub stands in for the event writer's module while clu loads. Afterwards clu counts as not loaded, so that a host
    program that imports it gets all of it.
    """
    before = set(sys.modules)
    stub = _NoSummaryWriter("clu.metric_writers.summary_writer")
    sys.modules.setdefault(stub.__name__, stub)
    writers = importlib.import_module("clu.metric_writers")
    for name in {name for name in sys.modules if name.partition(".")[0] == "clu"} - before:
        del sys.modules[name]
    return writers


metric_writers = _load_clu_writers()

METRICS_FILE = "metrics.jsonl"
MOST_BYTES = 2**30  # of such a file; a longer one would fill the memory
FLUSH_SECONDS = 10  # between two moments at which the event file is on disk for certain


class ScalarAndImageWriter(metric_writers.MetricWriter):
    """A writer of scalars and images, the two kinds that this package uses; the other kinds raise a TypeError."""

    def _unsupported(self, kind: str) -> None:
        raise TypeError(f"{type(self).__name__} does not write {kind}")

    def write_summaries(
        self, step: int, values: Mapping[str, object], metadata: Mapping[str, object] | None = None
    ) -> None:
        self._unsupported("summaries")

    def write_videos(self, step: int, videos: Mapping[str, object]) -> None:
        self._unsupported("videos")

    def write_audios(self, step: int, audios: Mapping[str, object], *, sample_rate: int) -> None:
        self._unsupported("audios")

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        self._unsupported("texts")

    def write_histograms(
        self, step: int, arrays: Mapping[str, object], num_buckets: Mapping[str, int] | None = None
    ) -> None:
        self._unsupported("histograms")

    def write_hparams(self, hparams: Mapping[str, object]) -> None:
        self._unsupported("hyperparameters")


class TensorBoardWriter(ScalarAndImageWriter):
    """Event files for TensorBoard, without TensorFlow.

    It writes in the caller's thread. The thread of tensorboardX's own writer dies of a full disk, and its caller then
    waits for it forever.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX import event_file_writer, summary  # they load PyTorch if installed, which takes seconds

        self._folder, self._make = folder, summary
        self._event = importlib.import_module("tensorboardX.proto.event_pb2").Event  # protobuf makes it at run time
        with write_errors(folder):
            self._events = event_file_writer.EventsWriter(str(folder / "events"))
        self._next_flush = time.monotonic()

    def write_scalars(self, step: int, scalars: Mapping[str, SupportsFloat]) -> None:
        for name, value in scalars.items():
            self._write(step, self._make.scalar(name, float(value)))

    def write_images(self, step: int, images: Mapping[str, UInt8[np.ndarray, "height width channels"]]) -> None:
        """Writes images with 1 or 3 channels."""
        for name, image in images.items():
            self._write(step, self._make.image(name, image, dataformats="HWC"))

    def _write(self, step: int, summary: object) -> None:
        with write_errors(self._folder):
            self._events.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() >= self._next_flush:
            self.flush()

    def flush(self) -> None:
        self._next_flush = time.monotonic() + FLUSH_SECONDS
        with write_errors(self._folder):
            self._events.flush()

    def close(self) -> None:
        with write_errors(self._folder):
            self._events.close()


class JsonLinesWriter(ScalarAndImageWriter):
    """One JSON object per line: {"step": …, metric: value, …}; it skips images, which the event file holds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with write_errors(path):
            if path.exists() and not path.is_file():
                raise UserError(f"{path} is not a file: move it away")
            cut_off = path.exists() and not _ends_a_line(path)
            self._file = path.open("a")
            if cut_off:
                self._file.write("\n")

    def write_scalars(self, step: int, scalars: Mapping[str, SupportsFloat]) -> None:
        values = {name: float(value) for name, value in scalars.items()}
        with write_errors(self._path):
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()

    def write_images(self, step: int, images: Mapping[str, UInt8[np.ndarray, "height width channels"]]) -> None:
        pass

    def flush(self) -> None:
        with write_errors(self._path):
            self._file.flush()

    def close(self) -> None:
        with write_errors(self._path):
            self._file.close()


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1))
        return file.read() in (b"", b"\n")


def read_metrics(path: Path, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric of a metrics.jsonl.

    A resumed run writes the steps after its checkpoint again, so the last line of a step counts. If the checkpoint lay
    between two logs, its first values are means over fewer steps.

    Raises:
        UserError: the file cannot be read.
    """
    values: dict[int, float] = {}
    for step, entry in _entries(path):
        if name in entry:
            values[step] = entry[name]
    steps = sorted(values)
    return steps, [values[step] for step in steps]


def last_metrics(path: Path) -> dict[str, tuple[int, float]]:
    """The step and the value of each metric where a metrics.jsonl last holds it; raises like `read_metrics`."""
    return {name: (step, value) for step, entry in _entries(path) for name, value in entry.items()}


def _entries(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """The step and the numbers of each line. A damaged line, such as a kill leaves, is skipped."""
    try:
        lines = read_bytes(path, MOST_BYTES).splitlines()
    except OSError as error:
        raise unreadable(path, error) from None
    except JsonError as error:
        raise UserError(f"{path} {error}: name the folder of a run") from None
    for line in lines:
        try:
            entry = parse_json(line)
        except JsonError:
            continue
        step = entry.pop("step", None) if isinstance(entry, dict) else None
        if isinstance(entry, dict) and type(step) is int:
            yield step, {name: value for name, value in entry.items() if is_number(value)}
