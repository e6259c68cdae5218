"""In which numbers, and with which attention, a trained model computes its samples."""

import typing
from typing import Any, NamedTuple

from absl import logging
from jax.sharding import Mesh

from transdiff_jax.config import Config, ModelConfig, TokenizerConfig, make_config
from transdiff_jax.errors import UserError
from transdiff_jax.model.mesh_checks import check_implementation

_AMPERE = 8.0  # compute capability of the first GPUs whose matrix units take bfloat16


class Numerics(NamedTuple):
    """What a caller asks for; None leaves the choice to `with_numerics`."""

    dtype: str | None = None  # as config.model.dtype
    attention: str | None = None  # as config.model.attention
    tokenizer_dtype: str | None = None  # as config.tokenizer.dtype; None: the run's


def choices(name: str) -> tuple[str, ...]:
    """The values that a field of `Numerics` may have: those of the configuration."""
    schema, field = (TokenizerConfig, "dtype") if name == "tokenizer_dtype" else (ModelConfig, name)
    return typing.get_args(typing.get_type_hints(schema)[field])


def with_numerics(config: Config, mesh: Mesh, asked: Numerics) -> Config:
    """The configuration of a run as its samples are computed. One log line says what was chosen.

    By default GPUs that have matrix units for bfloat16 use it, with cuDNN's attention where that can run. Other devices
    compute as the run was trained, with XLA's attention where the run's cannot run. Parameters stay float32.

    Args:
        config: of the run.
        mesh: the devices.
        asked: what the caller chooses.

    Raises:
        UserError: the devices or the model cannot have what was asked for, or the run has no such tokenizer.
    """
    own = config.model
    usual = [(own.dtype, own.attention), (own.dtype, "xla")]
    if _takes_bfloat16(mesh):
        usual = [("bfloat16", "cudnn"), ("bfloat16", "xla"), *usual]
    wanted = list(dict.fromkeys((asked.dtype or dtype, asked.attention or attention) for dtype, attention in usual))
    values = config.to_dict()
    if asked.tokenizer_dtype is not None:
        if config.tokenizer.kind == "pixels":
            raise UserError("tokenizer_dtype has an effect only on runs with KL-16; this run makes pixels")
        values["tokenizer"]["dtype"] = asked.tokenizer_dtype
    chosen = _first_that_runs(values, mesh, wanted)
    model, tokenizer = chosen.model, chosen.tokenizer
    decoded = "" if tokenizer.kind == "pixels" else f", tokenizer in {tokenizer.dtype}"
    logging.info("computing in %s with the attention of %s%s", model.dtype, model.attention, decoded)
    return chosen


def _takes_bfloat16(mesh: Mesh) -> bool:
    device = mesh.devices.flat[0]
    if device.platform != "gpu":
        return False
    try:
        return float(device.compute_capability) >= _AMPERE
    except ValueError:  # GPUs of other makers have names there
        return False


def _first_that_runs(values: dict[str, Any], mesh: Mesh, wanted: list[tuple[str, str]]) -> Config:
    """The configuration with the first dtype and attention that the mesh can run; raises the first one's error."""
    reasons = []
    for dtype, attention in wanted:
        try:
            config = make_config(values | {"model": values["model"] | {"dtype": dtype, "attention": attention}})
            check_implementation(config.model, mesh, training=False)
        except UserError as error:
            reasons.append(error)
        else:
            return config
    raise reasons[0]
