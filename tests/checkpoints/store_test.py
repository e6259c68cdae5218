import contextlib
import re
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from tests.support import runs
from tests.support.damage import array_files, flip_byte
from transdiff_jax.checkpoints.step_names import saved_steps
from transdiff_jax.checkpoints.store import CheckpointStore
from transdiff_jax.checkpoints.weights import latest_record, load_weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.storage import checksums
from transdiff_jax.storage.checksums import find_damage
from transdiff_jax.training.state import abstract_state


def test_what_is_saved_is_read(pristine, state, mesh):
    store = CheckpointStore(pristine, keep_last=10)
    assert store.newest_intact() == 2
    assert store.read_record(2) == runs.record_of(2)
    restored = store.read_state(2, abstract_state(runs.CONFIG, mesh))
    store.close()
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_read_onto_another_mesh(pristine, state):
    store = CheckpointStore(pristine, keep_last=10)
    wide = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    restored = store.read_state(1, abstract_state(runs.CONFIG, wide))
    store.close()
    assert restored.params["encoder"]["class_embedding"].sharding.mesh.devices.size == 8
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), jax.device_get(state))


def test_small_arrays_are_written_whole(pristine, state):
    """Eight devices that hold the same weights would otherwise write an eighth of each bias."""
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        stored = handler.metadata(epath.Path(pristine / "checkpoints" / "1" / "params")).tree
    shapes = [leaf.storage.chunk_shape for leaf in jax.tree.leaves(stored)]
    assert shapes == [leaf.shape for leaf in jax.tree.leaves(state.params)]


def test_a_new_run_has_no_step(tmp_path):
    store = CheckpointStore(tmp_path / "new", keep_last=1)
    assert store.newest_intact() is None
    store.close()


def truncate(step_folder):
    largest = max(array_files(step_folder), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])


def remove_file(step_folder):
    array_files(step_folder)[0].unlink()


def empty_folder(step_folder):
    shutil.rmtree(step_folder)
    step_folder.mkdir()


def remove_manifest(step_folder):
    (step_folder / "manifest.json").unlink()


def garble_manifest(step_folder):
    (step_folder / "manifest.json").write_text('{"state/x": "00')


def empty_manifest(step_folder):
    (step_folder / "manifest.json").write_text("{}")


DAMAGES = [flip_byte, truncate, remove_file, empty_folder, remove_manifest, garble_manifest, empty_manifest]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_falls_back_loudly_and_can_be_saved_again(workdir, state, damage, caplog):
    folder = workdir / "checkpoints"
    assert find_damage(folder / "2") is None
    damage(folder / "2")
    assert find_damage(folder / "2") is not None
    store = CheckpointStore(workdir, keep_last=10)
    assert store.newest_intact() == 1
    assert re.search("checkpoint of step 2 in .* is damaged", caplog.text)
    assert (workdir / "damaged" / "2").is_dir()
    store.save(2, state, runs.record_of(2))
    store.close()
    assert find_damage(folder / "2") is None


def test_readers_fall_back_without_touching_the_run(workdir, mesh, caplog):
    flip_byte(workdir / "checkpoints" / "2")
    assert load_weights(workdir, mesh).step == 1
    assert latest_record(workdir) == runs.record_of(2), "the record itself is intact"
    (workdir / "checkpoints" / "2" / "run" / "metadata").write_text("{}")
    assert latest_record(workdir) == runs.record_of(1)
    assert re.search("checkpoint of step 2 in .* is damaged", caplog.text)
    assert (workdir / "checkpoints" / "2").is_dir()


def test_nothing_intact_is_an_error_and_not_a_fresh_start(workdir, mesh):
    for step in ("1", "2"):
        flip_byte(workdir / "checkpoints" / step)
    store = CheckpointStore(workdir, keep_last=10)
    with pytest.raises(UserError, match=r"no intact checkpoint: all of steps \[1, 2\] are damaged"):
        store.newest_intact()
    store.close()
    with pytest.raises(UserError, match="no intact checkpoint"):
        load_weights(workdir, mesh)


