"""Trains a few-step student: a run like any other, whose objective reads a frozen teacher."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float
from ml_collections import ConfigDict

from transdiff_jax.checkpoints.record import TeacherRecord
from transdiff_jax.checkpoints.weights import Weights, load_weights
from transdiff_jax.config import Config, ModelConfig, SamplingConfig
from transdiff_jax.config.build import as_config
from transdiff_jax.distillation.student import Distillation, Frozen
from transdiff_jax.distillation.teacher import PATH_TIMES, Teacher
from transdiff_jax.errors import UserError
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import replicated
from transdiff_jax.parallel.profiling import Profile
from transdiff_jax.sampling.sampler import make_sampler
from transdiff_jax.storage.paths import location
from transdiff_jax.training.loop import run
from transdiff_jax.training.task import Grid, Task

GRID_PASSES = (1, 2, 4)


def distill(
    config: Config | Mapping[str, Any] | ConfigDict | str | Path, workdir: str | Path, profile: Profile | None = None
) -> None:
    """Trains a student of the run in `config.train.init_from`, resuming from `workdir` if it holds a checkpoint.

    Args:
        config: as for `training.train`, with an objective in the section `distillation`.
        workdir: folder of the student's run.
        profile: as for `training.train`.

    Raises:
        UserError: as in `training.train`, or the teacher does not fit the student.
    """
    config = as_config(config)
    if config.distillation.objective == "none":
        raise UserError(
            'config.distillation.objective="none" makes no student: choose shortcut, trajectory or guidance, or use '
            "transdiff train"
        )
    run(config, workdir, make_task, profile)


def make_task(config: Config, mesh: Mesh, known: TeacherRecord | None) -> Task:
    """What a student trains: its objective, with the teacher's weights on the mesh.

    Args:
        config: of the student.
        mesh: the devices.
        known: the teacher of the student's checkpoint, which must be the same; None for a new run.

    Raises:
        UserError: the teacher cannot be read, is another one, or does not fit the student.
    """
    origin = location(config.train.init_from, "config.train.init_from")
    weights = load_weights(origin, mesh, kind=config.train.init_weights, step=None if known is None else known.step)
    found = TeacherRecord(weights.step, weights.name, weights.digest)
    if known is not None and found != known:
        raise UserError(
            f"config.train.init_from={origin} holds another teacher: this student learned from {known.weights} of step "
            f"{known.step} with digest {known.digest[:12]}, not {found.weights} with digest {found.digest[:12]}"
        )
    _check_fit(config, weights)
    teacher = teacher_of(config, weights.config.model, weights.config.sampling)
    logging.info("the teacher is step %d of %s (%s)", weights.step, origin, weights.name)
    frozen = Frozen(weights.params["decoder"], _class_features(teacher, weights, mesh))
    grids = _grids(config, weights, mesh) if config.train.sample_every else {}
    # A copy, because the training state takes over the memory of the parameters that it starts from.
    start = dataclasses.replace(weights, params=jax.tree.map(jnp.copy, weights.params))
    return Task(Distillation(config, teacher), frozen, start, found, grids)


def teacher_of(student: Config, model: ModelConfig, sampling: SamplingConfig) -> Teacher:
    """A teacher of this model and these settings, which computes as its student does and follows an ODE."""
    computing = {name: getattr(student.model, name) for name in ("dtype", "attention", "remat")}
    network = TransDiff(dataclasses.replace(model, **computing, dropout=0.0))
    return Teacher(network, _ode(sampling, student.distillation.guidance))


def _check_fit(config: Config, weights: Weights) -> None:
    """Raises a UserError unless the student has the teacher's networks and asks for weights that the teacher knows."""
    ours, theirs = config.model, weights.config.model
    free = {"dtype", "attention", "remat", "dropout", "attention_dropout", "label_dropout", "flow_map"}
    for field in dataclasses.fields(ModelConfig):
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        if field.name not in free and mine != other:
            raise UserError(
                f"config.model.{field.name}={mine} must be {other}, as of the teacher in {config.train.init_from}"
            )
    if not theirs.flow_map:
        return
    learned, wanted = weights.config.distillation, config.distillation.guidance
    if learned.objective == "trajectory":
        raise UserError(
            f"{config.train.init_from} is a student of paths, which knows no velocities: it cannot teach; name its own "
            "teacher"
        )
    if not learned.guidance[0] <= min(wanted) <= max(wanted) <= learned.guidance[-1]:
        raise UserError(
            f"config.distillation.guidance={wanted} must lie in {learned.guidance}, the weights that the teacher in "
            f"{config.train.init_from} learned"
        )


def _ode(sampling: SamplingConfig, guidance: tuple[float, ...]) -> SamplingConfig:
    """The teacher's settings for earlier images: without noise on the way, at the middle of the student's weights."""
    weight = (guidance[0] + guidance[-1]) / 2
    if sampling.solver != "euler_maruyama":
        return dataclasses.replace(sampling, guidance=(weight,))
    steps = len(PATH_TIMES) - 1
    return dataclasses.replace(sampling, solver="dpmpp_2m", steps=steps, steps_by_image=(), guidance=(weight,))


def _class_features(
    teacher: Teacher, weights: Weights, mesh: Mesh
) -> Float[Array, "classes semantic_tokens width"] | None:
    """The semantic features of all classes, on every device; None if they depend on earlier images too."""
    if weights.config.model.num_images > 1:
        return None

    def encode(params: dict[str, Any]) -> Float[Array, "classes semantic_tokens width"]:
        with axes.over(mesh):
            return teacher.class_features(params)

    return jax.jit(encode, out_shardings=replicated(mesh))({"encoder": weights.params["encoder"]})


def _grids(config: Config, weights: Weights, mesh: Mesh) -> dict[str, Grid]:
    """Samples of one, two and four passes, and of the teacher with the same noise."""
    sampling = dataclasses.replace(config.sampling, steps_by_image=())
    passes = functools.partial(dataclasses.replace, sampling)
    grids = {
        f"samples_{steps}": Grid(make_sampler(dataclasses.replace(config, sampling=passes(steps=steps)), mesh), None)
        for steps in (GRID_PASSES if sampling.solver == "flow_map" else ())
    }
    asked = {"batch_size": config.sampling.batch_size, "guidance": config.sampling.guidance}
    settings = dataclasses.replace(weights.config.sampling, **asked)
    teacher = make_sampler(dataclasses.replace(weights.config, sampling=settings), mesh)
    return grids | {"samples_teacher": Grid(teacher, weights.params)}
