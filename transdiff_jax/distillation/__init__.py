"""Few-step students: a network that makes an image in one, two or four passes, distilled from a trained one."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.distillation.student_run import distill

__all__ = ["distill"]
