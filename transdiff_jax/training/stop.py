"""A request to stop early, on which all processes of a job agree."""

import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Made by SIGTERM (preemption), however often it comes, or by a first Ctrl-C; a second one interrupts at once.

    In a job of several processes one of them may get the signal, or all: JAX spreads the notice and names the step that
    all have yet to reach (`transdiff_jax.distributed.join` with `stops_together`, whose handler of SIGTERM stays).
    """

    def __init__(self) -> None:
        self.cause: str | None = None  # once the step to stop after is reached
        self._signal_name: str | None = None
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

    @property
    def asked(self) -> bool:
        """Whether this process got a signal; the step to stop after is yet to come."""
        return self._signal_name is not None

    def reached(self, step: int) -> bool:
        """Whether to stop after step number `step`; every process asks before each of its steps."""
        if not self._together:
            self.cause = self._signal_name
        elif multihost_utils.reached_preemption_sync_point(step):
            self.cause = "a signal to one of the processes"
        return self.cause is not None

    def restore(self) -> None:
        """Puts the former signal handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
