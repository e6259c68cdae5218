import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from transdiff_jax.benchmark.collectives import collectives
from transdiff_jax.benchmark.hlo import parse
from transdiff_jax.config import MeshConfig
from transdiff_jax.parallel.mesh import make_mesh

TEXT = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%inner (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %ar = f32[4]{0} all-reduce(%x), replica_groups=[2,4]<=[8], to_apply=%add
}

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %ag = (bf16[2,8]{1,0:T(8,128)(2,1)}, bf16[16,8]{1,0}) all-gather-start(%y), replica_groups={{0,1,2,3,4,5,6,7}}
  %both = ((f32[1]{0}, f32[2]{0}), (f32[8]{0}, f32[16]{0})) all-gather-start(%y, %z), replica_groups=[2,4]<=[8]
  %done = bf16[16,8]{1,0} all-gather-done(%ag)
  %loop = (s32[], f32[4]) while(%q), condition=%cond, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
}

%cond (p: (s32[], f32[4])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%counting (p: (s32[], f32[4])) -> pred[] {
  %n = s32[]{:T(128)} constant(24)
  ROOT %less = pred[]{:T(512)} compare(%i, %n), direction=LT, metadata={op_name="while/cond/lt"}
}

%tpu (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %aa = f32[6]{0:T(128)} all-to-all(%x), channel_id=2, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}
}

ENTRY %main (p0: f32[8]) -> f32[8] {
  %w = (s32[], f32[4]) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %v = (s32[], f32[4]) while(%t), condition=%cond, body=%inner
  %u = (s32[], f32[4]) while(%t), condition=%counting, body=%tpu
  %send = (f32[4,8]{1,0:T(8,128)}, u32[], token[]) send(%z, %t), channel_id=4, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_target="{1,2}x{0:7}"}
  %host = (f32[4,8]{1,0:T(8,128)}, u32[], token[]) send(%z, %t), channel_id=5, is_host_transfer=true
  %rs = (f32[64]{0}, f32[8]{0}) reduce-scatter-start(%z), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
  ROOT %cp = f32[8]{0} collective-permute(%z), source_target_pairs={{0,1},{1,0}}
}
"""


def test_collectives_with_the_loops_around_them():
    found = {(c.kind, c.times): c for c in collectives(parse(TEXT)) if c.bytes != 96}
    assert {key: (c.bytes, c.counted) for key, c in found.items()} == {
        ("all-gather", 5): (256, True),
        ("all-reduce", 15): (16, True),
        ("all-reduce", 1): (16, False),
        ("all-to-all", 24): (24, True),
        ("reduce-scatter", 1): (32, True),
        ("collective-permute", 1): (32, True),
        ("send", 1): (128, True),
    }
    np.testing.assert_array_equal(found["reduce-scatter", 1].groups, [[0, 4], [1, 5], [2, 6], [3, 7]])
    np.testing.assert_array_equal(found["all-to-all", 24].groups, [[0, 4], [1, 5], [2, 6], [3, 7]])


def test_several_arrays_in_one_exchange():
    assert [c.kind for c in collectives(parse(TEXT)) if c.bytes == 4 * (8 + 16)] == ["all-gather"]


def test_what_a_ring_sends_and_over_which_network():
    found = {(c.kind, c.times): c for c in collectives(parse(TEXT)) if c.bytes != 96}
    sent = {key: c.sent_bytes for key, c in found.items()}
    assert sent["all-gather", 5] == 256 * 7 / 8
    assert sent["all-reduce", 15] == 2 * 16 * 3 / 4
    assert sent["reduce-scatter", 1] == 32
    assert sent["collective-permute", 1] == 32
    assert sent["send", 1] == 128
    crossing = {key for key, c in found.items() if c.crosses(8, 2)}
    assert crossing == {("all-gather", 5), ("all-to-all", 24), ("reduce-scatter", 1), ("send", 1)}
    assert not any(c.crosses(8, 1) for c in found.values())


def test_a_program_of_this_jax():
    mesh = make_mesh(MeshConfig(fsdp=2))
    rows = NamedSharding(mesh, PartitionSpec("data"))

    def loop(x):
        whole = NamedSharding(mesh, PartitionSpec())

        def body(carry, _):
            carry = jax.lax.with_sharding_constraint(carry, rows)
            return jax.lax.with_sharding_constraint(jnp.sin(carry), whole), None

        return jax.lax.scan(body, x, length=7)[0]

    program = jax.jit(loop, out_shardings=NamedSharding(mesh, PartitionSpec())).lower(jnp.ones((8, 4))).compile()
    found = [c for c in collectives(parse(program.as_text())) if c.times > 1]
    assert [(c.kind, c.bytes, c.times, c.counted) for c in found] == [("all-gather", 8 * 4 * 4, 7, True)]
    assert found[0].groups.shape[1] == 4
