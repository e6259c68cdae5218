"""Runs the command lines of the tables in one folder that they must leave as it is."""

import re
import shlex
import shutil

from tests.withstand import lines_first, lines_other, lines_sample, lines_train
from tests.withstand.running import changes, snapshot

FIRST = lines_first.LINES
LINES = [*FIRST, *lines_sample.LINES, *lines_train.LINES, *lines_other.LINES]
NEW = ("out2", "out2.json", "out2.npz", "out2.pth", "__pycache__")  # what lines may write
_MADE = {"out", "inception", "latents", "real.npz", "statistics.npz", "photos.py", "pictures", "weights"}
_MADE |= {"one_step_256_a.pth", "kl16_a.npz", "good_link", "packed.npz", "statistics.pt", "converted"}
_PREFIXES = {"ok": (0,), "any": (0, 2)}


def reads_nothing(line):
    """Whether a line names nothing that commands have made, so that it runs quickly."""
    names = set(re.split(r"[=/ :]", line.partition(" => ")[0]))
    return not names & _MADE


class LineAttack:
    """Runs lines; the folder is made again after one that changed it."""

    def __init__(self, folder, warm, bases):
        self._folder, self._warm, self._bases = folder, warm, bases
        self._streams = folder / "line_streams"
        self._streams.mkdir()
        self._root, self._before, self._base = folder / "world", {}, None

    def complaint(self, line, base="world"):
        """What is wrong with how a line ends, with its output; None if nothing is."""
        self._prepare(base)
        command, _, message = line.partition(" => ")
        words = shlex.split(command)
        codes = _PREFIXES.get(words[0] if words else "", (2,))
        arguments = words[1:] if words[:1] and words[0] in _PREFIXES else words
        # No command line can hold a zero byte; another byte that is no text takes its place.
        arguments = [word.replace("\0", "\udc80") for word in arguments]
        outcome = self._warm.run(arguments, self._root, self._streams, small=True)
        found = outcome.complaint(codes)
        if found is None and message not in outcome.err:
            found = f"the error does not say {message!r}"
        written = changes(self._before, snapshot(self._root), NEW)
        if found is None and written and not line.startswith(("ok train", "ok cache")):
            found = f"changed {written[:3]}"
        self._clean(bool(written))
        return found and f"{found}\n{outcome.out[-500:]}\n{outcome.err[-2500:]}"

    def _prepare(self, base):
        if self._base != base:
            shutil.rmtree(self._root, ignore_errors=True)
        if not self._root.exists():
            self._bases.copy(base, self._root)
            self._before, self._base = snapshot(self._root), base

    def _clean(self, changed):
        if changed:
            shutil.rmtree(self._root)
            return
        for name in NEW:
            path = self._root / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
