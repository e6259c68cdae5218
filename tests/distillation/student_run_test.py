"""Students as runs: trained, resumed, sharded, sampled, refused."""

import functools
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.support.buckets import upload
from tests.support.configs import tiny_config
from tests.support.events import read_events
from tests.support.students import replaced, student_config
from transdiff_jax.checkpoints.store import CheckpointStore
from transdiff_jax.checkpoints.weights import latest_record, load_weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.distillation.student_run import distill
from transdiff_jax.errors import UserError
from transdiff_jax.generation.loading import load
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.training.loop import train
from transdiff_jax.training.metric_writers import read_metrics
from transdiff_jax.training.state import abstract_state


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("students")


@pytest.fixture(scope="module")
def teacher(folder):
    """Trains a teacher of each kind when it is first asked for."""

    @functools.cache
    def make(mrar=False):
        # Not from fresh weights: their last layer is zero, so that nothing would depend on the rest.
        config = tiny_config(mrar, data={"directory": str(folder / "data")}, optimizer={"learning_rate": 1e-2})
        train(config, folder / f"teacher{mrar}")
        return str(folder / f"teacher{mrar}")

    return make


@pytest.fixture(scope="module")
def student(teacher, folder):
    def make(mrar=False, **sections):
        sections = {**sections, "data": {"directory": str(folder / "data")}}
        sections["train"] = {"init_from": teacher(mrar), **sections.get("train", {})}
        # Fast enough that a few steps show.
        sections["optimizer"] = {"learning_rate": 0.05, "scale_with_batch": False}
        return student_config(mrar, **sections)

    return make


@pytest.fixture(scope="module")
def straight(student, folder):
    """A student of 1-step TransDiff, trained without a stop; and its configuration."""
    settings = {"checkpoint_every": 2, "keep_last": 9, "ema_warmup": True, "sample_every": 4}
    config = student(train=settings)
    distill(config, folder / "straight")
    return folder / "straight", config


def final_state(workdir):
    store = CheckpointStore(workdir, keep_last=9)
    step = store.newest_intact()
    record = store.read_record(step)
    state = store.read_state(step, abstract_state(record.config, make_mesh(MeshConfig(), jax.devices()[:1])))
    store.close()
    return jax.device_get(state), record


@pytest.mark.slow
def test_a_bucket_holds_a_teacher_its_student_and_a_run_that_starts_from_it(straight, folder, bucket, tmp_path):
    workdir, config = straight
    here = config.train.init_from
    there = upload(Path(here), bucket / "teacher")
    distill(replaced(config, "train", init_from=str(there)), bucket / "student")
    jax.tree.map(np.testing.assert_array_equal, final_state(bucket / "student")[0], final_state(workdir)[0])
    for place, start in ((bucket, str(there)), (tmp_path, here)):
        train(tiny_config(data={"directory": str(folder / "data")}, train={"init_from": start}), place / "tuned")
    jax.tree.map(np.testing.assert_array_equal, final_state(bucket / "tuned")[0], final_state(tmp_path / "tuned")[0])


def test_a_stopped_student_continues_exactly(straight, tmp_path):
    workdir, config = straight
    shutil.copytree(workdir / "checkpoints" / "2", tmp_path / "checkpoints" / "2")
    distill(config, tmp_path)
    (ours, our_record), (theirs, their_record) = (final_state(run) for run in (tmp_path, workdir))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert our_record.teacher == their_record.teacher
    assert our_record.teacher.step == 4 and our_record.teacher.weights == "ema 0.9"
    _, losses = read_metrics(workdir / "metrics.jsonl", "consistency_loss")
    assert len(losses) == 4 and np.isfinite(losses).all()


def test_only_the_decoder_learns_and_the_teacher_is_in_no_checkpoint(straight, teacher):
    workdir, _ = straight
    state, _ = final_state(workdir)
    before = load_weights(Path(teacher()), make_mesh(MeshConfig(), jax.devices()[:1])).params
    jax.tree.map(np.testing.assert_array_equal, state.params["encoder"], jax.device_get(before["encoder"]))
    moved = np.abs(state.params["decoder"]["position_embedding"] - before["decoder"]["position_embedding"])
    assert moved.max() > 0
    items = [
        {path.name for path in (run / "checkpoints" / "4").iterdir() if path.is_dir()}
        for run in (workdir, Path(teacher()))
    ]
    assert items[0] == items[1] == {"params", "ema_0", "optimizer", "run"}
    shapes = jax.tree.map(lambda leaf: leaf.shape, state.ema[0])
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, state.params), "no other weights beside them"


