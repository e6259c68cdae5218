import dataclasses

import jax
import jax.numpy as jnp
import pytest

from tests.support.configs import tiny_config
from transdiff_jax.benchmark import flops
from transdiff_jax.benchmark.flops import NAIVE, Sharing, sample_flops, sample_flops_by_saving, training_flops
from transdiff_jax.config import SamplingConfig
from transdiff_jax.model.decoder import DecoderBlock
from transdiff_jax.model.encoder import EncoderBlock
from transdiff_jax.model.variants import published_model
from transdiff_jax.nn.attention import KeysValues

TERA = 1e12
GUIDED = SamplingConfig(steps=100, guidance=(1.3,))
L = published_model("l", "one_step_256")


def counted(module, *inputs):
    """XLA's count of one block, which is not a loop. It includes norms, activations and softmax."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return jax.jit(module.apply).lower(shapes, *inputs).cost_analysis()["flops"]


def test_encoder_block_is_what_xla_counts():
    x = jax.ShapeDtypeStruct((1, 320, 1024), jnp.float32)
    made = counted(EncoderBlock(L), x, None, None)
    assert flops.encoder_block_flops(L, 320, 320) == pytest.approx(made, rel=0.02)


def test_decoder_block_is_what_xla_counts():
    x = jax.ShapeDtypeStruct((1, 256, 1024), jnp.float32)
    keys = jax.ShapeDtypeStruct((1, 192, 16, 64), jnp.float32)
    made = counted(DecoderBlock(L), x, KeysValues(keys, keys), jax.ShapeDtypeStruct((1, 6, 1024), jnp.float32), None)
    analytic = flops.self_attention_flops(L) + flops.after_attention_flops(L, 192)
    assert analytic == pytest.approx(made, rel=0.02)


def test_one_step_l_is_what_was_measured():
    # docs: naive; keys and values once; block 0 shared; classes once (TFLOP of XLA, measured on single passes).
    counts = sample_flops_by_saving(L, GUIDED)
    measured = {"naive": 30.16, "keys_values": 26.65, "first_attention": 26.36, "classes": 25.77}
    for name, expected in measured.items():
        assert counts[name] / TERA == pytest.approx(expected, rel=0.02), name
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    assert counts["cache"] == counts["classes"] == sample_flops(L, GUIDED)


def test_mrar_l_is_what_was_measured():
    counts = sample_flops_by_saving(published_model("l", "mrar_256"), GUIDED)
    assert counts["naive"] / TERA == pytest.approx(113, rel=0.02)
    assert counts["cache"] / TERA == pytest.approx(102, rel=0.02)
    assert list(counts.values()) == sorted(counts.values(), reverse=True)


def test_unguided_is_about_half():
    guided, unguided = (sample_flops(L, dataclasses.replace(GUIDED, guidance=(w,)), NAIVE) for w in (1.3, 1.0))
    assert guided == 2 * unguided
    # A single row has no pair to share with.
    settings = dataclasses.replace(GUIDED, guidance=(1.0,))
    assert sample_flops(L, settings) == sample_flops(L, settings, Sharing(first_attention=False))


def test_times_without_guidance_cost_one_row():
    guided, unguided = sample_flops(L, GUIDED), sample_flops(L, dataclasses.replace(GUIDED, guidance=(1.0,)))
    # 100 times from 1 to 0.04: 51 of them are at least 0.515.
    half = dataclasses.replace(GUIDED, guidance_interval=(0.515, 1.0))
    assert flops.evaluations(half, False) == (51, 49)
    assert sample_flops(L, half) == pytest.approx(guided - 0.49 * (guided - unguided), rel=1e-3)
    assert sample_flops(L, half, Sharing(unguided=False)) == sample_flops(L, GUIDED)
    assert sample_flops(L, half, NAIVE) == sample_flops(L, GUIDED, NAIVE)
    assert list(sample_flops_by_saving(L, half))[-1] == "unguided"


def test_solvers_and_steps_by_image_decide_the_passes():
    heun = dataclasses.replace(GUIDED, solver="heun", steps=10)
    assert flops.evaluations(heun, False) == (19, 0)
    model = published_model("l", "mrar_256")
    fewer = dataclasses.replace(GUIDED, steps_by_image=(25, 25, 25, 100))
    assert sample_flops(model, fewer) < 0.5 * sample_flops(model, GUIDED)
    same = dataclasses.replace(GUIDED, steps_by_image=(100,) * 4)
    assert sample_flops(model, same) == sample_flops(model, GUIDED)


def test_weights_of_images_decide_their_rows():
    model = tiny_config(mrar=True).model
    counts = {
        weights: sample_flops(model, SamplingConfig(steps=1000, guidance=weights), NAIVE)
        for weights in ((1.0,), (1.0, 1.0, 1.0, 2.0), (2.0, 1.0, 1.0, 1.0), (2.0,))
    }
    assert sorted(counts.values()) == [
        counts[key] for key in ((1.0,), (2.0, 1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 2.0), (2.0,))
    ]


def test_steps_and_classes_enter_linearly():
    one, two, three = (sample_flops(L, dataclasses.replace(GUIDED, steps=steps)) for steps in (1, 2, 3))
    assert three - two == pytest.approx(two - one)
    none, whole = (sample_flops(L, GUIDED, classes_per_sample=share) for share in (0, 1))
    assert whole - none == flops.encoder_flops(L, 1)


def test_encoder_of_a_sequence_by_groups():
    model = published_model("l", "mrar_256")
    parts = [flops.encoder_flops(model, 1)] + [flops.encoder_flops(model, k + 1, cached=k) for k in (1, 2, 3)]
    whole = flops.encoder_flops(model, 4)
    # The cached groups leave out only what the mask of the whole sequence hides.
    hidden = 128 * 192 + 64 * 128 + 64 * 64
    assert whole - sum(parts) == model.encoder_blocks * 4 * hidden * model.width


def test_training_is_three_forward_passes():
    decoder = flops.velocity_flops(L, 256) + flops.time_flops(L)
    forward = flops.encoder_flops(L, 1) + flops.condition_flops(L, 256) + 4 * decoder
    assert training_flops(L, 4) == 3 * forward
    # 6 N D with the decoder's share four times; attention adds some.
    assert training_flops(L, 4) == pytest.approx(6 * (403e6 * 320 + 4 * 268e6 * 256), rel=0.25)
