import pytest

from transdiff_jax.benchmark.hlo import array_shapes, parse, shape_bytes

TEXT = """HloModule jit_step

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[], f32[4]{0}) parameter(0)
  ROOT %next = (s32[], f32[4]{0}) tuple(%p, /*index=5*/%p), \
metadata={op_name="jit(step)/while/body/add" stack_frame_id=3}
}

%body.1 (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  ROOT %p = (s32[], f32[4]{0}) parameter(0)
}

%counting (p: (s32[], f32[4])) -> pred[] {
  %n = s32[]{:T(128)} constant(24)
  ROOT %less = pred[]{:T(512)} compare(%i, %n), direction=LT
}

ENTRY %main (t: (s32[], f32[4])) -> (s32[], f32[4]) {
  %t = (s32[], f32[4]{0}) parameter(0)
  %v = (s32[], f32[4]{0}) while(%t), condition=%counting, body=%body.1
  ROOT %w = (s32[], f32[4]{0}) while((s32[], f32[4]{0}) %v), condition=%c, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
}
"""


def test_a_program():
    module = parse(TEXT)
    assert (module.entry, list(module.computations)) == ("main", ["body", "body.1", "counting", "main"])
    _, shorter, loop = module.computations["main"]
    assert (loop.operands, loop.called, loop.root) == (("v",), ("c", "body"), True)
    assert (module.trips(loop), module.body(loop)) == (5, "body")
    assert (module.trips(shorter), module.body(shorter)) == (24, "body.1")
    last = module.computations["body"][-1]
    assert (last.operands, last.op_name, last.root) == (("p", "p"), "jit(step)/while/body/add", True)


def test_what_lies_in_another_memory():
    near, far = array_shapes("(bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, f32[2]{0:T(256)})")
    assert (near.dtype, near.dims, near.space, near.bytes) == ("bf16", (8, 128), 1, 2048)
    assert (far.dims, far.space, far.bytes) == ((2,), 0, 8)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ("f32[2,3]{1,0}", [24]),
        ("bf16[]", [2]),
        ("(pred[8], s4[8], u32[])", [8, 4, 4]),
        ("f8e4m3fn[16]", [16]),
        ("token[]", [0]),
    ],
)
def test_bytes_of_shapes(shape, sizes):
    assert shape_bytes(shape) == sizes
