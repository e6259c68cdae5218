import importlib.util
import json
import os
import subprocess
import sys

import jax
import pytest

from tests.support.configs import tiny_config
from tests.support.paths import ROOT
from transdiff_jax.benchmark import aot
from transdiff_jax.benchmark.aot import benchmark_aot, topology_devices
from transdiff_jax.benchmark.chips import CHIPS
from transdiff_jax.benchmark.flops import training_flops
from transdiff_jax.errors import UserError

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
    assert record["expected_seconds"] == max(terms.values())


def test_what_crosses_slices_is_the_gradients():
    apart, together = run(dcn_data=2, fsdp=4), run(fsdp=4)
    assert apart["collectives"] == together["collectives"]
    # Weights are gathered inside a slice.
    assert 0 < apart["expected_terms"]["ici"] < together["expected_terms"]["ici"]
    assert apart["expected_terms"]["dcn"] > 0


def test_sampling_reads_the_weights_at_every_step():
    record = run("sample")
    assert record["mode"] == "sample"
    assert record["flops_per_image"] > 0
    traffic = record["expected_terms"]["hbm"] * V5E.hbm
    once = record["memory"]["arguments"] + record["memory"]["outputs"] + 2 * record["memory"]["temporaries"]
    assert traffic > once * 1.01


def test_a_chip_that_is_too_small():
    assert run(chip=V5E._replace(hbm_bytes=1000))["fits"] is False


def test_a_compiler_that_refuses(monkeypatch):
    def refuse(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm.\nUsed 20G of 15G")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    record = run()
    assert record["fits"] is False
    assert record["refused"].endswith("in memory space hbm. Used 20G of 15G")
    assert record["compiled_memory_bytes"] is None


def test_libtpu_is_asked_for(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jax\[tpu\]'"):
        aot.prepare()


def test_unknown_chips_and_shapes(monkeypatch):
    with pytest.raises(UserError, match="--topology=v9:2x2 must be one of v5e, v5p, v6e and a shape"):
        topology_devices("v9:2x2", 1)

    def unknown(**_):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: bad topology\nmore")

    monkeypatch.setattr(aot.topologies, "get_topology_desc", unknown)
    with pytest.raises(UserError, match=r"v5e:3x3: libtpu knows no such slice: INVALID_ARGUMENT: bad topology$"):
        topology_devices("v5e:3x3", 1)


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
    flags = ["--what=aot", f"--config={ROOT / 'configs' / config}.py", f"--topology={topology}", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TPU_", "JAX_"))}
    done = subprocess.run(
        [sys.executable, "-m", "transdiff_jax.cli.benchmark", *flags],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    record = json.loads(done.stdout)
    assert (record["device"], record["devices"], record["fits"]) == ("TPU v5 lite", chips, True)
    assert record["collectives"]["all-reduce"]["bytes"] > 0
    assert (record["expected_terms"]["dcn"] > 0) == ("--num_slices=2" in options)
