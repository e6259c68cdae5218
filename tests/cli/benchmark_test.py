import json
from pathlib import Path

import pytest

from transdiff_jax.cli import benchmark
from transdiff_jax.errors import UserError

CONFIG = Path(__file__).parents[2] / "configs" / "transdiff_l.py"
L = ["--what=sample", f"--config={CONFIG}", "--flops_only"]


def run(capsys, *flags):
    benchmark.FLAGS.unparse_flags()
    benchmark.FLAGS(["benchmark", *L, "--batch_size=64", "--repetitions=3", *flags])
    benchmark.main()
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_flops_of_a_published_model(capsys):
    record = run(capsys)
    assert record["naive_flops_per_image"] / 1e12 == pytest.approx(30.16, rel=0.02)
    assert record["flops_per_image"] / 1e12 == pytest.approx(25.77, rel=0.02)
    assert record["batch_size"] == record["sampling"]["batch_size"] == 64


@pytest.mark.parametrize("flag", ["--batch_size=0", "--repetitions=0"])
def test_numbers_out_of_range(capsys, flag):
    with pytest.raises(UserError, match=f"{flag} must be at least 1"):
        run(capsys, flag)


@pytest.mark.parametrize(
    "flags",
    [
        ["--compare_train"],
        ["--image_size=32"],
        ["--what=data", "--flops_only"],
        ["--what=data", "--compare_naive"],
        ["--what=data", "--image_size=32"],
        ["--what=evaluate", "--compare_train"],
        ["--what=evaluate", f"--config={CONFIG}"],
    ],
)
def test_flags_of_another_measurement(capsys, flags):
    with pytest.raises(UserError, match=rf"{flags[-1].partition('=')[0]} does not go with --what="):
        run(capsys, "--noflops_only", "--nocompare_train", "--nocompare_naive", *flags)


def test_evaluate_needs_no_configuration(capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "benchmark_evaluate", lambda mesh, **settings: settings)
    benchmark.FLAGS.unparse_flags()
    for name in [*benchmark.FLAGS]:
        benchmark.FLAGS[name].unparse()
    benchmark.FLAGS(["benchmark", "--what=evaluate", "--image_size=32", "--batch_size=8"])
    benchmark.main()
    assert json.loads(capsys.readouterr().out) == {"image_size": 32, "batch_size": 8, "repetitions": 3}
    benchmark.FLAGS["what"].value = "sample"
    benchmark.FLAGS["image_size"].unparse()
    with pytest.raises(UserError, match="--what=sample needs --config=FILE"):
        benchmark.main()