def test_grids_show_passes_beside_the_teacher(straight):
    (events,) = straight[0].glob("events.out.tfevents.*")
    tags = {value.tag for event in read_events(events) for value in event.summary.value if value.HasField("image")}
    assert tags == {"samples", "samples_1", "samples_2", "samples_4", "samples_teacher"}


def test_a_student_is_loaded_and_sampled_like_any_model(straight):
    model = load(straight[0])
    assert model.config.sampling.solver == "flow_map"
    one = model.sample([3, 1], seed=0, steps=1)
    assert one.shape == (2, 8, 8, 1)
    assert (one != model.sample([3, 1], seed=0, steps=4)).any()
    assert (one != model.sample([3, 1], seed=0, steps=1, guidance=2.0)).any()
    assert model.fuse(3, 8, fraction=0.5, n=2, steps=1).shape[0] == 2
    with pytest.raises(UserError, match=r"this student learned the weights 1\.0 to 2\.0"):
        model.sample([3], guidance=2.5)


def test_a_student_of_another_teacher_is_refused(straight, tmp_path):
    workdir, config = straight
    shutil.copytree(workdir, tmp_path / "student")
    faster = {"learning_rate": 2e-2}
    train(tiny_config(data={"directory": config.data.directory}, optimizer=faster), tmp_path / "other")
    changed = replaced(config, "train", init_from=str(tmp_path / "other"), steps=6)
    with pytest.raises(UserError, match=r"holds another teacher: this student learned from ema 0\.9 of step 4"):
        distill(changed, tmp_path / "student")


def test_a_student_teaches_a_student(straight, student, tmp_path):
    first = {"init_from": str(straight[0]), "steps": 1}
    distill(student(train=first, distillation={"guidance": (1.5,)}), tmp_path / "second")
    assert latest_record(tmp_path / "second").teacher.step == 4
    wide = student(train=first, distillation={"guidance": (1.0, 3.0)})
    with pytest.raises(UserError, match=r"guidance=\(1.0, 3.0\) must lie in \(1.0, 2.0\)"):
        distill(wide, tmp_path / "third")


def test_a_student_of_paths_cannot_teach(student, tmp_path):
    distill(student(train={"steps": 1}, distillation={"objective": "trajectory"}), tmp_path / "first")
    with pytest.raises(UserError, match=r"is a student of paths, which knows no velocities"):
        distill(student(train={"init_from": str(tmp_path / "first")}), tmp_path / "second")


@pytest.mark.slow  # step_test.py holds the same of training
@pytest.mark.parametrize("mrar", [False, True], ids=["one_step", "mrar"])
def test_a_student_whose_weights_are_split_is_the_same(student, tmp_path, mrar):
    config = student(mrar, train={"steps": 1})
    distill(config, tmp_path / "rows")
    distill(replaced(config, "mesh", data=2, fsdp=2, tensor=2), tmp_path / "split")
    # The loss, and the norm of all gradients.
    for name in ("loss", "gradient_norm"):
        (_, ours), (_, theirs) = (read_metrics(tmp_path / run / "metrics.jsonl", name) for run in ("split", "rows"))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.slow  # step_test.py holds the same of training, whose step this is
def test_micro_batches_are_the_whole_batch(student, tmp_path):
    config = student(train={"steps": 1, "batch_size": 16})
    distill(config, tmp_path / "whole")
    distill(replaced(config, "train", accumulation=2, steps=1), tmp_path / "parts")
    for name in ("loss", "gradient_norm"):
        (_, ours), (_, theirs) = (read_metrics(tmp_path / run / "metrics.jsonl", name) for run in ("parts", "whole"))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_other_networks_are_refused(student, tmp_path):
    with pytest.raises(UserError, match=r"config.model.decoder_blocks=3 must be 2, as of the teacher in"):
        distill(student(model={"decoder_blocks": 3}), tmp_path)


def test_each_command_makes_its_kind(student, tmp_path):
    with pytest.raises(UserError, match="makes a few-step student: use transdiff distill"):
        train(student(), tmp_path)
    with pytest.raises(UserError, match='objective="none" makes no student'):
        distill(tiny_config(), tmp_path)
