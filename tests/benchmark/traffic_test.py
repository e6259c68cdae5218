import pytest

from transdiff_jax.benchmark.hlo import parse
from transdiff_jax.benchmark.traffic import traffic

MB = 2**20
# Weights of four layers, [4, 512, 512]; a layer in bfloat16 is half a MB, in float32 one.
TEXT = """HloModule jit_step

%sliced (w: f32[4,512,512], i: s32[]) -> bf16[512,512] {
  %w = f32[4,512,512]{2,1,0} parameter(0)
  %half = bf16[4,512,512]{2,1,0} convert(%w)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %layer = bf16[1,512,512]{2,1,0} dynamic-slice(%half, %i, %zero, %zero), dynamic_slice_sizes={1,512,512}
  ROOT %flat = bf16[512,512]{1,0} bitcast(%layer)
}

%split (x: f32[512,1536]) -> (f32[512,512], f32[512,512]) {
  %x = f32[512,1536]{1,0} parameter(0)
  %q = f32[512,512]{1,0} slice(%x), slice={[0:512], [0:512]}
  %k = f32[512,512]{1,0} slice(%x), slice={[0:512], [512:1024]}
  ROOT %both = (f32[512,512]{1,0}, f32[512,512]{1,0}) tuple(%q, %k)
}

%updated (all: f32[4,512,512], new: f32[512,512], i: s32[]) -> f32[4,512,512] {
  %all = f32[4,512,512]{2,1,0} parameter(0)
  %new = f32[512,512]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  %row = f32[1,512,512]{2,1,0} bitcast(%new)
  ROOT %put = f32[4,512,512]{2,1,0} dynamic-update-slice(%all, %row, %i, %zero, %zero)
}

%inner (x: f32[512,512], b: f32[512]) -> f32[512,512] {
  %x.1 = f32[512,512]{1,0} parameter(0)
  %b.1 = f32[512]{0} parameter(1)
  %rows = f32[512,512]{1,0} broadcast(%b.1), dimensions={1}
  ROOT %sum = f32[512,512]{1,0} add(%x.1, %rows)
}

%nested (x: f32[512,512], b: f32[512], unused: f32[512,512]) -> f32[512] {
  %x.2 = f32[512,512]{1,0} parameter(0)
  %b.2 = f32[512]{0} parameter(1)
  %unused = f32[512,512]{1,0} parameter(2)
  %sums = f32[512,512]{1,0} fusion(%x.2, %b.2), kind=kLoop, calls=%inner
  %first = f32[64,512]{1,0} slice(%sums), slice={[0:64], [0:512]}
  %none = f32[] constant(0)
  ROOT %reduced = f32[512]{0} reduce(%first, %none), dimensions={0}, to_apply=%add
}

ENTRY %main (w: f32[4,512,512], x: f32[512,1536], y: f32[512,512], b: f32[512], i: s32[]) -> f32[512] {
  %w.3 = f32[4,512,512]{2,1,0} parameter(0)
  %x.3 = f32[512,1536]{1,0} parameter(1)
  %y = f32[512,512]{1,0} parameter(2)
  %b.3 = f32[512]{0} parameter(3)
  %i.3 = s32[] parameter(4)
  %near = f32[512,512]{1,0:T(8,128)S(1)} parameter(5)
  %slice_fusion = bf16[512,512]{1,0} fusion(%w.3, %i.3), kind=kLoop, calls=%sliced
  %split_fusion = (f32[512,512]{1,0}, f32[512,512]{1,0}) fusion(%x.3), kind=kLoop, calls=%split
  %update_fusion = f32[4,512,512]{2,1,0} fusion(%w.3, %y, %i.3), kind=kLoop, calls=%updated
  %beside = ((f32[4,512,512]{2,1,0}, s32[]), bf16[512,512]{1,0}, u32[]) fusion-start(%w.3, %i.3), calls=%sliced
  %nested_fusion = f32[512]{0} fusion(%y, %b.3, %y), kind=kInput, calls=%nested
  %slice = f32[1,512,512]{2,1,0} dynamic-slice(%w.3, %i.3, %i.3, %i.3), dynamic_slice_sizes={1,512,512}
  %update = f32[4,512,512]{2,1,0} dynamic-update-slice(%w.3, %slice, %i.3, %i.3, %i.3)
  %fetch = (f32[512,512]{1,0:T(8,128)S(1)}, f32[512,512]{1,0}, u32[]) copy-start(%y)
  %sliced_fetch = ((f32[4,512,512]{2,1,0}), f32[1,512,512]{2,1,0:S(1)}, s32[]{:S(2)}) slice-start(%w.3), slice={[0:1]}
  %library = (f32[512,512]{1,0}, u8[1048576]{0}) custom-call(%y, %near), custom_call_target="__cublas$gemm"
  ROOT %copy = f32[512,512]{0,1} copy(%y)
}
"""


@pytest.mark.parametrize(
    ("name", "read", "written"),
    [
        ("slice_fusion", 1, 0.5),  # of the weights one layer
        ("split_fusion", 2, 2),  # two of three
        ("update_fusion", 1, 1),  # in place
        ("beside", 1, 0.5),
        ("nested_fusion", 0.125, 0),  # an eighth of y, once
        ("slice", 1, 1),
        ("update", 1, 1),
        ("fetch", 1, 0),  # into the chip's own memory
        ("sliced_fetch", 1, 0),
        ("library", 1, 1),  # without workspace
        ("copy", 1, 1),
    ],
)
def test_bytes_of_a_kernel(name, read, written):
    module = parse(TEXT)
    scope = {each.name: each for each in module.computations["main"]}
    found = traffic(module, scope, scope[name])
    assert (sum(found[0]), found[1]) == pytest.approx((read * MB, written * MB), abs=5000)
    assert len(found[0]) == len(scope[name].operands)
