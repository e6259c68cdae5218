import jax
import jax.numpy as jnp
import pytest

from transdiff_jax.benchmark.chips import CHIPS, Chip
from transdiff_jax.benchmark.hlo import parse
from transdiff_jax.benchmark.kernels import kernels

LOGITS = '"intermediate_tensor_shape": {"element_type": "BF16", "dimensions": ["2", "16", "256", "128"]}'
CUBLAS = '"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}'
TEXT = f"""HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {{
  ROOT %sum = f32[] add(%a, %b)
}}

%dot (x: bf16[64,32], y: bf16[32,16]) -> bf16[64,16] {{
  %x = bf16[64,32]{{1,0}} parameter(0)
  %y = bf16[32,16]{{1,0}} parameter(1)
  ROOT %product = bf16[64,16]{{1,0}} dot(%x, %y), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}

%gelu (x: bf16[64,16]) -> bf16[64,16] {{
  %x.1 = bf16[64,16]{{1,0}} parameter(0)
  ROOT %t = bf16[64,16]{{1,0}} tanh(%x.1)
}}

%moved (x: bf16[64,16], i: s32[]) -> bf16[16,64] {{
  %x.2 = bf16[64,16]{{1,0}} parameter(0)
  %i = s32[] parameter(1)
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  ROOT %turned = bf16[16,64]{{1,0}} transpose(%x.2), dimensions={{1,0}}
}}

%norm (x: f32[64,16]) -> f32[64] {{
  %x.3 = f32[64,16]{{1,0}} parameter(0)
  %none = f32[] constant(0)
  ROOT %reduced = f32[64]{{0}} reduce(%x.3, %none), dimensions={{1}}, to_apply=%add
}}

%threefry (x: u32[1024]) -> u32[1024] {{
  %x.4 = u32[1024]{{0}} parameter(0)
  %mixed = u32[1024]{{0}} xor(%x.4, %x.4)
  ROOT %added = u32[1024]{{0}} add(%mixed, %x.4)
}}

%body (p: (s32[], bf16[64,32])) -> (s32[], bf16[64,32]) {{
  %p = (s32[], bf16[64,32]{{1,0}}) parameter(0)
  %a = bf16[64,32]{{1,0}} get-tuple-element(%p), index=1
  %w = bf16[32,16]{{1,0}} constant({{...}})
  %gemm = bf16[64,16]{{1,0}} fusion(%a, %w), kind=kCustom, calls=%dot, metadata={{op_name="jit(f)/mlp/up/dot_general"}}
  %cublas = (bf16[64,16]{{1,0}}, u8[8]{{0}}) custom-call(%a, %w), custom_call_target="__cublas$lt$matmul", \
backend_config={{{CUBLAS}}}
  %elementwise = bf16[64,16]{{1,0}} fusion(%gemm), kind=kLoop, calls=%gelu
  %copied = bf16[16,64]{{1,0}} fusion(%elementwise, %s), kind=kLoop, calls=%moved
  %q = bf16[2,256,16,64]{{3,2,1,0}} bitcast(%copied)
  %k = bf16[2,128,16,64]{{3,2,1,0}} bitcast(%copied)
  %forward = (bf16[2,16,256,64]{{3,1,2,0}}, u8[0]{{0}}) custom-call(%q, %k, %k), \
custom_call_target="__cudnn$fmhaSoftmax", backend_config={{"cudnn_fmha_backend_config": {{{LOGITS}}}}}
  %backward = (bf16[2,16,256,64]{{3,1,2,0}}, u8[0]{{0}}) custom-call(%q, %k, %k), \
custom_call_target="__cudnn$fmhaSoftmaxBackward", backend_config={{"cudnn_fmha_backend_config": {{{LOGITS}}}}}
  %gathered = bf16[128,16]{{1,0}} all-gather(%gemm), replica_groups={{{{0,1}}}}, dimensions={{0}}
  ROOT %t.1 = (s32[], bf16[64,32]{{1,0}}) tuple(%s, %a)
}}

%cond (p: (s32[], bf16[64,32])) -> pred[] {{
  ROOT %less = pred[] compare(%s, %s), direction=LT
}}

%small (x: f32[64,16]) -> f32[64] {{
  %x.5 = f32[64,16]{{1,0}} parameter(0)
  ROOT %norm.1 = f32[64]{{0}} fusion(%x.5), kind=kInput, calls=%norm
}}

%nothing (x: f32[64,16]) -> f32[64] {{
  ROOT %x.6 = f32[64]{{0}} parameter(0)
}}

ENTRY %main (x: bf16[64,32]) -> f32[64] {{
  %x.7 = (s32[], bf16[64,32]{{1,0}}) parameter(0)
  %bits = u32[1024]{{0}} parameter(1)
  %chosen = pred[] parameter(2)
  %rows = f32[64,16]{{1,0}} parameter(3)
  %loop = (s32[], bf16[64,32]{{1,0}}) while(%x.7), condition=%cond, body=%body, \
backend_config={{"known_trip_count":{{"n":"3"}}}}
  %random = u32[1024]{{0}} fusion(%bits), kind=kLoop, calls=%threefry
  ROOT %either = f32[64]{{0}} conditional(%chosen, %rows, %rows), branch_computations={{%nothing, %small}}
}}
"""


