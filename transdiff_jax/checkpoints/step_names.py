"""Names in a folder of checkpoints: which of them are steps, for our readers and for Orbax alike.

A step is a folder named by its number, in plain decimal digits as Python prints them. Anything else is left alone.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from transdiff_jax.parallel.processes import in_first_process

LAST = 2**31 - 1  # steps are counted in int32
_UNFINISHED = ".orbax-checkpoint-tmp"

Metadata = ocp.path.step.Metadata


def saved_steps(folder: Path) -> list[int]:
    """The committed steps in ascending order, intact or not."""
    return sorted(int(path.name) for path in folder.iterdir() if _is_step(path))


def warn_of_others(folder: Path) -> None:
    """Logs one warning if there is something that is neither a step nor an unfinished one."""
    others = [p.name for p in folder.iterdir() if not _is_step(p) and _UNFINISHED not in p.name]
    if others:
        logging.warning(
            "ignoring what is no folder named by a step in %s: %s", folder, ", ".join(map(repr, sorted(others)))
        )


def _is_step(path: Path) -> bool:
    name = path.name
    if not (name.isascii() and name.isdecimal()) or len(name) > len(str(LAST)):
        return False
    return str(int(name)) == name and int(name) <= LAST and path.is_dir() and not path.is_symlink()


class StepNames(ocp.path.step.NameFormat[Metadata]):
    """Tells Orbax which steps there are; in a job of several processes, those that the first one sees."""

    single_host_load_and_broadcast = True  # a network file system may show each process another list

    def build_name(self, step: int) -> str:
        """The folder's name."""
        return str(step)

    def find_all(self, base_path: epath.PathLike) -> Iterator[Metadata]:
        """All steps. Every process must call this."""
        steps: list[int] = []

        def count() -> np.ndarray:
            steps.extend(saved_steps(Path(base_path)))
            return np.array([len(steps)])

        (length,) = in_first_process(count, 1, np.int32)
        agreed = in_first_process(lambda: np.array(steps), int(length), np.int32)
        return iter([self.find_step(base_path, int(step)) for step in agreed])

    def find_step(self, base_path: epath.PathLike, step: int) -> Metadata:
        """Where a step is."""
        return Metadata(step=step, path=epath.Path(base_path) / self.build_name(step))
