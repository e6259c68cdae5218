import numpy as np
import pytest

from transdiff_jax.convert import table
from transdiff_jax.errors import UserError

HEADS, HEAD_DIM, WIDTH, LAYERS = 2, 3, 6, 2


def small_table():
    entries = [
        *table.linear("blocks.{}.qkv", "blocks/qkv", (WIDTH,), (3, HEADS, HEAD_DIM), LAYERS),
        *table.conv("conv", "conv", 4, 5, 3),
        *table.norm("norm", "norm", WIDTH),
        *table.plain("positions", "positions", (1, 7, WIDTH), (7, WIDTH)),
    ]
    return table.NameTable(tuple(entries), (table.Unused("spare", (2,), "nothing reads it"),))


def small_tensors():
    draw = np.random.default_rng(0)
    shapes = small_table().reference_shapes()
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_linear_of_ours_computes_what_pytorchs_does():
    tensors = small_tensors()
    params = table.from_reference(small_table(), tensors, "file")
    x = np.random.default_rng(1).standard_normal(WIDTH).astype(np.float32)
    for layer in range(LAYERS):
        theirs = tensors[f"blocks.{layer}.qkv.weight"] @ x + tensors[f"blocks.{layer}.qkv.bias"]
        kernel, bias = params["blocks"]["qkv"]["kernel"][layer], params["blocks"]["qkv"]["bias"][layer]
        ours = np.einsum("i,iqhd->qhd", x, kernel) + bias
        np.testing.assert_allclose(ours, theirs.reshape(3, HEADS, HEAD_DIM), rtol=1e-5)


def test_conv_kernel_is_height_width_in_out():
    tensors = small_tensors()
    kernel = table.from_reference(small_table(), tensors, "file")["conv"]["kernel"]
    assert kernel.shape == (3, 3, 4, 5)
    assert kernel[0, 1, 2, 3] == tensors["conv.weight"][3, 2, 0, 1]


def test_round_trip_is_exact():
    tensors = small_tensors()
    params = table.from_reference(small_table(), tensors, "file")
    back = table.to_reference(small_table(), params, {"spare": tensors["spare"]}, "tree")
    assert list(back) == list(small_table().reference_shapes())
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_every_pytorch_tensor_is_described():
    lines = table.describe(small_table())
    assert [line.split()[1] for line in lines] == list(small_table().reference_shapes())
    assert lines[1] == "mapped  blocks.1.qkv.weight (18, 6) -> blocks/qkv/kernel[1]"
    assert lines[-1] == "unused  spare (2,): nothing reads it"


def test_absent_unused_tensor_becomes_zeros():
    params = table.from_reference(small_table(), small_tensors(), "file")
    np.testing.assert_array_equal(table.to_reference(small_table(), params, {}, "tree")["spare"], np.zeros(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.1.qkv.bias"), r"file: 1 tensor\(s\) missing: blocks\.1\.qkv\.bias"),
        (lambda t: t.pop("spare"), r"missing: spare"),
        (lambda t: t.update(extra=np.zeros(1)), r"file: 1 tensor\(s\) of unknown name: extra"),
        (
            lambda t: t.update(positions=np.zeros((1, 8, WIDTH))),
            r"positions of shape \(1, 8, 6\) instead of \(1, 7, 6\)",
        ),
    ],
)
def test_pytorchs_tensors_must_fit_exactly(change, message):
    tensors = small_tensors()
    change(tensors)
    with pytest.raises(UserError, match=message):
        table.from_reference(small_table(), tensors, "file")


def test_tree_must_fit_exactly():
    params = table.from_reference(small_table(), small_tensors(), "file")
    params["conv"]["kernel"] = params["conv"]["kernel"][:1]
    params["more"] = np.zeros(1)
    with pytest.raises(UserError, match=r"tree: 2 parameter\(s\) .*: conv/kernel, more"):
        table.to_reference(small_table(), params, {}, "tree")
