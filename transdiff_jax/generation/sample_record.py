"""The record of a sample set, samples.json: what it must look like, and what of a damaged one can be trusted."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from transdiff_jax.config import make_config
from transdiff_jax.errors import UserError
from transdiff_jax.storage.files import Json
from transdiff_jax.storage.json_files import JsonError, is_number, read_json_object

MOST_BYTES = 2**30  # a line for each label: some hundred million samples
_DEEPEST = 20
FIGURES = ("images_made", "seconds", "compile_seconds", "images_per_second")  # of the last call that sampled


def _is_config(value: object) -> bool:
    try:
        make_config(value if isinstance(value, dict) else {})
        return isinstance(value, dict) and "num_classes" in value.get("model", {})
    except (UserError, RecursionError):
        return False


def _depth(value: object) -> int:
    """How many lists and objects lie within each other; at most _DEEPEST + 1."""
    depth, inner = 0, [value]
    while inner and depth <= _DEEPEST:
        values = [list(item.values()) if isinstance(item, dict) else item for item in inner]
        inner = [item for part in values if isinstance(part, list) for item in part if isinstance(item, list | dict)]
        depth += 1
    return depth


# Settings that stand in a record only if they are given, so that records of earlier versions are as they were.
_OPTIONAL = {"references"}
# The form of each part but the settings and the shards, which are compared with digests.
_FORMS: dict[str, Callable[[object], bool]] = {
    "config": _is_config,
    "runs": lambda value: isinstance(value, list) and all(isinstance(run, dict) for run in value),
    "semantic_similarity": lambda value: isinstance(value, dict) and all(map(is_number, value.values())),
    **dict.fromkeys(FIGURES, lambda value: value is None or is_number(value)),
}


def read_record(path: Path) -> Json:
    """The content of samples.json.

    Raises:
        JsonError: it is no record.
        OSError: it cannot be read.
    """
    record = read_json_object(path, MOST_BYTES)
    if _depth(record) > _DEEPEST:
        raise JsonError("is nested too deeply")
    return record


def sound_parts(record: Json) -> Json:
    """The record without the parts that do not have their form."""
    return {name: value for name, value in record.items() if name not in _FORMS or _FORMS[name](value)}


def recorded_settings(record: Json) -> Json:
    """The settings in a record; empty if it has lost them. Sets of version 0.1 have their dtype in `config` alone."""
    settings = record.get("settings")
    if not isinstance(settings, dict):
        return {}
    sound = sound_parts(record)
    return {"dtype": sound["config"]["model"].get("dtype"), **settings} if "config" in sound else settings


def differing_settings(previous: Json, settings: Json) -> list[str] | None:
    """Names of the settings that are not the previous ones; None if the previous ones are incomplete."""
    if not settings.keys() - _OPTIONAL <= previous.keys():
        return None
    names = [*settings, *sorted(_OPTIONAL & (previous.keys() - settings.keys()))]
    return [name for name in names if previous.get(name) != settings.get(name)]


def settings_digest(settings: Json) -> str:
    """The SHA-256 of settings, as SHA256SUMS notes it."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
