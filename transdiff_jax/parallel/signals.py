"""Ends a command when a signal asks for it, at any stage: also while a program is compiled.

Python runs the handler of a signal in the main thread, between two of its own instructions. A main thread that waits
for the compiler does not get there for minutes. So a thread of its own learns of each signal from the file descriptor
into which Python writes the signal's number at once, and ends the process.

Whoever has something to save first (`transdiff_jax.training.stop`) puts its own handler in the place of ours.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SAME_PRESS = 0.3  # seconds; within them a second SIGINT is no second Ctrl-C


def asked_for() -> tuple[signal.Signals, ...]:
    """The signals that end a command: not those that its parent told it to ignore, as nohup and a shell's & do."""
    return tuple(number for number in ENDING if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN)


def end_on_signals(line: Callable[[signal.Signals], str], leave: Callable[[int], object]) -> None:
    """Makes the signals that end a command end this process at once. Call it in the main thread.

    Nothing is unwound: every file is written atomically, so a process may end at any moment.

    Args:
        line: what to say when a signal ends the process.
        leave: ends the process with an exit code: 128 and the signal's number, as shells have it.
    """
    numbers = asked_for()
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, _ends)
    threading.Thread(target=_watch, args=(receiver, line, leave), name="signals", daemon=True).start()


def _ends(number: int, frame: FrameType | None) -> None:
    """Marks a signal that ends the process; the thread does it."""


def _watch(receiver: int, line: Callable[[signal.Signals], str], leave: Callable[[int], object]) -> None:
    pressed: float | None = None  # when Ctrl-C was pressed first
    while True:
        received = os.read(receiver, 1)[0]
        if received not in ENDING:
            continue
        number = signal.Signals(received)
        again = number == signal.SIGINT and pressed is not None and time.monotonic() - pressed > _SAME_PRESS
        if number == signal.SIGINT and pressed is None:
            pressed = time.monotonic()
        if again or signal.getsignal(number) is _ends:
            _write(line(number))
            leave(128 + number)
        else:
            _write(f"{number.name}: the run saves and ends; {'another' if pressed else 'a'} Ctrl-C ends it at once")


def _write(line: str) -> None:
    """Writes a line without Python's buffers, which the main thread may hold."""
    try:
        os.write(2, f"{line}\n".encode())
    except OSError:  # nobody reads it
        return
