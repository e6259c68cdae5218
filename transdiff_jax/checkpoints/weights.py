"""Reads a trained run: one set of its weights, or its record. Changes nothing there."""

import dataclasses
from pathlib import Path
from typing import Literal

from jax.sharding import Mesh

from transdiff_jax.checkpoints.items import PARAMS, average, check_shapes, read_params
from transdiff_jax.checkpoints.reading import Step, read_step
from transdiff_jax.checkpoints.record import FOLDER, RunRecord
from transdiff_jax.config import Config
from transdiff_jax.config.schema import TrainConfig
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import Params, abstract_params
from transdiff_jax.parallel.memory import check_devices, held_bytes


@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters of a trained model, for sampling or fine-tuning."""

    config: Config
    params: Params
    name: str  # "raw", or "ema" and the rate
    step: int
    digest: str  # SHA-256 of the checkpoint's manifest, which identifies the exact files
    class_names: tuple[str, ...] = ()  # of all classes; empty if unknown


def load_weights(
    workdir: Path,
    mesh: Mesh,
    *,
    kind: Literal["ema", "raw"] = "ema",
    ema_rate: float | None = None,
    step: int | None = None,
) -> Weights:
    """Reads one set of weights from a run's checkpoint; changes nothing there.

    Args:
        workdir: the folder of the run.
        mesh: devices to place the weights on.
        kind: an average, or the raw parameters.
        ema_rate: which average; None for the run's first.
        step: of the checkpoint; None for the newest intact one.

    Raises:
        UserError: `workdir` is missing, holds no intact checkpoint, or has no such average.
    """
    reader = _ParamsReader(workdir, mesh, kind, ema_rate)
    found, params = read_step(existing_folder(workdir), step, reader.items, reader.fits, reader.read)
    record = found.record
    name = reader.name(record.config.train)
    return Weights(record.config, params, name, found.number, found.manifest.sha256, record.class_names)


def load_raw_and_average(workdir: Path, mesh: Mesh) -> tuple[Weights, Weights]:
    """The parameters and the first average, both of the newest step in which both are intact.

    Raises:
        UserError: as in `load_weights`.
    """
    raw, average = (load_weights(workdir, mesh, kind=kind) for kind in ("raw", "ema"))
    if raw.step > average.step:
        raw = load_weights(workdir, mesh, kind="raw", step=average.step)
    elif raw.step < average.step:
        average = load_weights(workdir, mesh, kind="ema", step=raw.step)
    return raw, average


def latest_record(workdir: Path) -> RunRecord:
    """The record of a run's newest intact checkpoint; raises like `load_weights`, and reads no weights."""
    folder = existing_folder(workdir)
    step, _ = read_step(folder, None, lambda record: (), lambda step: None, lambda step: None)
    return step.record


@dataclasses.dataclass(frozen=True)
class _ParamsReader:
    """Reads one set of weights from a step, as `read_step` asks for it."""

    workdir: Path
    mesh: Mesh
    kind: Literal["ema", "raw"]
    ema_rate: float | None

    def name(self, train: TrainConfig) -> str:
        return "raw" if self.kind == "raw" else f"ema {train.ema_rates[self._index(train)]}"

    def items(self, record: RunRecord) -> tuple[str]:
        train = record.config.train
        return (PARAMS if self.kind == "raw" else average(self._index(train)),)

    def _index(self, train: TrainConfig) -> int:
        rates = train.ema_rates
        if self.ema_rate is not None and self.ema_rate not in rates:
            raise UserError(f"{self.workdir} has no average of rate {self.ema_rate}; choose one of the rates {rates}")
        return 0 if self.ema_rate is None else rates.index(self.ema_rate)

    def fits(self, step: Step) -> None:
        check_shapes(step.folder, *self.items(step.record), abstract_params(step.record.config.model, self.mesh))

    def read(self, step: Step) -> Params:
        config = step.record.config
        (item,) = self.items(step.record)
        abstract = abstract_params(config.model, self.mesh)
        needed = {"parameters": held_bytes(abstract)}
        check_devices(f"the model of {self.workdir}", needed, self.mesh, "split it over more devices (--mesh=1,-1,1)")
        return read_params(step.folder, item, abstract, len(config.train.ema_rates))


def existing_folder(workdir: Path) -> Path:
    """Where a run keeps its checkpoints.

    Raises:
        UserError: there is no such folder.
    """
    folder = workdir / FOLDER
    if not folder.is_dir():
        raise UserError(f"{workdir} holds no checkpoints: there is no folder {folder}; train first or name another run")
    return folder
