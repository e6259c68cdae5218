"""The noise of samples: at t = 1, and in each interval of a stochastic solver."""

from typing import Protocol, runtime_checkable

import flax.struct
import jax
from jax import Array
from jaxtyping import Float, Int

from transdiff_jax import rng


@runtime_checkable
class SampleNoise(Protocol):
    """A source of noise for b samples; `shape` is the number of tokens and of channels."""

    @property
    def batch(self) -> int:
        """The number of samples, b."""
        ...

    def initial(self, shape: tuple[int, int]) -> Float[Array, "b tokens c"]:
        """Noise at t = 1; every image of an MRAR sequence starts from the same."""
        ...

    def step(self, image: int, shape: tuple[int, int], index: Int[Array, ""]) -> Float[Array, "b tokens c"]:
        """Noise in solver interval `index` of image number `image`, from 0."""
        ...


@flax.struct.dataclass
class SeededNoise:
    """Noise drawn from (seed, sample index) when it is needed."""

    seed: Int[Array, ""]
    indices: Int[Array, " b"]  # of the samples

    @property
    def batch(self) -> int:
        """See `SampleNoise`."""
        return len(self.indices)

    def initial(self, shape: tuple[int, int]) -> Float[Array, "b tokens c"]:
        """See `SampleNoise`."""
        return jax.vmap(lambda i: jax.random.normal(rng.key(self.seed, rng.SAMPLE_INITIAL, i), shape))(self.indices)

    def step(self, image: int, shape: tuple[int, int], index: Int[Array, ""]) -> Float[Array, "b tokens c"]:
        """See `SampleNoise`."""

        def draw(sample: Int[Array, ""]) -> Float[Array, "tokens c"]:
            key = jax.random.fold_in(rng.key(self.seed, rng.SAMPLE_STEP, sample), image)
            return jax.random.normal(jax.random.fold_in(key, index), shape)

        return jax.vmap(draw)(self.indices)


@flax.struct.dataclass
class GivenNoise:
    """Noise that the caller supplies, for comparison with another implementation."""

    initial_noise: Float[Array, "b tokens c"]
    step_noise: Float[Array, "images steps b tokens c"]  # that of the last step is multiplied by 0

    @property
    def batch(self) -> int:
        """See `SampleNoise`."""
        return len(self.initial_noise)

    def initial(self, shape: tuple[int, int]) -> Float[Array, "b tokens c"]:
        """See `SampleNoise`."""
        if self.initial_noise.shape[1:] != shape:
            raise ValueError(f"initial noise must be [b, {shape[0]}, {shape[1]}], got {self.initial_noise.shape}")
        return self.initial_noise

    def step(self, image: int, shape: tuple[int, int], index: Int[Array, ""]) -> Float[Array, "b tokens c"]:
        """See `SampleNoise`."""
        if image >= len(self.step_noise) or self.step_noise.shape[2:] != (self.batch, *shape):
            raise ValueError(
                f"step noise must be [num_images, steps, {self.batch}, {shape[0]}, {shape[1]}] for image {image}, got "
                f"{self.step_noise.shape}"
            )
        return self.step_noise[image, index]
