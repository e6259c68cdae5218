"""Command lines: each parses its flags and calls one function."""

import transdiff_jax.cli.early_ctrl_c  # noqa: F401  # before the slow imports of the commands
