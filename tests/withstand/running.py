"""Runs command lines in children of a warm process, and says what is wrong with how they ended."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

from tests.support.commands import environment
from tests.support.paths import ROOT
from tests.withstand.hub_cache import OFFLINE

SECONDS, WALL, MEMORY = 60, 240, 3 << 30  # bounds of a case: processor time, time on a busy machine, bytes
LONGEST = 1500  # characters of an error line
DIGESTED = 1 << 24  # larger files are compared by their size and time
# Log lines, and the table of parameters that training logs.
LOG = re.compile(r"\d\d:\d\d:\d\d |[|+]|Total|E0000|W0000|I0000|$")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stopped: str | None  # why it had to be ended
    cpu: float
    memory: int
    left: bool  # whether processes outlived it
    out: str
    err: str

    def complaint(self, codes=(0, 2)):
        """What is wrong, in a few words; None if nothing is."""
        lines = self.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        others = [line for line in lines if line not in errors and not LOG.match(line)]
        checks = (
            (self.stopped is not None, self.stopped),
            (self.memory > MEMORY, f"took {self.memory >> 20} MiB"),
            (self.left, "left processes behind"),
            ("Traceback" in self.err, "a traceback"),
            (self.code not in codes, f"ended with {self.code}"),
            (self.code == 2 and len(errors) != 1, f"{len(errors)} error lines"),
            (self.code != 2 and bool(errors), "an error line without code 2"),
            (self.code == 2 and lines[-1:] != errors[-1:], "the error is not the last line"),
            (any(len(line) > LONGEST for line in errors), "a very long error line"),
            (any(not line.isprintable() for line in errors), "an error line with control characters"),
            (self.code == 2 and bool(others), f"other lines beside the error: {others[:2]}"),
        )
        return next((words for wrong, words in checks if wrong), None)

    def error(self):
        """The error line; empty if there is none."""
        return next((line for line in self.err.splitlines() if line.startswith("error: ")), "")


class Warm:
    """The warm process; `close` ends it."""

    def __init__(self):
        command = [sys.executable, "-m", "tests.withstand.warm"]
        variables = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax")} | environment() | OFFLINE
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        assert line, "the warm process ended"
        return json.loads(line)

    def run(self, arguments, folder, streams, *, small=False, nobody=False, wall=WALL):
        """Runs one command line in a folder, with its output in files of the folder `streams`."""
        out, err = streams / "out", streams / "err"
        job = {
            **{"arguments": list(arguments), "folder": str(folder), "out": str(out), "err": str(err)},
            **{"home": str(folder / "home"), "small": small, "nobody": nobody},
            **{"seconds": SECONDS, "wall": wall, "memory": MEMORY},
        }
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        ended = self._answer()
        texts = {"out": out.read_bytes().decode(errors="replace"), "err": err.read_bytes().decode(errors="replace")}
        return Outcome(**ended, **texts)

    def close(self):
        self._process.stdin.close()
        self._process.wait(60)


def snapshot(folder):
    """Kind, size, time and content of everything below a folder, by path."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            found[os.path.relpath(path, folder)] = _state(path)
    return found


def _state(path):
    state = path.lstat()
    kind = stat.S_IFMT(state.st_mode)
    if stat.S_ISLNK(kind):
        return kind, str(path.readlink())
    if not stat.S_ISREG(kind):
        return (kind,)
    content = None
    if state.st_size <= DIGESTED:
        with contextlib.suppress(OSError):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
    return kind, state.st_size, state.st_mtime_ns, content


def changes(before, after, allowed=()):
    """Paths that differ between two snapshots and are not below an allowed one."""
    differing = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return sorted(path for path in differing if not any(path == a or path.startswith(f"{a}/") for a in allowed))
