"""Checks the arguments that programs pass, and puts them into the form of a configuration."""

from collections.abc import Mapping, Sequence

import numpy as np

from transdiff_jax.errors import UserError

Setting = int | float | str | Sequence[int] | Sequence[float]  # the value of a field of `config.sampling`


def whole_numbers(name: str, values: Sequence[int] | np.ndarray) -> tuple[int, ...]:
    """Whole numbers as plain integers.

    Args:
        name: of the argument, for errors.
        values: the argument.

    Raises:
        UserError: it is not a list of whole numbers.
    """
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise UserError(f"{name} must be a list of whole numbers, not {values!r}")
    return tuple(array.tolist())


def sample_indices(labels: Sequence[int] | np.ndarray, indices: Sequence[int] | np.ndarray | None) -> np.ndarray | None:
    """Sample indices int32 [n], one for each label; None if none are given.

    Raises:
        UserError: there is another number of them, or one cannot be an index.
    """
    if indices is None:
        return None
    found = whole_numbers("indices", indices)
    if len(found) != len(labels) or any(not 0 <= index < 2**31 for index in found):
        raise UserError(f"indices must be {len(labels)} whole numbers from 0, one for each label, not {indices!r}")
    return np.array(found, np.int32)


def sampling_fields(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Settings as fields of `config.sampling`: guidance as a tuple, and several steps as steps_by_image."""
    fields = dict(settings)
    if isinstance(guidance := fields.get("guidance"), int | float):
        fields["guidance"] = (guidance,)
    if isinstance(fields.get("steps"), tuple | list):
        fields["steps_by_image"] = fields.pop("steps")
    elif "steps" in fields:
        fields["steps_by_image"] = ()
    return fields


def describe_array(array: np.ndarray) -> str:
    """Dtype and shape, for errors."""
    return f"{array.dtype} {list(array.shape)}"
