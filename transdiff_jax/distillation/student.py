"""What a student learns: the flow map of its teacher's guided ODE.

u(x_t, t, r, w) is the average velocity of that ODE from time t down to r <= t, so that one jump is
x_r = x_t - (t - r) u. Two conditions define it, and no derivative of the network is needed:

- *anchor* (r = t): u is the teacher's guided velocity v_u + w (v_c - v_u). Guidance enters here and nowhere else.
- *consistency* (r < t): with m = (t + r) / 2 a jump is two half jumps, u(t, r) = (u(t, m) + u(m, r)) / 2 (shortcut
  models, Frans et al. 2024, with continuous times).

Objectives: "shortcut" takes both; "guidance" the anchor alone, which leaves a network for every solver that needs one
pass where the teacher needs two (Meng et al. 2023); "trajectory" learns the jumps between states of the teacher's own
paths instead.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Int, Key

from transdiff_jax import rng
from transdiff_jax.config import Config
from transdiff_jax.distillation.draws import Draws, PathDraws, anchors, draw_jumps, draw_path_jumps
from transdiff_jax.distillation.teacher import PATH_TIMES, Features, Inputs, Teacher, Values, flow_map
from transdiff_jax.flow.path import interpolate
from transdiff_jax.model.params import Params, Rngs, applied
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.nn.patches import latent_to_tokens
from transdiff_jax.training.objective import Metrics, time_buckets

FlowMap = Callable[[Inputs, Values, Values, Values], Inputs]  # (x, t, r, w) -> u


def two_half_jumps(u: FlowMap, x: Inputs, t: Values, r: Values, w: Values) -> Inputs:
    """The average velocity from t to r by way of their middle, which the flow map of an ODE leaves as it is."""
    middle = (t + r) / 2
    first = u(x, t, middle, w)
    return (first + u(x - (t - middle)[..., None, None] * first, middle, r, w)) / 2


class Student(NamedTuple):
    """The network that learns, twice: as it is, and as it makes its own targets."""

    model: TransDiff
    params: Params
    target_params: Params  # its average, or the same
    rngs: Rngs  # for dropout

    def errors(self, features: Features, jumps: tuple[Inputs, Values, Values, Values], target: Inputs) -> Values:
        """Mean squared errors of u at jumps (x, t, r, w)."""
        predicted = self._flow_map(self.params, features, self.rngs)(*jumps)
        return jnp.mean((predicted - jax.lax.stop_gradient(target)) ** 2, axis=(-2, -1))

    def target_map(self, features: Features) -> FlowMap:
        """The map that makes the targets of jumps."""
        return self._flow_map(self.target_params, features, {})

    def _flow_map(self, params: Params, features: Features, rngs: Rngs) -> FlowMap:
        keys_values = applied(self.model, params, TransDiff.condition)(features.conditional)
        return lambda x, t, r, w: flow_map(self.model, params, keys_values, x, t, r, w, rngs)


def shortcut_errors(
    student: Student,
    teacher: Teacher,
    teacher_params: Params,
    features: Features,
    data: Float[Array, "b images tokens c"],
    draws: Draws,
    count: int,
) -> Values:
    """Errors of the first `count` inputs of each latent as anchors, and of the others by consistency."""
    x = interpolate(data[:, :, None], draws.noise, draws.t[..., None, None])
    t, r, w = draws.t, draws.r, draws.guidance
    first, rest = (tuple(values[:, :, part] for values in (x, t, r, w)) for part in (np.s_[:count], np.s_[count:]))
    keys_values = teacher.condition(teacher_params, features)
    target = teacher.guided_velocity(teacher_params, keys_values, first[0], first[1], first[3])
    if count < x.shape[2]:
        target = jnp.concatenate([target, two_half_jumps(student.target_map(features), *rest)], axis=2)
    return student.errors(features, (x, t, r, w), target)


def trajectory_errors(
    student: Student, teacher: Teacher, teacher_params: Params, features: Features, draws: PathDraws
) -> Values:
    """Errors of jumps between two states of the teacher's path: the target is their difference over their time."""
    keys_values = teacher.condition(teacher_params, features)
    states = jnp.moveaxis(teacher.paths(teacher_params, keys_values, draws.noise, draws.guidance), 0, 2)
    times = jnp.asarray(PATH_TIMES, jnp.float32)

    def state(index: Int[Array, "b images inputs"]) -> Inputs:
        return jnp.take_along_axis(states, index[..., None, None], axis=2)

    t, r, x = times[draws.start], times[draws.end], state(draws.start)
    target = (x - state(draws.end)) / (t - r)[..., None, None]
    w = jnp.broadcast_to(draws.guidance[..., None], t.shape)
    return student.errors(features, (x, t, r, w), target)


