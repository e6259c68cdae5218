"""Ends a command quietly whose output nobody reads any more, as in `transdiff verify FILE | head -1`."""

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator

CODE = 128 + signal.SIGPIPE  # as shells show the end of other programs then


def open_closed_streams() -> None:
    """Gives a command that was started without standard streams (`2>&-`) empty ones.

    Otherwise the first file that it opens would take the place of the messages.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")


def nobody_reads() -> bool:
    """Whether the standard output is a pipe whose reader has gone."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def drop_output() -> None:
    """Lets what is still in Python's buffer go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


@contextlib.contextmanager
def quiet_end() -> Iterator[None]:
    """Writes out the standard output when the block ends; exits quietly with `CODE` if nobody reads it."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not nobody_reads():
            raise
        drop_output()
        sys.exit(CODE)
