"""Golden files: tensors that the release computed from weights that follow from their names.

The weights are not stored. Each follows from its name in the release and the file's seed, so a file stays small however
large the model, and anybody can make the same weights. `rule_weight` is the whole rule (Inception has its own, in
inception_checks.py).
"""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from transdiff_jax.errors import UserError
from transdiff_jax.storage.files import Json
from transdiff_jax.storage.json_files import parse_json
from transdiff_jax.storage.npz_files import NpzError, NpzFile
from transdiff_jax.storage.torch_file import Shape

# Many times what the release's largest model has. More would be built before anybody noticed the mistake.
_MAX_TENSOR, _MAX_TENSORS = 2**27, 2**33  # elements of a tensor, and of all tensors

_TEXTS = {"config", "torch_params"}  # arrays that hold JSON

Rule = Callable[[str, Shape, int], np.ndarray]  # name, shape and seed -> float32 of that shape


def rule_uniform(name: str, shape: Shape, seed: int) -> np.ndarray:
    """Multiples of 1/1024 in [-1, 1), float64 of the tensor's shape. Every rule starts from them."""
    words = np.random.PCG64(zlib.crc32(name.encode()) + seed).random_raw(math.prod(shape))
    return (((words >> np.uint64(53)).astype(np.int64) - 1024) / 1024).reshape(shape)


def matrix_scale(shape: Shape, gain: float) -> float:
    """The power of two next to sqrt(gain / fan_in) for a matrix [out, in] or a convolution [out, in, height, width]."""
    return 2.0 ** round(math.log2(math.sqrt(gain / math.prod(shape[1:]))))


def rule_weight(name: str, shape: Shape, seed: int) -> np.ndarray:
    """The weight of one of the release's tensors: float32, with few enough bits to be exact in any format.

    A matrix (or convolution) is uniform with a variance of about 1/fan_in, a norm's scale lies around 1, and everything
    else is uniform in [-1/4, 1/4).
    """
    uniform = rule_uniform(name, shape, seed)
    if name.split(".")[-1] != "weight" or (len(shape) >= 2 and "class_emb" in name):
        values = uniform / 4
    elif len(shape) >= 2:
        values = uniform * matrix_scale(shape, 3)
    else:
        values = 1 + uniform / 8
    return np.asarray(values, np.float32)  # a tensor without axes too, for which arithmetic returns a scalar


def _whole(value: object) -> int:
    if type(value) is not int or abs(value) >= 2**63:
        raise ValueError(f"{value!r} is not a whole number of 64 bits")
    return value


def _checked_shapes(params: object) -> dict[str, Shape]:
    """Shapes by name; raises a ValueError for what no network has."""
    if not isinstance(params, dict) or not all(isinstance(shape, list) for shape in params.values()):
        raise ValueError("its params are not shapes by name")
    shapes = {name: tuple(map(_whole, shape)) for name, shape in params.items()}
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        if any(size < 0 for size in shape) or counts[name] > _MAX_TENSOR:
            raise ValueError(f"no network has a tensor of the shape {list(shape)} ({name})")
    if sum(counts.values()) > _MAX_TENSORS:
        raise ValueError(f"its params have {sum(counts.values())} elements, more than any network")
    return shapes


