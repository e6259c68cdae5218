"""Inception: the name table of the published weight files.

torch-fidelity's and pytorch-fid's files hold the same tensors under the same names, those of torchvision's network;
the latter adds counters of training batches.
"""

from collections.abc import Mapping

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
        shapes: what a file holds, where it may hold leftovers of training beside the network.
    """
    ours = {path: leaf.shape for path, leaf in flatten_dict(param_shapes(), sep="/").items()}
    entries = linear(_HEAD, _HEAD, ours[f"{_HEAD}/kernel"][:1], ours[f"{_HEAD}/bias"])
    entries += [_entry(path, shape) for path, shape in ours.items() if not path.startswith(f"{_HEAD}/")]
    unused = [Unused(name, tuple(shape), reason) for name, shape in (shapes or {}).items() if (reason := _reason(name))]
    return NameTable(tuple(entries), tuple(unused))


def _entry(path: str, shape: Shape) -> Entry:
    """One tensor of a convolution with its normalization; `path` is "mixed_5b/branch1x1/kernel" or the like."""
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
