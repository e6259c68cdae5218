"""Bytes that an instruction of a compiled program reads from a device's memory and writes to it.

An operand of which a kernel reads slices counts as these slices, and an array that is updated in place as the update.
What lies in another memory (a TPU's on-chip one) does not count.
"""

from typing import NamedTuple

from transdiff_jax.benchmark.hlo import ArrayShape, Instruction, Module, array_shapes

_SLICES = {"slice", "dynamic-slice", "gather"}
# Operations that put an update (the operand with this number) into their first operand.
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}
_SAME = {"bitcast", "tuple", "get-tuple-element", "copy"}  # what an updated array may pass through to become a result


class Computation(NamedTuple):
    """The instructions of a computation, and how many elements of each a kernel needs that ends with it."""

    instructions: dict[str, Instruction]
    needed: dict[str, float]


def traffic(module: Module, scope: dict[str, Instruction], instruction: Instruction) -> tuple[list[float], float]:
    """Bytes that an instruction reads of each operand, and bytes that it writes.

    Args:
        module: of the instruction.
        scope: the instructions of its computation, by name.
        instruction: one that becomes a kernel: no tuple, bitcast or the like.
    """
    if instruction.opcode == "fusion":
        inside = fused(module, instruction)
        needs = _parameter_needs(inside)
        written = sum(_written(inside, name) for name in _results(inside))
    else:
        needs = dict(enumerate(_operand_needs(scope, instruction, _result_elements(instruction))))
        written = _written_alone(scope, instruction)
    read = []
    for number, name in enumerate(instruction.operands):
        arrays = array_shapes(scope[name].shape) if name in scope else []
        whole = sum(array.elements for array in arrays)
        share = min(1.0, needs.get(number, 0.0) / whole) if whole else 0.0
        read.append(share * sum(array.bytes for array in arrays if not array.space))
    return read, written


def fused(module: Module, instruction: Instruction) -> Computation:
    """The computation that a fusion calls."""
    return _needs(module, instruction.called[0], None)


def _needs(module: Module, name: str, share: float | None) -> Computation:
    """Walks a fused computation from its results back to its parameters.

    Args:
        module: of the computation.
        name: of the computation.
        share: part of the results that is needed; None for all.
    """
    instructions = {each.name: each for each in module.computations[name]}
    computation = Computation(instructions, dict.fromkeys(instructions, 0.0))
    needed = computation.needed
    for result in _results(computation):
        needed[result] = _elements(instructions[result]) * (1.0 if share is None else share)
    # Operands come before their users.
    for instruction in reversed(module.computations[name]):
        need = min(needed[instruction.name], _elements(instruction))
        needed[instruction.name] = need
        if instruction.root and instruction.opcode == "tuple":
            continue
        if instruction.opcode in ("fusion", "call") and instruction.called:
            part = need / max(1, _elements(instruction))
            inner = _parameter_needs(_needs(module, instruction.called[0], part))
            wanted = [inner.get(number, 0.0) for number in range(len(instruction.operands))]
        else:
            wanted = _operand_needs(instructions, instruction, need)
        for operand, elements in zip(instruction.operands, wanted, strict=True):
            needed[operand] = needed.get(operand, 0.0) + elements
    return computation


def _operand_needs(scope: dict[str, Instruction], instruction: Instruction, need: float) -> list[float]:
    """Elements of each operand that go into `need` elements of the result."""
    if need == 0:
        return [0.0] * len(instruction.operands)
    opcode = instruction.opcode.removesuffix("-start")
    sizes = [_elements(scope[name]) if name in scope else 0 for name in instruction.operands]
    if opcode in _SLICES:
        return [need, *sizes[1:]]
    if opcode in _UPDATES:
        update = sizes[_UPDATES[opcode]]
        # The place of the update is written, and read only if the update is combined with what is there.
        return [float(update) if opcode == "scatter" else 0.0, *sizes[1:]]
    if opcode == "broadcast":
        return [min(float(size), need) for size in sizes]
    share = min(1.0, need / max(1, _result_elements(instruction)))
    return [size * share for size in sizes]


def _parameter_needs(computation: Computation) -> dict[int, float]:
    found = {}
    for name, instruction in computation.instructions.items():
        if instruction.opcode == "parameter":
            found[int(instruction.rest.partition(")")[0])] = computation.needed[name]
    return found


def _results(computation: Computation) -> list[str]:
    """The names of a computation's results; several if it ends with a tuple."""
    root = next(each for each in reversed(computation.instructions.values()) if each.root)
    return list(root.operands) if root.opcode == "tuple" else [root.name]


def _written(computation: Computation, result: str) -> float:
    """Bytes that a kernel writes for one of its results."""
    instruction = computation.instructions[result]
    kept = [array for array in array_shapes(instruction.shape) if not array.space]
    source = instruction
    while source.opcode in _SAME and source.operands:
        source = computation.instructions[source.operands[0]]
    if source.opcode in _UPDATES and kept:
        return _update_bytes(computation.instructions, source)
    return sum(array.bytes for array in kept)


def _written_alone(scope: dict[str, Instruction], instruction: Instruction) -> float:
    if instruction.opcode in _UPDATES:
        return _update_bytes(scope, instruction)
    return sum(array.bytes for array in _result_arrays(instruction) if not array.space)


def _update_bytes(scope: dict[str, Instruction], instruction: Instruction) -> float:
    update = scope.get(instruction.operands[_UPDATES[instruction.opcode]])
    return 0.0 if update is None else sum(array.bytes for array in array_shapes(update.shape))


def _result_arrays(instruction: Instruction) -> list[ArrayShape]:
    """The arrays that an instruction makes, without the workspace of a library's kernel."""
    arrays = array_shapes(instruction.shape)
    if instruction.opcode == "custom-call" and len(arrays) > 1:
        return [array for array in arrays if array.dtype != "u8"]
    if instruction.opcode == "copy-start":  # (result, operand, context)
        return arrays[:1]
    if instruction.opcode.endswith("-start") and len(arrays) > len(instruction.operands):
        # (operands, results, contexts)
        return [array for array in arrays[len(instruction.operands) :] if array.dims]
    return arrays


def _elements(instruction: Instruction) -> int:
    return sum(array.elements for array in array_shapes(instruction.shape))


def _result_elements(instruction: Instruction) -> int:
    return sum(array.elements for array in _result_arrays(instruction))
