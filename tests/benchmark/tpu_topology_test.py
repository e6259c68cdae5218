import importlib.util

import jax
import pytest

from transdiff_jax.benchmark import tpu_topology
from transdiff_jax.errors import UserError


def test_the_compiler_is_asked_for(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jax\[tpu\]'"):
        tpu_topology.prepare()


def test_unknown_chips_and_shapes(monkeypatch):
    with pytest.raises(UserError, match="--topology=v9:2x2 must be one of v5e, v5p, v6e and a shape"):
        tpu_topology.devices("v9:2x2", 1)

    def unknown(**_):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: bad topology\nmore")

    monkeypatch.setattr(tpu_topology.topologies, "get_topology_desc", unknown)
    with pytest.raises(UserError, match=r"v5e:3x3: libtpu knows no such slice: INVALID_ARGUMENT: bad topology$"):
        tpu_topology.devices("v5e:3x3", 1)
