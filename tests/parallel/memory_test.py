import types

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.parallel import memory
from transdiff_jax.parallel.mesh import make_mesh


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of 8 GiB of memory and 2 GiB of swap, with control groups that a test may add."""
    groups, own, info = tmp_path / "cgroup", tmp_path / "own", tmp_path / "meminfo"
    groups.mkdir()
    own.write_text("")
    info.write_text("MemTotal: 1 kB\nSwapTotal: 2097152 kB\n")
    monkeypatch.setattr(memory, "_CGROUPS", groups)
    monkeypatch.setattr(memory, "_OWN_CGROUPS", own)
    monkeypatch.setattr(memory, "_MEMORY", info)
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**21}.get)
    return types.SimpleNamespace(groups=groups, own=own)


def limit(folder, name, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{text}\n")


def test_a_machine_without_limits_has_its_memory_and_swap(machine):
    assert memory.host_memory() == 10 * 2**30


@pytest.mark.parametrize(
    ("own", "folder", "name"),
    [
        ("0::/a/b\n", "a/b", "memory.max"),
        ("0::/a/b\n", "a", "memory.max"),
        ("0::/of/the/host\n", ".", "memory.max"),
        ("4:memory:/a\n3:cpu:/a\n0::/\n", "memory/a", "memory.limit_in_bytes"),
    ],
)
def test_limits_of_control_groups_count(machine, own, folder, name):
    machine.own.write_text(own)
    limit(machine.groups / folder, name, 2**30)
    assert memory.host_memory() == 3 * 2**30
    limit(machine.groups / folder, name, "max")
    assert memory.host_memory() == 10 * 2**30


def test_cpu_devices_share_the_host(machine):
    assert memory.device_memory(make_mesh(MeshConfig())) == 10 * 2**30 // 8
    assert memory.device_memory(make_mesh(MeshConfig(), jax.devices()[:2])) == 5 * 2**30


@pytest.mark.parametrize(
    ("stats", "held"), [([{"bytes_limit": 5}, {"bytes_limit": 3}], 3), ([{"bytes_limit": 5}, None], None), ([{}], None)]
)
def test_the_smallest_device_counts_and_a_silent_one_is_not_guessed(stats, held):
    devices = [types.SimpleNamespace(platform="gpu", memory_stats=lambda found=found: found) for found in stats]
    assert memory.device_memory(types.SimpleNamespace(local_devices=devices)) == held


def test_a_device_holds_its_part_of_an_array():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    split = NamedSharding(mesh, PartitionSpec("fsdp"))
    tree = {"a": jax.ShapeDtypeStruct((8, 3), np.float32, sharding=split), "b": np.zeros(5, np.int8)}
    tree["b"] = jax.device_put(tree["b"], NamedSharding(mesh, PartitionSpec()))
    assert memory.held_bytes(tree) == 2 * 3 * 4 + 5


def test_what_does_not_fit_is_one_line_with_the_figures(machine):
    mesh = make_mesh(MeshConfig())
    memory.check_devices("it", {"a": 2**30, "b": 2**28}, mesh, "less")
    with pytest.raises(UserError) as caught:
        memory.check_devices("it", {"a": 2**40, "b": 2**28, "none": 0}, mesh, "ask for less")
    assert str(caught.value) == (
        "it takes at least 1,024.2 GiB of each device (8 x cpu), which has 1.2 GiB (a 1,024.0 GiB, b 256.0 MiB): "
        "ask for less"
    )
    memory.check_host("it", {"a": 10 * 2**30}, "less")
    with pytest.raises(UserError, match=r"^it takes at least 10\.0 GiB of host memory, which has 10\.0 GiB \(a 10\.0"):
        memory.check_host("it", {"a": 10 * 2**30 + 1}, "less")
