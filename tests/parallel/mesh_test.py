import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tests.support.configs import tiny_config
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import init_params, init_shapes
from transdiff_jax.parallel import axes
from transdiff_jax.parallel import mesh as mesh_module
from transdiff_jax.parallel.arrays import (
    batch_sharding,
    from_whole,
    held_rows,
    own_rows,
    replicate,
    replicated,
    to_global,
    tree_shardings,
)
from transdiff_jax.parallel.mesh import check_batch, make_mesh, mesh_utils
from transdiff_jax.training.state import abstract_state


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((1, -1, 1), (1, 8, 1)),
        ((1, 1, -1), (1, 1, 8)),
        ((2, -1, 2), (2, 2, 2)),
        ((2, 4, 1), (2, 4, 1)),
        ((-1, 4, 2), (1, 4, 2)),
    ],
)
def test_mesh_sizes(sizes, expected):
    mesh = make_mesh(MeshConfig(*sizes))
    assert dict(mesh.shape) == dict(zip(("data", "fsdp", "tensor"), expected, strict=True))
    assert list(mesh.devices.flat) == jax.devices()


def test_mesh_of_given_devices():
    mesh = make_mesh(MeshConfig(), jax.devices()[3:5])
    assert mesh.devices.tolist() == [[[jax.devices()[3]]], [[jax.devices()[4]]]]


@pytest.mark.parametrize(
    ("sizes", "fragment"),
    [
        ((-1, -1, 1), "at most one may be -1"),
        ((0, 1, 1), "(data=0, fsdp=1, tensor=1): sizes must be at least 1"),
        ((-1, -2, 1), "sizes must be at least 1"),
        ((3, 1, 1), "does not fit 8 device(s): 3 does not divide 8"),
        ((-1, 3, 1), "(data=-1, fsdp=3, tensor=1) does not fit 8 device(s)"),
        ((4, 1, 1), "uses 4 of 8 device(s); set one size to -1"),
        ((4, 4, 1), "does not fit 8 device(s): 16 does not divide 8"),
    ],
)
def test_bad_mesh_is_one_line(sizes, fragment):
    with pytest.raises(UserError) as caught:
        make_mesh(MeshConfig(*sizes))
    assert str(caught.value).startswith("config.mesh=(data=")
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rules_know_every_name_once():
    names = {value for name, value in vars(axes).items() if name.isupper() and isinstance(value, str)}
    logical = names - set(axes.MESH_AXES)
    ruled = [name for name, _ in axes.RULES]
    assert sorted(ruled) == sorted(logical)
    used = {split for name, split in axes.RULES if split is not None and name != axes.BATCH}
    assert used == {axes.FSDP, axes.TENSOR}, "the data axis must not split parameters"


def test_batch_is_split_over_data_and_fsdp():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    batch = to_global({"rows": np.arange(8).reshape(8, 1)}, mesh)["rows"]
    np.testing.assert_array_equal(batch, np.arange(8).reshape(8, 1))
    assert batch.sharding == batch_sharding(mesh)
    shards = {tuple(np.asarray(shard.data)[:, 0].tolist()) for shard in batch.addressable_shards}
    assert shards == {(0, 1), (2, 3), (4, 5), (6, 7)}


def test_replicated_is_whole_everywhere():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    x = jax.device_put(np.arange(3), replicated(mesh))
    assert [shard.data.tolist() for shard in x.addressable_shards] == [[0, 1, 2]] * 8


def test_check_batch():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    check_batch(12, mesh, "config.train.batch_size")
    with pytest.raises(UserError, match=r"config\.train\.batch_size=6 must be divisible by 4, the mesh's data x fsdp"):
        check_batch(6, mesh, "config.train.batch_size")


def test_parameters_go_where_their_names_say():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    model = tiny_config(mrar=True).model
    boxed = jax.eval_shape(lambda: {"params": init_params(model, 0), "step": jnp.zeros((), jnp.int32)})
    shardings = tree_shardings(boxed, mesh)
    specs = jax.tree.map(lambda where: where.spec, shardings)
    encoder, decoder = specs["params"]["encoder"], specs["params"]["decoder"]
    assert encoder["blocks"]["attention"]["qkv"]["kernel"] == PartitionSpec(None, "fsdp", None, "tensor", None)
    assert encoder["blocks"]["attention"]["output"]["kernel"] == PartitionSpec(None, "tensor", None, "fsdp")
    assert encoder["blocks"]["mlp"]["up"]["kernel"] == PartitionSpec(None, "fsdp", "tensor")
    assert encoder["blocks"]["mlp"]["down"]["bias"] == PartitionSpec(None, "fsdp")
    assert encoder["class_embedding"] == PartitionSpec(None, "fsdp")
    assert decoder["keys_values"]["key"]["kernel"] == PartitionSpec(None, "fsdp", "tensor", None)
    assert decoder["output_projection"]["kernel"] == PartitionSpec("fsdp", None)
    assert specs["step"] == PartitionSpec()
    placed = jax.device_put(nn.unbox(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), boxed)), shardings)
    shard = placed["params"]["encoder"]["blocks"]["mlp"]["up"]["kernel"].addressable_shards[0]
    assert shard.data.shape == (2, 8, 32)


