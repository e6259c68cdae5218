"""The noise of samples: at t = 1, and of each interval of a stochastic solver."""

from typing import Protocol

import flax.struct
import jax

from transdiff_jax import rng

Array = jax.Array


class SampleNoise(Protocol):
    """Where the noise of b samples comes from."""

    @property
    def batch(self) -> int:
        """b."""

    def initial(self, shape: tuple[int, int]) -> Array:
        """Noise at t = 1, [b, *shape]; MRAR starts every image of a sample from the same."""

    def step(self, image: int, shape: tuple[int, int], index: Array) -> Array:
        """Noise of solver interval `index` of image number `image`, [b, *shape]."""


@flax.struct.dataclass
class SeededNoise:
    """Noise drawn from (seed, sample index) as it is needed."""

    seed: Array  # scalar integer
    indices: Array  # [b] sample indices

    @property
    def batch(self) -> int:
        """See `SampleNoise`."""
        return len(self.indices)

    def initial(self, shape: tuple[int, int]) -> Array:
        """See `SampleNoise`."""
        return jax.vmap(lambda i: jax.random.normal(rng.key(self.seed, rng.SAMPLE_INITIAL, i), shape))(self.indices)

    def step(self, image: int, shape: tuple[int, int], index: Array) -> Array:
        """See `SampleNoise`."""

        def draw(sample: Array) -> Array:
            key = jax.random.fold_in(rng.key(self.seed, rng.SAMPLE_STEP, sample), image)
            return jax.random.normal(jax.random.fold_in(key, index), shape)

        return jax.vmap(draw)(self.indices)


@flax.struct.dataclass
class GivenNoise:
    """Noise supplied by the caller, for comparison with another implementation."""

    initial_noise: Array  # [b, tokens, channels]
    step_noise: Array  # [num_images, steps, b, tokens, channels]; the last step's is multiplied by 0

    @property
    def batch(self) -> int:
        """See `SampleNoise`."""
        return len(self.initial_noise)

    def initial(self, shape: tuple[int, int]) -> Array:
        """See `SampleNoise`."""
        if self.initial_noise.shape[1:] != shape:
            raise ValueError(f"initial noise must be [b, {shape[0]}, {shape[1]}], got {self.initial_noise.shape}")
        return self.initial_noise

    def step(self, image: int, shape: tuple[int, int], index: Array) -> Array:
        """See `SampleNoise`."""
        if image >= len(self.step_noise) or self.step_noise.shape[2:] != (self.batch, *shape):
            raise ValueError(
                f"step noise must be [num_images, steps, {self.batch}, {shape[0]}, {shape[1]}] for image {image}, got "
                f"{self.step_noise.shape}"
            )
        return self.step_noise[image, index]
