"""A request to stop early, on which all processes of a job agree."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

import jax
from jax.experimental import multihost_utils

from transdiff_jax.parallel import job, signals

Handler = Callable[[int, FrameType | None], object] | int | None


class StopRequest:
    """A request to stop, made by SIGTERM (preemption), SIGHUP (a closed terminal) or the first Ctrl-C.

    It takes signals between `begin` and `restore`, while there is something to save. Before and after, they do what
    they did before. A second Ctrl-C does that, too.

    In a job of several processes, the signal may reach one process or all. JAX passes it on and picks a question that
    no process has asked yet, at which all stop.
    """

    def __init__(self) -> None:
        self.cause: str | None = None  # set when the place to stop at is reached
        self._signal_name: str | None = None
        self._questions = 0
        self._begun = False
        self._together = jax.process_count() > 1
        self._pressed = False  # Ctrl-C
        self._previous: dict[int, Handler] = {}

    def begin(self) -> None:
        """Takes the signals from here on. All processes call this at the same place."""
        self._begun = True
        if self._together:
            job.stop_together()
            multihost_utils.sync_global_devices("signals ask for a joint stop")
        if threading.current_thread() is not threading.main_thread():
            return  # Python gives signals to the main thread alone
        numbers = [number for number in signals.asked_for() if not self._together or number != signal.SIGTERM]
        self._previous = {number: signal.getsignal(number) for number in numbers}
        for number in self._previous:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signal_name = signal.Signals(number).name
        previous = self._previous[number]
        if self._pressed and number == signal.SIGINT and callable(previous):
            previous(number, frame)
        self._pressed = self._pressed or number == signal.SIGINT
        if self._together:
            signal.raise_signal(signal.SIGTERM)

    def reached(self) -> bool:
        """Whether to stop here. All processes ask at the same places and get the same answers."""
        if not self._begun:
            return False
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