class Frozen(NamedTuple):
    """Arrays that a step reads and never changes; they are in no checkpoint."""

    decoder: Params  # of the teacher
    class_features: Float[Array, "classes semantic_tokens width"] | None  # of a model of one image


class StepDraws(NamedTuple):
    """All randomness of a step but dropout."""

    jumps: Draws | PathDraws
    references: Float32[Array, "b tokens c"] | None  # noise of the teacher's samples that are earlier images


@dataclasses.dataclass(frozen=True)
class Distillation:
    """The loss of a student; see `training.objective.Objective`."""

    config: Config
    teacher: Teacher

    def draw(self, batch: int, seed: int, step: Int[Array, ""]) -> StepDraws:
        """See `Objective`."""
        c = self.config
        draw = draw_path_jumps if c.distillation.objective == "trajectory" else draw_jumps
        jumps = draw(c.model, c.loss, c.distillation, batch, seed, step)
        if c.distillation.references == "data":
            return StepDraws(jumps, None)
        shape = (batch, c.model.latent_tokens, c.model.latent_channels)
        return StepDraws(jumps, jax.random.normal(rng.key(seed, rng.TEACHER, step), shape))

    def loss(
        self,
        params: Params,
        average: Params,
        frozen: Frozen,
        latents: Float[Array, "b images h w c"],
        labels: Int[Array, " b"],
        draws: StepDraws,
        dropout_key: Key[Array, ""] | None,
    ) -> tuple[Float[Array, ""], Metrics]:
        """See `Objective`: the mean squared error in u over all inputs."""
        c = self.config
        teacher_params = {"encoder": params["encoder"], "decoder": frozen.decoder}
        features = self._features(teacher_params, frozen, latents, labels, draws.references)
        student = Student(
            TransDiff(c.model),
            params,
            average if c.distillation.own_average else params,
            {} if dropout_key is None else {"dropout": dropout_key},
        )
        if isinstance(draws.jumps, PathDraws):
            errors = trajectory_errors(student, self.teacher, teacher_params, features, draws.jumps)
            parts, t = {}, jnp.asarray(PATH_TIMES, jnp.float32)[draws.jumps.start]
        else:
            count, data = anchors(c.distillation, c.loss), latent_to_tokens(latents)
            errors = shortcut_errors(student, self.teacher, teacher_params, features, data, draws.jumps, count)
            parts, t = {"anchor_loss": jnp.mean(errors[:, :, :count])}, draws.jumps.t
            if count < errors.shape[2]:
                parts["consistency_loss"] = jnp.mean(errors[:, :, count:])
        loss = jnp.mean(errors)
        return loss, {"loss": loss} | parts | time_buckets(errors, t)

    def _features(
        self,
        params: Params,
        frozen: Frozen,
        latents: Float[Array, "b images h w c"],
        labels: Int[Array, " b"],
        noise: Float32[Array, "b tokens c"] | None,
    ) -> Features:
        if frozen.class_features is not None:
            return self.teacher.look_up(frozen.class_features, labels)
        if noise is not None:
            latents = self.teacher.samples(params, labels, noise)
        references = latents[:, :-1] if self.config.model.num_images > 1 else None
        return self.teacher.features(params, labels, references)
