"""Arguments of a program's calls, checked and brought into the form of a configuration."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from transdiff_jax.errors import UserError

Array = jax.Array


def whole_numbers(name: str, values: Sequence[int] | np.ndarray) -> tuple[int, ...]:
    """Whole numbers as plain integers.

    Raises:
        UserError: they are no list of whole numbers; `name` is the argument.
    """
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise UserError(f"{name} must be a list of whole numbers, not {values!r}")
    return tuple(array.tolist())


def sample_indices(labels: Sequence[int] | np.ndarray, indices: Sequence[int] | np.ndarray | None) -> np.ndarray | None:
    """Sample indices int32 [n], one for each label; None where none are given.

    Raises:
        UserError: another number of them, or one that is no index.
    """
    if indices is None:
        return None
    found = whole_numbers("indices", indices)
    if len(found) != len(labels) or any(not 0 <= index < 2**31 for index in found):
        raise UserError(f"indices must be {len(labels)} whole numbers from 0, one for each label, not {indices!r}")
    return np.array(found, np.int32)


def sampling_fields(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as the fields of `config.sampling` have them."""
    fields = dict(settings)
    if isinstance(fields.get("guidance"), int | float):
        fields["guidance"] = (fields["guidance"],)
    if isinstance(fields.get("steps"), tuple | list):
        fields["steps_by_image"] = fields.pop("steps")
    elif "steps" in fields:
        fields["steps_by_image"] = ()
    return fields


def describe_array(array: np.ndarray) -> str:
    """Type and shape, for errors."""
    return f"{array.dtype} {list(array.shape)}"
