"""A request to stop early, on which all processes of a job agree."""

import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Made by SIGTERM (preemption), however often it comes, or by a first Ctrl-C; a second one interrupts at once.

    In a job of several processes one of them may get the signal, or all: JAX spreads the notice and names the question
    that all have yet to ask (`transdiff_jax.distributed.join` with `stops_together`, whose handler of SIGTERM stays).
    """

    def __init__(self) -> None:
        self.cause: str | None = None  # once the place to stop at is reached
        self._signal_name: str | None = None
        self._questions = 0
        self._together = jax.process_count() > 1
        numbers = (signal.SIGINT,) if self._together else (signal.SIGTERM, signal.SIGINT)
        self._previous = {number: signal.getsignal(number) for number in numbers}
        for number in self._previous:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signal_name = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, self._previous[number])
            if self._together:
                signal.raise_signal(signal.SIGTERM)

    def reached(self) -> bool:
        """Whether to stop here; every process asks at the same places, and all get the same answer at each."""
        if not self._together:
            self.cause = self._signal_name
        elif self.cause is None:
            self._questions += 1
            if multihost_utils.reached_preemption_sync_point(self._questions):
                self.cause = "a signal to one of the processes"
        return self.cause is not None

    def restore(self) -> None:
        """Puts the former signal handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
