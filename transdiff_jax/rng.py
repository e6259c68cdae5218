"""Random keys as a function of (seed, stream, index).

The program carries no key along. Code that needs randomness names its stream and its index (a training step, a sample's
number), so restarts, batch sizes and device counts cannot change what is drawn.
"""

import zlib
from typing import Literal

import jax
from jax import Array
from jaxtyping import Int, Key

PARAMS = "params"
LABEL_DROPOUT = "label_dropout"
TIMESTEPS = "timesteps"
NOISE = "noise"
GUIDANCE = "guidance"
TEACHER = "teacher"
DROPOUT = "dropout"
POSTERIOR = "posterior"
SAMPLE_INITIAL = "sample_initial"
SAMPLE_STEP = "sample_step"
FUSION = "fusion"
DATA = "data"
GROUPS = "groups"


def key(
    seed: int | Int[Array, ""],
    stream: str,
    index: int | Int[Array, ""] = 0,
    *,
    kind: Literal["threefry", "rbg"] = "threefry",
) -> Key[Array, ""]:
    """The key of one draw.

    Args:
        seed: of the run or of the sample set; may be traced.
        stream: the use of randomness, one of the names above.
        index: training step or sample index; may be traced.
        kind: the generator that will use the key. What "rbg" draws differs between kinds of hardware.

    Returns:
        A typed key. It is the same on every platform and does not depend on JAX's default generator.
    """
    root = jax.random.key(seed, impl="threefry2x32" if kind == "threefry" else "rbg")
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(stream.encode())), index)


def integer_seed(seed: int, stream: str) -> int:
    """A 32-bit seed for libraries that take an integer, such as Grain."""
    return zlib.crc32(f"{seed}/{stream}".encode())
