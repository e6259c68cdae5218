"""The frozen teacher: its semantic features, its guided velocity, and its paths from noise to data.

The student's encoder is the teacher's and stays so. Both networks therefore read the same semantic features, which are
made once for each batch, or, where they depend on the class alone, once for the whole run.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Int

from transdiff_jax.config import SamplingConfig
from transdiff_jax.flow.guidance import interleave
from transdiff_jax.flow.solvers import dpmpp_2m_states
from transdiff_jax.flow.timesteps import NUM_TIMESTEPS, grid_of_times
from transdiff_jax.model.decoder import Jump
from transdiff_jax.model.loss import visible_features
from transdiff_jax.model.params import Params, Rngs, applied
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.nn.attention import KeysValues
from transdiff_jax.sampling.mrar import sample_latents
from transdiff_jax.sampling.noise import GivenNoise

# The states of a teacher's path, from noise to data. The velocity is never asked for at 0.
PATH_TIMES = np.array([*np.linspace(1, 1 / 12, 12), 0.04, 0.0])

Inputs = Float32[Array, "b images inputs tokens c"]
Values = Float32[Array, "b images inputs"]


class Features(NamedTuple):
    """Semantic features of a batch of sequences."""

    conditional: Float[Array, "b semantic_tokens width"]
    # Of the null class with the same earlier images; None if the teacher needs none, because it is a student itself.
    unconditional: Float[Array, "b semantic_tokens width"] | None


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained network that the student imitates; its parameters are arguments, never part of the student's state."""

    model: TransDiff
    sampling: SamplingConfig  # of an ODE, for its samples that are earlier images in training

    @property
    def is_student(self) -> bool:
        """Whether the teacher takes the guidance weight itself, in one pass."""
        return self.model.config.flow_map

    def features(
        self, params: Params, labels: Int[Array, " b"], references: Float[Array, "b earlier h w c"] | None
    ) -> Features:
        """Features of all images of each sequence, without dropout.

        Args:
            params: of the teacher, or of the student, whose encoder is the same.
            labels: the class of each sequence.
            references: latents of the earlier images; None for a model of one image.
        """

        def encode(null: bool) -> Float[Array, "b semantic_tokens width"]:
            dropped = jnp.full(labels.shape, null)
            return applied(self.model, params, TransDiff.encode)(labels, dropped, references).features

        features = Features(encode(False), None if self.is_student else encode(True))
        return jax.lax.stop_gradient(features)

    def class_features(self, params: Params, chunk: int = 16) -> Float[Array, "classes semantic_tokens width"]:
        """Features of every class and, last, of the null class, for a model of one image."""
        count = self.model.config.num_classes + 1
        labels = np.minimum(np.arange(-(-count // chunk) * chunk), count - 1).reshape(-1, chunk)

        def encode(rows: Int[Array, " chunk"]) -> Float[Array, "chunk semantic_tokens width"]:
            null = rows == count - 1
            return applied(self.model, params, TransDiff.encode)(jnp.where(null, 0, rows), null, None).features

        table = jax.lax.map(encode, jnp.asarray(labels))
        return table.reshape(-1, *table.shape[2:])[:count]

    def look_up(self, table: Float[Array, "classes semantic_tokens width"], labels: Int[Array, " b"]) -> Features:
        """The features of labels from `class_features`."""
        null = None if self.is_student else jnp.broadcast_to(table[-1], (len(labels), *table.shape[1:]))
        return Features(table[labels], null)

    def condition(self, params: Params, features: Features) -> KeysValues:
        """Keys and values of every block: of b sequences, or of 2b interleaved guided pairs."""
        if features.unconditional is None:
            return applied(self.model, params, TransDiff.condition)(features.conditional)
        pairs = interleave(features.conditional, features.unconditional)
        return applied(self.model, params, TransDiff.condition)(pairs)

    def samples(
        self, params: Params, labels: Int[Array, " b"], noise: Float32[Array, "b tokens c"]
    ) -> Float32[Array, "b images h w c"]:
        """Sequences of the teacher's own images, which follow the ODE from `noise`."""
        # The ODE draws no noise on the way.
        none = jnp.zeros((self.model.config.num_images, 1, *noise.shape), noise.dtype)
        sampled = sample_latents(self.model, params, labels, GivenNoise(noise, none), self.sampling)
        return jax.lax.stop_gradient(sampled)

    def guided_velocity(
        self, params: Params, keys_values: KeysValues, x: Inputs, t: Values, guidance: Values
    ) -> Float32[Array, "b images inputs tokens c"]:
        """The velocity u + w (c - u) of the teacher's guided ODE (Ho and Salimans 2022).

        Args:
            params: of the teacher.
            keys_values: from `condition`.
            x: noisy latents.
            t: their times in (0, 1].
            guidance: the weight w of each.
        """
        if self.is_student:
            return flow_map(self.model, params, keys_values, x, t, t, guidance)
        b, images, inputs, *latent = x.shape
        visible = visible_features(self.model.config, inputs)
        rows, times = x.reshape(b, images * inputs, *latent), t.reshape(b, images * inputs) * NUM_TIMESTEPS
        velocity = applied(self.model, params, TransDiff.velocity)(
            interleave(rows, rows), interleave(times, times), keys_values, visible
        )
        halves = velocity.reshape(b, 2, images, inputs, *latent)
        conditional, unconditional = halves[:, 0], halves[:, 1]
        return unconditional + guidance[..., None, None] * (conditional - unconditional)

    def paths(
        self,
        params: Params,
        keys_values: KeysValues,
        noise: Float32[Array, "b images tokens c"],
        guidance: Float32[Array, "b images"],
    ) -> Float32[Array, "states b images tokens c"]:
        """The states at `PATH_TIMES` of the guided ODE from `noise`, by DPM-Solver++(2M)."""

        def velocity(x: Float32[Array, "b images tokens c"], t: Float[Array, ""] | float) -> Array:
            times = jnp.full((*x.shape[:2], 1), t)
            return self.guided_velocity(params, keys_values, x[:, :, None], times, guidance[..., None])[:, :, 0]

        return dpmpp_2m_states(velocity, noise, grid_of_times(PATH_TIMES))


def flow_map(
    model: TransDiff,
    params: Params,
    keys_values: KeysValues,
    x: Inputs,
    t: Values,
    r: Values,
    guidance: Values,
    rngs: Rngs | None = None,
) -> Float32[Array, "b images inputs tokens c"]:
    """u(x, t, r, w): a student's average velocity from time t down to r.

    Args:
        model: with `flow_map` in its configuration.
        params: of the student.
        keys_values: of b sequences.
        x: noisy latents at time t.
        t: in (0, 1].
        r: in [0, t].
        guidance: the weight w of the guided ODE.
        rngs: keys for dropout; None for none.
    """
    b, images, inputs, *latent = x.shape

    def flat(values: Values) -> Float32[Array, "b inputs_of_all_images"]:
        return values.reshape(b, images * inputs)

    velocity = applied(model, params, TransDiff.velocity, rngs)(
        x.reshape(b, images * inputs, *latent),
        flat(t) * NUM_TIMESTEPS,
        keys_values,
        visible_features(model.config, inputs),
        Jump(flat(t - r), flat(guidance)),
    )
    return velocity.reshape(x.shape)
