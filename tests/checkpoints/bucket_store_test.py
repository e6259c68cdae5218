"""Runs in a bucket: the store and its readers, as in store_test.py."""

import jax
import numpy as np
import pytest

from tests.support import runs
from tests.support.damage import flip_byte
from transdiff_jax.checkpoints import store as store_module
from transdiff_jax.checkpoints.step_names import saved_steps
from transdiff_jax.checkpoints.store import CheckpointStore
from transdiff_jax.checkpoints.weights import latest_record, load_weights
from transdiff_jax.errors import UserError
from transdiff_jax.storage.checksums import find_damage, write_manifest
from transdiff_jax.storage.paths import files_below, location
from transdiff_jax.training.run_info import describe_run
from transdiff_jax.training.state import abstract_state


def test_steps_are_saved_kept_damaged_and_saved_again(bucket, state, mesh, caplog):
    folder = bucket / "checkpoints"
    runs.save_steps(bucket, state, [1, 2, 3], keep_last=2)
    assert saved_steps(folder) == [2, 3]
    assert not any(name.startswith("1/") for name in files_below(folder))
    assert find_damage(folder / "3") is None
    assert not (bucket / ".lock").exists()
    weights = load_weights(bucket, mesh)
    assert weights.step == 3
    jax.tree.map(np.testing.assert_array_equal, weights.params, state.ema[0])

    flip_byte(folder / "3")
    (folder / "4" / "manifest.json").write_bytes(b"{}")  # a step that was never committed
    (folder / "notes" / "a.txt").write_bytes(b"kept")
    assert load_weights(bucket, mesh).step == 2
    store = CheckpointStore(bucket, keep_last=2)
    assert store.newest_intact() == 2
    assert "checkpoint of step 3 in gs://" in caplog.text
    assert (bucket / "damaged" / "3").is_dir()
    assert saved_steps(folder) == [2]
    assert not (folder / "4").exists()
    assert (folder / "notes" / "a.txt").read_bytes() == b"kept"
    assert "ignoring what is no folder named by a step in gs://" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, store.read_state(2, abstract_state(runs.CONFIG, mesh)), state)
    store.save(3, state, runs.record_of(3))
    store.save(4, state, runs.record_of(4))
    with pytest.raises(UserError, match="is in use by another process"):
        CheckpointStore(bucket, keep_last=2)
    store.close()
    assert saved_steps(folder) == [3, 4]
    assert find_damage(folder / "4") is None
    assert latest_record(bucket) == runs.record_of(4)
    assert [step["step"] for step in describe_run(bucket)["steps"]] == [3, 4]


def test_a_job_that_has_lost_its_lease_saves_nothing(bucket, state, monkeypatch):
    monkeypatch.setenv("TRANSDIFF_LEASE_SECONDS", "5")
    store = CheckpointStore(bucket, keep_last=2)
    (bucket / ".lock").write_bytes(b"{}")
    with pytest.raises(UserError, match="was taken over by another process"):
        store.save(1, state, runs.record_of(1))
    with pytest.raises(UserError, match="was taken over by another process"):
        store.check_lock()
    store.close()
    assert saved_steps(bucket / "checkpoints") == []


def test_a_job_that_loses_its_lease_while_it_lists_files_commits_nothing(bucket, state, monkeypatch):
    def listed(folder):
        write_manifest(folder)
        (bucket / ".lock").write_bytes(b"{}")

    monkeypatch.setattr(store_module, "write_manifest", listed)
    store = CheckpointStore(bucket, keep_last=2)
    store.save(1, state, runs.record_of(1))
    with pytest.raises(UserError, match=r"^gs://.* was taken over by another process"):
        store.wait()
    store.close()
    assert saved_steps(bucket / "checkpoints") == []


def test_a_save_whose_files_another_job_deletes_says_so(bucket, state, monkeypatch):
    def gone(*_):
        store._lock._lost = True
        raise FileNotFoundError(2, "no such file", str(bucket / "checkpoints" / "1" / "a"))

    store = CheckpointStore(bucket, keep_last=2)
    monkeypatch.setattr(store_module, "write_manifest", gone)
    store.save(1, state, runs.record_of(1))
    with pytest.raises(UserError, match=r"^gs://.* was taken over by another process"):
        store.close()


def test_a_bucket_that_goes_away_ends_in_one_line_and_gives_the_run_back(bucket, state, monkeypatch):
    def gone(*_):
        raise OSError(5, "no route", str(bucket))

    store = CheckpointStore(bucket, keep_last=2)
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_manifest", gone)
        patch.setattr(store_module, "saved_steps", gone)
        store.save(1, state, runs.record_of(1))
        with pytest.raises(UserError, match=r"^checkpoint of step 1 could not .*no route.*: earlier steps are kept$"):
            store.close()
    assert not (bucket / ".lock").exists()


def test_a_bucket_that_is_not_there_is_one_line(bucket_server):
    with pytest.raises(UserError, match=r"^workdir=gs://no-such-bucket/run cannot be used: no such file or bucket"):
        CheckpointStore(location("gs://no-such-bucket/run", "workdir"), keep_last=1)
