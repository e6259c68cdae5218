"""Checks Inception and the scores against a golden file: resize, features, FID, IS, precision and recall, KID."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from transdiff_jax.convert.inception_names import name_table
from transdiff_jax.convert.table import from_reference
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.inception.network import WIDTHS, InceptionV3
from transdiff_jax.evaluation.inception.preprocess import preprocess, resize
from transdiff_jax.evaluation.metrics import frechet_distance, inception_score, kernel_distance, precision_recall
from transdiff_jax.evaluation.statistics import fit_gaussian
from transdiff_jax.model.params import Params
from transdiff_jax.storage.torch_file import Shape
from transdiff_jax.verification.check import ONE_PASS, SCORE, Check, relative_error
from transdiff_jax.verification.golden import GoldenFile, matrix_scale, rule_uniform, rule_weight

# The file's sets are small, so torch-fidelity drew fewer and smaller subsets than by default.
KERNEL_SUBSETS, KERNEL_SUBSET_SIZE = 20, 200
_IMAGES = "/input/image_uint8"
_GENERATED, _REAL, _LOGITS = "metrics/features_generated", "metrics/features_real", "metrics/logits"


def inception_rule_weight(name: str, shape: Shape, seed: int) -> np.ndarray:
    """The weight of an Inception tensor, float32: `rule_weight`, except for convolutions and variances.

    A convolution has more variance, because the ReLU drops half of its output. A variance lies in [1/2, 3/2).
    """
    if name.endswith(".running_var"):
        return (1 + rule_uniform(name, shape, seed) / 2).astype(np.float32)
    if len(shape) == 4:
        return (rule_uniform(name, shape, seed) * matrix_scale(shape, 8)).astype(np.float32)
    return rule_weight(name, shape, seed)


def make_params(file: GoldenFile) -> Params:
    """The network's parameters, made by the rule of the file."""
    table = name_table(file.weight_shapes())
    params = from_reference(table, file.weights(inception_rule_weight), str(file.path))
    return jax.tree.map(jnp.asarray, params)


def check_network(file: GoldenFile, params: Params) -> list[Check]:
    """Checks resized pixels and all features, for every image size in the file."""
    checks = []
    network = jax.jit(InceptionV3().apply)
    for section in [name.removesuffix(_IMAGES) for name in file.names() if name.endswith(_IMAGES)]:
        images = file.array(section + _IMAGES, None, 3, None, None).transpose(0, 2, 3, 1)
        features = network({"params": params}, jax.jit(preprocess)(images))
        ours = _describe_resized(file, f"{section}/output/resized_corner", images)
        ours |= {name: np.asarray(features[name]) for name in WIDTHS}
        checks += [
            Check(f"{section}/{name}", relative_error(value, file[f"{section}/output/{name}"]), ONE_PASS)
            for name, value in ours.items()
            if f"{section}/output/{name}" in file
        ]
    return checks


def _describe_resized(file: GoldenFile, corner: str, images: np.ndarray) -> dict[str, np.ndarray]:
    """The parts of resized images that files keep, channels first: a corner of each, and its mean."""
    resized = np.asarray(jax.jit(resize)(images)).transpose(0, 3, 1, 2)
    height, width = file.array(corner, None, 3, None, None).shape[2:] if corner in file else resized.shape[2:]
    return {
        "resized_corner": resized[..., :height, :width],
        "resized_mean": resized.mean(axis=(1, 2, 3), dtype=np.float64),
    }


def check_metrics(file: GoldenFile) -> list[Check]:
    """Checks every score in the file, from its features and logits. A score that cannot be computed fails."""
    scores: dict[str, tuple[tuple[str, ...], Callable[..., ArrayLike]]] = {
        "fid": (
            (_GENERATED, _REAL),
            lambda generated, real: frechet_distance(fit_gaussian(generated, "generated"), fit_gaussian(real, "real")),
        ),
        "inception_score": ((_LOGITS,), inception_score),
        "precision_recall": ((_GENERATED, _REAL), precision_recall),
        "kid": (
            (_GENERATED, _REAL),
            partial(kernel_distance, subsets=KERNEL_SUBSETS, subset_size=KERNEL_SUBSET_SIZE),
        ),
    }
    return [
        _check_score(file, f"metrics/{name}", inputs, score)
        for name, (inputs, score) in scores.items()
        if f"metrics/{name}" in file
    ]


def _check_score(file: GoldenFile, name: str, inputs: tuple[str, ...], score: Callable[..., ArrayLike]) -> Check:
    missing = [array for array in inputs if array not in file]
    if missing:
        return Check(name, math.inf, SCORE, f"the file has no array {' and no '.join(missing)}")
    expected, first = file[name], file.array(inputs[0], None, None)
    arrays = [first, *(file.array(array, None, first.shape[1]) for array in inputs[1:])]
    try:
        return Check(name, relative_error(score(*arrays), expected), SCORE)
    except UserError as error:  # too few images for this score; the others still count
        return Check(name, math.inf, SCORE, str(error))
