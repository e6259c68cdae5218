"""A trained model in memory, for notebooks and programs: `load` it, then sample, fuse, encode, decode.

The same seed, indices and settings give the same bytes as the command `sample`.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, UInt8

from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.config import Config, make_config
from transdiff_jax.errors import UserError
from transdiff_jax.generation.arguments import describe_array, sample_indices, sampling_fields, whole_numbers
from transdiff_jax.generation.request import SampleRequest, check_labels
from transdiff_jax.generation.sample_batches import sample_batches
from transdiff_jax.images.uint8 import to_uint8, to_unit_range
from transdiff_jax.model.params import Params
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import replicate, replicated
from transdiff_jax.parallel.mesh import check_batch
from transdiff_jax.parallel.row_batches import map_rows
from transdiff_jax.sampling.sampler import Sampler, make_sampler
from transdiff_jax.tokenizer.base import Tokenizer
from transdiff_jax.tokenizer.make import make_tokenizer

Array = jax.Array
Progress = Callable[[int, int], object]  # called with the number of samples that are done, and of all


class TrainedModel:
    """Parameters with their configuration, tokenizer and devices; what is compiled is kept for the next call."""

    def __init__(self, weights: Weights, mesh: Mesh) -> None:
        """Holds what `load` has read."""
        self.weights, self.mesh = weights, mesh
        self._kept: dict[Hashable, Any] = {}  # samplers, jitted functions, the tokenizer: made when first needed

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.weights.config

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of all classes, in order; empty where the run does not know them."""
        return self.weights.class_names

    def with_settings(self, **settings: Any) -> "TrainedModel":
        """The same model with other sampling settings: fields of `config.sampling`, such as guidance and steps.

        A single number stands for a tuple of one, and several `steps` are those of each image of a sequence.

        Raises:
            UserError: a setting that does not exist, or a value that it cannot have.
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
        labels: Sequence[int] | np.ndarray,
        *,
        seed: int = 0,
        indices: Sequence[int] | np.ndarray | None = None,
        all_images: bool = False,
        progress: Progress | None = None,
        **settings: Any,
    ) -> UInt8[np.ndarray, "n *images height width channels"]:
        """One sample of each label.

        Args:
            labels: classes.
            seed: of the noise.
            indices: number of each sample in its set, on which its noise depends; None counts from 0.
            all_images: return all images of each MRAR sequence.
            progress: called after each batch.
            **settings: as in `with_settings`: guidance, steps, solver, batch_size and others.

        Raises:
            UserError: labels or settings that the model does not have, or samples that are not finite.
        """
        request = SampleRequest(whole_numbers("labels", labels), seed)
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
        **settings: Any,
    ) -> UInt8[np.ndarray, "n height width channels"]:
        """Images of two classes whose semantic features are spliced at random, token by token (paper, figure 1).

        Args:
            first: a class.
            second: the other one.
            fraction: share of tokens that take the second class's feature.
            n: how many images.
            seed: of the noise and of the splices.
            progress: called after each batch.
            **settings: as in `with_settings`.

        Raises:
            UserError: as `sample`.
        """
        (first,), (second,) = whole_numbers("first", [first]), whole_numbers("second", [second])
        request = SampleRequest((first,) * n, seed, fuse_with=second)
        return self._sample(request, None, False, progress, settings | {"fuse_fraction": fraction})

    def _sample(
        self,
        request: SampleRequest,
        indices: np.ndarray | None,
        all_images: bool,
        progress: Progress | None,
        settings: dict[str, Any],
    ) -> np.ndarray:
        model = self.with_settings(**settings) if settings else self
        check_labels(request, self.config.model.num_classes)
        count, size = len(request.labels), model.config.sampling.batch_size
        check_batch(size, self.mesh, "batch_size")
        everywhere = self._jitted(_images_and_finite)
        made = []
        for first, samples in sample_batches(model._sampler(all_images), model.weights, request, indices=indices):
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

    def _keep(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _sampler(self, all_images: bool) -> Sampler:
        key = dataclasses.replace(self.config.sampling, batch_size=1), all_images
        return self._keep(key, lambda: make_sampler(self.config, self.mesh, all_images=all_images))

    def _tokenizer(self) -> Tokenizer:
        return self._keep("tokenizer", lambda: replicate(make_tokenizer(self.config), self.mesh))

    def _jitted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose result every process holds whole."""

        def on_mesh(*arguments: Any) -> Any:
            with axes.over(self.mesh):
                return function(*arguments)

        return self._keep(function, lambda: jax.jit(on_mesh, out_shardings=replicated(self.mesh)))

    def semantic_features(self, labels: Sequence[int] | np.ndarray) -> Float[np.ndarray, "n tokens width"]:
        """What the semantic encoder makes of classes: z of the first image, which depends on the class alone.

        Raises:
            UserError: labels that the model does not have.
        """
        request = SampleRequest(whole_numbers("labels", labels), seed=0)
        check_labels(request, self.config.model.num_classes)
        model, params = TransDiff(self.config.model), self.weights.params
        encode = self._keep("features", lambda: self._jitted(functools.partial(_features, model)))
        rows = {"labels": np.array(request.labels, np.int32)}
        return map_rows(lambda rows: encode(params, rows["labels"]), rows, self._batch(), self.mesh)

    def encode(
        self, images: UInt8[np.ndarray, "n height width channels"]
    ) -> Float[np.ndarray, "n latent_size latent_size latent_channels"]:
        """The most likely latents of images, scaled as the model takes them.

        Raises:
            UserError: images of another size or number of channels than the run's.
        """
        data = self.config.data
        expected = (data.image_size, data.image_size, data.image_channels)
        if images.ndim != 4 or images.shape[1:] != expected or images.dtype != np.uint8:
            raise UserError(f"images must be uint8 [n, {', '.join(map(str, expected))}], not {describe_array(images)}")
        encode, tokenizer = self._jitted(_encode), self._tokenizer()
        return map_rows(lambda rows: encode(tokenizer, rows["images"]), {"images": images}, self._batch(), self.mesh)

    def decode(
        self, latents: Float[np.ndarray, "n latent_size latent_size latent_channels"]
    ) -> UInt8[np.ndarray, "n height width channels"]:
        """Images of latents.

        Raises:
            UserError: latents of another shape than the model's.
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
        return size


def _images_and_finite(samples: Any) -> tuple[Array, Array]:
    return samples.images, samples.finite


def _features(model: TransDiff, params: Params, labels: Array) -> Array:
    null = jnp.zeros(len(labels), bool)
    return model.apply({"params": params}, labels, null, method=TransDiff.start).features.astype(jnp.float32)


def _encode(tokenizer: Tokenizer, images: Array) -> Array:
    return tokenizer.mean(tokenizer.moments(to_unit_range(images)))


def _decode(tokenizer: Tokenizer, latents: Array) -> Array:
    return to_uint8(tokenizer.decode(latents))
