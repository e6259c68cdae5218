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
from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.storage.paths import delete_tree, location

LAST = 2**31 - 1  # steps are counted in int32
_UNFINISHED = ".orbax-checkpoint-tmp"
COMMITTED = "commit_success.txt"  # the file of a step that Orbax writes last

Metadata = ocp.path.step.Metadata


def saved_steps(folder: Path) -> list[int]:
    """The committed steps in ascending order, intact or not."""
    if isinstance(folder, BucketPath):
        # A step there is under its own name from the start; the last file that is written commits it.
        return sorted(int(step) for step, files in _steps_in_bucket(folder).items() if COMMITTED in files)
    return sorted(int(path.name) for path in folder.iterdir() if _is_step(path))


def remove_uncommitted(folder: BucketPath) -> None:
    """Deletes what a kill has left of steps that were not committed. No other job may be at work in the run."""
    for step, files in _steps_in_bucket(folder).items():
        if COMMITTED not in files:
            logging.info("deleting step %s in %s, which was never committed", step, folder)
            delete_tree(folder / step)


def _steps_in_bucket(folder: BucketPath) -> dict[str, set[str]]:
    """The files of each step, committed or not, by its name."""
    found: dict[str, set[str]] = {}
    for name in folder.sizes():
        step, _, file = name.partition("/")
        if file and _is_number(step):
            found.setdefault(step, set()).add(file)
    return found


def warn_of_others(folder: Path) -> None:
    """Logs one warning if there is something that is neither a step nor an unfinished one."""
    others = [p.name for p in folder.iterdir() if not _may_be_step(p) and _UNFINISHED not in p.name]
    if others:
        logging.warning(
            "ignoring what is no folder named by a step in %s: %s", folder, ", ".join(map(repr, sorted(others)))
        )


def _may_be_step(path: Path) -> bool:
    """Whether a step has this place; in a bucket, it may be one that is not committed."""
    return _is_number(path.name) if isinstance(path, BucketPath) else _is_step(path)


def _is_step(path: Path) -> bool:
    return _is_number(path.name) and path.is_dir() and not path.is_symlink()


def _is_number(name: str) -> bool:
    if not (name.isascii() and name.isdecimal()) or len(name) > len(str(LAST)):
        return False
    return str(int(name)) == name and int(name) <= LAST


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
            steps.extend(saved_steps(location(base_path, "workdir")))
            return np.array([len(steps)])

        (length,) = in_first_process(count, 1, np.int32)
        agreed = in_first_process(lambda: np.array(steps), int(length), np.int32)
        return iter([self.find_step(base_path, int(step)) for step in agreed])

    def find_step(self, base_path: epath.PathLike, step: int) -> Metadata:
        """Where a step is."""
        return Metadata(step=step, path=epath.Path(base_path) / self.build_name(step))
