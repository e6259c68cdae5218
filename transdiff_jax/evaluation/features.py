"""Features of any number of images over a mesh of devices, in order."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int, PyTree, UInt8

from transdiff_jax.parallel.arrays import batch_sharding, held_rows, replicate, replicated, to_global
from transdiff_jax.parallel.mesh import check_batch

# Features of n images by name; each name has its own width.
Features = dict[str, Float[np.ndarray, "n _"]]
# Parameters and images -> features by name; a row depends on its own image only.
Network = Callable[[PyTree, UInt8[Array, "b height width channels"]], dict[str, Float[Array, "b _"]]]


@runtime_checkable
class Images(Protocol):
    """Images of one size: a uint8 array [n, height, width, channels], or an object that reads its images on demand."""

    def __len__(self) -> int:
        """The number of images."""

    def __getitem__(self, rows: Int[np.ndarray, " m"], /) -> UInt8[np.ndarray, "m height width channels"]:
        """The images at these row numbers."""


class Extracted(NamedTuple):
    """Features and pixel digests of n images; the same in all processes."""

    features: Features
    digests: UInt8[np.ndarray, "n 32"]


class FeatureExtractor:
    """Runs a network over images in batches of one static shape.

    The last batch is padded with black images, whose features are dropped, so every image counts once at any batch
    size. The batch size and the devices change the features of an image only by rounding.
    """

    def __init__(self, compute: Network, params: PyTree, mesh: Mesh, batch_size: int) -> None:
        """Places the network on the mesh.

        Args:
            compute: the network, for instance `partial(inception_features, names=(...))`.
            params: a tree of arrays, copied to every device.
            mesh: the devices; a batch is split over its data and fsdp axes.
            batch_size: images in a batch, over all devices.

        Raises:
            UserError: the batch does not split evenly over the devices.
        """
        check_batch(batch_size, mesh, "inception_batch_size")
        self.batch_size = batch_size
        rows, everywhere = batch_sharding(mesh), replicated(mesh)
        self._params = replicate(params, mesh)
        # Every process receives the features of all rows, because scores are of the whole set.
        self._compute = jax.jit(
            lambda params, batch: (compute(params, batch["images"]), batch["digests"]),
            in_shardings=(everywhere, rows),
            out_shardings=everywhere,
        )
        self._mesh = mesh
        self._held = held_rows(batch_size, mesh)

    def __call__(self, batches: Iterable[Images]) -> Iterator[Extracted]:
        """Yields the features of each batch in turn.

        Args:
            batches: at most `batch_size` images each, all of one size. Every process of a job passes the same batches
                and reads only the images that its own devices take.

        Raises:
            ValueError: a batch has more images.
        """
        waiting = None
        for batch in batches:
            # The next batch starts before the features of this one are read, so that devices do not wait for the host.
            started = self._start(batch), len(batch)
            if waiting is not None:
                yield _read(*waiting)
            waiting = started
        if waiting is not None:
            yield _read(*waiting)

    def _start(self, batch: Images) -> tuple[dict[str, Array], Array]:
        if len(batch) > self.batch_size:
            raise ValueError(f"{len(batch)} images are more than a batch of {self.batch_size}")
        images = batch[self._held[self._held < len(batch)]]
        own = {"images": images, "digests": digest_images(images)}
        filled = {name: _fill(rows, len(self._held)) for name, rows in own.items()}
        return self._compute(self._params, to_global(filled, self._mesh))


def _fill(rows: np.ndarray, count: int) -> np.ndarray:
    return np.pad(rows, ((0, count - len(rows)), *((0, 0),) * (rows.ndim - 1)))


def _read(computed: tuple[dict[str, Array], Array], count: int) -> Extracted:
    features, digests = jax.tree.map(lambda rows: np.asarray(rows)[:count], computed)
    return Extracted(features, digests)


DIGEST_SIZE = hashlib.sha256().digest_size


def digest_images(images: UInt8[np.ndarray, "n height width channels"]) -> UInt8[np.ndarray, "n 32"]:
    """SHA-256 of each image's size and RGB pixels, which does not depend on the container.

    Args:
        images: with 1 or 3 channels.
    """
    _, height, width, _ = images.shape
    colour = np.broadcast_to(images, (len(images), height, width, 3))
    digests = [hashlib.sha256(b"%dx%d" % (height, width) + image.tobytes()).digest() for image in colour]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_SIZE)


def digest_set(digests: UInt8[np.ndarray, "n 32"]) -> str:
    """SHA-256, in hexadecimal, of the digests of all images in order."""
    return hashlib.sha256(digests.tobytes()).hexdigest()