def test_parameter_that_the_mesh_cannot_split_is_named():
    mesh = make_mesh(MeshConfig(1, 1, 8))
    boxed = init_shapes(tiny_config().model)
    with pytest.raises(
        UserError, match=r"config\.mesh=.*'tensor': 8.* cannot split .*/kernel of shape \(2, "
    ) as caught:
        tree_shardings(boxed, mesh)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 1, 8)])
def test_rows_that_a_process_holds_make_the_batch(sizes):
    mesh = make_mesh(MeshConfig(*sizes))
    rows = np.arange(16 * 3).reshape(16, 3)
    batch = to_global({"rows": rows[held_rows(16, mesh)]}, mesh)
    np.testing.assert_array_equal(batch["rows"], rows)


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 1, 8)])
def test_a_whole_batch_is_sharded_and_read_back_once(sizes):
    mesh = make_mesh(MeshConfig(*sizes))
    rows = np.arange(16 * 3).reshape(16, 3)
    batch = from_whole({"rows": rows, "numbers": np.arange(16)}, mesh)
    assert all(value.sharding == batch_sharding(mesh) for value in batch.values())
    np.testing.assert_array_equal(batch["rows"], rows)
    read = list(own_rows(batch["rows"]))
    assert sorted(number for number, _ in read) == list(range(16))
    for number, row in read:
        np.testing.assert_array_equal(row, rows[number])


@pytest.mark.parametrize(
    ("sizes", "fields", "fragment"),
    [
        ((1, 1, 8), {}, "config.model.heads=2 must be divisible by 8, the mesh's tensor devices"),
        ((1, 8, 1), {"width": 12}, "config.model.width=12 must be divisible by 8, the mesh's fsdp devices"),
    ],
)
def test_model_that_the_mesh_cannot_split_is_named_before_compiling(sizes, fields, fragment):
    config = tiny_config(model=fields)
    with pytest.raises(UserError) as caught:
        abstract_state(config, make_mesh(MeshConfig(*sizes)))
    assert str(caught.value) == fragment


def test_slices_are_runs_of_the_data_axis():
    mesh = make_mesh(MeshConfig(dcn_data=2, fsdp=2))
    assert list(mesh.devices.flat) == jax.devices()
    message = r"3 slices \(config\.mesh\.dcn_data\) cannot split a data axis of 4 devices evenly"
    with pytest.raises(UserError, match=message):
        make_mesh(MeshConfig(dcn_data=3, fsdp=2))


@dataclasses.dataclass(frozen=True)
class Device:
    """The attributes of a device that arranging a mesh needs."""

    id: int
    slice_index: int
    platform: str = "tpu"


def test_tpus_are_arranged_by_their_network(monkeypatch):
    asked = []

    def arrange(name):
        def record(shape, *rest, **_):
            devices = rest[-1]
            asked.append((name, tuple(shape), *rest[:-1]))
            return np.asarray(devices).reshape(4, 2, 1)

        return record

    monkeypatch.setattr(mesh_utils, "create_device_mesh", arrange("one"))
    monkeypatch.setattr(mesh_utils, "create_hybrid_device_mesh", arrange("hybrid"))
    monkeypatch.setattr(mesh_module, "Mesh", lambda devices, axes: devices.shape)
    together = [Device(n, 0) for n in range(8)]
    apart = [Device(n, n // 4) for n in range(8)]
    make_mesh(MeshConfig(fsdp=2), together)
    make_mesh(MeshConfig(fsdp=2), apart)
    make_mesh(MeshConfig(fsdp=2, dcn_data=2), apart)
    assert asked == [("one", (4, 2, 1)), *2 * [("hybrid", (2, 2, 1), (2, 1, 1))]]
    for slices, devices, found in [(1, apart, 2), (2, together, 1)]:
        message = rf"config\.mesh\.dcn_data={slices} must be -1 or the number of slices, {found}"
        with pytest.raises(UserError, match=message):
            make_mesh(MeshConfig(fsdp=2, dcn_data=slices), devices)
    message = r"^--mesh=\(data=1, .*: 2 slices \(config\.mesh\.dcn_data\) cannot split a data axis of 1 devices evenly"
    with pytest.raises(UserError, match=message):
        make_mesh(MeshConfig(1, -1, 1), apart, field="--mesh")


def test_any_axis_may_cross_machines_with_gpus(monkeypatch):
    monkeypatch.setattr(mesh_module, "Mesh", lambda devices, axes: devices)
    gpus = [Device(n, n // 4, "gpu") for n in range(8)]  # a GPU's slice index is its machine
    assert list(make_mesh(MeshConfig(1, -1, 1), gpus).flat) == gpus


def test_nothing_is_constrained_outside_a_mesh():
    x = jnp.ones(3)
    assert axes.constrain(x, axes.BATCH) is x


def test_replicate_is_the_same_tree_everywhere():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    tree = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": np.int32(3) * np.ones((), np.int32)}
    made = replicate(tree, mesh)
    jax.tree.map(np.testing.assert_array_equal, made, tree)
    assert all(leaf.sharding == replicated(mesh) for leaf in jax.tree.leaves(made))
    assert [leaf.dtype for leaf in jax.tree.leaves(made)] == [np.float32, np.int32]
