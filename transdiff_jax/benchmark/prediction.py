"""How long a compiled program should take: at least, or kernel by kernel."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from transdiff_jax.benchmark.chips import Chip
from transdiff_jax.benchmark.collectives import collectives
from transdiff_jax.benchmark.hlo import Instruction, Module
from transdiff_jax.benchmark.kernels import CALLS, Kernel, Kind, kernels
from transdiff_jax.storage.files import Json

INSIDE = {"gemm", "attention"}  # kinds whose work counts as useful


class Machine(NamedTuple):
    """The devices of a program."""

    chip: Chip
    devices: int
    groups: int  # slices of TPUs, or hosts of GPUs, that a network joins: equal runs of the devices

    def seconds(self, found: list[Kernel]) -> float:
        """The time of kernels that run one after the other."""
        return sum(each.times * each.seconds(self.chip, self.devices, self.groups) for each in found)

    def terms(self, module: Module) -> dict[str, float]:
        """Seconds of a program's memory traffic, integer operations and exchanges, each at its peak and all alone."""
        found = list(kernels(module))
        sent = {True: 0.0, False: 0.0}
        for each in collectives(module):
            sent[each.crosses(self.devices, self.groups)] += each.sent_bytes * each.times
        return {
            "hbm": sum(each.bytes * each.times for each in found) / self.chip.hbm,
            "random": sum(each.integers * each.times for each in found) / self.chip.integers,
            "ici": sent[False] / self.chip.ici,
            "dcn": sent[True] / self.chip.dcn,
        }


class Loop(NamedTuple):
    """A loop of a program."""

    body: str  # the computation's name
    trips: int  # how often its body runs each time
    times: int  # how often its body runs in all
    found: list[Kernel]  # of one run of the body
    outer: bool  # whether a loop in it has matrix products


def predict(module: Module, machine: Machine, flops: float, *, training: bool) -> Json:
    """Fields of a record, about one device.

    Args:
        module: the compiled program.
        machine: what it runs on.
        flops: useful ones of the program, over all devices.
        training: whether the program is a training step; its longest loops go over layers, forward and backward.

    Returns:
        `kernels` by kind, `outside_bytes` (of all kinds but matrix products and attention), `unchanged_bytes` (of what
        the loop does not change, such as weights, and of what is made of that alone), `predicted_seconds` and
        `predicted_mfu`, all for one run of the longest loop's body (in training: of its two), and `program_seconds` and
        `program_mfu` for all of the program. The first share counts what the kernels compute, the second what is
        useful: not what rematerialisation computes again.
    """
    loops = _longest(module, machine, training)
    found = [kernel for loop in loops for kernel in loop.found]
    seconds = machine.seconds(found)
    program = machine.seconds(list(kernels(module)))
    computed = sum(kernel.flops * kernel.times for kernel in found)
    return {
        "kernels": _by_kind(found, machine),
        "outside_bytes": sum(kernel.bytes * kernel.times for kernel in found if kernel.kind not in INSIDE),
        "unchanged_bytes": sum(unchanged_bytes(module, loop) for loop in loops),
        "predicted_seconds": seconds,
        "predicted_mfu": computed / machine.chip.flops / seconds if seconds else None,
        "program_seconds": program,
        "program_mfu": flops / machine.devices / machine.chip.flops / program,
    }


def _by_kind(found: list[Kernel], machine: Machine) -> dict[Kind, dict[str, float]]:
    ordered = sorted(found, key=lambda kernel: kernel.kind)
    kinds: dict[Kind, dict[str, float]] = {}
    for kind, group in itertools.groupby(ordered, key=lambda kernel: kernel.kind):
        same = list(group)
        kinds[kind] = {
            "count": sum(kernel.times for kernel in same),
            "flops": sum(kernel.flops * kernel.times for kernel in same),
            "read_bytes": sum(kernel.read * kernel.times for kernel in same),
            "written_bytes": sum(kernel.written * kernel.times for kernel in same),
            "seconds": machine.seconds(same),
        }
    return kinds


def _longest(module: Module, machine: Machine, training: bool) -> list[Loop]:
    """The loop that takes most of the time. In training it goes over layers, and its other direction comes with it."""
    loops = [loop for loop in _loops(module, module.entry, 1) if loop.found and not (training and loop.outer)]
    loops.sort(key=lambda loop: -loop.times * machine.seconds(loop.found))
    if not training:
        return loops[:1]
    return [loop for loop in loops if loop.trips == loops[0].trips][:2]


def _loops(module: Module, name: str, times: int) -> Iterator[Loop]:
    for instruction in module.computations.get(name, ()):
        if instruction.opcode == "fusion":
            continue
        trips = (module.trips(instruction) or 1) if instruction.opcode == "while" else 1
        if instruction.opcode == "while":
            yield _loop(module, instruction, trips, times * trips)
        for called in instruction.called:
            yield from _loops(module, called, times * trips)


def _loop(module: Module, instruction: Instruction, trips: int, times: int) -> Loop:
    body = module.body(instruction)
    found = list(kernels(module, body))
    outer = any(kernel.times > 1 and kernel.kind in INSIDE for kernel in found)
    return Loop(body, trips, times, found, outer)


def unchanged_bytes(module: Module, loop: Loop) -> float:
    """Bytes that a run of a loop's body reads of what all its runs share, and moves to make other forms of it."""
    instructions = module.computations[loop.body]
    scope, kernel_of = {each.name: each for each in instructions}, {kernel.name: kernel for kernel in loop.found}
    root = next(each for each in reversed(instructions) if each.root)
    same: set[str] = set()
    moved = 0.0
    for instruction in instructions:
        if _place(scope, instruction) is not None:
            same |= {instruction.name} if _is_kept(scope, root, instruction) else set()
        elif instruction.opcode == "constant" or (instruction.operands and same.issuperset(instruction.operands)):
            same.add(instruction.name)
        kernel = kernel_of.get(instruction.name)
        if kernel is not None and instruction.opcode not in CALLS:  # kernels of inner loops may have its name
            reads = zip(instruction.operands, kernel.reads, strict=True)
            moved += sum(read for operand, read in reads if operand in same)
            moved += kernel.written if instruction.name in same else 0
    return moved


def _place(scope: dict[str, Instruction], instruction: Instruction) -> int | None:
    """Which of the values that a loop's body gets an instruction takes; None if it is another kind of instruction."""
    if instruction.opcode != "get-tuple-element" or scope[instruction.operands[0]].opcode != "parameter":
        return None
    return int(instruction.rest.partition("index=")[2].partition(",")[0])


def _is_kept(scope: dict[str, Instruction], root: Instruction, instruction: Instruction) -> bool:
    """Whether a loop's body hands on a value that it got."""
    place = _place(scope, instruction)
    if root.opcode != "tuple" or place is None:
        return False
    handed = scope.get(root.operands[place])
    return handed is not None and _place(scope, handed) == place
