"""The training loop: restore or start, step, watch, log, save; safe to kill at any moment.

Invariant: a checkpoint of step n holds the state after n batches and a data iterator that has returned n batches, so a
resumed run computes what an undisturbed run would have computed.
"""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from clu import parameter_overview
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from transdiff_jax.checkpoints.record import RunRecord
from transdiff_jax.checkpoints.store import CheckpointStore
from transdiff_jax.config import Config, as_config
from transdiff_jax.data.pipeline import TrainingData, with_classes_of_data
from transdiff_jax.data.shares import shares_of
from transdiff_jax.errors import UserError
from transdiff_jax.images.grids import grid
from transdiff_jax.model.params import Params
from transdiff_jax.parallel.arrays import to_global
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.parallel.profiling import Profile, Profiler
from transdiff_jax.parallel.progress import Progress
from transdiff_jax.parallel.shared_folders import check_shared
from transdiff_jax.sampling.sampler import Sampler, make_sampler
from transdiff_jax.storage.paths import location
from transdiff_jax.training.ema import relative_distance
from transdiff_jax.training.finite_watch import FiniteWatch
from transdiff_jax.training.objective import TIMESTEP_BUCKETS, Metrics
from transdiff_jax.training.run_writer import make_writer
from transdiff_jax.training.same_run import tokenizer_digest
from transdiff_jax.training.start import check_start, start
from transdiff_jax.training.state import TrainState
from transdiff_jax.training.step import make_train_step
from transdiff_jax.training.stop import StopRequest
from transdiff_jax.training.task import Grid, MakeTask, Task
from transdiff_jax.training.training_scores import TrainingScores

GRID_COLUMNS = 8
# Metrics of a step that are no means over the batch.
_NOT_MEANS = {"bucket_loss", "bucket_count", "finite", "learning_rate", "skipped", "skipped_in_a_row"}


def train(
    config: Config | Mapping[str, Any] | ConfigDict | str | Path, workdir: str | Path, profile: Profile | None = None
) -> None:
    """Trains to `config.train.steps`, resuming from `workdir` if it holds a checkpoint.

    Leaves checkpoints, metrics.jsonl and TensorBoard events in `workdir`.

    Args:
        config: a configuration, its fields as a `ConfigDict` or as nested dictionaries, or a config file.
        workdir: folder of the run.
        profile: which steps to trace, counted from the first step of this call; None: none.

    Raises:
        UserError: the configuration, the data and the checkpoints do not fit each other, a save failed, or too many
            steps in a row were not finite.
    """
    config = as_config(config)
    if config.distillation.objective != "none":
        raise UserError(
            f'config.distillation.objective="{config.distillation.objective}" makes a few-step student: use '
            "transdiff distill, or transdiff_jax.distill"
        )
    run(config, workdir, lambda config, mesh, teacher: Task(), profile)


def run(config: Config, workdir: str | Path, make_task: MakeTask, profile: Profile | None = None) -> None:
    """Like `train`, for any objective.

    Args:
        config: of the run.
        workdir: folder of the run.
        make_task: what it trains; called when the checkpoint to resume from is known.
        profile: as for `train`.

    Raises:
        UserError: as in `train`, or what `make_task` raises.
    """
    workdir = location(workdir, "workdir")
    config = with_classes_of_data(config)
    mesh = make_mesh(config.mesh)
    check_start(config, mesh)
    check_shared(workdir, "workdir")
    with contextlib.ExitStack() as stack:
        stop = StopRequest()
        stack.callback(stop.restore)
        store = stack.enter_context(
            CheckpointStore(workdir, keep_last=config.train.keep_last, keep_every=config.train.keep_every)
        )
        data = TrainingData(config, workdir, shares_of(mesh))
        stack.callback(data.close)
        task, state, seconds = start(config, mesh, store, data, make_task)
        first, last = int(state.step), config.train.steps
        if first >= last:
            logging.info("already trained to step %d (config.train.steps=%d): nothing to do", first, last)
        else:
            _Run(config, task, workdir, mesh, store, data, stop, seconds).train(state, profile)


