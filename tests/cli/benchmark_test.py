import json
from pathlib import Path

import pytest

from tests.support.paths import CONFIGS
from transdiff_jax.benchmark.flops import training_flops
from transdiff_jax.cli import benchmark
from transdiff_jax.config import load_config_dict, make_config
from transdiff_jax.errors import UserError

CONFIG = CONFIGS / "transdiff_l.py"
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
        ["--topology=v5e:2x2"],
        ["--what=train", "--compare_naive"],
        ["--what=train", "--num_slices=2"],
        ["--what=train", "--hlo=out.txt"],
        ["--what=aot", "--topology=v5e:2x2", "--repetitions=5"],
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


def test_flops_of_a_training_step(capsys):
    record = run(capsys, "--what=train")
    assert record["batch_size"] == 64
    model = make_config(load_config_dict(CONFIG).to_dict()).model
    assert record["flops_per_image"] == training_flops(model, 4)


def test_aot_needs_a_slice(capsys):
    with pytest.raises(UserError, match="--what=aot needs --topology"):
        run(capsys, "--noflops_only", "--what=aot")


@pytest.mark.parametrize(("mode", "section"), [("train", "train"), ("sample", "sampling")])
def test_aot_takes_batch_and_slices(capsys, monkeypatch, mode, section):
    seen = []

    def compile_ahead(config, devices, chip, mode, hlo):
        seen.append((config, devices, chip, mode, hlo))
        return {"what": "aot"}

    monkeypatch.setattr(benchmark.aot, "prepare", lambda topology: None)
    monkeypatch.setattr(benchmark.aot, "topology_devices", lambda topology, slices: (topology, slices))
    monkeypatch.setattr(benchmark.aot, "benchmark_aot", compile_ahead)
    flags = ["--noflops_only", "--what=aot", "--topology=v6e:2x2", "--num_slices=2", f"--mode={mode}", "--hlo=out.txt"]
    assert run(capsys, *flags) == {"topology": "v6e:2x2", "what": "aot"}
    ((config, devices, chip, asked, hlo),) = seen
    assert (devices, chip, asked, hlo) == (("v6e:2x2", 2), benchmark.CHIPS["v6e"], mode, Path("out.txt"))
    assert config.to_dict()[section]["batch_size"] == 64
