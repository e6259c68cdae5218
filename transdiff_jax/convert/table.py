"""Name tables, and how they move tensors between PyTorch's names and our parameter trees (NumPy only).

One table serves both directions, so nothing is written twice. Every tensor of a PyTorch file is either mapped or listed
as unused with the reason. Anything else is an error and never skipped.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from transdiff_jax.errors import UserError
from transdiff_jax.model.params import Params
from transdiff_jax.storage.torch_file import Shape, Tensors

_LINEAR = (1, 0)  # [out, in] -> [in, out]
_CONV = (2, 3, 1, 0)  # [out, in, height, width] -> [height, width, in, out]


class Entry(NamedTuple):
    """One tensor under its two names: ours = PyTorch's.transpose(order).reshape(our_shape)."""

    reference: str  # PyTorch's name; "{}" stands for the layer if ours are stacked
    ours: str  # path in our tree, with "/" between names
    reference_shape: Shape  # of one layer
    our_shape: Shape  # of one layer, without the leading layer axis
    order: tuple[int, ...]
    layers: int = 0  # length of our leading axis; 0: not stacked

    def reference_names(self) -> list[str]:
        """PyTorch's tensors that make up ours, in the order of layers."""
        return [self.reference.format(layer) for layer in range(self.layers)] or [self.reference]


class Unused(NamedTuple):
    """A tensor of a PyTorch file that the network's forward pass never reads."""

    reference: str
    shape: Shape
    reason: str


class NameTable(NamedTuple):
    """The tensors of a network under both names."""

    entries: tuple[Entry, ...]
    unused: tuple[Unused, ...] = ()

    def reference_shapes(self) -> dict[str, Shape]:
        """Shapes of all tensors that a PyTorch file of this network holds."""
        mapped = {name: entry.reference_shape for entry in self.entries for name in entry.reference_names()}
        return mapped | {unused.reference: unused.shape for unused in self.unused}

    def our_shapes(self) -> dict[str, Shape]:
        """Shapes of all parameters of our tree, by path."""
        return {
            entry.ours: (entry.layers, *entry.our_shape) if entry.layers else entry.our_shape for entry in self.entries
        }


def linear(reference: str, ours: str, inputs: Shape, outputs: Shape, layers: int = 0) -> list[Entry]:
    """A linear layer; its flat inputs and outputs may be several axes of ours (heads)."""
    flat = (math.prod(outputs), math.prod(inputs))
    return [
        Entry(f"{reference}.weight", f"{ours}/kernel", flat, (*inputs, *outputs), _LINEAR, layers),
        Entry(f"{reference}.bias", f"{ours}/bias", flat[:1], outputs, (0,), layers),
    ]


def conv(reference: str, ours: str, inputs: int, outputs: int, size: int) -> list[Entry]:
    """A convolution with a `size` x `size` kernel."""
    shape = (outputs, inputs, size, size)
    return [
        Entry(f"{reference}.weight", f"{ours}/kernel", shape, (size, size, inputs, outputs), _CONV),
        Entry(f"{reference}.bias", f"{ours}/bias", (outputs,), (outputs,), (0,)),
    ]


def norm(reference: str, ours: str, width: int, layers: int = 0) -> list[Entry]:
    """The scale and bias of a LayerNorm or GroupNorm."""
    return [
        Entry(f"{reference}.{theirs}", f"{ours}/{mine}", (width,), (width,), (0,), layers)
        for theirs, mine in (("weight", "scale"), ("bias", "bias"))
    ]


def plain(reference: str, ours: str, reference_shape: Shape, our_shape: Shape, layers: int = 0) -> list[Entry]:
    """A tensor whose two shapes differ at most in axes of length one."""
    return [Entry(reference, ours, reference_shape, our_shape, tuple(range(len(reference_shape))), layers)]


def count(names: Iterable[str], pattern: str) -> int:
    """The number of layers: one more than the highest number that `pattern` finds at the start of a name."""
    matches = (re.match(pattern, name) for name in names)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)


