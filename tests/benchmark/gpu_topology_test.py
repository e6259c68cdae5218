import importlib.util
from types import SimpleNamespace

import pytest

from transdiff_jax.benchmark import gpu_topology
from transdiff_jax.errors import UserError


def test_the_compiler_is_asked_for(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jax\[cuda12\]'"):
        gpu_topology.prepare()


@pytest.mark.parametrize(("topology", "shape"), [("h100:8", (1, 8)), ("a100:1", (1, 1)), ("b200:2x8", (2, 8))])
def test_shapes(topology, shape):
    assert gpu_topology.shape(topology) == shape


@pytest.mark.parametrize("topology", ["h100", "h100:0", "h100:2x", "h100:2x2x2", "rtx:1", "v5e:2x2"])
def test_no_shapes(topology):
    with pytest.raises(UserError, match=f"--topology={topology} must be one of a100, h100, h200, b200 and the number"):
        gpu_topology.shape(topology)


def test_what_the_compiler_is_told(monkeypatch):
    asked = []

    def describe(**settings):
        asked.append(settings)
        return SimpleNamespace(devices=["first", "second"])

    monkeypatch.setattr(gpu_topology.topologies, "get_topology_desc", describe)
    assert gpu_topology.devices("h200:2x8") == ["first", "second"]
    (settings,) = asked
    assert (settings["platform"], settings["topology"]) == ("cuda", "1x2x8")
    assert "device_memory_size: 151397597184" in settings["target_config"]
    assert "cuda_compute_capability { major: 9 }" in settings["target_config"]
