"""Samples images of a trained run.

python -m transdiff_jax.cli.sample --workdir=DIR --out=DIR (--labels=207,88 | --num_samples=50000)
"""

import dataclasses

from absl import flags

from transdiff_jax import sharding
from transdiff_jax.checkpoint import load_weights
from transdiff_jax.cli import app
from transdiff_jax.config import Config, MeshConfig, make_config
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
SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the noise; a sample depends on it and on its index.", 0, 2**31 - 1, flag_values=FLAGS
)
SOLVER = flags.DEFINE_enum(
    "solver", None, sorted(SOLVERS), "Default: the run's config.sampling.solver.", flag_values=FLAGS
)
STEPS = flags.DEFINE_integer("steps", None, "Solver steps an image; default: the run's.", flag_values=FLAGS)
GUIDANCE = flags.DEFINE_list(
    "guidance", None, "Guidance weight, or one for each MRAR image; 1: off.", flag_values=FLAGS
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
        "steps": STEPS.value,
        "guidance": None if GUIDANCE.value is None else tuple(_number("--guidance", x, float) for x in GUIDANCE.value),
        "drift_scale": DRIFT_SCALE.value,
        "noise_scale": NOISE_SCALE.value,
        "batch_size": BATCH_SIZE.value,
    }
    values = config.to_dict()
    values["sampling"] |= {name: value for name, value in given.items() if value is not None}
    if TOKENIZER.value is not None:
        values["tokenizer"]["weights"] = TOKENIZER.value
    return make_config(values)


def _number(flag: str, text: str, kind: type) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{flag}: {text!r} is not a number") from None


def _labels(config: Config) -> tuple[int, ...]:
    if (LABELS.value is None) == (NUM_SAMPLES.value is None):
        raise UserError("give either --labels=207,88 or --num_samples=50000")
    if LABELS.value is not None:
        return tuple(_number("--labels", text, int) for text in LABELS.value)
    if NUM_SAMPLES.value < 1:
        raise UserError(f"--num_samples={NUM_SAMPLES.value} must be at least 1")
    return tuple(balanced_labels(NUM_SAMPLES.value, config.model))


def main() -> None:
    """Loads the run's average and writes the samples."""
    mesh = sharding.make_mesh(MeshConfig())
    weights = load_weights(app.folder(WORKDIR.value), mesh, ema_rate=EMA_RATE.value)
    weights = dataclasses.replace(weights, config=_with_flags(weights.config))
    request = SampleRequest(_labels(weights.config), SEED.value, ALL_IMAGES.value, NPZ.value)
    generate(weights, request, app.folder(OUT.value), mesh)


if __name__ == "__main__":
    app.run(main, FLAGS)
