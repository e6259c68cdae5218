"""The Inception network of published scores: preprocessing, network, weights."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.evaluation.inception.network import InceptionV3, inception_features
    from transdiff_jax.evaluation.inception.weights import InceptionWeights, load_inception

__all__ = [
    "InceptionV3",
    "InceptionWeights",
    "inception_features",
    "load_inception",
]
