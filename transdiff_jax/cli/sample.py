"""Samples images of a trained run.

python -m transdiff_jax.cli.sample --workdir=DIR --out=DIR (--labels=207,88 | --num_samples=50000 | --fuse=207,88)
"""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

from absl import flags

from transdiff_jax import sharding
from transdiff_jax.checkpoint import load_weights
from transdiff_jax.cli import app
from transdiff_jax.config import Config, MeshConfig, SamplingConfig, make_config
from transdiff_jax.errors import UserError
from transdiff_jax.flow.solvers import SOLVERS
from transdiff_jax.generation import SampleRequest, generate
from transdiff_jax.sampling import balanced_labels

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a trained run.", flag_values=FLAGS)
OUT = flags.DEFINE_string("out", None, "Folder for the images; a stopped job goes on there.", flag_values=FLAGS)
LABELS = flags.DEFINE_list("labels", None, "Classes to sample, one image each: --labels=207,88.", flag_values=FLAGS)
NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", None, "Sample so many images, balanced over all classes in order.", flag_values=FLAGS
)
FUSE = flags.DEFINE_list(
    "fuse",
    None,
    "Two classes whose semantic features are spliced at random, token by token, into one image: --fuse=207,88; with "
    "--num_samples, so many images.",
    flag_values=FLAGS,
)
FUSE_FRACTION = flags.DEFINE_float(
    "fuse_fraction", None, "Share of tokens from the second class; default: the run's (0.5).", flag_values=FLAGS
)
SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the noise; a sample depends on it and on its index.", 0, 2**31 - 1, flag_values=FLAGS
)
SOLVER = flags.DEFINE_enum(
    "solver", None, sorted(SOLVERS), "Default: the run's config.sampling.solver.", flag_values=FLAGS
)
STEPS = flags.DEFINE_list(
    "steps", None, "Solver steps, or one number for each MRAR image: --steps=25,25,25,100.", flag_values=FLAGS
)
GUIDANCE = flags.DEFINE_list(
    "guidance", None, "Guidance weight, or one for each MRAR image; 1: off.", flag_values=FLAGS
)
GUIDANCE_INTERVAL = flags.DEFINE_list(
    "guidance_interval", None, "Times between which guidance is on: --guidance_interval=0.1,0.8.", flag_values=FLAGS
)
GUIDANCE_SCHEDULE = flags.DEFINE_enum(
    "guidance_schedule",
    None,
    typing.get_args(typing.get_type_hints(SamplingConfig)["guidance_schedule"]),
    "How the weight grows on the way from noise to data; default: the run's.",
    flag_values=FLAGS,
)
GUIDANCE_POWER = flags.DEFINE_float(
    "guidance_power", None, "Exponent of the power_cosine schedule; default: the run's.", flag_values=FLAGS
)
DRIFT_SCALE = flags.DEFINE_float(
    "drift_scale", None, "scale_0 of Euler-Maruyama; default: the run's.", flag_values=FLAGS
)
NOISE_SCALE = flags.DEFINE_float(
    "noise_scale", None, "scale_1 of Euler-Maruyama; default: the run's.", flag_values=FLAGS
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Images at once, over all devices; default: the run's.", flag_values=FLAGS
)
EMA_RATE = flags.DEFINE_float(
    "ema_rate", None, "Which average to sample from; default: the run's first.", flag_values=FLAGS
)
TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "Folder of KL-16 weights (cli.convert); default: the run's.", flag_values=FLAGS
)
ALL_IMAGES = flags.DEFINE_bool(
    "all_images", False, "Also write the earlier images of each MRAR sequence.", flag_values=FLAGS
)
NPZ = flags.DEFINE_bool(
    "npz", False, "Also write samples.npz: arr_0, uint8 [n, height, width, channels].", flag_values=FLAGS
)
flags.mark_flags_as_required(["workdir", "out"], FLAGS)


