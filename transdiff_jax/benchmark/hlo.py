"""Reads what a compiled program moves between devices from its HLO text."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
# TPUs exchange data between slices without collectives: each hands its part to the host, whose runtime sends it.
SEND, _SENDER = "send", "xla_megascale_runtime"
_BITS = {"pred": 8, "c64": 64, "c128": 128}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = (\(.*?\)|\S+) ([a-z][\w-]*)\((.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=(\{[^}]*\}|%?[\w.-]+)")
_TRIPS = re.compile(r"known_trip_count\W+n\W+(\d+)")
_CONSTANT = re.compile(r" s32\[\]\S* constant\((\d+)\)")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")


class Collective(NamedTuple):
    """A collective instruction, or a send to another slice, as each device runs it."""

    kind: str
    bytes: int  # of its result on one device
    times: int  # how often it runs: the product of the trip counts of the loops around it
    counted: bool  # whether all these trip counts are known; a loop of unknown length counts once
    groups: np.ndarray | None  # partitions that exchange, one row per group; None if the text does not say

    @property
    def sent_bytes(self) -> float:
        """Bytes that a device sends in one run over a ring."""
        n = math.inf if self.groups is None else self.groups.shape[1]
        if self.kind == "reduce-scatter":
            return self.bytes * (1 if self.groups is None else n - 1)
        if self.kind in ("collective-permute", SEND):
            return self.bytes
        return self.bytes * (1 - 1 / n) * (2 if self.kind == "all-reduce" else 1)

    def crosses(self, devices: int, slices: int) -> bool:
        """Whether devices of different slices exchange. Slices are equal runs of a mesh's devices."""
        if self.groups is None:
            return slices > 1
        slice_of = self.groups // (devices // slices)
        return bool((slice_of != slice_of[:, :1]).any())


class _Instruction(NamedTuple):
    shape: str
    opcode: str
    rest: str
    called: tuple[str, ...]
    trips: int | None  # of a loop, if its own text says so


class _Module(NamedTuple):
    entry: str
    computations: dict[str, list[_Instruction]]  # of instructions that move data or call computations
    limits: dict[str, int]  # trip counts of loops, by the computation of their condition


def collectives(text: str) -> list[Collective]:
    """All collectives in the text of a compiled module."""
    module = _parse(text)
    return list(_walk(module, module.entry, 1, True))


def shape_bytes(shape: str) -> list[int]:
    """Bytes of each array of an HLO shape, a tuple of arrays included."""
    sizes = []
    for name, dims in _ARRAY.findall(shape):
        digits = re.search(r"\d+", name)
        bits = _BITS.get(name) or (int(digits[0]) if digits else 0)
        count = 1
        for dim in filter(None, dims.split(",")):
            count *= int(dim)
        sizes.append(count * bits // 8)
    return sizes


def _parse(text: str) -> _Module:
    module = _Module("", {}, {})
    current: list[_Instruction] = []
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
        if match is None:
            continue
        shape, opcode, rest = match.groups()
        called = tuple(name.strip(" %{}") for group in _CALLED.findall(rest) for name in group.split(","))
        if called or _moves(opcode, rest):
            trips = _TRIPS.search(rest)
            current.append(_Instruction(shape, opcode, rest, called, int(trips[1]) if trips else None))
    return module


def _moves(opcode: str, rest: str) -> bool:
    """Whether an instruction moves data between devices."""
    return opcode.removesuffix("-start") in KINDS or (opcode == SEND and _SENDER in rest)


def _walk(module: _Module, name: str, times: int, counted: bool) -> Iterator[Collective]:
    for instruction in module.computations.get(name, ()):
        kind = instruction.opcode.removesuffix("-start")
        if _moves(instruction.opcode, instruction.rest):
            yield Collective(kind, _result_bytes(kind, instruction), times, counted, _groups(instruction.rest))
            continue
        trips = 1 if instruction.opcode != "while" else _trips(module, instruction)
        for called in instruction.called:
            yield from _walk(module, called, times * (trips or 1), counted and trips is not None)


def _trips(module: _Module, loop: _Instruction) -> int | None:
    if loop.trips is not None:
        return loop.trips
    return next((module.limits[name] for name in loop.called if name in module.limits), None)


def _result_bytes(kind: str, instruction: _Instruction) -> int:
    sizes = shape_bytes(instruction.shape)
    if kind == SEND:  # (data, small context)
        return max(sizes)
    if not instruction.opcode.endswith("-start") or kind == "all-reduce":
        return sum(sizes)
    # An asynchronous start is (operand, result, small context): a reduce-scatter's result is smaller than its operand.
    arrays = sorted(sizes)[-2:]
    return arrays[0] if kind == "reduce-scatter" else arrays[-1]


def _groups(rest: str) -> np.ndarray | None:
    """Reads "{{0,1},{2,3}}"; "[2,2]<=[2,2]T(1,0)", permuted axes read in rows; and "mesh['a'=2,'b'=2] {'b'}"."""
    mesh = re.search(r"replica_groups=mesh\[((?:'\w+'=\d+,?)+)\] \{((?:'\w+',?)+)\}", rest)
    if mesh:
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        inside = re.findall(r"'(\w+)'", mesh[2])
        numbers = np.arange(math.prod(sizes.values())).reshape(*sizes.values())
        last = [list(sizes).index(axis) for axis in inside]
        return np.moveaxis(numbers, last, range(-len(last), 0)).reshape(-1, math.prod(sizes[axis] for axis in inside))
    short = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest)
    if short:
        sizes = [int(size) for size in short[3].split(",")]
        order = [int(axis) for axis in short[4].split(",")] if short[4] else range(len(sizes))
        numbers = np.arange(math.prod(sizes)).reshape(sizes).transpose(order)
        return numbers.reshape(int(short[1]), int(short[2]))
    listed = re.search(r"replica_groups=\{(\{[\d,{}]+\})\}", rest)
    if listed:
        return np.array([[int(n) for n in row.split(",")] for row in re.findall(r"[\d,]+(?=\})", listed[1])])
    pairs = re.search(r"source_target_pairs=\{(\{[\d,{}]+\})\}", rest)
    return np.array([[int(n) for n in row.split(",")] for row in re.findall(r"\d+,\d+", pairs[1])]) if pairs else None
