"""Command lines: each parses its flags and calls one function."""

from transdiff_jax.cli import early_ctrl_c

__all__ = ["early_ctrl_c"]
