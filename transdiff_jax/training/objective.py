"""What a training step minimises: the joint flow-matching loss, or another with the same parts."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key, PyTree, Shaped

from transdiff_jax.config import Config
from transdiff_jax.flow.timesteps import NUM_TIMESTEPS
from transdiff_jax.model.loss import LossDraws, draw_loss, flow_matching_losses
from transdiff_jax.model.params import Params
from transdiff_jax.model.transdiff import TransDiff

Metrics = dict[str, Shaped[Array, "..."]]  # scalars, and vectors of TIMESTEP_BUCKETS
Draws = Any  # all randomness of a step but dropout: a tree of arrays with a row for each row of the batch

TIMESTEP_BUCKETS = 4  # the loss is also reported for each quarter of the path


@runtime_checkable
class Objective(Protocol):
    """A loss of the parameters, made for one configuration."""

    def draw(self, batch: int, seed: int, step: Int[Array, ""]) -> Draws:
        """The draws of one step for so many rows, a function of (seed, step)."""
        ...

    def loss(
        self,
        params: Params,
        average: Params,
        frozen: PyTree,
        latents: Float[Array, "b images h w c"],
        labels: Int[Array, " b"],
        draws: Draws,
        dropout_key: Key[Array, ""] | None,
    ) -> tuple[Float[Array, ""], Metrics]:
        """The loss to minimise, and metrics of its parts.

        Args:
            params: of the model.
            average: the run's first average, before this step.
            frozen: arrays that training reads and never changes.
            latents: images of one class in each row, in the order of their sequence.
            labels: the class of each row.
            draws: from `draw`.
            dropout_key: None turns dropout off.
        """
        ...


@dataclasses.dataclass(frozen=True)
class FlowMatching:
    """The joint loss of both networks (paper, equations 3 to 6)."""

    config: Config

    def draw(self, batch: int, seed: int, step: Int[Array, ""]) -> LossDraws:
        """See `Objective`."""
        return draw_loss(self.config.model, self.config.loss, batch, seed, step)

    def loss(
        self,
        params: Params,
        average: Params,
        frozen: PyTree,
        latents: Float[Array, "b images h w c"],
        labels: Int[Array, " b"],
        draws: LossDraws,
        dropout_key: Key[Array, ""] | None,
    ) -> tuple[Float[Array, ""], Metrics]:
        """See `Objective`; it reads neither `average` nor `frozen`."""
        del average, frozen
        frozen_encoder = self.config.train.only == "decoder"
        losses = flow_matching_losses(
            TransDiff(self.config.model),
            params,
            latents,
            labels,
            draws,
            dropout_key=dropout_key,
            freeze_encoder=frozen_encoder,
        )
        similarity, weight = losses.similarity, self.config.loss.diversity_weight
        if weight == 0:
            similarity = jax.lax.stop_gradient(similarity)  # only a metric: no backward pass goes through it
        loss = jnp.mean(losses.flow) + (weight * similarity if weight else 0)
        parts = {"flow_loss": jnp.mean(losses.flow), "semantic_similarity": similarity}
        return loss, {"loss": loss} | parts | time_buckets(losses.flow, draws.timesteps / NUM_TIMESTEPS)


def time_buckets(errors: Float[Array, "b images inputs"], t: Float[Array, "b images inputs"]) -> Metrics:
    """The sum of errors and their number in each quarter of the path, from data (0) to noise (1)."""
    bucket = jnp.minimum(jnp.floor(t * TIMESTEP_BUCKETS), TIMESTEP_BUCKETS - 1).astype(jnp.int32)
    member = jax.nn.one_hot(bucket, TIMESTEP_BUCKETS)
    return {
        "bucket_loss": jnp.einsum("bipk,bip->k", member, errors),
        "bucket_count": jnp.sum(member, axis=(0, 1, 2)),
    }