@pytest.fixture(scope="module")
def found():
    return {kernel.name: kernel for kernel in kernels(parse(TEXT))}


def test_kinds(found):
    assert {name: kernel.kind for name, kernel in found.items() if name != "less"} == {
        "gemm": "gemm",
        "cublas": "gemm",
        "elementwise": "elementwise",
        "copied": "copy",
        "forward": "attention",
        "backward": "attention",
        "gathered": "collective",
        "random": "elementwise",
        "norm.1": "reduce",
    }
    assert found["gemm"].source == "jit(f)/mlp/up/dot_general"
    assert (found["gemm"].times, found["random"].times) == (3, 1)


def test_work(found):
    logits = 2 * 16 * 256 * 128
    assert found["gemm"].flops == found["cublas"].flops == 2 * 64 * 16 * 32
    assert found["forward"].flops == 2 * 2 * logits * 64
    assert found["backward"].flops == 5 * 2 * logits * 64
    assert found["elementwise"].flops == 0
    assert (found["random"].integers, found["copied"].integers) == (2048, 0)
    assert (found["gemm"].read, found["gemm"].written) == (2 * (64 * 32 + 32 * 16), 2 * 64 * 16)


def test_the_slowest_term_decides(found):
    chip = Chip(flops=1e9, hbm_bytes=1, hbm=1e9, ici=1e3, dcn=1e2, integers=1e6)
    assert found["gemm"].seconds(chip) == pytest.approx(2 * 64 * 16 * 32 / 1e9)
    assert found["elementwise"].seconds(chip) == pytest.approx(4 * 64 * 16 / 1e9)
    assert found["random"].seconds(chip) == pytest.approx(2048 / 1e6)
    sent = 128 * 16 * 2 / 2
    assert found["gathered"].seconds(chip, 2, 1) == pytest.approx(sent / 1e3)
    assert found["gathered"].seconds(chip, 2, 2) == pytest.approx(sent / 1e2)


def test_a_program_of_this_jax():
    def step(x, _):
        return jnp.tanh(x @ x), None

    program = jax.jit(lambda x: jax.lax.scan(step, x, length=7)[0]).lower(jnp.ones((64, 64))).compile()
    products = [kernel for kernel in kernels(parse(program.as_text())) if kernel.kind == "gemm"]
    assert [(kernel.flops, kernel.times) for kernel in products] == [(2 * 64**3, 7)]
    assert products[0].seconds(CHIPS["h100"]) > 0
