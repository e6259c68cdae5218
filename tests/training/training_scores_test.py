import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.networks import installed, projection
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.inception.weights import PUBLISHED_SHA256
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.sampling.sampler import Sampler, Samples
from transdiff_jax.storage.checksums import sha256
from transdiff_jax.tokenizer.make import make_tokenizer
from transdiff_jax.training import training_scores
from transdiff_jax.training.loop import train

# cli/evaluate_test.py shows that these are the scores of `transdiff evaluate`, and that they do not change training.


def test_missing_files_stop_a_run_before_it_trains(tmp_path):
    training_scores = {"every": 2, "reference": str(tmp_path / "a.npz"), "inception": str(tmp_path / "absent")}
    config = tiny_config(data={"directory": str(tmp_path / "data")}, eval=training_scores)
    with pytest.raises(UserError, match="absent: no such folder with the Inception weights"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"every": -1}, "config.eval.every=-1 must be at least 0"),
        ({"num_samples": 0}, "config.eval.num_samples=0 must be at least 1"),
        ({"every": 2, "inception": "a"}, "config.eval.every=2 needs config.eval.reference"),
        ({"every": 2, "reference": "a"}, "config.eval.every=2 needs config.eval.inception"),
        ({"protocol": "other"}, "config.eval.protocol='other' is not one of 'transdiff', 'adm'"),
    ],
)
def test_settings_that_cannot_work(fields, line):
    with pytest.raises(UserError) as error:
        tiny_config(eval=fields)
    assert line in str(error.value)


def test_the_sampling_batch_must_split(tmp_path):
    training_scores = {"every": 2, "reference": "a", "inception": "b"}
    with pytest.raises(UserError, match=r"config\.sampling\.batch_size=4 must be divisible by 8"):
        train(tiny_config(eval=training_scores, sampling={"batch_size": 4}), tmp_path)


def made_scores(tmp_path, finite=True, stopped=lambda: False):
    """Scores of a sampler that makes noise; without `finite`, an eighth of its samples are not finite."""
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "real.npz", arr_0=draw.integers(0, 256, (24, 8, 8, 3)).astype(np.uint8))
    settings = {"every": 2, "num_samples": 20, "reference": str(tmp_path / "real.npz"), "inception": "small"}

    images = draw.integers(0, 256, (24, 1, 8, 8, 1)).astype(np.uint8)

    @jax.jit
    def sample(weights, labels, seed, indices):
        return Samples(jnp.asarray(images)[indices], jnp.arange(8) != (8 if finite else 3))

    config, mesh = tiny_config(eval=settings), make_mesh(MeshConfig())
    with pytest.MonkeyPatch.context() as patch, installed(patch, projection(8)):
        made = training_scores.TrainingScores(config, mesh, tmp_path / "run")
        return made(2, {}, Sampler(sample, make_tokenizer(config), mesh), stopped)


def test_names(tmp_path):
    names = {"fid", "sfid", "inception_score", "inception_score_std", "precision", "recall"}
    assert made_scores(tmp_path).keys() == {f"eval/transdiff/{name}" for name in names}


def test_certificates(tmp_path, caplog):
    found = made_scores(tmp_path)
    assert [path.name for path in (tmp_path / "run" / "evaluation").iterdir()] == ["2.json"]
    certificate = json.loads((tmp_path / "run" / "evaluation" / "2.json").read_text())
    values = {f"eval/transdiff/{name}": value for name, value in certificate["scores"].items() if value is not None}
    assert values == found
    assert certificate["num_samples"] == 20
    assert certificate["reference"]["sha256"] == sha256(tmp_path / "real.npz")
    assert certificate["inception"] == {"file": "small.pth", "sha256": PUBLISHED_SHA256}
    assert (certificate["samples"]["source"], certificate["samples"]["sampler"]["step"]) == ("samples of step 2", 2)
    assert any(warning.startswith("20 samples, not the 50000") for warning in certificate["warnings"])
    for warning in certificate["warnings"]:
        assert f"step 2: {warning}" in caplog.messages


def test_a_certificate_that_cannot_be_written(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match=r"run/evaluation/2\.json could not be written"):
        made_scores(tmp_path)


def test_a_model_that_cannot_be_scored_goes_on(tmp_path, caplog):
    assert made_scores(tmp_path, finite=False) == {}
    assert not (tmp_path / "run" / "evaluation").exists()
    assert "step 2 has no scores: sample 3 holds values that are not finite" in caplog.text


def test_a_job_that_is_asked_to_end_does_not_wait_for_scores(tmp_path, caplog):
    calls = itertools.count()
    assert made_scores(tmp_path, stopped=lambda: next(calls) >= 1) == {}
    assert next(calls) == 3, "the second batch is not awaited, and there are no scores of the first"
    assert "step 2 has no scores: the job is asked to end" in caplog.text
