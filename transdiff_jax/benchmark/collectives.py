"""What a compiled program moves between devices, read from its HLO text."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from transdiff_jax.benchmark.hlo import Instruction, Module, shape_bytes

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
# TPUs exchange data between slices without collectives: each hands its part to the host, whose runtime sends it.
SEND, _SENDER = "send", "xla_megascale_runtime"


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


def collectives(module: Module) -> list[Collective]:
    """All collectives of a compiled module."""
    return list(_walk(module, module.entry, 1, True))


def summary(found: list[Collective]) -> dict[str, dict[str, int | bool]]:
    """Collectives by kind: the number of instructions and of their runs, and the bytes of their results over all runs.

    If the text does not hold the length of a loop, its body counts once and `complete` is false.
    """
    kinds: dict[str, dict[str, int | bool]] = {}
    for collective in found:
        entry = kinds.setdefault(collective.kind, {"instructions": 0, "runs": 0, "bytes": 0, "complete": True})
        entry["instructions"] += 1
        entry["runs"] += collective.times
        entry["bytes"] += collective.times * collective.bytes
        entry["complete"] &= collective.counted
    return kinds


def as_collective(instruction: Instruction, times: int, *, counted: bool) -> Collective | None:
    """The collective that an instruction is, or None.

    Args:
        instruction: any.
        times: how often it runs.
        counted: whether that is known.
    """
    kind = instruction.opcode.removesuffix("-start")
    if kind in KINDS or (kind == SEND and _SENDER in instruction.rest):
        return Collective(kind, _result_bytes(kind, instruction), times, counted, _groups(instruction.rest))
    return None


def _walk(module: Module, name: str, times: int, counted: bool) -> Iterator[Collective]:
    for instruction in module.computations.get(name, ()):
        collective = as_collective(instruction, times, counted=counted)
        if collective is not None:
            yield collective
            continue
        trips = module.trips(instruction) if instruction.opcode == "while" else 1
        for called in instruction.called:
            yield from _walk(module, called, times * (trips or 1), counted and trips is not None)


def _result_bytes(kind: str, instruction: Instruction) -> int:
    sizes = shape_bytes(instruction.shape)
    if kind == SEND:  # (data, small context)
        return max(sizes)
    if not instruction.opcode.endswith("-start") or kind == "all-reduce":
        return sum(sizes)
    # An asynchronous start is (operands, results, small contexts).
    count = len(instruction.operands)
    return sum(sizes[count : 2 * count])


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
