"""The kernels of a compiled program: their kind, arithmetic and bytes, read from its HLO text."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from transdiff_jax.benchmark.chips import Chip
from transdiff_jax.benchmark.collectives import Collective, as_collective
from transdiff_jax.benchmark.hlo import Instruction, Module, array_shapes
from transdiff_jax.benchmark.traffic import fused, traffic

Kind = Literal["gemm", "attention", "elementwise", "copy", "reduce", "collective"]
# Instructions without a kernel of their own; asynchronous ones count where they start.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    *("opt-barrier", "add-dependency", "domain", "get-dimension-size"),
}
CALLS = {"call", "while", "conditional", "async-start"}
_MOVES = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "copy", "copy-start", "reshape", "transpose"),
    *("slice", "slice-start", "dynamic-slice", "dynamic-slice-start", "dynamic-update-slice", "concatenate", "pad"),
    *("broadcast", "gather", "scatter", "iota", "convert", "reverse", "fusion", "call"),
}
_INTEGERS = {
    *("add", "subtract", "multiply", "xor", "or", "and", "not", "shift-left", "shift-right-logical"),
    "shift-right-arithmetic",
}
_PRODUCT = re.compile(r"cublas|gemm|matmul|convolution", re.IGNORECASE)
_ATTENTION = re.compile(r"fmha|flash|splash|attention", re.IGNORECASE)
# A product's contracted dimensions; a call of cuBLAS has them in its settings.
_CONTRACTED = re.compile(r'lhs_contracting_dim(?:s=\{([\d,]*)\}|ensions":\s*\[([\d", ]*)\])')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_LOGITS = re.compile(r'"intermediate_tensor_shape":.*?"dimensions":\s*(\[[^\]]*\])')
# Matrix products of fused attention: logits and their use; the backward pass makes the logits again.
_FORWARD, _BACKWARD = 2, 5


class Kernel(NamedTuple):
    """An instruction that a device runs as one kernel."""

    name: str
    source: str  # the operation that it comes from, as JAX names it
    kind: Kind
    flops: float  # of matrix products
    integers: float  # 32-bit integer operations
    reads: list[float]  # bytes of each operand
    written: float  # bytes
    times: int  # how often it runs: the product of the trip counts of the loops around it
    collective: Collective | None

    @property
    def read(self) -> float:
        """Bytes read."""
        return sum(self.reads)

    @property
    def bytes(self) -> float:
        """Bytes read and written."""
        return self.read + self.written

    def seconds(self, chip: Chip, devices: int = 1, slices: int = 1) -> float:
        """The least time of one run: that of the slowest of arithmetic, memory and exchange at the chip's peaks."""
        terms = [self.flops / chip.flops, self.integers / chip.integers, self.bytes / chip.hbm]
        if self.collective is not None:
            crosses = self.collective.crosses(devices, slices)
            terms.append(self.collective.sent_bytes / (chip.dcn if crosses else chip.ici))
        return max(terms)


def kernels(module: Module, name: str | None = None, times: int = 1) -> Iterator[Kernel]:
    """The kernels of a computation and of all that it calls.

    A loop of unknown length counts once. Of the branches of a condition the one with most work counts.

    Args:
        module: the program.
        name: of the computation; None for the whole program.
        times: how often it runs.
    """
    instructions = module.computations.get(module.entry if name is None else name, [])
    scope = {each.name: each for each in instructions}
    for instruction in instructions:
        if instruction.opcode in _FREE or instruction.opcode.endswith(("-done", "-update")):
            continue
        if instruction.opcode == "conditional":
            branches = [list(kernels(module, called, times)) for called in instruction.called]
            yield from max(branches, key=_work)
        elif instruction.opcode in CALLS:
            trips = module.trips(instruction) if instruction.opcode == "while" else 1
            for called in instruction.called:
                yield from kernels(module, called, times * (trips or 1))
        else:
            yield _kernel(module, scope, instruction, times)


def _work(found: Iterable[Kernel]) -> tuple[float, float]:
    found = list(found)
    return sum(k.flops * k.times for k in found), sum(k.bytes * k.times for k in found)


def _kernel(module: Module, scope: dict[str, Instruction], instruction: Instruction, times: int) -> Kernel:
    reads, written = traffic(module, scope, instruction)
    found = _contents(module, scope, instruction)
    collective = as_collective(instruction, times, counted=True)
    return Kernel(
        name=instruction.name,
        source=instruction.op_name,
        kind="collective" if collective is not None else _kind(instruction, found),
        flops=sum(_flops(each, names) for each, names, _ in found),
        integers=sum(_integers(each, need) for each, _, need in found),
        reads=reads,
        written=written,
        times=times,
        collective=collective,
    )


_Content = tuple[Instruction, dict[str, Instruction], float]  # an instruction, its scope, elements needed of it


def _contents(module: Module, scope: dict[str, Instruction], instruction: Instruction) -> list[_Content]:
    """What a kernel computes: the instruction itself, or all those that are fused in it."""
    if instruction.opcode != "fusion":
        return [(instruction, scope, sum(array.elements for array in array_shapes(instruction.shape)))]
    inside = fused(module, instruction)
    found: list[_Content] = []
    for name, each in inside.instructions.items():
        if each.opcode == "fusion":
            found += _contents(module, inside.instructions, each)
        else:
            found.append((each, inside.instructions, inside.needed[name]))
    return found


def _kind(instruction: Instruction, found: list[_Content]) -> Kind:
    opcodes = {each.opcode for each, _, _ in found if any(array.elements > 1 for array in array_shapes(each.shape))}
    target = _TARGET.search(instruction.rest)
    if target and _ATTENTION.search(target[1] + instruction.op_name):
        return "attention"
    if opcodes & {"dot", "convolution"} or (target and _PRODUCT.search(target[1])):
        return "gemm"
    if opcodes & {"reduce", "reduce-window"}:
        return "reduce"
    return "copy" if opcodes <= _MOVES else "elementwise"


def _flops(instruction: Instruction, scope: dict[str, Instruction]) -> float:
    """FLOPs of matrix products: two for each multiply-add."""
    if instruction.opcode not in ("dot", "custom-call"):
        return 0.0
    logits, contracted = _LOGITS.search(instruction.rest), _CONTRACTED.search(instruction.rest)
    if logits:
        head = array_shapes(scope[instruction.operands[0]].shape)[0].dims[-1]
        size = math.prod(int(dim) for dim in json.loads(logits[1]))
        return (_BACKWARD if "Backward" in instruction.rest else _FORWARD) * 2 * size * head
    if contracted:
        left = array_shapes(scope[instruction.operands[0]].shape)[0]
        dims = [left.dims[int(dim)] for dim in re.findall(r"\d+", contracted[1] or contracted[2] or "")]
        return 2 * array_shapes(instruction.shape)[0].elements * math.prod(dims)
    return 0.0


def _integers(instruction: Instruction, needed: float) -> float:
    whole = array_shapes(instruction.shape)
    is_integer = bool(whole) and whole[0].dtype in ("u32", "s32")
    return needed if is_integer and instruction.opcode in _INTEGERS else 0.0
