import re

import pytest

from tests.support import runs
from transdiff_jax.checkpoints.step_names import StepNames, saved_steps, warn_of_others
from transdiff_jax.checkpoints.store import CheckpointStore
from transdiff_jax.checkpoints.weights import latest_record

FOLDERS = [
    "²",
    "9" * 39,
    "0099",
    "٤٥",
    "1\u0665",
    "-3",
    "+4",
    " 5",
    "6\n",
    "1_0",
    "4294967296",
]
UNFINISHED = "7.orbax-checkpoint-tmp-1"


@pytest.fixture
def odd(workdir, tmp_path):
    """A run with steps 1 and 2 and with names that some readers take for steps."""
    folder = workdir / "checkpoints"
    for name in (*FOLDERS, UNFINISHED):
        (folder / name).mkdir()
    (folder / "999").write_text("a plain file")
    (tmp_path / "elsewhere").mkdir()
    (folder / "1000").symlink_to(tmp_path / "elsewhere")
    return workdir


def test_only_folders_named_by_a_step_are_steps(odd):
    folder = odd / "checkpoints"
    assert saved_steps(folder) == [1, 2]
    assert [(found.step, found.path.name) for found in StepNames().find_all(folder)] == [(1, "1"), (2, "2")]


def test_one_warning_names_the_others(odd, caplog):
    warn_of_others(odd / "checkpoints")
    (warning,) = caplog.records
    assert all(name in warning.getMessage() for name in ("²", "0099", "٤٥", "999", "1000"))
    assert "orbax" not in warning.getMessage()
    assert "\n" not in warning.getMessage()


def test_a_reader_ignores_them(odd, caplog):
    assert latest_record(odd) == runs.record_of(2)
    assert len(re.findall("ignoring what is no folder named by a step", caplog.text)) == 1


def test_a_trainer_ignores_them_too(odd, state, caplog):
    before = {path.name for path in (odd / "checkpoints").iterdir()}
    with CheckpointStore(odd, keep_last=2) as store:
        assert store.newest_intact() == 2
        store.save(3, state, runs.record_of(3))
    assert len(re.findall("ignoring what is no folder named by a step", caplog.text)) == 1
    after = {path.name for path in (odd / "checkpoints").iterdir()}
    assert after == before - {"1", UNFINISHED} | {"3"}
