"""Bytes that you can trust: atomic writes, checksums, locks, frozen weights, safe reading of `.pth` files."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.storage.checksums import find_damage, sha256, write_manifest
    from transdiff_jax.storage.files import atomic_path, write_json
    from transdiff_jax.storage.torch_file import read_checkpoint

__all__ = [
    "atomic_path",
    "find_damage",
    "read_checkpoint",
    "sha256",
    "write_json",
    "write_manifest",
]
