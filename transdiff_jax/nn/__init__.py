"""Network layers that the semantic encoder and the diffusion decoder share."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.nn.attention import CrossAttention, SelfAttention, attend, block_causal_mask
    from transdiff_jax.nn.layers import Mlp, TimeEmbedding
    from transdiff_jax.nn.patches import patchify, unpatchify

__all__ = [
    "CrossAttention",
    "Mlp",
    "SelfAttention",
    "TimeEmbedding",
    "attend",
    "block_causal_mask",
    "patchify",
    "unpatchify",
]
