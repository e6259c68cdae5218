import json
import os
import re
import subprocess
import sys

import jax
import pytest

from tests.support.configs import tiny_config
from tests.support.paths import ROOT
from transdiff_jax.benchmark import aot
from transdiff_jax.benchmark.aot import benchmark_aot
from transdiff_jax.benchmark.chips import CHIPS
from transdiff_jax.benchmark.flops import training_flops
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import abstract_params
from transdiff_jax.parallel.mesh import make_mesh

V5E = CHIPS["v5e"]


def run(mode="train", chip=V5E, mrar=False, **mesh):
    """The record for the tests' virtual devices instead of a slice; only the topology differs."""
    return benchmark_aot(tiny_config(mrar, mesh=mesh), jax.devices(), chip, mode)


def test_a_training_step():
    record = run(mrar=True, fsdp=4)
    assert json.loads(json.dumps(record))["what"] == "aot"
    assert (record["mode"], record["batch_size"], record["batch_size_per_chip"]) == ("train", 8, 1)
    assert record["mesh"] == {"data": 2, "fsdp": 4, "tensor": 1}
    memory, terms = record["memory"], record["expected_terms"]
    assert memory["peak"] == memory["arguments"] + memory["outputs"] - memory["donated"] + memory["temporaries"]
    assert record["fits"] is True
    assert record["flops_per_image"] == training_flops(tiny_config(True).model, 2) / 4
    assert terms["compute"] == pytest.approx(training_flops(tiny_config(True).model, 2) * 8 / 8 / 197e12)
    assert record["collectives"]["all-gather"]["bytes"] > 0
    assert terms["ici"] > 0 and terms["dcn"] == 0
    assert terms["hbm"] > memory["arguments"] / V5E.hbm
    assert terms["random"] > 0
    assert (record["expected_seconds"], record["expected_is"]) == (max(terms.values()), "lower bound")
    assert "kernels" not in record


@pytest.mark.slow
def test_what_crosses_slices_is_the_gradients():
    apart, together = run(dcn_data=2, fsdp=4), run(fsdp=4)
    assert apart["collectives"] == together["collectives"]
    # Weights are gathered inside a slice.
    assert 0 < apart["expected_terms"]["ici"] < together["expected_terms"]["ici"]
    assert apart["expected_terms"]["dcn"] > 0


def test_traffic_counts_each_step():
    record = run("sample")
    assert record["mode"] == "sample"
    assert record["flops_per_image"] > 0
    traffic = record["expected_terms"]["hbm"] * V5E.hbm
    params = abstract_params(tiny_config().model, make_mesh(tiny_config().mesh))
    decoder = sum(leaf.size * 4 for leaf in jax.tree.leaves(params["decoder"]["blocks"]))
    assert traffic > decoder * tiny_config().sampling.steps


def test_a_chip_that_is_too_small():
    assert run("sample", V5E._replace(hbm_bytes=1000))["fits"] is False


def test_a_compiler_that_refuses(monkeypatch):
    def refuse(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm.\nUsed 20G of 15G")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    record = run()
    assert record["fits"] is False
    assert record["refused"].endswith("in memory space hbm. Used 20G of 15G")
    assert record["compiled_memory_bytes"] is None


def test_a_gpu_has_kernels_and_the_program_a_file(tmp_path):
    config, file = tiny_config(), tmp_path / "program.txt"
    record = benchmark_aot(config, jax.devices(), CHIPS["h100"], "sample", file)
    assert record["kernels"]["gemm"]["flops"] > 0
    assert 0 < record["predicted_mfu"] < 1
    assert record["program_seconds"] > record["expected_seconds"]
    assert file.read_text().startswith("HloModule")


def test_a_file_that_cannot_be_written(tmp_path):
    file = tmp_path / "missing" / "program.txt"
    with pytest.raises(UserError, match=rf"{re.escape(str(file))} could not be written"):
        benchmark_aot(tiny_config(), jax.devices(), V5E, "sample", file)


def test_topologies_go_to_their_compiler(monkeypatch):
    with pytest.raises(UserError, match="--topology=v9:2x2 must be one of v5e, v5p, v6e, a100, h100, h200, b200 and"):
        aot.prepare("v9:2x2")
    for name in ("gpu_topology", "tpu_topology"):
        monkeypatch.setattr(getattr(aot, name), "prepare", lambda name=name: pytest.fail(name))
    with pytest.raises(pytest.fail.Exception, match="gpu_topology"):
        aot.prepare("h100:8")
    with pytest.raises(pytest.fail.Exception, match="tpu_topology"):
        aot.prepare("v5e:2x2")
    with pytest.raises(UserError, match="several hosts of GPUs as --topology=h100:2x8"):
        aot.topology_devices("h100:8", 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "topology", "chips", "options"),
    [
        ("digits", "v5e:2x2", 4, []),
        ("digits", "v5e:2x2", 8, ["--num_slices=2", "--config.mesh.fsdp=4"]),
        # The published dropout crashes the compiler unless parallel/libtpu.py asks for larger stacks.
        ("transdiff_b", "v5e:4x4", 16, ["--config.mesh.fsdp=16", "--config.model.remat=full", "--batch_size=256"]),
    ],
)
def test_a_tpu_slice(config, topology, chips, options):
    record = compile_ahead(config, topology, options)
    assert (record["device"], record["devices"], record["fits"]) == ("TPU v5 lite", chips, True)
    assert record["collectives"]["all-reduce"]["bytes"] > 0
    assert (record["expected_terms"]["dcn"] > 0) == ("--num_slices=2" in options)


@pytest.mark.slow
def test_gpus(tmp_path):
    file = tmp_path / "program.txt"
    record = compile_ahead("digits", "h100:2x2", ["--config.mesh.fsdp=2", "--batch_size=64", f"--hlo={file}"])
    assert (record["device"], record["devices"], record["fits"]) == ("NVIDIA H100 80GB HBM3", 4, True)
    assert record["kernels"]["gemm"]["flops"] > 0
    assert record["expected_terms"]["dcn"] > 0  # gradients cross hosts
    assert "fusion(" in file.read_text()


def compile_ahead(config, topology, options):
    flags = ["--what=aot", f"--config={ROOT / 'configs' / config}.py", f"--topology={topology}", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TPU_", "JAX_"))}
    done = subprocess.run(
        [sys.executable, "-m", "transdiff_jax.cli.benchmark", *flags],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)
