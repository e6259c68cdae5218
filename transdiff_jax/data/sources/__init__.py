"""Sources of images: each is a finite, ordered collection of labelled records."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.data.sources.base import Record, Source
    from transdiff_jax.data.sources.open import open_source

__all__ = [
    "Record",
    "Source",
    "open_source",
]
