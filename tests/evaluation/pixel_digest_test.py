import hashlib

import numpy as np

from transdiff_jax.evaluation.features import digest_images, digest_set

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 3)).astype(np.uint8)


def test_it_is_what_anyone_can_compute():
    digests = [hashlib.sha256(b"2x4" + image.tobytes()).digest() for image in IMAGES]
    assert digest_set(digest_images(IMAGES)) == hashlib.sha256(b"".join(digests)).hexdigest()


def test_grey_is_rgb_and_parts_are_the_whole():
    grey = IMAGES[..., :1]
    np.testing.assert_array_equal(digest_images(grey), digest_images(grey.repeat(3, axis=-1)))
    parts = [digest_images(IMAGES[:0]), digest_images(IMAGES[:1]), digest_images(IMAGES[1:])]
    np.testing.assert_array_equal(np.concatenate(parts), digest_images(IMAGES))


def test_size_and_order_count():
    assert digest_set(digest_images(IMAGES)) != digest_set(digest_images(IMAGES[::-1]))
    assert digest_set(digest_images(IMAGES)) != digest_set(digest_images(IMAGES.reshape(3, 4, 2, 3)))
