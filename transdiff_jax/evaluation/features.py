"""Features of any number of images over a mesh of devices, in order."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from transdiff_jax import sharding

Features = dict[str, np.ndarray]  # float32 [n, width] by name


class FeatureExtractor:
    """Runs a network over images in batches of one static shape.

    The last batch is filled with black images, whose features are dropped: every image counts once, whatever the batch
    size. An image's features depend on the batch size and on the devices only by rounding.
    """

    def __init__(
        self, compute: Callable[[Any, jax.Array], dict[str, jax.Array]], params: Any, mesh: Mesh, batch_size: int
    ) -> None:
        """Places the network on the mesh.

        Args:
            compute: parameters and images [b, height, width, c] -> features [b, width] by name, row by row;
                `partial(inception_features, names=(...))` for instance.
            params: a tree of arrays, copied to every device.
            mesh: the devices; a batch is split over its data and fsdp axes.
            batch_size: images at once on all devices together.

        Raises:
            UserError: the batch does not split evenly over the devices.
        """
        sharding.check_batch(batch_size, mesh, "--inception_batch_size")
        everywhere = sharding.replicated(mesh)
        self._params = jax.device_put(params, everywhere)
        # Every process reads all features: the scores are of the whole set.
        self._compute = jax.jit(
            compute, in_shardings=(everywhere, sharding.batch_sharding(mesh)), out_shardings=everywhere
        )
        self._mesh = mesh
        self._batch_size = batch_size

    def __call__(self, images: Iterable[np.ndarray]) -> Iterator[Features]:
        """Features of each batch in turn.

        Args:
            images: pieces of any length, uint8 [n, height, width, c], all of one image size; with several processes,
                each passes all of them.

        Yields:
            Features of the next `batch_size` images (of the rest, at the end).
        """
        waiting = None
        for batch in _rebatch(images, self._batch_size):
            # The next batch is on its way before this one's features are waited for.
            started = self._start(batch), len(batch)
            if waiting is not None:
                yield _read(*waiting)
            waiting = started
        if waiting is not None:
            yield _read(*waiting)

    def _start(self, batch: np.ndarray) -> dict[str, jax.Array]:
        missing = self._batch_size - len(batch)
        padded = np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0)))
        return self._compute(self._params, sharding.from_whole({"images": padded}, self._mesh)["images"])


def _read(features: dict[str, jax.Array], count: int) -> Features:
    return {name: np.asarray(value)[:count] for name, value in features.items()}


def _rebatch(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same rows in runs of `size`, the last one shorter."""
    pending: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        pending.append(piece)
        count += len(piece)
        while count >= size:
            rows = np.concatenate(pending)
            yield rows[:size]
            pending, count = [rows[size:]], count - size
    if count:
        yield np.concatenate(pending)
