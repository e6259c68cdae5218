"""Decisions about parameters by their path, proven to cover every parameter."""

import re
from collections.abc import Sequence
from typing import Any

import jax

Rules = Sequence[tuple[str, Any]]  # (regular expression of the whole path, value); the first match decides


def path_name(path: tuple) -> str:
    """A tree path as "encoder/blocks/mlp/up/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def apply_rules(rules: Rules, params: Any) -> Any:
    """A tree like `params` (unboxed) with the value of the first rule that matches each path.

    Raises:
        ValueError: a parameter that no rule matches.
    """

    def decide(path: tuple, _: Any) -> Any:
        name = path_name(path)
        for pattern, value in rules:
            if re.fullmatch(pattern, name):
                return value
        raise ValueError(f"no rule covers parameter {name}; rules: {[pattern for pattern, _ in rules]}")

    return jax.tree_util.tree_map_with_path(decide, params)
