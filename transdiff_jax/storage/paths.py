"""Paths as people write them: the only place that tells a local path from the address of something elsewhere."""

import os
import re
from pathlib import Path

from transdiff_jax.errors import UserError

# pathlib makes gs:/bucket of gs://bucket.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_LOCAL_ONLY = "only local paths work here: copy it, or mount it as a folder (such as a bucket with gcsfuse)"


def scheme_of(value: str | os.PathLike[str]) -> str:
    """The scheme of an address in lower case, such as "gs" of gs://bucket/folder; empty for a local path."""
    found = _ADDRESS.match(os.fspath(value).strip())
    return found[1].lower() if found else ""


def user_path(value: str | os.PathLike[str], name: str, remedy: str = _LOCAL_ONLY) -> Path:
    """The local path of a flag, a field or an argument, with its ~ expanded: shells leave that of --flag=~/runs alone.

    Args:
        value: the path as it was given.
        name: what holds it, for errors: "--workdir", "config.data.directory".
        remedy: what to do instead if it is the address of something elsewhere.

    Raises:
        UserError: it is empty, as an unset variable leaves it, and would mean the current folder; it is an address,
            such as s3://bucket/folder; or no file system can have it.
    """
    text = given_text(value, name)
    if scheme_of(text) or "://" in text:
        raise UserError(f"{name}={text} is no local path, and {remedy}")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~name of a user whom the machine does not know
        raise UserError(f"{name}={text}: {error}") from None


def given_text(value: str | os.PathLike[str], name: str) -> str:
    """The text of a path or an address; raises like `user_path` for what can be neither."""
    text = os.fspath(value)
    if not text.strip():
        raise UserError(f"{name}= is empty: give it a path (is a shell variable unset?)")
    if "\0" in text:
        raise UserError(f"{name}={text!r} holds a character that no path can have: correct it")
    return text
