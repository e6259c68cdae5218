"""Random keys as a function of (seed, stream, index).

No key is carried through the program: whatever needs randomness names its stream and its index (a training step,
a sample's number), so restarts, batch sizes and device counts cannot change what is drawn.
"""

import zlib

import jax

Array = jax.Array

PARAMS = "params"
LABEL_DROPOUT = "label_dropout"
TIMESTEPS = "timesteps"
NOISE = "noise"
DROPOUT = "dropout"
POSTERIOR = "posterior"
SAMPLE_INITIAL = "sample_initial"
SAMPLE_STEP = "sample_step"
FUSION = "fusion"
DATA = "data"
GROUPS = "groups"


def key(seed: int, stream: str, index: int | Array = 0) -> Array:
    """The key of one draw.

    Args:
        seed: the run's (or the sample set's) seed.
        stream: which use of randomness, one of the names above.
        index: training step or sample index; may be a traced integer.

    Returns:
        A typed Threefry key, the same on every platform and whatever JAX's default generator is.
    """
    root = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(stream.encode())), index)


def integer_seed(seed: int, stream: str) -> int:
    """A 32-bit seed for libraries that take an integer (Grain)."""
    return zlib.crc32(f"{seed}/{stream}".encode())
