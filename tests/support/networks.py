"""Small networks in place of Inception, which takes seconds, for tests of the code around it."""

import contextlib

import jax.numpy as jnp
import numpy as np

from transdiff_jax.cli import evaluate
from transdiff_jax.evaluation import scoring, set_features
from transdiff_jax.evaluation.inception.network import WIDTHS
from transdiff_jax.evaluation.inception.weights import PUBLISHED_SHA256, InceptionWeights
from transdiff_jax.training import training_scores


def projection(side, seed=0):
    """A function of an image's side x side pixels, its parameters and its widths."""
    widths = {"2048": 6, "spatial": 5, "logits_unbiased": 7}
    draw = np.random.default_rng(seed)
    size = side * side * 3
    params = {name: (draw.normal(size=(size, w)) / size**0.5).astype(np.float32) for name, w in widths.items()}

    def compute(params, images, names):
        rgb = jnp.broadcast_to(images, (*images.shape[:3], 3)).reshape(len(images), -1) / 64.0 - 2
        return {name: jnp.dot(rgb, params[name], precision="highest") for name in names}

    return compute, params, widths


def lookup(tables):
    """A network that looks up rows of tables; the first pixel of each 2x2 image of `numbered` names table and row."""

    def compute(params, images, names):
        first = images[:, 0, 0].astype(jnp.int32)
        row = first[:, 0] * 256 + first[:, 1]
        return {name: params[name][first[:, 2], row] for name in names}

    return compute, tables, {name: table.shape[-1] for name, table in tables.items()}


def numbered(count, table):
    images = np.zeros((count, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(count), 256)
    images[:, 0, 0, 2] = table
    return images


@contextlib.contextmanager
def installed(patch, network):
    """Puts a network in place of Inception and its weights; `patch` is a pytest.MonkeyPatch."""
    compute, params, widths = network
    with patch.context() as context:
        context.setattr(set_features, "inception_features", compute)
        for module in (evaluate, scoring, training_scores):
            context.setattr(
                module, "load_inception", lambda folder: InceptionWeights(params, "small.pth", PUBLISHED_SHA256)
            )
        for name, width in widths.items():
            context.setitem(WIDTHS, name, width)
        yield
