"""Signals to the command lines as a user runs them, at each stage."""

import re
import signal
import time

import numpy as np
import pytest

from tests.support.commands import command, read_final, run, sample_set, start, train_command, wait_for
from tests.support.configs import write_config
from tests.support.latents import photo_config, save_tiny_weights
from tests.support.photos import write_folder
from transdiff_jax.convert.inception_names import name_table
from transdiff_jax.convert.table import from_reference
from transdiff_jax.evaluation.inception.weights import InceptionWeights, save_inception
from transdiff_jax.parallel.signals import ENDING
from transdiff_jax.verification.inception_checks import inception_rule_weight

SECONDS = 20  # in which a process ends; on an idle machine it takes less than one


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    workdir = tmp_path_factory.mktemp("trained")
    assert run(train_command(workdir, data, train__steps=5)).returncode == 0
    return workdir


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    weights = {name: inception_rule_weight(name, shape, 3) for name, shape in name_table().reference_shapes().items()}
    folder = tmp_path_factory.mktemp("inception") / "weights"
    save_inception(folder, InceptionWeights(from_reference(name_table(), weights, "a"), "a", "0" * 64))
    np.savez(folder.parent / "reference.npz", mu=np.zeros(2048), sigma=np.zeros((2048, 2048)))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A configuration whose latents can be cached."""
    folder = tmp_path_factory.mktemp("photos")
    source = f"folder:{write_folder(folder / 'images', count=400)}"
    weights = save_tiny_weights(folder / "weights")
    return write_config(photo_config(weights, data={"source": source, "crop": "center"}), folder)


def train(folder, request):
    return train_command(folder / "out", request.getfixturevalue("data"), train__steps=300)


def sample(folder, request):
    flags = ["--num_samples=400", "--steps=50", "--guidance=1.5", "--batch_size=20"]
    return command("sample", f"--workdir={request.getfixturevalue('trained')}", f"--out={folder / 'out'}", *flags)


def evaluate(folder, request):
    inception = request.getfixturevalue("inception")
    flags = [f"--inception={inception}", f"--reference={inception.parent / 'reference.npz'}", "--num_samples=4000"]
    flags.append(f"--certificate={folder / 'certificate.json'}")
    return command("evaluate", f"--workdir={request.getfixturevalue('trained')}", *flags)


def cache_latents(folder, request):
    return command("cache_latents", f"--config={request.getfixturevalue('photos')}", f"--out={folder / 'out'}")


# The stages of a command: what the folder or the log show when it has come there.
STAGES = {
    train: {"start": ".lock", "compilation": "parameters:"},
    sample: {"compilation": "samples.json", "batches": "images/000025.png"},
    evaluate: {"start": "features of", "batches": "sampled and scored"},
    cache_latents: {"start": "progress/settings.json", "batches": r"cached \d+ of"},
}
RERUN = {train: "resumes", sample: "goes on", evaluate: "starts again", cache_latents: "goes on"}


def end_at(arguments, number, folder, sign):
    """Starts a command, sends a signal once a file exists or a line is written, and returns its exit code and log."""
    log = folder / "log"
    process = start(arguments, log, JAX_ENABLE_COMPILATION_CACHE="false")
    try:
        wait_for(lambda: (folder / "out" / sign).exists() or re.search(sign, log.read_text()), process, log)
        began = time.monotonic()
        process.send_signal(number)
        code = process.wait(timeout=120)
        assert time.monotonic() - began < SECONDS
    finally:
        process.kill()
    return code, log.read_text()


def check_end(make, number, sign, folder, request):
    code, text = end_at(make(folder, request), number, folder, sign)
    assert code == 128 + number, text
    assert "Traceback" not in text
    assert re.fullmatch(
        rf"stopped by {number.name}: (nothing is done yet|[a-z ]+ \d+ of \d+ [a-z]+); the same command {RERUN[make]}",
        text.splitlines()[-1],
    )


def test_a_compiling_run_ends_at_once(tmp_path, request):
    check_end(train, signal.SIGTERM, STAGES[train]["compilation"], tmp_path, request)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "stage"), [(make, stage) for make, stages in STAGES.items() for stage in stages])
def test_signals_at_each_stage(tmp_path, request, make, stage):
    for number in ENDING:
        folder = tmp_path / number.name
        folder.mkdir()
        check_end(make, number, STAGES[make][stage], folder, request)


@pytest.mark.slow
def test_what_a_signal_ended_goes_on(tmp_path, request):
    for make in (sample, cache_latents):
        disturbed, straight = tmp_path / make.__name__, tmp_path / f"{make.__name__}_straight"
        disturbed.mkdir()
        check_end(make, signal.SIGHUP, STAGES[make]["batches"], disturbed, request)
        assert run(make(disturbed, request)).returncode == 0
        assert run(make(straight, request)).returncode == 0
        ours, theirs = sample_set(disturbed / "out"), sample_set(straight / "out")
        assert ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("sign", ["step 3:", "a save under way"])
def test_a_run_that_has_something_to_save_saves(tmp_path, request, number, sign):
    arguments, log = train(tmp_path, request), tmp_path / "log"
    process = start(arguments, log)
    folder = tmp_path / "out" / "checkpoints"
    if sign == "a save under way":
        wait_for(lambda: any(folder.glob("20.orbax-checkpoint-tmp*")), process, log)
    else:
        wait_for(lambda: sign in log.read_text(), process, log)
    process.send_signal(number)
    assert process.wait(timeout=120) == 0, log.read_text()
    (step,) = re.findall(rf"stopped by {number.name}: saved step (\d+); the same command resumes", log.read_text())
    assert read_final(tmp_path / "out")[0] == int(step) < 300
