"""The jitted sampler: from parameters, labels, a seed and indices to images."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.stages import Compiled, Wrapped
from jaxtyping import Bool, Float, Int, UInt8

from transdiff_jax.config import Config
from transdiff_jax.images.uint8 import to_uint8
from transdiff_jax.model.mesh_checks import check_implementation
from transdiff_jax.model.params import Params
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import batch_sharding, from_whole, replicate, replicated
from transdiff_jax.sampling.fusion import Labels, draw_splice
from transdiff_jax.sampling.mrar import sample_latents
from transdiff_jax.sampling.noise import SeededNoise
from transdiff_jax.tokenizer.base import Tokenizer
from transdiff_jax.tokenizer.make import make_tokenizer

HostLabels = Int[np.ndarray, " b"] | Int[np.ndarray, "b 2"]  # classes, or pairs of classes to fuse
Weights = tuple[Tokenizer, Params, *tuple[Array, ...]]  # and at most latents [given, h, w, c] of references


class Samples(NamedTuple):
    """Samples of b labels."""

    images: UInt8[Array, "b images height width channels"]
    finite: Bool[Array, " b"]  # whether all pixels were finite before they were rounded


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A jitted sampler over a mesh, from `make_sampler`; each shape of arguments is compiled once.

    The tokenizer is an argument of the jitted function, because weights in its closure would be compiled in.
    """

    jitted: Wrapped | Compiled  # Compiled takes the shapes that it was compiled for
    tokenizer: Tokenizer
    mesh: Mesh
    references: Float[Array, "given h w c"] | None = None  # latents of the first images of each sequence

    def __call__(self, params: Params, labels: HostLabels, seed: int, indices: Int[np.ndarray, " b"]) -> Samples:
        """Samples, sharded over rows; labels and indices are the same in every process.

        Args:
            params: of the model, over the mesh.
            labels: a class for each sample, or two whose semantic features are fused (paper, figure 1).
            seed: of the noise.
            indices: sample indices.
        """
        return self.jitted(*self.arguments(params, labels, seed, indices))

    def with_references(self, references: Float[np.ndarray, "given h w c"]) -> "Sampler":
        """The same sampler, whose sequences begin with the given images.

        Args:
            references: latents of one to num_images - 1 images, the same in every process.
        """
        return dataclasses.replace(self, references=replicate(references.astype(np.float32), self.mesh))

    def compile(self, params: Params, labels: HostLabels, seed: int, indices: Int[np.ndarray, " b"]) -> "Sampler":
        """The same sampler, compiled for arguments of these shapes.

        Raises:
            ValueError: it is compiled already.
        """
        if isinstance(self.jitted, Compiled):
            raise ValueError("this sampler is compiled already: compile the one from make_sampler")
        compiled = self.jitted.lower(*self.arguments(params, labels, seed, indices)).compile()
        return dataclasses.replace(self, jitted=compiled)

    def arguments(
        self, params: Params, labels: HostLabels, seed: int, indices: Int[np.ndarray, " b"]
    ) -> tuple[Weights, Array, Array, Array]:
        """The arguments of the jitted function, placed on the mesh."""
        rows = from_whole({"labels": labels.astype(np.int32), "indices": indices.astype(np.int32)}, self.mesh)
        placed = replicate(np.array(seed, np.int32), self.mesh)
        references = () if self.references is None else (self.references,)
        return (self.tokenizer, params, *references), rows["labels"], placed, rows["indices"]


def make_sampler(config: Config, mesh: Mesh, *, all_images: bool = False) -> Sampler:
    """A sampler with the model, the tokenizer and the sampling settings of a configuration.

    Args:
        config: the whole configuration.
        mesh: the devices.
        all_images: decode all images of each sequence, not the last alone.

    Raises:
        UserError: the tokenizer cannot be used, or the mesh cannot run the model's attention.
    """
    check_implementation(config.model, mesh, training=False)
    model = TransDiff(config.model)
    first = 0 if all_images else config.model.num_images - 1

    def sample(weights: Weights, labels: Labels, seed: Int[Array, ""], indices: Int[Array, " b"]) -> Samples:
        tokenizer, params, *given = weights
        fused = labels.ndim == 2
        splice = draw_splice(config.model, seed, indices, config.sampling.fuse_fraction) if fused else None
        noise = SeededNoise(seed, indices)
        references = jnp.broadcast_to(given[0], (len(labels), *given[0].shape)) if given else None
        latents = sample_latents(model, params, labels, noise, config.sampling, splice, references)
        pixels = tokenizer.decode(latents[:, first:])
        return Samples(to_uint8(pixels), jnp.isfinite(pixels).all(axis=range(1, pixels.ndim)))

    tokenizer = replicate(make_tokenizer(config), mesh)
    return Sampler(jit_over_rows(sample, mesh), tokenizer, mesh)


def jit_over_rows(sample: Callable[..., object], mesh: Mesh) -> Wrapped:
    """Jits a function of weights, labels, a seed and indices, with labels, indices and result sharded over rows."""
    rows, everywhere = batch_sharding(mesh), replicated(mesh)

    def on_mesh(*arguments: object) -> object:
        with axes.over(mesh):
            return sample(*arguments)

    # Weights keep their sharding, whatever it is.
    return jax.jit(on_mesh, in_shardings=(None, rows, everywhere, rows), out_shardings=rows)