class _Run:
    """One call of `train`, from its first step to its last."""

    def __init__(
        self,
        config: Config,
        task: Task,
        workdir: Path,
        mesh: Mesh,
        store: CheckpointStore,
        data: TrainingData,
        stop: StopRequest,
        seconds: float,
    ) -> None:
        self.config, self.task, self.mesh, self.store, self.data, self.stop = config, task, mesh, store, data, stop
        self.seconds_before, self.started = seconds, time.monotonic()
        self.writer = make_writer(config, workdir, store.check_lock)
        self.tokenizer = tokenizer_digest(config)
        self.watch = FiniteWatch(config.train.max_nonfinite_steps)
        self.metrics: list[Metrics] = []  # of the steps since the last log
        self.ema_distance = jax.jit(relative_distance)
        self.scores = TrainingScores(config, mesh, workdir) if config.eval.every else None
        samples = config.train.sample_every or config.eval.every
        self.sampler = make_sampler(config, mesh) if samples else None  # shared by grids and scores: it compiles once

    def train(self, state: TrainState, profile: Profile | None) -> None:
        first, last = int(state.step), self.config.train.steps
        logging.info("training from step %d to %d on mesh %s", first, last, dict(self.mesh.shape))
        logging.info("parameters:\n%s", parameter_overview.get_parameter_overview(state.params, include_stats=False))
        train_step = make_train_step(self.config, self.mesh, self.task.objective, self.task.frozen)
        profiler = Profiler(profile, "steps", last - first)
        progress = Progress("trained", "steps", last - first)
        with contextlib.closing(self.writer), profiler:
            step = first
            while step < last and not self.stop.reached():
                step += 1
                self.store.check_lock()
                batch = next(self.data)
                indices = batch.pop("index")
                state, metrics = train_step(state, to_global(batch, self.mesh))
                del batch  # so that the host does not keep it beside the next one
                if step == first + 1:
                    jax.block_until_ready(metrics)  # all processes have compiled
                    self.stop.begin()
                self.watch.add(step, metrics, indices)
                self.metrics.append(metrics)
                progress.add()
                profiler.step(metrics)
                self._after_step(step, state)
            self._save(step, state)
            self.store.wait()
        if step == last:
            logging.info("trained to step %d in %.0f s", last, self._seconds())
        else:
            logging.info("stopped by %s: saved step %d; the same command resumes", self.stop.cause, step)

    def _after_step(self, step: int, state: TrainState) -> None:
        c = self.config.train
        if step % c.log_every == 0 or step == c.steps:
            self._log(step, state)
        if self.sampler is not None and c.sample_every and step % c.sample_every == 0:
            for name, grid in {"samples": Grid(self.sampler, None), **self.task.grids}.items():
                self._log_samples(step, name, grid.sampler, state.ema[0] if grid.params is None else grid.params)
        if step % c.checkpoint_every == 0 and step < c.steps:
            self._save(step, state)
        # After the save, because scoring is slow.
        if self.sampler is not None and self.scores is not None and step % self.config.eval.every == 0:
            self.writer.write_scalars(step, self.scores(step, state.ema[0], self.sampler, self.stop.reached))

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def _save(self, step: int, state: TrainState) -> None:
        self.watch.finish()  # it lags behind, and a run that must stop does not save first
        self.writer.flush()  # the numbers of a step that a kill leaves are there, too
        names, teacher = self.data.class_names, self.task.teacher
        record = RunRecord(self.config, self.data.get_state(), self._seconds(), names, self.tokenizer, teacher)
        self.store.save(step, state, record)

    def _log(self, step: int, state: TrainState) -> None:
        """Logs means over the steps since the last log; a timestep bucket's loss is the mean over its own pairs."""
        history, self.metrics = jax.device_get(self.metrics), []
        finite = [entry for entry in history if entry["finite"]]
        scalars = {"learning_rate": history[-1]["learning_rate"], "skipped_steps": history[-1]["skipped"]}
        if finite:
            for name in finite[0].keys() - _NOT_MEANS:
                scalars[name] = np.mean([entry[name] for entry in finite])
            totals = np.sum([entry["bucket_loss"] for entry in finite], axis=0)
            counts = np.sum([entry["bucket_count"] for entry in finite], axis=0)
            for bucket in np.flatnonzero(counts):
                low, high = bucket / TIMESTEP_BUCKETS, (bucket + 1) / TIMESTEP_BUCKETS
                scalars[f"loss_by_time/{low:.2f}-{high:.2f}"] = totals[bucket] / counts[bucket]
            logging.info("step %d: loss %.4f, gradient norm %.3f", step, scalars["loss"], scalars["gradient_norm"])
        for rate, average in zip(self.config.train.ema_rates, state.ema, strict=True):
            scalars[f"ema_distance/{rate}"] = self.ema_distance(average, state.params)
        self.writer.write_scalars(step, {name: float(value) for name, value in scalars.items()})

    def _log_samples(self, step: int, name: str, sampler: Sampler, params: Params) -> None:
        """Logs a grid of samples, one row for each of the first classes."""
        count = self.config.sampling.batch_size
        columns = min(GRID_COLUMNS, count)
        rows = min(self.config.model.num_classes, count // columns)
        labels = np.minimum(np.arange(count) // columns, rows - 1)
        samples = sampler(params, labels, self.config.seed, np.arange(count))
        images = multihost_utils.process_allgather(samples.images, tiled=True)
        picture = grid(images[: rows * columns, -1], rows, scale=max(1, 32 // self.config.data.image_size))
        self.writer.write_images(step, {name: picture})
