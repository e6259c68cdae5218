"""Decisions about parameters by their path, with a check that they cover every parameter."""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.tree_util import KeyPath

from transdiff_jax.model.params import Params

Decision = bool | str
Rules = Sequence[tuple[str, Decision]]  # (regular expression of the whole path, decision); the first match decides


def path_name(path: KeyPath) -> str:
    """A tree path as "encoder/blocks/mlp/up/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def apply_rules(rules: Rules, params: Params) -> dict[str, Any]:
    """A tree like `params` (unboxed) that holds the decision of the first rule that matches each path.

    Raises:
        ValueError: no rule matches a parameter.
    """

    def decide(path: KeyPath, _: object) -> Decision:
        name = path_name(path)
        for pattern, value in rules:
            if re.fullmatch(pattern, name):
                return value
        raise ValueError(f"no rule covers parameter {name}; rules: {[pattern for pattern, _ in rules]}")

    return jax.tree_util.tree_map_with_path(decide, params)