def _with_flags(config: Config) -> Config:
    """The run's configuration with the sampling settings that were given on the command line."""
    given = {
        "solver": SOLVER.value,
        **_steps(),
        "guidance": _numbers("--guidance", GUIDANCE.value, float),
        "guidance_interval": _numbers("--guidance_interval", GUIDANCE_INTERVAL.value, float),
        "guidance_schedule": GUIDANCE_SCHEDULE.value,
        "guidance_power": GUIDANCE_POWER.value,
        "fuse_fraction": FUSE_FRACTION.value,
        "drift_scale": DRIFT_SCALE.value,
        "noise_scale": NOISE_SCALE.value,
        "batch_size": BATCH_SIZE.value,
    }
    values = config.to_dict()
    values["sampling"] |= {name: value for name, value in given.items() if value is not None}
    if TOKENIZER.value is not None:
        values["tokenizer"]["weights"] = TOKENIZER.value
    changed = make_config(values)
    _check_read(changed.sampling)
    return changed


def _steps() -> dict[str, Any]:
    """One number of steps is for all images, also where the run has several."""
    steps = _numbers("--steps", STEPS.value, int)
    if steps is None:
        return {}
    return {"steps": steps[0], "steps_by_image": ()} if len(steps) == 1 else {"steps_by_image": steps}


def _check_read(sampling: SamplingConfig) -> None:
    """Raises a UserError for a flag that the settings leave without effect."""
    stochastic, power = sampling.solver == "euler_maruyama", sampling.guidance_schedule == "power_cosine"
    for flag, effective, need in (
        (DRIFT_SCALE, stochastic, "the solver euler_maruyama"),
        (NOISE_SCALE, stochastic, "the solver euler_maruyama"),
        (GUIDANCE_POWER, power, "--guidance_schedule=power_cosine"),
        (FUSE_FRACTION, FUSE.value is not None, "--fuse"),
    ):
        if flag.value is not None and not effective:
            raise UserError(f"--{flag.name} has an effect with {need} only")


def _numbers(flag: str, texts: Sequence[str] | None, kind: type) -> tuple | None:
    return None if texts is None else tuple(_number(flag, text, kind) for text in texts)


def _number(flag: str, text: str, kind: type) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{flag}: {text!r} is not a{' whole' if kind is int else ''} number") from None


def _request(config: Config) -> SampleRequest:
    fuse_with = None
    if (LABELS.value is not None) + (FUSE.value is not None or NUM_SAMPLES.value is not None) != 1:
        raise UserError(
            "give one of --labels=207,88, --num_samples=50000, and --fuse=207,88 (with --num_samples or not)"
        )
    if NUM_SAMPLES.value is not None and NUM_SAMPLES.value < 1:
        raise UserError(f"--num_samples={NUM_SAMPLES.value} must be at least 1")
    if LABELS.value is not None:
        labels = _numbers("--labels", LABELS.value, int)
    elif FUSE.value is None:
        labels = tuple(balanced_labels(NUM_SAMPLES.value, config.model))
    else:
        classes = _numbers("--fuse", FUSE.value, int)
        if len(classes) != 2:
            raise UserError(f"--fuse={','.join(FUSE.value)} must name two classes, such as --fuse=207,88")
        labels, fuse_with = (classes[0],) * (NUM_SAMPLES.value or 1), classes[1]
    return SampleRequest(labels, SEED.value, fuse_with, ALL_IMAGES.value, NPZ.value)


def main() -> None:
    """Loads the run's average and writes the samples."""
    mesh = sharding.make_mesh(MeshConfig())
    weights = load_weights(app.folder(WORKDIR.value), mesh, ema_rate=EMA_RATE.value)
    weights = dataclasses.replace(weights, config=_with_flags(weights.config))
    generate(weights, _request(weights.config), app.folder(OUT.value), mesh)


if __name__ == "__main__":
    app.run(main, FLAGS, several=True)
