"""The text of a compiled program (optimised HLO), read into instructions."""

import math
import re
from typing import NamedTuple

_BITS = {"pred": 8, "c64": 64, "c128": 128}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?(\S+) = (\(.*?\)|\S+) ([a-z][\w-]*)\((.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=(\{[^}]*\}|%?[\w.-]+)")
_TRIPS = re.compile(r"known_trip_count\W+n\W+(\d+)")
_CONSTANT = re.compile(r" s32\[\]\S* constant\((\d+)\)")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](?:\{[^}]*?S\((\d+)\)[^}]*\})?")
_NAME = re.compile(r"%([^\s,()]+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')


class ArrayShape(NamedTuple):
    """The shape of one array."""

    dtype: str
    dims: tuple[int, ...]
    space: int  # of memory: 0 is the device's large one, TPUs call their on-chip one 1

    @property
    def elements(self) -> int:
        """The product of the dimensions."""
        return math.prod(self.dims)

    @property
    def itemsize(self) -> float:
        """Bytes of an element."""
        digits = re.search(r"\d+", self.dtype)
        return (_BITS.get(self.dtype) or (int(digits[0]) if digits else 0)) / 8

    @property
    def bytes(self) -> int:
        """Bytes of the array."""
        return int(self.elements * self.itemsize)


class Instruction(NamedTuple):
    """One instruction."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    rest: str  # all that follows the operation's opening bracket
    called: tuple[str, ...]  # computations
    trips: int | None  # of a loop, if its own text says so
    root: bool

    @property
    def op_name(self) -> str:
        """The operation of the source that it comes from; empty if the text does not say."""
        found = _OP_NAME.search(self.rest)
        return found[1] if found else ""


class Module(NamedTuple):
    """A compiled program: the instructions of each of its computations."""

    entry: str
    computations: dict[str, list[Instruction]]
    limits: dict[str, int]  # trip counts of loops, by the computation of their condition

    def trips(self, loop: Instruction) -> int | None:
        """How often the body of a `while` runs; None if the text does not say."""
        if loop.trips is not None:
            return loop.trips
        return next((self.limits[name] for name in loop.called if name in self.limits), None)

    def body(self, loop: Instruction) -> str:
        """The computation that a `while` repeats."""
        return next(name for name in loop.called if re.search(rf"body=%?{re.escape(name)}(?![\w.-])", loop.rest))


def parse(text: str) -> Module:
    """Reads the text of a compiled module."""
    module = Module("", {}, {})
    current: list[Instruction] = []
    name, constants = "", []
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            name, constants = header[2], []
            current = module.computations.setdefault(name, [])
            module = module._replace(entry=name) if header[1] else module
            continue
        constants += map(int, _CONSTANT.findall(line))
        # A scan counts from 0 in steps of 1, and its condition compares the count with its length.
        if "ROOT" in line and " compare(" in line and "direction=LT" in line and len(constants) == 1:
            module.limits[name] = constants[0]
        match = _INSTRUCTION.match(line)
        if match is not None:
            current.append(_instruction(match))
    return module


def array_shapes(shape: str) -> list[ArrayShape]:
    """The arrays of an HLO shape, which may be a tuple of arrays."""
    return [
        ArrayShape(dtype, tuple(int(dim) for dim in dims.split(",") if dim), int(space or 0))
        for dtype, dims, space in _ARRAY.findall(shape)
    ]


def shape_bytes(shape: str) -> list[int]:
    """Bytes of each array of an HLO shape, a tuple of arrays included."""
    return [array.bytes for array in array_shapes(shape)]


def _instruction(match: re.Match[str]) -> Instruction:
    root, name, shape, opcode, rest = match.groups()
    called = tuple(name.strip(" %{}") for group in _CALLED.findall(rest) for name in group.split(","))
    opcode = "fusion" if opcode == "fusion-start" else opcode  # one that runs beside others does the same work
    trips = _TRIPS.search(rest) if opcode == "while" else None
    operands = tuple(_NAME.findall(_inside(rest)))
    return Instruction(name, shape, opcode, operands, rest, called, int(trips[1]) if trips else None, bool(root))


def _inside(rest: str) -> str:
    """The text up to the bracket that closes the one just opened."""
    depth = 1
    for bracket in re.finditer(r"[()]", rest):
        depth += 1 if bracket[0] == "(" else -1
        if depth == 0:
            return rest[: bracket.start()]
    return rest
