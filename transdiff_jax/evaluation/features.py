"""Features of any number of images over a mesh of devices, in order."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from transdiff_jax.parallel.arrays import batch_sharding, held_rows, replicate, replicated, to_global
from transdiff_jax.parallel.mesh import check_batch

Features = dict[str, np.ndarray]  # float32 [n, width] by name


class Images(Protocol):
    """Images of one size: an array uint8 [n, height, width, c], or what reads those of them that are asked for."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The images of these row numbers [m], uint8 [m, height, width, c]."""


class Extracted(NamedTuple):
    """What there is to know of n images; the same in all processes."""

    features: Features
    digests: np.ndarray  # of their pixels, uint8 [n, 32]


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
        check_batch(batch_size, mesh, "inception_batch_size")
        self.batch_size = batch_size
        rows, everywhere = batch_sharding(mesh), replicated(mesh)
        self._params = replicate(params, mesh)
        # Every process gets all of what each has made of its rows: the scores are of the whole set.
        self._compute = jax.jit(
            lambda params, batch: Extracted(compute(params, batch["images"]), batch["digests"]),
            in_shardings=(everywhere, rows),
            out_shardings=everywhere,
        )
        self._mesh = mesh
        self._held = held_rows(batch_size, mesh)

    def __call__(self, batches: Iterable[Images]) -> Iterator[Extracted]:
        """Features of each batch in turn.

        Args:
            batches: at most `batch_size` images each, all of one size. In a job of several processes each has the
                same batches, and reads of them the images that its own devices take.

        Raises:
            ValueError: a batch of more images.
        """
        waiting = None
        for batch in batches:
            # The next batch is on its way before this one's features are waited for.
            started = self._start(batch), len(batch)
            if waiting is not None:
                yield _read(*waiting)
            waiting = started
        if waiting is not None:
            yield _read(*waiting)

    def _start(self, batch: Images) -> Extracted:
        if len(batch) > self.batch_size:
            raise ValueError(f"{len(batch)} images are more than a batch of {self.batch_size}")
        images = batch[self._held[self._held < len(batch)]]
        own = {"images": images, "digests": digest_images(images)}
        filled = {name: _fill(rows, len(self._held)) for name, rows in own.items()}
        return self._compute(self._params, to_global(filled, self._mesh))


def _fill(rows: np.ndarray, count: int) -> np.ndarray:
    return np.pad(rows, ((0, count - len(rows)), *((0, 0),) * (rows.ndim - 1)))


def _read(extracted: Extracted, count: int) -> Extracted:
    return jax.tree.map(lambda rows: np.asarray(rows)[:count], extracted)


DIGEST_SIZE = hashlib.sha256().digest_size


def digest_images(images: np.ndarray) -> np.ndarray:
    """SHA-256 of each image: of its size and its pixels as RGB, so that it is the same in any container.

    Args:
        images: uint8 [n, height, width, 1 or 3].

    Returns:
        uint8 [n, 32].
    """
    _, height, width, _ = images.shape
    colour = np.broadcast_to(images, (len(images), height, width, 3))
    digests = [hashlib.sha256(b"%dx%d" % (height, width) + image.tobytes()).digest() for image in colour]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_SIZE)


def digest_set(digests: np.ndarray) -> str:
    """SHA-256, in hexadecimal, of the digests uint8 [n, 32] of all images in order."""
    return hashlib.sha256(digests.tobytes()).hexdigest()
