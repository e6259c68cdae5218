"""The digits demo: its judge, its report and its figures. It needs the extra `demo`."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.demo.judge import DigitsJudge
    from transdiff_jax.demo.report import write_report

__all__ = [
    "DigitsJudge",
    "write_report",
]
