"""Keeps compiled programs on disk, so that the next command with the same ones starts sooner."""

import os
import tempfile
from pathlib import Path

import jax
from absl import flags, logging

from transdiff_jax.errors import UserError
from transdiff_jax.storage.paths import user_path

FLAG = "compile_cache"
DEFAULT = "~/.cache/transdiff_jax"
_VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def define_compile_cache(flag_values: flags.FlagValues) -> None:
    """Defines the flag --compile_cache of a command that compiles."""
    flags.DEFINE_string(
        FLAG,
        None,
        f"Folder for compiled programs; empty: none. Default: {_VARIABLE}, or else {DEFAULT}. Compiled programs run "
        "unchecked: name a folder that only you can write.",
        flag_values=flag_values,
    )


def use_compile_cache(flag_values: flags.FlagValues) -> None:
    """Lets JAX keep compiled programs where the flag says; warns if it cannot. Call it before anything is compiled.

    Args:
        flag_values: the flags of a command; without the flag, nothing happens.
    """
    if FLAG not in flag_values:
        return
    asked = flag_values[FLAG].value
    if asked is None and os.environ.get(_VARIABLE):
        return  # JAX has read it
    asked = DEFAULT if asked is None else asked
    folder = _usable(asked) if asked else None
    jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder))


def _usable(asked: str) -> Path | None:
    try:
        folder = user_path(asked, f"--{FLAG}").absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (UserError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        logging.warning("compiled programs are not kept: --%s=%s cannot be written (%s)", FLAG, asked, reason)
        return None
