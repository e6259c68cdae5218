"""Keeping a device busy while the host writes what it has made."""

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item, Made = TypeVar("Item"), TypeVar("Made")

MAX_DISPATCHED = 2  # batches that the device has to do or has done, and that are not handed on yet


def dispatched(items: Iterable[Item], run: Callable[[Item], Made]) -> Iterator[tuple[Item, Made]]:
    """Each item with what `run` makes of it, in order, when the next one is dispatched already."""
    waiting: collections.deque[tuple[Item, Made]] = collections.deque()
    for item in items:
        waiting.append((item, run(item)))
        if len(waiting) == MAX_DISPATCHED:
            yield waiting.popleft()
    yield from waiting
