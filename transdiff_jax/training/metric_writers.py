"""Where numbers and pictures of a run go: the console, metrics.jsonl and TensorBoard, behind clu's interface."""

import importlib
import json
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from transdiff_jax.parallel.processes import is_first


def _load_clu_writers() -> types.ModuleType:
    """`clu.metric_writers` without its event writer, for which clu imports TensorFlow.

    That module's place is held by an empty one while clu loads. Afterwards clu is as if it had not been loaded: a host
    program that imports it gets it whole.
    """
    before = set(sys.modules)
    stub = types.ModuleType("clu.metric_writers.summary_writer")
    stub.SummaryWriter = None
    sys.modules.setdefault(stub.__name__, stub)
    writers = importlib.import_module("clu.metric_writers")
    for name in {name for name in sys.modules if name.partition(".")[0] == "clu"} - before:
        del sys.modules[name]
    return writers


metric_writers = _load_clu_writers()

METRICS_FILE = "metrics.jsonl"


class _ScalarAndImageWriter(metric_writers.MetricWriter):
    """A writer for the two kinds of summaries that this package makes; the other kinds raise."""

    def _unsupported(self, kind: str) -> None:
        raise TypeError(f"{type(self).__name__} does not write {kind}")

    def write_summaries(self, step: int, values: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
        self._unsupported("summaries")

    def write_videos(self, step: int, videos: Mapping[str, Any]) -> None:
        self._unsupported("videos")

    def write_audios(self, step: int, audios: Mapping[str, Any], *, sample_rate: int) -> None:
        self._unsupported("audios")

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        self._unsupported("texts")

    def write_histograms(self, step: int, arrays: Mapping[str, Any], num_buckets: Any = None) -> None:
        self._unsupported("histograms")

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        self._unsupported("hyperparameters")


class TensorBoardWriter(_ScalarAndImageWriter):
    """Event files for TensorBoard, without TensorFlow."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter  # it loads PyTorch where there is one, which takes seconds

        self._events = SummaryWriter(str(folder), flush_secs=10)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        for name, value in scalars.items():
            self._events.add_scalar(name, float(value), step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Each uint8 [height, width, 1 or 3]."""
        for name, image in images.items():
            self._events.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class JsonLinesWriter(_ScalarAndImageWriter):
    """One JSON object a line: {"step": …, metric: value, …}; pictures are left to the event file."""

    def __init__(self, path: Path) -> None:
        cut_off = path.exists() and not path.read_bytes().endswith(b"\n")
        self._file = path.open("a")
        if cut_off:
            self._file.write("\n")

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        values = {name: float(value) for name, value in scalars.items()}
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        pass

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def make_writer(workdir: Path) -> metric_writers.MetricWriter:
    """All destinations of one run, none in processes but the first; writing happens in a background thread."""
    writers = [TensorBoardWriter(workdir), JsonLinesWriter(workdir / METRICS_FILE)] if is_first() else []
    return metric_writers.AsyncMultiWriter(writers)


def read_metrics(path: Path, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric of a metrics.jsonl.

    A resumed run writes the steps after its checkpoint again: the last line of a step counts. (Its first values may be
    means over fewer steps, where the checkpoint lay between two logs.) A line cut off by a kill is passed over.
    """
    values: dict[int, float] = {}
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if name in entry:
            values[entry["step"]] = entry[name]
    steps = sorted(values)
    return steps, [values[step] for step in steps]
