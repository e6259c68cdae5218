"""A request to stop early, on which all processes of a job agree."""

import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """A request to stop: any SIGTERM (preemption) or the first Ctrl-C makes one; a second Ctrl-C interrupts at once.

    In a job of several processes, the signal may reach one process or all. JAX passes it on and picks a question that
    no process has asked yet, at which all stop (`transdiff_jax.parallel.job.join` with `stops_together`; its SIGTERM
    handler stays installed).
    """

    def __init__(self) -> None:
        self.cause: str | None = None  # set when the place to stop at is reached
        self._signal_name: str | None = None
        self._questions = 0
        self._together = jax.process_count() > 1
        numbers: list[int] = [signal.SIGINT] if self._together else [signal.SIGTERM, signal.SIGINT]
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
        """Whether to stop here. All processes ask at the same places and get the same answers."""
        if not self._together:
            self.cause = self._signal_name
        elif self.cause is None:
            self._questions += 1
            if multihost_utils.reached_preemption_sync_point(self._questions):
                self.cause = "a signal to one of the processes"
        return self.cause is not None

    def restore(self) -> None:
        """Restores the previous signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
