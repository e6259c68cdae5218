"""Measures how fast a configuration runs, with random weights; prints one JSON line.

python -m transdiff_jax.cli.benchmark --what=sample --config=FILE [--config.section.field=VALUE ...]
python -m transdiff_jax.cli.benchmark --what=data --config=FILE [--compare_train]
python -m transdiff_jax.cli.benchmark --what=evaluate [--image_size=256] [--batch_size=64]
"""

import json
from typing import Any

from absl import flags
from ml_collections import config_flags

from transdiff_jax import sharding
from transdiff_jax.benchmark import benchmark_sample
from transdiff_jax.benchmark_data import benchmark_data
from transdiff_jax.benchmark_evaluate import benchmark_evaluate
from transdiff_jax.cli import app
from transdiff_jax.config import Config, MeshConfig, make_config
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.set_features import BATCH_SIZE as INCEPTION_BATCH_SIZE

FLAGS = flags.FlagValues()
WHAT = flags.DEFINE_enum(
    "what",
    None,
    ["sample", "data", "evaluate"],
    "What to measure: sampling, the input of training, or scoring images.",
    flag_values=FLAGS,
)
CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration file; any field is overridden by --config.section.field=value.",
    lock_config=True,
    flag_values=FLAGS,
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Images at once, over all devices; default: the configuration's.", flag_values=FLAGS
)
REPETITIONS = flags.DEFINE_integer(
    "repetitions", 3, "Timed batches; the median counts, of --what=data the mean.", flag_values=FLAGS
)
FLOPS_ONLY = flags.DEFINE_bool("flops_only", False, "Count FLOPs and run nothing.", flag_values=FLAGS)
COMPARE_NAIVE = flags.DEFINE_bool(
    "compare_naive", False, "Also time a sampler that shares no work, in turns with the other.", flag_values=FLAGS
)
COMPARE_TRAIN = flags.DEFINE_bool(
    "compare_train", False, "With --what=data: also time the training step that takes the data.", flag_values=FLAGS
)
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "With --what=evaluate: side of the images, pixels; default: 256.", 1, flag_values=FLAGS
)
flags.mark_flag_as_required("what", FLAGS)


def _config() -> Config:
    if not FLAGS["config"].present:
        raise UserError(f"--what={WHAT.value} needs --config=FILE")
    config = app.read_config(CONFIG)
    if BATCH_SIZE.value is None:
        return config
    section = "train" if WHAT.value == "data" else "sampling"
    values = config.to_dict()
    values[section]["batch_size"] = BATCH_SIZE.value
    return make_config(values)


def _check_flags() -> None:
    """Refuses flags that the measurement asked for does not know."""
    if REPETITIONS.value < 1:
        raise UserError(f"--repetitions={REPETITIONS.value} must be at least 1")
    if BATCH_SIZE.value is not None and BATCH_SIZE.value < 1:
        raise UserError(f"--batch_size={BATCH_SIZE.value} must be at least 1")
    unread = {
        "sample": [COMPARE_TRAIN, IMAGE_SIZE],
        "data": [FLOPS_ONLY, COMPARE_NAIVE, IMAGE_SIZE],
        "evaluate": [FLOPS_ONLY, COMPARE_NAIVE, COMPARE_TRAIN, CONFIG],
    }[WHAT.value]
    for flag in unread:
        # A configuration's value is the file itself, and reading it may fail.
        if FLAGS[flag.name].present and (flag is CONFIG or flag.value):
            raise UserError(f"--{flag.name} does not go with --what={WHAT.value}")


def _evaluate() -> dict[str, Any]:
    return benchmark_evaluate(
        sharding.make_mesh(MeshConfig()),
        image_size=IMAGE_SIZE.value or 256,
        batch_size=BATCH_SIZE.value or INCEPTION_BATCH_SIZE,
        repetitions=REPETITIONS.value,
    )


def main() -> None:
    """Measures and prints the record."""
    _check_flags()
    if WHAT.value == "evaluate":
        print(json.dumps(_evaluate()))
        return
    config = _config()
    mesh = sharding.make_mesh(config.mesh)
    if WHAT.value == "data":
        record = benchmark_data(config, mesh, repetitions=REPETITIONS.value, compare_train=COMPARE_TRAIN.value)
    else:
        record = benchmark_sample(
            config,
            mesh,
            repetitions=REPETITIONS.value,
            compare_naive=COMPARE_NAIVE.value,
            flops_only=FLOPS_ONLY.value,
        )
    print(json.dumps(record))


if __name__ == "__main__":
    app.run(main, FLAGS)
