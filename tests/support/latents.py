"""Photographs, tiny KL-16 weights and configurations for tests of cached latents."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_sample_images

from tests.support.configs import tiny_config
from transdiff_jax.config import make_config
from transdiff_jax.images.decoding import UnreadableImage
from transdiff_jax.tokenizer.kl16 import Kl16Autoencoder, Kl16Config
from transdiff_jax.tokenizer.kl16_weights import save_weights

TINY = Kl16Config(width=32, multipliers=(1, 1, 1, 1, 1), blocks=1, latent_channels=4)
SIZE = 32


@functools.cache
def photographs():
    return load_sample_images().images


class Photographs:
    """A source of crops of two real photographs, which are the two classes."""

    class_names = ("china", "flower")

    def __init__(self, count, unreadable=(), size=SIZE):
        self._count, self._unreadable, self._size = count, unreadable, size

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        if index in self._unreadable:
            raise UnreadableImage("cut short")
        side = self._size
        top, left = 37 * index % (427 - side), 53 * index % (640 - side)
        image = photographs()[index % 2][top : top + side, left : left + side]
        return {"image": image, "label": index % 2, "id": self.id(index)}

    def label(self, index):
        return index % 2

    def labels(self, records=None):
        return np.array(range(self._count) if records is None else records, np.int32) % 2

    def id(self, index):
        return f"{self.class_names[index % 2]}/{index}"

    def labels_and_ids(self):
        return self.labels(), [self.id(index) for index in range(self._count)]


def save_tiny_weights(folder, seed=0):
    """Saves random weights, scaled so that moments have the size of real ones."""
    shapes = jax.eval_shape(Kl16Autoencoder(TINY).init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    draw = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: (draw.standard_normal(leaf.shape) / np.sqrt(max(1, leaf.size // leaf.shape[-1]))).astype("f4"),
        shapes,
    )
    save_weights(folder, params, TINY)
    return folder


def photo_config(weights, mrar=False, **sections):
    """A configuration of the photographs: 32x32 pixels, 2x2 latents of 4 channels."""
    defaults = {
        "data": {"image_size": SIZE, "image_channels": 3, "crop": "none", "read_threads": 3},
        "tokenizer": {"kind": "kl16", "weights": str(weights), "slice_size": 4},
        "model": {"latent_size": 2, "latent_channels": 4, "num_classes": 2},
    }
    if mrar:
        defaults["model"] |= {"num_images": 2, "tokens_per_image": 4, "mask_tokens": 4}
    values = tiny_config().to_dict()
    for section in {*defaults, *sections}:
        values[section] |= defaults.get(section, {}) | sections.get(section, {})
    return make_config(values)
