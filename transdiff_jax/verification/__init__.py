"""Checks our code against tensors that the release computed."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.verification.check import Check
    from transdiff_jax.verification.check_file import verify
    from transdiff_jax.verification.golden import GoldenFile

__all__ = [
    "Check",
    "GoldenFile",
    "verify",
]
