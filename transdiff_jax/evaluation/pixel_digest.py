"""The digest of a set's pixels, to which each process adds the images that it reads."""

import hashlib

import numpy as np

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
