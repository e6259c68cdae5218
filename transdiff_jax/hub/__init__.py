"""Models of the Hugging Face Hub: by name, as runs on this machine, and published."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.hub.local_runs import load, local_run
    from transdiff_jax.hub.published import PUBLISHED
    from transdiff_jax.hub.publishing import push

__all__ = [
    "PUBLISHED",
    "load",
    "local_run",
    "push",
]