def describe(table: NameTable) -> list[str]:
    """One line for each tensor of the PyTorch file: where it goes, or why it is unused."""
    lines = [
        f"mapped  {name} {entry.reference_shape} -> {entry.ours}{f'[{layer}]' if entry.layers else ''}"
        for entry in table.entries
        for layer, name in enumerate(entry.reference_names())
    ]
    return lines + [f"unused  {name} {shape}: {reason}" for name, shape, reason in table.unused]


def check_reference(table: NameTable, shapes: Mapping[str, Shape], source: str) -> None:
    """Checks that a file holds exactly the tensors of the table, each with its shape.

    Args:
        table: the expected tensors.
        shapes: of the file's tensors, by name.
        source: name of the file in errors, for instance its path.

    Raises:
        UserError: a tensor is missing, unknown or of the wrong shape.
    """
    expected = table.reference_shapes()
    _refuse(source, "tensor(s) missing", [name for name in expected if name not in shapes])
    _refuse(source, "tensor(s) of unknown name", [name for name in shapes if name not in expected])
    wrong = [
        f"{name} of shape {tuple(shapes[name])} instead of {shape}"
        for name, shape in expected.items()
        if tuple(shapes[name]) != shape
    ]
    _refuse(source, "tensor(s) of the wrong shape", wrong)


def from_reference(table: NameTable, tensors: Tensors, source: str) -> Params:
    """PyTorch's tensors -> our tree of float32 parameters.

    Args:
        table: names of the network.
        tensors: by PyTorch's names. They are read one at a time, so they may be mapped from a file larger than memory.
        source: name of the tensors in errors.

    Raises:
        UserError: a tensor is missing, unknown or of the wrong shape.
    """
    check_reference(table, {name: tensor.shape for name, tensor in tensors.items()}, source)
    flat = {}
    for entry in table.entries:
        # Filled layer by layer, because a stack of transposed copies would hold the largest tensors twice.
        stacked = np.empty((max(entry.layers, 1), *entry.our_shape), np.float32)
        for layer, name in enumerate(entry.reference_names()):
            stacked[layer] = tensors[name].transpose(entry.order).reshape(entry.our_shape)
        flat[entry.ours] = stacked if entry.layers else stacked[0]
    return unflatten_dict(flat, sep="/")


def to_reference(table: NameTable, params: Params, unused: Tensors, source: str) -> dict[str, np.ndarray]:
    """Our tree -> PyTorch's tensors, the inverse of `from_reference`.

    Args:
        table: names of the network.
        params: our tree, or one like it (a gradient, an EMA).
        unused: values of the table's unused tensors; zeros replace missing ones, because nothing reads them.
        source: name of the tree in errors.

    Raises:
        UserError: a parameter is missing, unknown or of the wrong shape.
    """
    # pyrefly: ignore[bad-assignment]  # Flax returns markers of empty nodes only if asked to keep them
    flat: dict[str, Array | np.ndarray] = flatten_dict(params, sep="/")
    expected = table.our_shapes()
    wrong = [path for path in {*expected, *flat} if path not in flat or flat[path].shape != expected.get(path)]
    _refuse(source, "parameter(s) that do not fit the model's configuration", sorted(wrong))
    tensors = {}
    for entry in table.entries:
        ours = np.asarray(flat[entry.ours])
        shape = tuple(entry.reference_shape[axis] for axis in entry.order)
        inverse = tuple(int(axis) for axis in np.argsort(entry.order))
        for name, layer in zip(entry.reference_names(), ours if entry.layers else ours[None], strict=True):
            tensors[name] = np.ascontiguousarray(layer.reshape(shape).transpose(inverse))
    for name, shape, _ in table.unused:
        tensors[name] = np.asarray(unused.get(name, np.zeros(shape, np.float32)))
    return {name: tensors[name] for name in table.reference_shapes()}


def _refuse(source: str, what: str, items: Sequence[str]) -> None:
    if items:
        shown = ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")
        raise UserError(f"{source}: {len(items)} {what}: {shown}")
