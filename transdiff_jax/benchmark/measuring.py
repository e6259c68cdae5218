"""Shared by all measurements: the fields of every record, compiling, timing, and the measured peak of a device."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.stages import Lowered, Wrapped

from transdiff_jax.config import Config
from transdiff_jax.config.schema import ModelConfig, TokenizerConfig
from transdiff_jax.parallel.arrays import batch_sharding
from transdiff_jax.storage.files import Json
from transdiff_jax.tokenizer.base import Tokenizer
from transdiff_jax.tokenizer.kl16 import Kl16Tokenizer
from transdiff_jax.tokenizer.pixels import PixelTokenizer

PEAK_SIZE = {"cpu": 2048}  # side of the square matrices whose product shows the peak
ACCELERATOR_PEAK_SIZE = 8192
PEAK_REPETITIONS = 10
# Every record has all of these fields; what was not measured is None.
MEASURED = (
    *("images_per_second", "seconds_per_step", "flops_per_image", "peak_flops", "mfu"),
    *("peak_memory_bytes", "compiled_memory_bytes", "compile_seconds"),
)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled program."""

    call: Callable[..., Any]
    compile_seconds: float
    memory_bytes: int | None  # the compiler's plan for one device: arguments, result and temporaries


def settings(what: str, model: ModelConfig, mesh: Mesh, batch_size: int) -> Json:
    """The fields that every record starts with. Those that are measured later are None."""
    return {
        "what": what,
        "device": mesh.devices.flat[0].device_kind,
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "jax": jax.__version__,
        "batch_size": batch_size,
        "model": dataclasses.asdict(model),
    } | dict.fromkeys(MEASURED)


def lower(jitted: Callable[..., object], *arguments: object) -> Lowered:
    """Lowers a jitted function for arguments like these, which may be abstract.

    Raises:
        TypeError: the function is not jitted.
    """
    if not isinstance(jitted, Wrapped):
        raise TypeError(f"{jitted} is not a jitted function")
    return jitted.lower(*arguments)


def compile_program(jitted: Callable[..., object], *arguments: object) -> Compiled:
    """Compiles a jitted function for arguments like these; raises like `lower`."""
    started = time.monotonic()
    program = lower(jitted, *arguments).compile()
    seconds = time.monotonic() - started
    plan = program.memory_analysis()
    planned = None
    if plan is not None:
        # Donated memory is part of the arguments and of the results.
        kept = plan.output_size_in_bytes - plan.alias_size_in_bytes
        planned = plan.argument_size_in_bytes + kept + plan.temp_size_in_bytes
    return Compiled(program, seconds, planned)


def measure_peak(dtype: str) -> float:
    """FLOP/s of one device in a large matrix product of the compute dtype: the best of several."""
    size = PEAK_SIZE.get(jax.default_backend(), ACCELERATOR_PEAK_SIZE)
    matrix = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    times = [seconds(lambda: product(matrix, matrix)) for _ in range(1 + PEAK_REPETITIONS)]
    return 2 * size**3 / min(times[1:])


def peak_memory(mesh: Mesh) -> int | None:
    """The most bytes that a device has held since the process started; None if it does not report them."""
    return (mesh.devices.flat[0].memory_stats() or {}).get("peak_bytes_in_use")


def seconds(run: Callable[[], object]) -> float:
    """How many seconds a call takes until its result is ready."""
    started = time.monotonic()
    jax.block_until_ready(run())
    return time.monotonic() - started


def weightless_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """A tokenizer for batches of `batch_shapes`: KL-16 comes without its network, which cached moments do not need."""
    if config.kind == "kl16":
        return Kl16Tokenizer({})
    return PixelTokenizer(config.patch)


def batch_shapes(config: Config, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a global training batch: images for the pixel tokenizer, cached moments for KL-16."""
    rows, model, data = config.train.batch_size, config.model, config.data
    if config.tokenizer.kind == "kl16":
        name, dtype = "moments", np.float32
        shape = model.latent_size, model.latent_size, 2 * model.latent_channels
    else:
        name, dtype = "image", np.uint8
        shape = data.image_size, data.image_size, data.image_channels
    where = batch_sharding(mesh)
    return {
        "label": jax.ShapeDtypeStruct((rows,), np.int32, sharding=where),
        name: jax.ShapeDtypeStruct((rows, model.num_images, *shape), dtype, sharding=where),
    }
