"""Keeps a device busy while the host writes its results."""

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

MAX_DISPATCHED = 2  # batches that are dispatched but not yet handed on


def dispatched(items: Iterable[Item], run: Callable[[Item], Made]) -> Iterator[tuple[Item, Made]]:
    """Yields each item and the result of `run`, in order; the next item is dispatched before each is handed on."""
    waiting: collections.deque[tuple[Item, Made]] = collections.deque()
    for item in items:
        waiting.append((item, run(item)))
        if len(waiting) == MAX_DISPATCHED:
            yield waiting.popleft()
    yield from waiting
