"""The items of a checkpoint, each in a folder of its own: a reader takes only what it needs.

    params      parameters
    ema_0, …    each average
    optimizer   optimizer state and counters
    run         the record, as JSON

Version 0.1 kept all arrays in one item, `state`.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree

from transdiff_jax.checkpoints.record import RUN
from transdiff_jax.model.params import AbstractParams, Params
from transdiff_jax.storage.checksums import DamageError

PARAMS, OPTIMIZER, STATE = "params", "optimizer", "state"
# Replicas share the writing of an array whose parts are at least as large. Smaller parts cost more than they save.
MIN_PART_BYTES = 2**20


class RunState(Protocol):
    """A dataclass of arrays: parameters, averages of them, and the rest."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def params(self) -> Params:
        """The parameters."""
        ...

    @property
    def ema(self) -> tuple[Params, ...]:
        """One average for each rate."""
        ...


State = TypeVar("State", bound=RunState)


def average(index: int | str) -> str:
    """The item of an average."""
    return f"ema_{index}"


def items_of_run(averages: int) -> set[str]:
    """All items of a step with that many averages."""
    return {PARAMS, OPTIMIZER, RUN, *map(average, range(averages))}


def split(state: RunState) -> dict[str, PyTree]:
    """The items with arrays, by name."""
    rest = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    params, ema = rest.pop("params"), rest.pop("ema")
    return {PARAMS: params, OPTIMIZER: rest} | {average(index): tree for index, tree in enumerate(ema)}


def read_state(step_folder: Path, abstract: State) -> State:
    """The arrays of a step.

    Args:
        step_folder: of the step.
        abstract: the state with shapes, dtypes and shardings in place of arrays.
    """
    if (step_folder / STATE).is_dir():
        return _restore(step_folder / STATE, abstract)
    read = {name: _restore(step_folder / name, tree) for name, tree in split(abstract).items()}
    ema = tuple(read[average(index)] for index in range(len(abstract.ema)))
    return dataclasses.replace(abstract, params=read[PARAMS], ema=ema, **read[OPTIMIZER])


def read_params(step_folder: Path, item: str, abstract: AbstractParams, averages: int) -> Params:
    """Parameters or one average.

    Args:
        step_folder: of the step.
        item: `PARAMS` or the name of an average.
        abstract: shapes, dtypes and shardings.
        averages: how many the step has.
    """
    if not (step_folder / STATE).is_dir():
        return _restore(step_folder / item, abstract)
    # Placeholders stand for the averages that are not read.
    unread = jax.tree.map(lambda _: ocp.PLACEHOLDER, abstract)
    names = [average(index) for index in range(averages)]
    ema = tuple(abstract if name == item else unread for name in names)
    wanted = {"params": abstract} if item == PARAMS else {"ema": ema}
    state = _restore(step_folder / STATE, wanted, partial=True)
    return state["params"] if item == PARAMS else state["ema"][names.index(item)]


def check_shapes(step_folder: Path, item: str, abstract: AbstractParams) -> None:
    """Compares the shapes of stored arrays with those of a model; reads no values.

    Args:
        step_folder: of the step.
        item: `PARAMS` or the name of an average.
        abstract: shapes of the model's parameters.

    Raises:
        DamageError: the shapes differ.
    """
    old = (step_folder / STATE).is_dir()
    prefix = "" if not old else "params/" if item == PARAMS else f"ema/{item.removeprefix(average(''))}/"
    with _handler() as handler:
        stored = _shapes(handler.metadata(epath.Path(step_folder.absolute()) / (STATE if old else item)).tree)
    wanted = {prefix + name: shape for name, shape in _shapes(abstract).items()}
    found = {name: shape for name, shape in stored.items() if name.startswith(prefix)}
    if wanted != found:
        name = min(set(wanted.items()) ^ set(found.items()))[0]
        raise DamageError(
            f"the record's model has {name} of shape {wanted.get(name)}, but the arrays have {found.get(name)}"
        )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}


def _restore(folder: Path, abstract: PyTree, *, partial: bool = False) -> PyTree:
    """Reads an item, or the part that `abstract` names, without waiting for other processes, of which one may fail."""
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
    args = ocp.args.PyTreeRestore(abstract, restore_args=restore_args, partial_restore=partial)
    with _handler() as handler:
        return handler.restore(epath.Path(folder.absolute()), args=args)


def array_handler() -> ocp.PyTreeCheckpointHandler:
    """Writes and reads an item with arrays."""
    arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=MIN_PART_BYTES)
    placeholders = ocp.type_handlers.get_type_handler(type(ocp.PLACEHOLDER))
    registry = ocp.type_handlers.create_type_handler_registry(
        (jax.Array, arrays), (type(ocp.PLACEHOLDER), placeholders)
    )
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


@contextlib.contextmanager
def _handler() -> Iterator[ocp.PyTreeCheckpointHandler]:
    handler = array_handler()
    try:
        yield handler
    finally:
        handler.close()
