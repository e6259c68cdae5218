"""The configuration of a run: frozen dataclasses, made from an ml_collections file and checked once.

A config file starts from `default_config_dict()` and sets what differs. `make_config` turns the result (after
command-line overrides, or from a checkpoint) into a `Config`, or raises a `UserError` that names the field.
"""

import dataclasses
import math
import runpy
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import ml_collections

from transdiff_jax.config.schema import Config
from transdiff_jax.config.validation import validate
from transdiff_jax.errors import UserError

Section = TypeVar("Section")
Fields = TypeVar("Fields")  # ConfigDict, or nested mappings
_MAX_BITS = 1000  # a longer integer fits no float, and Python may refuse to print it


def make_config(values: Mapping[str, Any]) -> Config:
    """Builds and validates a configuration.

    Args:
        values: nested mapping with the sections of `Config`; absent fields take their defaults.

    Raises:
        UserError: a key is unknown, a type is wrong, a value is out of range, or sizes do not fit together.
    """
    config = _build(Config, values, "config")
    validate(config)
    return config


def as_config(config: Config | Mapping[str, Any] | ml_collections.ConfigDict | str | Path) -> Config:
    """Makes a configuration from its fields or from a config file; a `Config` is returned as it is.

    Raises:
        UserError: as in `make_config`.
    """
    if isinstance(config, Config):
        return config
    if isinstance(config, str | Path):
        config = load_config_dict(Path(config))
    return make_config(config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config)


def default_config_dict() -> ml_collections.ConfigDict:
    """All fields at their defaults, for a config file to change. Assigning an unknown field raises."""
    return ml_collections.ConfigDict(Config().to_dict()).lock()


def load_config_dict(path: Path) -> ml_collections.ConfigDict:
    """Runs a config file's `get_config()`; a config file may start from another this way.

    Raises:
        UserError: the file cannot be read, or does not make a configuration.
    """
    try:
        made = runpy.run_path(str(path))
    except OSError as error:
        raise UserError(f"{error.filename or path}: {error.strerror}") from None
    if "get_config" not in made:
        raise UserError(f"{path} has no function get_config, which returns the fields of a configuration")
    return check_fields(made["get_config"](), str(path))


def check_fields(made: Fields, name: str) -> Fields:
    """What a config file has made.

    Args:
        made: by its `get_config`.
        name: of the file, for the error.

    Raises:
        UserError: it does not have fields.
    """
    if not hasattr(made, "items"):
        raise UserError(f"{name}: get_config() must return the fields of a configuration, not {made!r}")
    return made


def _build(schema: type[Section], values: object, path: str) -> Section:
    if not isinstance(values, Mapping) and not isinstance(values, ml_collections.ConfigDict):
        raise UserError(f"{path} must be a section with fields, but is {values!r}")
    hints = typing.get_type_hints(schema)
    for key in values:
        if key not in hints:
            raise UserError(f"{path}.{key} is not a configuration field; {path} has {', '.join(sorted(hints))}")
    fields = {}
    for name, value in values.items():
        build = _build if dataclasses.is_dataclass(hints[name]) else _typed
        fields[name] = build(hints[name], value, f"{path}.{name}")
    return schema(**fields)


def _typed(hint: Any, value: Any, path: str) -> Any:
    """Checks `value` against the field type `hint`; an int becomes a float, and a list a tuple.

    Raises:
        UserError: the value does not fit.
    """
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise UserError(f"{path}={value!r} is not one of {', '.join(map(repr, choices))}")
        return value
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (tuple, list)):
            raise UserError(f'{path}={value!r} must be a tuple such as "(0.5, 0.9)" or "(0.9,)"')
        return tuple(_typed(typing.get_args(hint)[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise UserError(f"{path} is a whole number of {value.bit_length()} bits, beyond any range")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        raise UserError(f"{path}={value!r} must be of type {hint.__name__}, not {type(value).__name__}")
    if hint is float and not math.isfinite(value):
        raise UserError(f"{path}={value!r} must be a finite number")
    return value
