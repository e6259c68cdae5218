"""Sampling: from labels and noise to images, the jitted loop of Multi-Reference Autoregression (paper, section 3.3).

A sample is a function of (parameters, label, seed, sample index): its noise does not depend on the batch it is
computed in, the number of devices or a restart.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from transdiff_jax import rng, sharding
from transdiff_jax.conditions import Conditions, first_conditions, next_conditions
from transdiff_jax.config import Config, ModelConfig, SamplingConfig
from transdiff_jax.flow.guidance import VelocityFn, guidance_weights, guide, is_guided
from transdiff_jax.flow.solvers import SOLVERS
from transdiff_jax.flow.timesteps import NUM_TIMESTEPS, solver_grid
from transdiff_jax.images import to_uint8
from transdiff_jax.model.transdiff import Params, TransDiff, tokens_to_latent
from transdiff_jax.nn.attention import GuidedPair, KeysValues, check_implementation
from transdiff_jax.sampling_noise import SampleNoise, SeededNoise
from transdiff_jax.tokenizer import Tokenizer, make_tokenizer

Array = jax.Array


class Samples(NamedTuple):
    """What a sampler makes of b labels."""

    images: Array  # uint8 [b, images, height, width, channels]
    finite: Array  # bool [b]: whether all pixels were numbers before they were rounded


# (params, labels [b] or [b, 2], seed, sample indices [b]) -> samples
SampleFn = Callable[[Params, Array, Array, Array], Samples]


class TimeTable(NamedTuple):
    """What is needed of every time that a solver asks for, computed once."""

    times: np.ndarray  # [n], float32
    rows: Any  # tree of [n, ...]

    def at(self, t: Array) -> Any:
        """The row of time `t`, exactly one of `times`; NaN for any other, which is better seen than a near one."""
        # A product with ones and zeros, and not an index: compilers fuse the search for an index into every use of the
        # row, once for each element that is modulated. No hit is 0 / 0.
        hit = (self.times == t).astype(jnp.float32)
        weights = (hit / jnp.sum(hit))[None]

        def row(leaf: Array) -> Array:
            return jnp.tensordot(weights.astype(leaf.dtype), leaf, 1, precision=jax.lax.Precision.HIGHEST)

        return jax.tree.map(row, self.rows)


def time_table(model: TransDiff, params: Params, config: SamplingConfig) -> TimeTable:
    """What the decoder needs of all times at which the solver of a configuration asks for velocities."""
    times = np.unique(SOLVERS[config.solver].times(solver_grid(config)))
    return TimeTable(times, model.apply({"params": params}, times * NUM_TIMESTEPS, method="embed_times"))


def sample_latents(
    model: TransDiff,
    params: Params,
    labels: Array,
    noise: SampleNoise,
    config: SamplingConfig,
    shards: int = 1,
    splice: Array | None = None,
) -> Array:
    """Latents of all images of each sample, in order; the last image is the published result.

    Args:
        labels: classes in [0, num_classes): [b], or [b, 2] where two are fused.
        noise: initial and step noise of the b samples.
        config: solver, steps, guidance, scales.
        shards: into how many equal runs of rows the batch is sharded; classes are shared inside each.
        splice: which semantic tokens take the second class's feature, bool [b, num_images * tokens_per_image]; for
            labels [b, 2].

    Returns:
        [b, num_images, h, w, channels], float32.
    """
    c = model.config
    if noise.batch != len(labels):
        raise ValueError(f"noise of {noise.batch} samples for {len(labels)} labels")
    settings = config.of_images(c.num_images)
    tables = {image.steps: time_table(model, params, image) for image in settings}
    weights = [guidance_weights(image, tables[image.steps].times) for image in settings]
    shape = (c.latent_tokens, c.latent_channels)
    guided = any(is_guided(weight).any() for weight in weights)
    conditions = first_conditions(model, params, labels, splice, guided=guided, shards=shards)
    images: list[Array] = []
    for number, (image, weight) in enumerate(zip(settings, weights, strict=True)):
        if images:
            conditions = next_conditions(model, params, conditions, images[-1])
        velocity = _velocity(model, params, conditions, tables[image.steps], weight)
        steps = functools.partial(noise.step, number, shape)
        x = SOLVERS[image.solver].solve(velocity, noise.initial(shape), solver_grid(image), steps)
        images.append(tokens_to_latent(x, c.latent_size))
    return jnp.stack(images, axis=1)


def _velocity(
    model: TransDiff, params: Params, conditions: Conditions, table: TimeTable, weights: np.ndarray
) -> VelocityFn:
    """The velocity under conditions, guided at those times of the table whose weight asks for it."""

    def velocity(x: Array, t: Array, keys_values: KeysValues | GuidedPair) -> Array:
        x, split = sharding.gather_inside(x, params)
        return model.apply({"params": split}, x, table.at(t), keys_values, method="velocity_at")

    def single(x: Array, t: Array) -> Array:
        return velocity(x, t, conditions.conditional)

    def pair(x: Array, t: Array) -> Array:
        return velocity(x, t, conditions.pair())

    def guided(x: Array, t: Array) -> Array:
        return guide(pair, weight_at(t))(x, t)

    def weight_at(t: Array) -> Array:
        return TimeTable(table.times, jnp.asarray(weights)).at(t)[0]

    wanted = is_guided(weights)
    if wanted.all():
        return guided
    if not wanted.any():
        return single
    return lambda x, t: jax.lax.cond(is_guided(weight_at(t)), guided, single, x, t)


def draw_splice(config: ModelConfig, seed: Array, indices: Array, fraction: float) -> Array:
    """Which semantic tokens of a fused sample take the second class's feature, each at random.

    Args:
        seed: scalar integer.
        indices: sample indices [b].
        fraction: probability of the second class.

    Returns:
        bool [b, num_images * tokens_per_image].
    """
    shape = (config.semantic_tokens,)
    return jax.vmap(lambda i: jax.random.bernoulli(rng.key(seed, rng.FUSION, i), fraction, shape))(indices)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A jitted sampler over a mesh, from `make_sampler`.

    The tokenizer is an argument of the jitted function: weights that it closed over would be compiled in.
    """

    jitted: Callable[..., Samples]
    tokenizer: Tokenizer

    def __call__(self, params: Params, labels: Array, seed: Array, indices: Array) -> Samples:
        """Samples of parameters, labels, a seed (scalar) and sample indices [b], sharded over rows like these.

        Labels are [b], or [b, 2] for samples whose semantic features are fused of two classes' (paper, figure 1).
        """
        return self.jitted((self.tokenizer, params), labels, seed, indices)

    def compile(self, params: Params, labels: Array, seed: Array, indices: Array) -> SampleFn:
        """The same function, compiled for arguments like these."""
        compiled = self.jitted.lower((self.tokenizer, params), labels, seed, indices).compile()
        return lambda params, *rows: compiled((self.tokenizer, params), *rows)