class GoldenFile:
    """One golden `.npz`. Its arrays are read on demand."""

    def __init__(self, path: str | Path) -> None:
        """Opens a file.

        Raises:
            UserError: the file does not exist, or is not a golden file.
        """
        self.path = Path(path)
        try:
            self._arrays = NpzFile(self.path)
            self.config: Json = self._json("config") if "config" in self._arrays else {}
            weights = self._json("torch_params")
            self._shapes = _checked_shapes(weights["params"])
            self._seed = _whole(weights["seed"])
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None
        except (NpzError, ValueError) as error:
            raise UserError(f"{path} is not a golden file, or is damaged: {error}") from None
        except KeyError as error:
            raise UserError(f"{path} is not a golden file, or is damaged: it has no {error}") from None
        self._unread = {*self._arrays.names} - _TEXTS

    def _json(self, name: str) -> Json:
        """The JSON object in an array of one text.

        Raises:
            KeyError, NpzError: as from `NpzFile`.
            ValueError: it is no such text.
        """
        array = self._arrays[name]
        if array.dtype.kind != "U" or array.shape:
            raise ValueError(f"its {name} is no text")
        value = parse_json(str(array).encode())
        if not isinstance(value, dict):
            raise ValueError(f"its {name} is no JSON object")
        return value

    def __contains__(self, name: str) -> bool:
        """Whether the file holds an array (or, if the name ends in "/", any array below it)."""
        return any(key.startswith(name) for key in self._arrays.names) if name.endswith("/") else name in self._arrays

    def __getitem__(self, name: str) -> np.ndarray:
        """An array. Half-precision inputs come as float32, in which the release computed.

        Raises:
            UserError: the file has no such array, or it is damaged.
        """
        if name not in self._arrays:
            raise UserError(f"{self.path} has no array {name}")
        self._unread.discard(name)
        try:
            array = self._arrays[name]
        except NpzError as error:
            raise UserError(f"{self.path}: its array {name} is damaged ({error}); copy the file again") from None
        if array.dtype.kind not in "biuf":
            raise UserError(f"{self.path}: its array {name} is of {array.dtype}, not of numbers")
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def array(self, name: str, *sizes: int | None) -> np.ndarray:
        """An array as `[name]` returns it, of a known shape.

        Args:
            name: the array's name.
            sizes: the size of each axis; None is any but 0.

        Raises:
            UserError: like `[name]`; or the array has another shape.
        """
        array = self[name]
        fits = (found > 0 if size is None else found == size for found, size in zip(array.shape, sizes, strict=False))
        if array.ndim != len(sizes) or not all(fits):
            wanted = ", ".join("any" if size is None else str(size) for size in sizes)
            raise UserError(f"{self.path}: its array {name} must have the shape [{wanted}], not {list(array.shape)}")
        return array

    def setting(self, name: str) -> int:
        """A field of the file's `config` that counts something.

        Raises:
            UserError: the config has no such field, or it is no whole number above 0.
        """
        value = self.config.get(name)
        if type(value) is not int or value < 1:
            raise UserError(f"{self.path}: the {name} of its config must be a whole number above 0, not {value!r:.40}")
        return value

    def check_config(self, inferred: Mapping[str, object]) -> None:
        """Raises a UserError if the file's `config` contradicts fields that were inferred from its tensors."""
        for name, value in inferred.items():
            if self.config.get(name, value) != value:
                raise UserError(f"{self.path}: its config says {name}={self.config[name]}, its tensors say {value}")

    def below(self, prefix: str) -> dict[str, np.ndarray]:
        """All arrays whose name starts with `prefix`, by the rest of the name."""
        return {key[len(prefix) :]: self[key] for key in self._arrays.names if key.startswith(prefix)}

    def unread(self) -> list[str]:
        """Names of the arrays that nobody has read: a check that forgets one would pass without it."""
        return sorted(self._unread)

    def weight_shapes(self) -> dict[str, Shape]:
        """Shapes of the release's tensors, by name."""
        return dict(self._shapes)

    def names(self) -> list[str]:
        """Names of all arrays."""
        return [name for name in self._arrays.names if name not in _TEXTS]

    def weights(self, rule: Rule = rule_weight) -> "RuleWeights":
        """The release's tensors, made by a rule."""
        return RuleWeights(self._shapes, self._seed, rule)


class RuleWeights(Mapping[str, np.ndarray]):
    """Tensors made on demand, so that those of a full-size model need not be in memory at once."""

    def __init__(self, shapes: Mapping[str, Shape], seed: int, rule: Rule = rule_weight) -> None:
        self._shapes, self._seed, self._rule = shapes, seed, rule

    def __getitem__(self, name: str) -> np.ndarray:
        return self._rule(name, self._shapes[name], self._seed)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
