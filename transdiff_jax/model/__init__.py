"""The two networks of TransDiff, the module that joins them, and their loss."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.model.decoder import VelocityDecoder
    from transdiff_jax.model.encoder import SemanticEncoder
    from transdiff_jax.model.loss import LossDraws, Losses, draw_loss, flow_matching_losses, semantic_similarity
    from transdiff_jax.model.params import Params, abstract_params, init_params
    from transdiff_jax.model.recipes import published_recipe
    from transdiff_jax.model.transdiff import TransDiff
    from transdiff_jax.model.variants import published_model, published_sampling

__all__ = [
    "LossDraws",
    "Losses",
    "Params",
    "SemanticEncoder",
    "TransDiff",
    "VelocityDecoder",
    "abstract_params",
    "draw_loss",
    "flow_matching_losses",
    "init_params",
    "published_model",
    "published_recipe",
    "published_sampling",
    "semantic_similarity",
]