def make_sampler(config: Config, mesh: Mesh, *, all_images: bool = False) -> Sampler:
    """A sampler with the model, the tokenizer and the sampling settings of a configuration.

    It decodes the last image of each sequence, or all of them.

    Raises:
        UserError: the tokenizer cannot be used, or the mesh cannot run the model's attention.
    """
    check_implementation(config.model, mesh, training=False)
    model, shards = TransDiff(config.model, unroll=True), sharding.batch_shards(mesh)
    first = 0 if all_images else config.model.num_images - 1

    def sample(weights: tuple[Tokenizer, Params], labels: Array, seed: Array, indices: Array) -> Samples:
        tokenizer, params = weights
        fused = labels.ndim == 2
        splice = draw_splice(config.model, seed, indices, config.sampling.fuse_fraction) if fused else None
        noise = SeededNoise(seed, indices)
        latents = sample_latents(model, params, labels, noise, config.sampling, shards, splice)
        pixels = tokenizer.decode(latents[:, first:])
        return Samples(to_uint8(pixels), jnp.isfinite(pixels).all(axis=range(1, pixels.ndim)))

    tokenizer = sharding.replicate(make_tokenizer(config, shards), mesh)
    return Sampler(jit_over_rows(sample, mesh), tokenizer)


def jit_over_rows(sample: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Jits a function of weights, labels, a seed and indices, with labels, indices and result sharded over rows."""
    rows, everywhere = sharding.batch_sharding(mesh), sharding.replicated(mesh)

    def on_mesh(*arguments: Any) -> Any:
        with sharding.over(mesh):
            return sample(*arguments)

    # Weights keep whatever sharding they come with.
    return jax.jit(on_mesh, in_shardings=(None, rows, everywhere, rows), out_shardings=rows)


def balanced_labels(num_samples: int, config: ModelConfig) -> list[int]:
    """Classes in order, equally often (to within one), as published scores are made.

    The first num_samples % num_classes classes come once more than the others.
    """
    share, extra = divmod(num_samples, config.num_classes)
    return [label for label in range(config.num_classes) for _ in range(share + (label < extra))]
