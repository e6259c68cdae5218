"""From images to scores."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.evaluation.certificate import format_table
    from transdiff_jax.evaluation.image_sets import open_images
    from transdiff_jax.evaluation.metrics import frechet_distance, inception_score, kernel_distance, precision_recall
    from transdiff_jax.evaluation.reference_set import load_reference
    from transdiff_jax.evaluation.scores import make_scores
    from transdiff_jax.evaluation.scoring import evaluate

__all__ = [
    "evaluate",
    "format_table",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "load_reference",
    "make_scores",
    "open_images",
    "precision_recall",
]
