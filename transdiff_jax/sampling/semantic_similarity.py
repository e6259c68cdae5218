"""How alike the tokens of semantic features are: the measure of their diversity in the paper's first figure."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from transdiff_jax.config import ModelConfig
from transdiff_jax.model.loss import semantic_similarity
from transdiff_jax.model.params import Params
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import replicated
from transdiff_jax.parallel.row_batches import map_rows
from transdiff_jax.sampling.fusion import draw_splice, splice_features

Array = jax.Array
Rows = Mapping[str, Array]


def class_similarities(
    model: ModelConfig, params: Params, mesh: Mesh, classes: np.ndarray, batch_size: int
) -> np.ndarray:
    """Mean cosine similarity over all ordered pairs of tokens in the features of each class.

    In MRAR these are the features of the first image, which depend on the class alone.

    Args:
        model: sizes.
        params: of the model, over the mesh.
        mesh: the devices.
        classes: [n].
        batch_size: classes at once.

    Returns:
        float32 [n] in [-1, 1]; the lower, the more diverse.
    """

    def measure(params: Params, rows: Rows) -> Array:
        return _similarities(_encode(TransDiff(model), params, rows["classes"]))

    return map_rows(_jitted(measure, params, mesh), {"classes": classes.astype(np.int32)}, batch_size, mesh)


def fused_similarities(
    model: ModelConfig,
    params: Params,
    mesh: Mesh,
    labels: np.ndarray,
    seed: int,
    indices: np.ndarray,
    fraction: float,
    batch_size: int,
) -> np.ndarray:
    """`class_similarities` for samples of two fused classes.

    Args:
        model: sizes.
        params: of the model, over the mesh.
        mesh: the devices.
        labels: [n, 2].
        seed: of the samples.
        indices: sample indices [n].
        fraction: share of tokens that take the second class's feature.
        batch_size: samples at once.
    """

    def measure(params: Params, rows: Rows) -> Array:
        network, labels = TransDiff(model), rows["labels"]
        features = jnp.stack([_encode(network, params, labels[:, column]) for column in (0, 1)], axis=1)
        splice = draw_splice(model, seed, rows["indices"], fraction)
        return _similarities(splice_features(features, splice)[0])

    rows = {"labels": labels.astype(np.int32), "indices": indices.astype(np.int32)}
    return map_rows(_jitted(measure, params, mesh), rows, batch_size, mesh)


def _encode(model: TransDiff, params: Params, classes: Array) -> Array:
    null = jnp.zeros(len(classes), bool)
    return model.apply({"params": params}, classes, null, method=TransDiff.start).features


def _similarities(features: Array) -> Array:
    """Of each row's tokens: [b, tokens, width] -> [b]."""
    return jax.vmap(lambda tokens: semantic_similarity(tokens[None]))(features)


def _jitted(measure: Callable[[Params, Rows], Array], params: Params, mesh: Mesh) -> Callable[[Rows], Array]:
    def on_mesh(params: Params, rows: Rows) -> Array:
        with axes.over(mesh):
            return measure(params, rows)

    run = jax.jit(on_mesh, out_shardings=replicated(mesh))
    return lambda rows: run(params, rows)
