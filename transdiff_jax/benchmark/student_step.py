"""The training step of a few-step student without its teacher: stand-ins of the same sizes, and its FLOPs."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from transdiff_jax.benchmark.flops import condition_flops, encoder_flops, sample_flops, time_flops, velocity_flops
from transdiff_jax.config import Config, SamplingConfig
from transdiff_jax.distillation.draws import anchors
from transdiff_jax.distillation.student import Distillation, Frozen
from transdiff_jax.distillation.student_run import teacher_of
from transdiff_jax.distillation.teacher import PATH_TIMES, Teacher
from transdiff_jax.model.params import abstract_params
from transdiff_jax.parallel.arrays import replicated


def is_student(config: Config) -> bool:
    """Whether a run of this configuration learns from a teacher."""
    return config.distillation.objective != "none"


def objective_of(config: Config) -> Distillation | None:
    """What a step minimises; None for the joint flow-matching loss."""
    return Distillation(config, _teacher(config)) if is_student(config) else None


def frozen_shapes(config: Config, mesh: Mesh) -> tuple[Frozen, ...]:
    """The further arguments of a step: shapes and shardings of what it reads of a teacher; none without one."""
    if not is_student(config):
        return ()
    model = _teacher(config).model.config
    features = None
    if model.num_images == 1:
        shape = (model.num_classes + 1, model.semantic_tokens, model.width)
        features = jax.ShapeDtypeStruct(shape, jnp.dtype(model.dtype), sharding=replicated(mesh))
    # pyrefly: ignore[bad-argument-type]  # a shape in place of the array
    return (Frozen(abstract_params(model, mesh)["decoder"], features),)


def student_flops(config: Config) -> float:
    """FLOPs of one row (all images of a sequence) of a student's step, counted as in `training_flops`."""
    model, teacher = config.model, _teacher(config)
    condition = condition_flops(model, model.semantic_tokens)
    one_pass = velocity_flops(model, model.semantic_tokens) + time_flops(model)
    learned = model.num_images * config.loss.pairs_per_latent
    total = 3 * (condition + learned * one_pass)
    if config.distillation.objective == "trajectory":
        total += 2 * (condition + model.num_images * (len(PATH_TIMES) - 1) * one_pass)
    else:
        anchored = model.num_images * anchors(config.distillation, config.loss)
        total += 2 * (condition + anchored * one_pass)
        if anchored < learned:
            total += condition + 2 * (learned - anchored) * one_pass
    if model.num_images > 1:
        total += 2 * encoder_flops(model, model.num_images)
    if config.distillation.references == "teacher":
        total += sample_flops(teacher.model.config, teacher.sampling, classes_per_sample=1)
    return total


def _teacher(config: Config) -> Teacher:
    """A teacher that is no student, with the solver of training's default."""
    return teacher_of(config, dataclasses.replace(config.model, flow_map=False), SamplingConfig())
