"""A job of two processes has the scores of one process."""

import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.multiprocess.evaluation_worker import COUNT
from tests.support.flags import run
from tests.support.jobs import Job
from tests.support.networks import installed, projection
from transdiff_jax.cli import evaluate
from transdiff_jax.images.png import save_png

DAMAGED = 5  # in the first batch of 8, in the share of the second process


def start(folder, task):
    arguments = [sys.executable, "-m", "tests.multiprocess.evaluation_worker", str(folder), task]
    return Job(folder, 2, arguments, JAX_NUM_CPU_DEVICES=str(len(jax.devices()) // 2))


def write_images(folder):
    draw = np.random.default_rng(0)
    for name in ("images", "damaged"):
        (folder / name).mkdir()
    for index, image in enumerate(draw.integers(0, 256, (COUNT, 8, 8, 3)).astype(np.uint8)):
        for name in ("images", "damaged"):
            save_png(folder / name / f"{index:03d}.png", image)
    damaged = folder / "damaged" / f"{DAMAGED:03d}.png"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    np.savez(folder / "real.npz", arr_0=draw.integers(40, 256, (COUNT, 8, 8, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder, exit code and output of a job that does everything."""
    folder = tmp_path_factory.mktemp("scored")
    write_images(folder)
    job = start(folder, "score")
    return folder, job.end(), job.text()


@pytest.fixture(scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch, installed(patch, projection(8)):
        yield


def alone(folder, *arguments):
    """The certificate that this process makes alone, with as many devices as the job."""
    path = folder / "alone.json"
    run(evaluate, "--inception=small", "--inception_batch_size=8", f"--certificate={path}", *arguments)
    return json.loads(path.read_text())


def assert_same(ours, theirs):
    for key in ("scores", "warnings", "not_computed", "samples", "reference", "num_samples"):
        assert ours[key] == theirs[key], key
    machines = [(value["machine"]["processes"], value["machine"]["devices"]) for value in (ours, theirs)]
    assert machines == [(2, 8), (1, 8)]


@pytest.mark.usefixtures("small")
def test_a_folder_of_images_has_the_scores_of_one_process(job):
    folder, _, text = job
    ours = json.loads((folder / "images" / "evaluation.transdiff.json").read_text())
    assert_same(ours, alone(folder, f"--samples={folder / 'images'}", f"--reference={folder / 'real.npz'}"))
    # Each process decodes half of the images, and the first image to know the size of all.
    for process in range(2):
        assert f"[{process}] decoded {COUNT // 2 + 1}\n" in text


@pytest.mark.usefixtures("small")
def test_a_run_has_the_scores_of_one_process(job):
    folder = job[0]
    arguments = f"--reference={folder / 'real.npz'}", f"--num_samples={COUNT}"
    ours = json.loads((folder / "run" / "evaluation.transdiff.json").read_text())
    assert_same(ours, alone(folder, f"--workdir={folder / 'run'}", *arguments))
    # Training scored in batches of another size: the same up to rounding.
    metrics = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    (logged,) = [line for line in metrics if "eval/transdiff/fid" in line]
    assert logged["eval/transdiff/fid"] == pytest.approx(ours["scores"]["fid"], rel=1e-6)


@pytest.mark.usefixtures("small")
def test_a_reference_that_two_processes_made(job):
    folder = job[0]
    made = folder / "alone.npz"
    run(
        evaluate,
        *("--inception=small", "--inception_batch_size=8"),
        *(f"--samples={folder / 'images'}", f"--make-reference={made}"),
    )
    ours, theirs = np.load(folder / "made.npz"), np.load(made)
    assert set(ours) == set(theirs) == {"mu", "sigma", "mu_s", "sigma_s", "num_images"}
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_damaged_image_of_the_second_process_ends_both(job):
    folder, code, text = job
    assert code == 2, text
    assert re.search(rf"^\[1\] error: .*damaged/{DAMAGED:03d}\.png cannot be read as an image", text, re.MULTILINE)
    assert re.search(r"^\[0\] error: another process of the job ended; its output says why", text, re.MULTILINE)
    assert "Traceback" not in text
    assert not (folder / "damaged" / "evaluation.transdiff.json").exists()


def test_only_the_first_process_tells(job):
    logged_or_in_the_table = r"^\[{}\] (\d\d:\d\d:\d\d|transdiff) "
    assert re.search(logged_or_in_the_table.format(0), job[2], re.MULTILINE)
    assert not re.search(logged_or_in_the_table.format(1), job[2], re.MULTILINE)


def test_what_differs_between_processes_ends_all(job):
    assert job[2].count("checked: they differ") == 2


@pytest.mark.slow
def test_a_signal_to_one_process_ends_scores_and_training_of_both(tmp_path):
    write_images(tmp_path)
    job = start(tmp_path, "stop")
    job.wait_for(r"sampled and scored \d+ of 20000")
    subprocess.run(["kill", "-TERM", str(job.processes()[1])])
    assert job.end() == 0, job.text()
    assert job.text().count("step 2 has no scores: the job is asked to end") == 1
    assert "stopped by a signal to one of the processes: saved step 2" in job.text()
