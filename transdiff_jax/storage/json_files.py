"""Reads JSON that may be damaged: a value, or one line that says why there is none."""

import json
from pathlib import Path

from transdiff_jax.errors import UserError
from transdiff_jax.storage.files import Json

MOST_BYTES = 2**26  # a larger file is no record of ours, and would fill the memory
_LARGEST_INT = 2**63


class JsonError(ValueError):
    """A file holds no JSON. The message is a few words that follow the file's name, such as "is not JSON"."""


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> object:
    """The value in a JSON file.

    Args:
        path: the file.
        most_bytes: a larger file is not read.

    Raises:
        JsonError: the file is no regular file, too large, not UTF-8, not JSON, or nested too deeply.
        OSError: the file is missing or cannot be read.
    """
    return parse_json(read_bytes(path, most_bytes))


def read_json_object(path: Path, most_bytes: int = MOST_BYTES) -> Json:
    """The object in a JSON file; raises like `read_json`, also for a list, a number, a text, true, false or null."""
    value = read_json(path, most_bytes)
    if not isinstance(value, dict):
        raise JsonError(f"holds {_kind(value)}, not a JSON object")
    return value


def read_bytes(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of a small file.

    Raises:
        JsonError: it is no regular file, or too large.
        OSError: it is missing or cannot be read.
    """
    if not path.is_file() and path.exists():
        raise JsonError("is not a file")
    size = path.stat().st_size
    if size > most_bytes:
        raise JsonError(f"holds {size} bytes, more than the {most_bytes} that are read")
    return path.read_bytes()


def parse_json(data: bytes) -> object:
    """The value that UTF-8 bytes of JSON stand for.

    Raises:
        JsonError: they are not UTF-8, not JSON, or nested too deeply.
    """
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError:
        raise JsonError("is not UTF-8") from None
    except RecursionError:
        raise JsonError("is nested too deeply") from None
    except ValueError as error:
        raise JsonError(f"is not JSON ({error})") from None


def unreadable(path: Path, error: OSError) -> UserError:
    """The error for a file that exists but cannot be read."""
    return UserError(f"{error.filename or path} cannot be read: {error.strerror or error}")


def is_number(value: object) -> bool:
    """Whether a value is a number; an integer that no float can stand for is none."""
    return isinstance(value, float) or (type(value) is int and abs(value) < _LARGEST_INT)


def _kind(value: object) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return "a list" if isinstance(value, list) else "a text" if isinstance(value, str) else "a number"
