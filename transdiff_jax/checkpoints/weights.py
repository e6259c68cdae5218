"""Reads a trained run: one set of its weights, or its record. Changes nothing there."""

import dataclasses
from pathlib import Path
from typing import Literal

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from transdiff_jax.checkpoints import steps
from transdiff_jax.checkpoints.record import FOLDER, RUN, STATE, RunRecord, read_record
from transdiff_jax.config import Config
from transdiff_jax.config.schema import TrainConfig
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import Params, abstract_params
from transdiff_jax.storage.checksums import MANIFEST, sha256


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
    folder = _existing_folder(workdir)
    step = steps.agreed(lambda: steps.to_read(folder, step))
    with _reader(folder) as manager:
        record = read_record(manager, step)
        config = record.config
        abstract = abstract_params(config.model, mesh)
        if kind == "raw":
            name, index, wanted = "raw", None, {"params": abstract}
        else:
            index = _ema_index(config.train, ema_rate, workdir)
            name = f"ema {config.train.ema_rates[index]}"
            # Placeholders stand for the averages that are not read.
            unread = jax.tree.map(lambda _: ocp.PLACEHOLDER, abstract)
            wanted = {"ema": tuple(abstract if i == index else unread for i in range(len(config.train.ema_rates)))}
        restore = ocp.args.PyTreeRestore(
            wanted, partial_restore=True, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted)
        )
        state = manager.restore(step, args=ocp.args.Composite(**{STATE: restore}))[STATE]
    params = state["params"] if index is None else state["ema"][index]
    return Weights(config, params, name, step, sha256(folder / str(step) / MANIFEST), record.class_names)


def latest_record(workdir: Path) -> RunRecord:
    """The record of a run's newest intact checkpoint; raises like `load_weights`."""
    folder = _existing_folder(workdir)
    with _reader(folder) as manager:
        return read_record(manager, steps.agreed(lambda: steps.to_read(folder)))


def _reader(folder: Path) -> ocp.CheckpointManager:
    """A manager that reads parts of a checkpoint and changes nothing."""
    handlers = {STATE: ocp.PyTreeCheckpointHandler(), RUN: ocp.JsonCheckpointHandler()}
    options = ocp.CheckpointManagerOptions(read_only=True)
    return ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handlers)


def _existing_folder(workdir: Path) -> Path:
    folder = workdir / FOLDER
    if not folder.is_dir():
        raise UserError(f"{workdir} holds no checkpoints: there is no folder {folder}; train first or name another run")
    return folder


def _ema_index(train: TrainConfig, rate: float | None, workdir: Path) -> int:
    rates = train.ema_rates
    if rate is not None and rate not in rates:
        raise UserError(f"{workdir} has no average of rate {rate}; choose one of the rates {rates}")
    return 0 if rate is None else rates.index(rate)