def test_a_half_written_step_is_passed_over(workdir):
    shutil.copytree(workdir / "checkpoints" / "2", workdir / "checkpoints" / "3.orbax-checkpoint-tmp")
    store = CheckpointStore(workdir, keep_last=10)
    assert store.newest_intact() == 2
    store.close()


def test_keep_last_and_keep_every(tmp_path, state):
    runs.save_steps(tmp_path, state, range(1, 8), keep_last=2, keep_every=3)
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [3, 6, 7]


def test_load_each_kind_of_weights(pristine, mesh, state):
    for weights, expected, name in (
        (load_weights(pristine, mesh), state.ema[0], "ema 0.9"),
        (load_weights(pristine, mesh, ema_rate=0.5), state.ema[1], "ema 0.5"),
        (load_weights(pristine, mesh, kind="raw"), state.params, "raw"),
    ):
        assert (weights.name, weights.step, weights.config) == (name, 2, runs.CONFIG)
        jax.tree.map(np.testing.assert_array_equal, weights.params, expected)


def test_weights_are_read_split_over_the_mesh(pristine, state):
    mesh = make_mesh(MeshConfig(1, 4, 2))
    params = load_weights(pristine, mesh).params

    def check(leaf, expected, abstract):
        np.testing.assert_array_equal(leaf, expected)
        assert leaf.sharding.is_equivalent_to(abstract.sharding, leaf.ndim)
        assert {shard.data.shape for shard in leaf.addressable_shards} == {abstract.sharding.shard_shape(leaf.shape)}

    jax.tree.map(check, params, state.ema[0], abstract_state(runs.CONFIG, mesh).params)
    kernel = params["decoder"]["blocks"]["mlp"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size / 8
    with pytest.raises(UserError, match="heads=2 must be divisible by 8, the mesh's tensor devices"):
        load_weights(pristine, make_mesh(MeshConfig(1, 1, 8)))


def test_weights_that_do_not_exist(pristine, tmp_path, mesh):
    with pytest.raises(UserError, match=r"has no average of rate 0.7; choose one of the rates \(0.9, 0.5\)"):
        load_weights(pristine, mesh, ema_rate=0.7)
    with pytest.raises(UserError, match="holds no checkpoints"):
        load_weights(tmp_path / "nowhere", mesh)


def test_a_file_as_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^workdir=.*file cannot be used: Not a directory"):
        CheckpointStore(tmp_path / "file", keep_last=1)


def test_a_full_disk_is_noticed_before_anything_is_written(workdir, state, monkeypatch):
    usage = shutil.disk_usage(workdir)
    store = CheckpointStore(workdir, keep_last=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"step 3 could not be written.* 0\.0 MiB are free.*steps \[1, 2\] are kept"):
        store.save(3, state, runs.record_of(3))
    store.close()
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "2"]


def test_one_process_at_a_time(workdir):
    store = CheckpointStore(workdir, keep_last=10)
    with pytest.raises(UserError, match="is in use by another process"):
        CheckpointStore(workdir, keep_last=10)
    store.close()
    CheckpointStore(workdir, keep_last=10).close()


def test_the_same_step_twice_is_saved_once_and_an_older_one_is_refused(workdir, state):
    store = CheckpointStore(workdir, keep_last=10)
    before = (workdir / "checkpoints" / "2" / "manifest.json").stat().st_mtime_ns
    store.save(2, state, runs.record_of(2))
    store.save(5, state, runs.record_of(5))
    with pytest.raises(UserError, match=r"step 4 could not be written.*step 5 exists and is not older"):
        store.save(4, state, runs.record_of(4))
    store.close()
    assert (workdir / "checkpoints" / "2" / "manifest.json").stat().st_mtime_ns == before


def test_what_cannot_be_read_is_not_taken_for_damage(workdir, monkeypatch):
    def unreadable(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(checksums, "sha256", unreadable)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        find_damage(workdir / "checkpoints" / "2")
    assert (workdir / "checkpoints" / "2").is_dir()


def test_a_step_may_be_saved_while_an_error_is_handled(tmp_path, state):
    try:
        raise ValueError("of somebody's first run")
    except ValueError:
        runs.save_steps(tmp_path, state, [1])
    assert saved_steps(tmp_path / "checkpoints") == [1]
