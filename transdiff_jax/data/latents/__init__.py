"""Cached latents: the format of their folder, the job that makes it, and its reader."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.data.latents.encode import cache_latents
    from transdiff_jax.data.latents.format import check_all, read_manifest
    from transdiff_jax.data.latents.source import LatentSource

__all__ = [
    "LatentSource",
    "cache_latents",
    "check_all",
    "read_manifest",
]
