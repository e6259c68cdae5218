"""Paths as people write them."""

import os
from pathlib import Path

from transdiff_jax.errors import UserError


def user_path(value: str | Path, name: str) -> Path:
    """The path of a flag, a field or an argument, with its ~ expanded: shells leave that of --flag=~/runs alone.

    Args:
        value: the path as it was given.
        name: what holds it, for errors: "--workdir", "config.data.directory".

    Raises:
        UserError: it is empty, as an unset variable leaves it, and would mean the current folder; or no file system
            can have it.
    """
    text = os.fspath(value)
    if not text.strip():
        raise UserError(f"{name}= is empty: give it a path (is a shell variable unset?)")
    if "\0" in text:
        raise UserError(f"{name}={text!r} holds a character that no path can have: correct it")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~name of a user whom the machine does not know
        raise UserError(f"{name}={text}: {error}") from None
