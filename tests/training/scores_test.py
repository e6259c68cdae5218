import pytest

from tests.conftest import tiny_config
from transdiff_jax.errors import UserError
from transdiff_jax.training.loop import train

# That training's scores are those of cli.evaluate, and change no training, is in cli/evaluate_test.py.


def test_missing_files_stop_a_run_before_it_trains(tmp_path):
    scores = {"every": 2, "reference": str(tmp_path / "a.npz"), "inception": str(tmp_path / "absent")}
    config = tiny_config(data={"directory": str(tmp_path / "data")}, eval=scores)
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
    scores = {"every": 2, "reference": "a", "inception": "b"}
    with pytest.raises(UserError, match=r"config\.sampling\.batch_size=4 must be divisible by 8"):
        train(tiny_config(eval=scores, sampling={"batch_size": 4}), tmp_path)
