"""Logs how far a long loop has come: count, rate, and remaining time."""

import time

from absl import logging

SECONDS = 5.0  # between two lines
FIRST_LINE = 1.0  # seconds: it shows early that the loop runs, and how long it will take


_latest: "Progress | None" = None  # of this process


def reached() -> str:
    """How far the latest loop of this process has come, in a few words."""
    return "nothing is done yet" if _latest is None else _latest.reached()


class Progress:
    """Logs a line every few seconds while a loop runs."""

    def __init__(self, done: str, unit: str, total: int) -> None:
        """Starts the clock.

        Args:
            done: what happens to the counted things: "sampled", "trained".
            unit: what is counted, in the plural: "images", "steps".
            total: how many there will be.
        """
        global _latest
        self._done, self._unit, self._total, self._count = done, unit, total, 0
        self._started = time.monotonic()
        self._next_line = self._started + FIRST_LINE
        _latest = self

    def reached(self) -> str:
        """How far it has come, in a few words."""
        return f"{self._done} {self._count} of {self._total} {self._unit}"

    def add(self, count: int = 1) -> None:
        """Counts `count` more."""
        self._count += count
        if time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + SECONDS
            rate = self._count / self.seconds()
            logging.info(
                "%s %d of %d, %.1f %s/s, ETA %.0f s",
                self._done,
                self._count,
                self._total,
                rate,
                self._unit,
                (self._total - self._count) / rate,
            )

    def finish(self) -> float:
        """Logs the rate of the whole loop, and returns its seconds."""
        seconds = self.seconds()
        if self._count:
            logging.info("%s %d %s, %.1f %s/s", self._done, self._count, self._unit, self._count / seconds, self._unit)
        return seconds

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started
