"""How alike the tokens of semantic features are: the measure of their diversity in the paper's first figure."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from transdiff_jax.config import Config
from transdiff_jax.model.loss import semantic_similarity
from transdiff_jax.model.params import Params
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import from_whole, replicated
from transdiff_jax.sampling.fusion import draw_splice, splice_features

Array = jax.Array


def class_similarities(config: Config, params: Params, mesh: Mesh, classes: np.ndarray) -> np.ndarray:
    """Mean cosine similarity over all ordered pairs of tokens in the features of each class.

    In MRAR these are the features of the first image, which depend on the class alone.

    Args:
        classes: [n].

    Returns:
        float32 [n] in [-1, 1]; the lower, the more diverse.
    """

    def measure(params: Params, classes: Array) -> Array:
        return _similarities(_encode(TransDiff(config.model), params, classes))

    return _by_batches(measure, config, params, mesh, classes)


def fused_similarities(
    config: Config, params: Params, mesh: Mesh, labels: np.ndarray, seed: int, indices: np.ndarray
) -> np.ndarray:
    """The same for samples of two fused classes.

    Args:
        labels: [n, 2].
        seed: of the samples.
        indices: sample indices [n].
    """

    def measure(params: Params, rows: Array) -> Array:
        model = TransDiff(config.model)
        features = jnp.stack([_encode(model, params, rows[:, column]) for column in (0, 1)], axis=1)
        splice = draw_splice(config.model, seed, rows[:, 2], config.sampling.fuse_fraction)
        return _similarities(splice_features(features, splice)[0])

    return _by_batches(measure, config, params, mesh, np.concatenate([labels, indices[:, None]], axis=1))


def _encode(model: TransDiff, params: Params, classes: Array) -> Array:
    return model.apply({"params": params}, classes, jnp.zeros(len(classes), bool), method="start").features


def _similarities(features: Array) -> Array:
    """Of each row's tokens: [b, tokens, width] -> [b]."""
    return jax.vmap(lambda tokens: semantic_similarity(tokens[None]))(features)


def _by_batches(
    measure: Callable[[Params, Array], Array], config: Config, params: Params, mesh: Mesh, rows: np.ndarray
) -> np.ndarray:
    """A sharded function of rows [n, ...], a sampling batch at a time."""
    size, rows = config.sampling.batch_size, rows.astype(np.int32)

    def on_mesh(params: Params, rows: Array) -> Array:
        with axes.over(mesh):
            return measure(params, rows)

    # Each process is to see the whole result.
    run = jax.jit(on_mesh, out_shardings=replicated(mesh))
    made = []
    for first in range(0, len(rows), size):
        padded = rows[np.minimum(np.arange(first, first + size), len(rows) - 1)]
        made.append(np.asarray(run(params, from_whole({"rows": padded}, mesh)["rows"])))
    return np.concatenate(made)[: len(rows)]
