"""The Inception-v3 of published scores: the network of 2015 with 1008 logits.

All published FIDs use this network. It differs from the Inception-v3 of the paper (arXiv 1512.00567) in two places:
average pools leave the padding out of the mean, and the pool branch of the last block is a max pool. It is frozen and
float32. Every product is pinned to the highest precision, because accelerators default to less, and features rounded to
bfloat16 change a score by more than its digits.
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Shaped

from transdiff_jax.evaluation.inception.preprocess import SIDE, preprocess
from transdiff_jax.storage.frozen_weights import FrozenParams

LOGITS = 1008
NORM_EPSILON = 1e-3
SPATIAL_CHANNELS = 7
# Width of the features, by torch-fidelity's names and "spatial".
WIDTHS = {
    "64": 64,
    "192": 192,
    "768": 768,
    "2048": 2048,
    "logits_unbiased": LOGITS,
    "logits": LOGITS,
    "spatial": 17 * 17 * SPATIAL_CHANNELS,
}

Size = tuple[int, int]  # height and width of a kernel
_PRECISION = jax.lax.Precision.HIGHEST


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalization by stored statistics, ReLU."""

    features: int
    size: Size = (1, 1)
    stride: int = 1
    pad: bool = True  # with stride 1, keep the size; otherwise only whole windows count

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b new_h new_w {self.features}"]:
        """Applies the three in order."""
        shape = (*self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        scale, variance = (self.param(name, ones, (self.features,)) for name in ("scale", "variance"))
        bias, mean = (self.param(name, zeros, (self.features,)) for name in ("bias", "mean"))
        x = jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            "SAME" if self.pad else "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=_PRECISION,
        )
        return nn.relu((x - mean) * (scale * jax.lax.rsqrt(variance + NORM_EPSILON)) + bias)


def _mean_pool(x: Array) -> Array:
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _max_pool(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), (2, 2), "VALID")


# A convolution of a branch: its name, features and kernel.
Step = tuple[str, int, Size]
_ONE, _THREE, _FIVE, _ROW, _COLUMN = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)


def _chain(x: Array, steps: Sequence[Step], shrink: bool = False) -> Array:
    """Convolutions one after the other; with `shrink`, the last one halves the side."""
    for number, (name, features, size) in enumerate(steps, start=1):
        halves = shrink and number == len(steps)
        x = ConvNorm(features, size, 2 if halves else 1, pad=not halves, name=name)(x)
    return x


def _fork(x: Array, name: str) -> Array:
    """Kernels 1 x 3 and 3 x 1 on the same input, concatenated."""
    halves = ConvNorm(384, (1, 3), name=f"{name}a")(x), ConvNorm(384, (3, 1), name=f"{name}b")(x)
    return jnp.concatenate(halves, axis=-1)


class Block35(nn.Module):
    """Blocks of the 35 x 35 maps (Mixed_5b to 5d)."""

    pool_features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w {224+self.pool_features}"]:
        """Concatenates the four branches."""
        branches = (
            _chain(x, [("branch1x1", 64, _ONE)]),
            _chain(x, [("branch5x5_1", 48, _ONE), ("branch5x5_2", 64, _FIVE)]),
            _chain(x, [("branch3x3dbl_1", 64, _ONE), ("branch3x3dbl_2", 96, _THREE), ("branch3x3dbl_3", 96, _THREE)]),
            _chain(_mean_pool(x), [("branch_pool", self.pool_features, _ONE)]),
        )
        return jnp.concatenate(branches, axis=-1)


class Shrink35(nn.Module):
    """From 35 x 35 to 17 x 17 (Mixed_6a)."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b (h-1)//2 (w-1)//2 480+c"]:
        """Concatenates the three branches."""
        double = [("branch3x3dbl_1", 64, _ONE), ("branch3x3dbl_2", 96, _THREE), ("branch3x3dbl_3", 96, _THREE)]
        branches = _chain(x, [("branch3x3", 384, _THREE)], shrink=True), _chain(x, double, shrink=True), _max_pool(x)
        return jnp.concatenate(branches, axis=-1)


class Block17(nn.Module):
    """Blocks of the 17 x 17 maps (Mixed_6b to 6e), their 7 x 7 kernels split into rows and columns."""

    inner: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> tuple[Float[Array, "b h w 768"], Float[Array, "b h w 192"]]:
        """The concatenated branches, and the 1 x 1 branch alone."""
        inner = self.inner
        single = [("branch7x7_1", inner, _ONE), ("branch7x7_2", inner, _ROW), ("branch7x7_3", 192, _COLUMN)]
        double = [("branch7x7dbl_1", inner, _ONE), ("branch7x7dbl_2", inner, _COLUMN)]
        double += [("branch7x7dbl_3", inner, _ROW), ("branch7x7dbl_4", inner, _COLUMN), ("branch7x7dbl_5", 192, _ROW)]
        first = _chain(x, [("branch1x1", 192, _ONE)])
        branches = first, _chain(x, single), _chain(x, double), _chain(_mean_pool(x), [("branch_pool", 192, _ONE)])
        return jnp.concatenate(branches, axis=-1), first


class Shrink17(nn.Module):
    """From 17 x 17 to 8 x 8 (Mixed_7a)."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b (h-1)//2 (w-1)//2 512+c"]:
        """Concatenates the three branches."""
        long = [("branch7x7x3_1", 192, _ONE), ("branch7x7x3_2", 192, _ROW)]
        long += [("branch7x7x3_3", 192, _COLUMN), ("branch7x7x3_4", 192, _THREE)]
        short = [("branch3x3_1", 192, _ONE), ("branch3x3_2", 320, _THREE)]
        return jnp.concatenate([_chain(x, short, shrink=True), _chain(x, long, shrink=True), _max_pool(x)], axis=-1)


