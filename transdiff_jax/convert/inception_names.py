"""Inception: the name table of the published weight files.

The files of torch-fidelity and pytorch-fid hold the same tensors under the names of torchvision's network;
pytorch-fid's also holds counters of training batches.
"""

from collections.abc import Mapping

import jax
from flax.traverse_util import flatten_dict

from transdiff_jax.convert.table import Entry, NameTable, Unused, linear
from transdiff_jax.evaluation.inception.network import param_shapes
from transdiff_jax.storage.torch_file import Shape

_CONV = (2, 3, 1, 0)  # [out, in, height, width] -> [height, width, in, out]
_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
_HEAD = "fc"
_COUNTER = "counts batches in training; a trained network does not read it"
_AUXILIARY = "belongs to the auxiliary classifier, which only training uses"


def name_table(shapes: Mapping[str, Shape] | None = None) -> NameTable:
    """Both names of every tensor.

    Args:
        shapes: of a file's tensors, by name, if it may hold leftovers of training beside the network.
    """
    # pyrefly: ignore[bad-assignment]  # Flax returns markers of empty nodes only if asked to keep them
    leaves: dict[str, jax.ShapeDtypeStruct] = flatten_dict(param_shapes(), sep="/")
    ours = {path: leaf.shape for path, leaf in leaves.items()}
    entries = linear(_HEAD, _HEAD, ours[f"{_HEAD}/kernel"][:1], ours[f"{_HEAD}/bias"])
    entries += [_entry(path, shape) for path, shape in ours.items() if not path.startswith(f"{_HEAD}/")]
    unused = [Unused(name, tuple(shape), reason) for name, shape in (shapes or {}).items() if (reason := _reason(name))]
    return NameTable(tuple(entries), tuple(unused))


def _entry(path: str, shape: Shape) -> Entry:
    """One tensor of a convolution and its normalization; `path` is for instance "mixed_5b/branch1x1/kernel"."""
    *layer, leaf = path.split("/")
    layer[0] = layer[0].capitalize()
    name = ".".join(layer)
    if leaf == "kernel":
        height, width, inputs, outputs = shape
        return Entry(f"{name}.conv.weight", path, (outputs, inputs, height, width), shape, _CONV)
    return Entry(f"{name}.bn.{_NORM[leaf]}", path, shape, shape, (0,))


def _reason(name: str) -> str | None:
    if name.startswith("AuxLogits."):
        return _AUXILIARY
    return _COUNTER if name.endswith(".bn.num_batches_tracked") else None
