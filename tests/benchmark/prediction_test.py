import pytest

from transdiff_jax.benchmark.chips import Chip
from transdiff_jax.benchmark.hlo import parse
from transdiff_jax.benchmark.kernels import kernels
from transdiff_jax.benchmark.prediction import Loop, Machine, predict, unchanged_bytes

CHIP = Chip(flops=1e12, hbm_bytes=1, hbm=1e9, ici=1e8, dcn=1e7, integers=1e9)
DOT = 2 * 64 * 64 * 64  # FLOPs
BYTES = 4 * 64 * 64  # of a matrix


def loop(name, trips, body):
    return f"""
  %{name} = (s32[], f32[64,64]{{1,0}}) while(%t), condition=%cond, body=%{body}, \
backend_config={{"known_trip_count":{{"n":"{trips}"}}}}"""


def body(name, *lines):
    text = "\n".join(f"  {line}" for line in lines)
    return f"""
%{name} (t: (s32[], f32[64,64])) -> (s32[], f32[64,64]) {{
  %t = (s32[], f32[64,64]{{1,0}}) parameter(0)
  %x = f32[64,64]{{1,0}} get-tuple-element(%t), index=1
{text}
  ROOT %out = (s32[], f32[64,64]{{1,0}}) tuple(%t, %x)
}}
"""


def dot(name):
    return f"%{name} = f32[64,64]{{1,0}} dot(%x, %x), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}"


COPY = "%copied = f32[64,64]{0,1} copy(%x)"
GATHER = "%g = f32[128,64]{1,0} all-gather(%x), replica_groups={{0,1}}, dimensions={0}"
TEXT = f"""HloModule jit_step
{body("forward", dot("a"), COPY)}{body("backward", dot("b"), dot("c"), GATHER)}{body("encoder", dot("d"))}
{body("micro", loop("f", 12, "forward"), loop("b", 12, "backward"), loop("e", 24, "encoder"), dot("g"))}
ENTRY %main (t: (s32[], f32[64,64])) -> (s32[], f32[64,64]) {{
  %t = (s32[], f32[64,64]{{1,0}}) parameter(0)
  {loop("batches", 4, "micro")}
  ROOT %out = (s32[], f32[64,64]{{1,0}}) tuple(%t)
}}
"""
COPY_SECONDS = 2 * BYTES / CHIP.hbm
DOT_SECONDS = 2 * BYTES / CHIP.hbm + BYTES / CHIP.hbm  # two operands, although they are one array
GATHER_SECONDS = BYTES / CHIP.ici  # half of what is gathered comes from the other device


def test_a_layer_of_training_has_two_loops():
    machine = Machine(CHIP, devices=2, groups=1)
    record = predict(parse(TEXT), machine, 1e9, training=True)
    assert {kind: entry["count"] for kind, entry in record["kernels"].items()} == {
        "gemm": 3,
        "copy": 1,
        "collective": 1,
    }
    assert record["kernels"]["gemm"]["flops"] == 3 * DOT
    assert record["kernels"]["copy"] == {
        "count": 1, "flops": 0, "read_bytes": BYTES, "written_bytes": BYTES, "seconds": pytest.approx(COPY_SECONDS),
    }  # fmt: skip
    assert record["outside_bytes"] == 2 * BYTES + 3 * BYTES
    layer = 3 * DOT_SECONDS + COPY_SECONDS + GATHER_SECONDS
    assert record["predicted_seconds"] == pytest.approx(layer)
    assert record["predicted_mfu"] == pytest.approx(3 * DOT / CHIP.flops / layer)
    program = 4 * (12 * layer + 24 * DOT_SECONDS + DOT_SECONDS)
    assert record["program_seconds"] == pytest.approx(program)
    assert record["program_mfu"] == pytest.approx(1e9 / 2 / CHIP.flops / program)


def test_a_solver_has_one():
    record = predict(parse(TEXT), Machine(CHIP, devices=2, groups=1), 1e9, training=False)
    assert record["kernels"]["gemm"]["count"] == 12 + 2 * 12 + 24 + 1


def test_terms():
    terms = Machine(CHIP, devices=2, groups=2).terms(parse(TEXT))
    gathers = 4 * 12
    assert terms["ici"] == 0 and terms["random"] == 0
    assert terms["dcn"] == pytest.approx(gathers * BYTES / CHIP.dcn)
    dots, copies = 4 * (36 + 24 + 1), 4 * 12
    assert terms["hbm"] == pytest.approx((dots * 3 + copies * 2 + gathers * 3) * BYTES / CHIP.hbm)


def test_what_a_loop_does_not_change():
    lines = (
        "%w = f32[64,64]{1,0} get-tuple-element(%t), index=2",
        "%again = f32[64,64]{1,0} get-tuple-element(%t), index=2",
        "%half = bf16[64,64]{1,0} convert(%w)",
        "%y = f32[64,64]{1,0} dot(%x, %half), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
        "ROOT %next = (s32[], f32[64,64]{1,0}, f32[64,64]{1,0}) tuple(%n, %y, %again)",
    )
    text = body("step", *lines).replace("  ROOT %out = (s32[], f32[64,64]{1,0}) tuple(%t, %x)\n", "")
    module = parse(text)
    loop = Loop("step", 3, 3, list(kernels(module, "step")), False)
    assert unchanged_bytes(module, loop) == BYTES + BYTES / 2 + BYTES / 2  # read, written as half, read again
