"""One case of damage: a function of the seed, the kind of file and the mutation."""

import random
import shutil

from tests.withstand.byte_mutations import BYTES
from tests.withstand.json_mutations import JSON
from tests.withstand.kinds import KINDS
from tests.withstand.name_mutations import NAMES
from tests.withstand.running import changes, snapshot

VALID = "valid"  # nothing is damaged


def mutations(kind):
    """The names of all mutations of a kind of file."""
    names = [name for name in NAMES if "/" in KINDS[kind].target or not name.startswith("parent_")]
    return [*BYTES, *names, *(JSON if KINDS[kind].json else ())]


def chosen(seed, kind, count):
    """Some mutations of a kind, in the same proportion of bytes, names and JSON as all of them."""
    names = mutations(kind)
    random.Random(f"{seed}/{kind}").shuffle(names)
    return names[:count]


def damage(seed, kind, mutation, root):
    """Damages one file below `root` and returns its path."""
    draw = random.Random(f"{seed}/{kind}/{mutation}")
    path = draw.choice(sorted(root.glob(KINDS[kind].target)))
    if mutation in NAMES:
        NAMES[mutation](draw, path)
    else:
        path.write_bytes((BYTES | JSON)[mutation](draw, path.read_bytes()))
    KINDS[kind].after(root, path)
    return path


class Attack:
    """Runs cases, each in a new copy of its base."""

    def __init__(self, folder, warm, bases):
        self._folder, self._warm, self._bases = folder, warm, bases
        self._right = {}  # kind -> results that are right
        self._streams = folder / "streams"
        self._streams.mkdir()

    def complaint(self, seed, kind, mutation):
        """What is wrong with how a case ends, with its output; None if nothing is."""
        right = self._right_results(kind)
        change = (lambda root: None) if mutation == VALID else (lambda root: damage(seed, kind, mutation, root))
        found, outcome, result = self._case(kind, change)
        if found is None and outcome.code == 0 and result() not in right:
            found = "code 0 with a wrong result"
        if found is None and mutation == VALID and outcome.code:
            found = "refused although nothing is damaged"
        self._remove()
        return found and f"{found}\n{outcome.out[-1500:]}\n{outcome.err[-3000:]}"

    def outcome(self, seed, kind, mutation):
        """How a case ends."""
        outcome = self._case(kind, lambda root: damage(seed, kind, mutation, root))[1]
        self._remove()
        return outcome

    def _right_results(self, kind):
        if kind not in self._right:
            others = [KINDS[kind].other] if KINDS[kind].other else []
            results = []
            for change in (lambda root: None, *others):
                found, outcome, result = self._case(kind, change)
                assert found is None and outcome.code == 0, f"{kind} as it should be: {found}\n{outcome.err}"
                results.append(result())
                self._remove()
            self._right[kind] = results
        return self._right[kind]

    def _case(self, name, change):
        kind, root = KINDS[name], self._folder / "case"
        self._bases.copy(kind.base, root)
        change(root)
        unreadable = any(path.lstat().st_mode & 0o777 == 0 for path in root.glob(kind.target) if path.exists())
        before = snapshot(root)
        outcome = self._warm.run(kind.command, root, self._streams, small=kind.small, nobody=unreadable)
        found = outcome.complaint(kind.codes)
        written = changes(before, snapshot(root), kind.writes)
        if found is None and written:
            found = f"changed {written[:3]}"
        return found, outcome, lambda: kind.result(root)

    def _remove(self):
        shutil.rmtree(self._folder / "case")
