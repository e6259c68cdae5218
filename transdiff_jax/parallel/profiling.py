"""Traces some steps of a loop with `jax.profiler`: what the device and the host did, and when."""

import dataclasses
from pathlib import Path
from typing import Self

import jax
from absl import logging
from jaxtyping import PyTree

from transdiff_jax.errors import UserError
from transdiff_jax.parallel.processes import is_first


@dataclasses.dataclass(frozen=True)
class Profile:
    """Which steps of a command to trace, and where to."""

    folder: Path
    first: int = 10  # counted from 1, the first step of this command
    last: int = 15


class Profiler:
    """A context around a loop whose steps it counts. The first process of a job writes the trace, of its own devices.

    A trace that is under way when the loop ends is written with what it holds.
    """

    def __init__(self, profile: Profile | None, unit: str, total: int) -> None:
        """Prepares the folder.

        Args:
            profile: what to trace; None: nothing.
            unit: what a step of the loop is called, in the plural.
            total: how many steps the loop has.

        Raises:
            UserError: the loop ends before the first step to trace, or the folder cannot be made.
        """
        self._profile, self._unit = profile, unit
        self._done = 0
        self._running = False
        if profile is None:
            return
        if profile.first > total:
            raise UserError(
                f"there is nothing to trace from number {profile.first} on: this command does {total} {unit}; name "
                "earlier ones"
            )
        try:
            profile.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"the trace cannot be written to {profile.folder} ({error.strerror})") from None

    def __enter__(self) -> Self:
        self._start_or_stop(None)
        return self

    def step(self, results: PyTree) -> None:
        """Counts a step.

        Args:
            results: arrays that the step computes; at both ends of the trace, this waits for them.
        """
        self._done += 1
        self._start_or_stop(results)

    def _start_or_stop(self, results: PyTree) -> None:
        profile = self._profile
        if profile is None or not is_first():
            return
        if self._done == profile.first - 1:
            jax.block_until_ready(results)
            jax.profiler.start_trace(str(profile.folder))
            self._running = True
        elif self._running and self._done >= profile.last:
            jax.block_until_ready(results)
            self._stop(profile)

    def _stop(self, profile: Profile) -> None:
        self._running = False
        jax.profiler.stop_trace()
        logging.info("the trace of %s %d to %d is in %s", self._unit, profile.first, self._done, profile.folder)

    def __exit__(self, *_: object) -> None:
        if self._running and self._profile is not None:
            self._stop(self._profile)
