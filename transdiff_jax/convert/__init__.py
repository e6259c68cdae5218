"""Conversion of checkpoints from and to PyTorch."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.convert.conversion import (
        export_kl16,
        export_transdiff,
        import_inception,
        import_kl16,
        import_transdiff,
    )

__all__ = [
    "export_kl16",
    "export_transdiff",
    "import_inception",
    "import_kl16",
    "import_transdiff",
]
