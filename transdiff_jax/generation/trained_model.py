"""A trained model in memory, for notebooks and programs: `load` it, then sample, fuse, encode, decode.

The same seed, indices and settings give the same bytes as the command `sample`.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int, UInt8

from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.config import Config, make_config
from transdiff_jax.config.ranges import NUM_SAMPLES, check_range
from transdiff_jax.errors import UserError
from transdiff_jax.generation.arguments import Setting, describe_array, sample_indices, sampling_fields, whole_numbers
from transdiff_jax.generation.references import Encode, Picture, encode_on, reference_pictures, with_references
from transdiff_jax.generation.request import SampleRequest, check_labels
from transdiff_jax.generation.sample_batches import sample_batches
from transdiff_jax.images.uint8 import to_uint8
from transdiff_jax.model.needs import check_sampling_memory
from transdiff_jax.model.params import Params, applied
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import replicate, replicated
from transdiff_jax.parallel.mesh import check_batch
from transdiff_jax.parallel.row_batches import map_rows
from transdiff_jax.sampling.sampler import Sampler, Samples, make_sampler
from transdiff_jax.tokenizer.base import Tokenizer
from transdiff_jax.tokenizer.make import make_tokenizer

Numbers = Sequence[int] | Int[np.ndarray, " n"]
Progress = Callable[[int, int], object]  # called with the number of finished samples and the total
Kept = TypeVar("Kept")


class TrainedModel:
    """Parameters with their configuration, tokenizer and devices; compiled functions are kept for the next call."""

    def __init__(self, weights: Weights, mesh: Mesh) -> None:
        """`load` makes one from the folder of a run."""
        self.weights, self.mesh = weights, mesh
        self._kept: dict[Hashable, Any] = {}  # samplers, jitted functions, the tokenizer: made when first needed

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.weights.config

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of all classes, in order; empty if the run does not know them."""
        return self.weights.class_names

    def with_settings(self, **settings: Setting) -> "TrainedModel":
        """The same model with other sampling settings: fields of `config.sampling`, such as guidance and steps.

        A single guidance weight stands for a tuple of one; several `steps` are those of each image of a sequence.

        Raises:
            UserError: a setting does not exist, or cannot have its value.
        """
        values = self.config.to_dict()
        values["sampling"] |= sampling_fields(settings)
        try:
            config = make_config(values)
        except UserError as error:
            raise UserError(str(error).replace("config.sampling.", "")) from None
        other = TrainedModel(dataclasses.replace(self.weights, config=config), self.mesh)
        other._kept = self._kept
        return other

    def sample(
        self,
        labels: Numbers,
        *,
        seed: int = 0,
        indices: Numbers | None = None,
        references: Sequence[Picture] = (),
        all_images: bool = False,
        progress: Progress | None = None,
        **settings: Setting,
    ) -> UInt8[np.ndarray, "n *images height width channels"]:
        """One sample for each label.

        Args:
            labels: classes.
            seed: of the noise.
            indices: number of each sample in its set, on which its noise depends; None counts from 0.
            references: pictures that each MRAR sequence begins with, one to num_images - 1: files, Pillow's images or
                uint8 arrays [height, width, channels] of any size, of which the middle square counts.
            all_images: return all images of each MRAR sequence.
            progress: called after each batch.
            **settings: as in `with_settings`: guidance, steps, solver, batch_size and others.

        Raises:
            UserError: the model does not have a label or a setting, or a sample is not finite.
        """
        request = SampleRequest(whole_numbers("labels", labels), seed, references=tuple(references))
        return self._sample(request, sample_indices(labels, indices), all_images, progress, settings)

    def fuse(
        self,
        first: int,
        second: int,
        *,
        fraction: float = 0.5,
        n: int = 1,
        seed: int = 0,
        progress: Progress | None = None,
        **settings: Setting,
    ) -> UInt8[np.ndarray, "n height width channels"]:
        """Images of two classes whose semantic features are spliced at random, token by token (paper, figure 1).

        Args:
            first: a class.
            second: the other one.
            fraction: share of tokens that take the second class's feature.
            n: number of images.
            seed: of the noise and of the splices.
            progress: called after each batch.
            **settings: as in `with_settings`.

        Raises:
            UserError: as `sample`.
        """
        (first,), (second,) = whole_numbers("first", [first]), whole_numbers("second", [second])
        check_range(f"n={n}", n, NUM_SAMPLES)
        request = SampleRequest((first,) * n, seed, fuse_with=second)
        return self._sample(request, None, False, progress, settings | {"fuse_fraction": fraction})

    def _sample(
        self,
        request: SampleRequest,
        indices: Int[np.ndarray, " n"] | None,
        all_images: bool,
        progress: Progress | None,
        settings: dict[str, Setting],
    ) -> UInt8[np.ndarray, "n *images height width channels"]:
        model = self.with_settings(**settings) if settings else self
        check_labels(request, self.config.model.num_classes)
        count, size = len(request.labels), model._batch()
        everywhere = self._jitted(_unchanged)
        pictures = reference_pictures(request.references, self.config)
        sampler, made = with_references(model._sampler(all_images), pictures, self._encoder()), []
        for first, samples in sample_batches(sampler, model.weights, request, indices=indices):
            images, finite = (np.asarray(array)[: count - first] for array in everywhere(samples))
            if not finite.all():
                raise UserError(
                    f"sample {first + int(np.argmin(finite))} is not finite: the weights may be damaged or untrained, "
                    "or overflow in this dtype"
                )
            made.append(images if all_images else images[:, -1])
            if progress is not None:
                progress(min(first + size, count), count)
        return np.concatenate(made)

    def _keep(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _sampler(self, all_images: bool) -> Sampler:
        key = dataclasses.replace(self.config.sampling, batch_size=1), all_images
        return self._keep(key, lambda: make_sampler(self.config, self.mesh, all_images=all_images))

    def _tokenizer(self) -> Tokenizer:
        return self._keep("tokenizer", lambda: replicate(make_tokenizer(self.config), self.mesh))

    def _encoder(self) -> Encode:
        return self._keep("encoder", lambda: encode_on(self.mesh))

    def _jitted(self, function: Callable[..., Kept]) -> Callable[..., Kept]:
        """The function, jitted, with a result that every process holds whole."""

        def on_mesh(*arguments: object) -> Kept:
            with axes.over(self.mesh):
                return function(*arguments)

        return self._keep(function, lambda: jax.jit(on_mesh, out_shardings=replicated(self.mesh)))

    def semantic_features(self, labels: Numbers) -> Float[np.ndarray, "n tokens width"]:
        """Semantic features of classes: z of the first image, which depends on the class alone.

        Raises:
            UserError: the model does not have a label.
        """
        request = SampleRequest(whole_numbers("labels", labels), seed=0)
        check_labels(request, self.config.model.num_classes)
        model, params = TransDiff(self.config.model), self.weights.params
        encode = self._keep("features", lambda: self._jitted(functools.partial(_features, model)))
        rows = {"labels": np.array(request.labels, np.int32)}
        return map_rows(lambda rows: encode(params, rows["labels"]), rows, self._batch(), self.mesh)

    def encode(self, images: UInt8[np.ndarray, "n height width channels"]) -> Float[np.ndarray, "n h w c"]:
        """The most likely latents of images, scaled as the model takes them.

        Raises:
            UserError: the images do not have the run's size or number of channels.
        """
        data = self.config.data
        expected = (data.image_size, data.image_size, data.image_channels)
        if images.ndim != 4 or images.shape[1:] != expected or images.dtype != np.uint8:
            raise UserError(f"images must be uint8 [n, {', '.join(map(str, expected))}], not {describe_array(images)}")
        encode, tokenizer = self._encoder(), self._tokenizer()
        return map_rows(lambda rows: encode(tokenizer, rows["images"]), {"images": images}, self._batch(), self.mesh)

    def decode(self, latents: Float[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "n height width channels"]:
        """The images of latents.

        Raises:
            UserError: the latents do not have the model's shape.
        """
        model = self.config.model
        expected = (model.latent_size, model.latent_size, model.latent_channels)
        if latents.ndim != 4 or latents.shape[1:] != expected:
            raise UserError(f"latents must be [n, {', '.join(map(str, expected))}], not {describe_array(latents)}")
        decode, tokenizer = self._jitted(_decode), self._tokenizer()
        rows = {"latents": latents.astype(np.float32)}
        return map_rows(lambda rows: decode(tokenizer, rows["latents"]), rows, self._batch(), self.mesh)

    def _batch(self) -> int:
        size = self.config.sampling.batch_size
        check_batch(size, self.mesh, "batch_size")
        check_sampling_memory(self.config, self.mesh)
        return size


def _unchanged(samples: Samples) -> Samples:
    return samples


def _features(model: TransDiff, params: Params, labels: Int[Array, " b"]) -> Float[Array, "b tokens width"]:
    prefix = applied(model, params, TransDiff.start)(labels, jnp.zeros(len(labels), bool))
    return prefix.features.astype(jnp.float32)


def _decode(tokenizer: Tokenizer, latents: Float[Array, "b h w c"]) -> UInt8[Array, "b height width channels"]:
    return to_uint8(tokenizer.decode(latents))