class Block8(nn.Module):
    """Blocks of the 8 x 8 maps (Mixed_7b and 7c)."""

    max_pool: bool  # in the pool branch; only the last block of this network has it

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w 2048"]:
        """Concatenates the four branches."""
        pooled = nn.max_pool(x, (3, 3), (1, 1), "SAME") if self.max_pool else _mean_pool(x)
        branches = (
            _chain(x, [("branch1x1", 320, _ONE)]),
            _fork(_chain(x, [("branch3x3_1", 384, _ONE)]), "branch3x3_2"),
            _fork(_chain(x, [("branch3x3dbl_1", 448, _ONE), ("branch3x3dbl_2", 384, _THREE)]), "branch3x3dbl_3"),
            _chain(pooled, [("branch_pool", 192, _ONE)]),
        )
        return jnp.concatenate(branches, axis=-1)


class Logits(nn.Module):
    """The classifier, with and without its bias."""

    @nn.compact
    def __call__(self, x: Float[Array, "b 2048"]) -> dict[str, Float[Array, "b 1008"]]:
        """Logits by the names "logits_unbiased" and "logits"."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], LOGITS))
        bias = self.param("bias", nn.initializers.zeros, (LOGITS,))
        unbiased = jnp.dot(x, kernel, precision=_PRECISION)
        return {"logits_unbiased": unbiased, "logits": unbiased + bias}


class InceptionV3(nn.Module):
    """The network: all features of a batch. Its layers have the names of the published files, in lower case."""

    @nn.compact
    def __call__(self, x: Float32[Array, "b 299 299 3"]) -> dict[str, Float32[Array, "b _"]]:
        """Features of prepared images.

        "64", "192", "768" and "2048" are spatial means: after the first max pool, after the second, after Mixed_6e and
        after the last block. "logits_unbiased" leaves out the last bias; the Inception Score uses it. "spatial" is what
        ADM's sFID compares: the first 7 of 192 channels of the tensor "mixed_6/conv:0" of the network of 2015, flat in
        the order row, column, channel. That network counts the 35 x 35 blocks from "mixed", so its "mixed_6" is
        Mixed_6d here; "conv" is the 1 x 1 branch of that block, after normalization and ReLU.

        Args:
            x: the result of `preprocess`.

        Returns:
            Features by name, for each name in WIDTHS.
        """
        conv = partial(ConvNorm, size=_THREE, pad=False)
        x = conv(32, stride=2, name="conv2d_1a_3x3")(x)
        x = conv(32, name="conv2d_2a_3x3")(x)
        x = _max_pool(conv(64, pad=True, name="conv2d_2b_3x3")(x))
        features = {"64": x.mean((1, 2))}
        x = ConvNorm(80, name="conv2d_3b_1x1")(x)
        x = _max_pool(conv(192, name="conv2d_4a_3x3")(x))
        features["192"] = x.mean((1, 2))
        for letter, pool_features in zip("bcd", (32, 64, 64), strict=True):
            x = Block35(pool_features, name=f"mixed_5{letter}")(x)
        x = Shrink35(name="mixed_6a")(x)
        for letter, inner in zip("bcde", (128, 160, 160, 192), strict=True):
            x, first = Block17(inner, name=f"mixed_6{letter}")(x)
            if letter == "d":
                features["spatial"] = first[..., :SPATIAL_CHANNELS].reshape(len(x), -1)
        features["768"] = x.mean((1, 2))
        x = Shrink17(name="mixed_7a")(x)
        x = Block8(max_pool=False, name="mixed_7b")(x)
        x = Block8(max_pool=True, name="mixed_7c")(x)
        features["2048"] = x.mean((1, 2))
        return features | Logits(name="fc")(features["2048"])


def param_shapes() -> FrozenParams:
    """The tree of parameters with `jax.ShapeDtypeStruct` in place of arrays."""
    images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return jax.eval_shape(InceptionV3().init, jax.random.key(0), images)["params"]


def inception_features(
    params: FrozenParams, images: Shaped[Array | np.ndarray, "b height width channels"], names: Sequence[str]
) -> dict[str, Float32[Array, "b _"]]:
    """Features of raw images.

    Args:
        params: of `InceptionV3`.
        images: 1 or 3 channels in 0 … 255, of any size.
        names: features from WIDTHS; under `jit`, whatever only the other features need is not computed.

    Returns:
        Features by name.
    """
    features = InceptionV3().apply({"params": params}, preprocess(images))
    # pyrefly: ignore[bad-index]  # Flax returns a tuple only if `mutable` is given, which its annotation does not say
    return {name: features[name] for name in names}
