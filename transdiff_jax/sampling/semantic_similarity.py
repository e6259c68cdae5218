"""The similarity of semantic tokens, which measures the diversity of features (paper, figure 1)."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Float32, Int

from transdiff_jax.config import ModelConfig
from transdiff_jax.model.loss import semantic_similarity
from transdiff_jax.model.params import Params, applied
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import replicated
from transdiff_jax.parallel.row_batches import map_rows
from transdiff_jax.sampling.fusion import draw_splice, splice_features

Rows = Mapping[str, Array]


def class_similarities(
    model: ModelConfig, params: Params, mesh: Mesh, classes: Int[np.ndarray, " n"], batch_size: int
) -> Float32[np.ndarray, " n"]:
    """Mean cosine similarity over all ordered pairs of tokens in the features of each class.

    In MRAR these are the features of the first image, which depend on the class alone.

    Args:
        model: sizes.
        params: of the model, over the mesh.
        mesh: the devices.
        classes: which classes.
        batch_size: classes at once.

    Returns:
        In [-1, 1]; lower is more diverse.
    """

    def measure(params: Params, rows: Rows) -> Float[Array, " b"]:
        return _similarities(_encode(TransDiff(model), params, rows["classes"]))

    return map_rows(_jitted(measure, params, mesh), {"classes": classes.astype(np.int32)}, batch_size, mesh)


def fused_similarities(
    model: ModelConfig,
    params: Params,
    mesh: Mesh,
    labels: Int[np.ndarray, "n 2"],
    seed: int,
    indices: Int[np.ndarray, " n"],
    fraction: float,
    batch_size: int,
) -> Float32[np.ndarray, " n"]:
    """`class_similarities` for samples of two fused classes.

    Args:
        model: sizes.
        params: of the model, over the mesh.
        mesh: the devices.
        labels: the two classes of each sample.
        seed: of the samples.
        indices: sample indices.
        fraction: share of tokens that take the second class's feature.
        batch_size: samples at once.
    """

    def measure(params: Params, rows: Rows) -> Float[Array, " b"]:
        network, labels = TransDiff(model), rows["labels"]
        features = jnp.stack([_encode(network, params, labels[:, column]) for column in (0, 1)], axis=1)
        splice = draw_splice(model, seed, rows["indices"], fraction)
        return _similarities(splice_features(features, splice)[0])

    rows = {"labels": labels.astype(np.int32), "indices": indices.astype(np.int32)}
    return map_rows(_jitted(measure, params, mesh), rows, batch_size, mesh)


def _encode(model: TransDiff, params: Params, classes: Int[Array, " b"]) -> Float[Array, "b tokens width"]:
    return applied(model, params, TransDiff.start)(classes, jnp.zeros(len(classes), bool)).features


def _similarities(features: Float[Array, "b tokens width"]) -> Float[Array, " b"]:
    return jax.vmap(lambda tokens: semantic_similarity(tokens[None]))(features)


def _jitted(measure: Callable[[Params, Rows], Array], params: Params, mesh: Mesh) -> Callable[[Rows], Array]:
    def on_mesh(params: Params, rows: Rows) -> Array:
        with axes.over(mesh):
            return measure(params, rows)

    run = jax.jit(on_mesh, out_shardings=replicated(mesh))
    return lambda rows: run(params, rows)
