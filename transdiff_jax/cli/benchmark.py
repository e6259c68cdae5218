"""Measures how fast a configuration runs with random weights, or compiles it for TPUs or GPUs. Prints one JSON line.

transdiff benchmark --what=sample --config=FILE [--config.section.field=VALUE ...] [--decode]
transdiff benchmark --what=train --config=FILE [--batch_size=N]
transdiff benchmark --what=data --config=FILE [--compare_train]
transdiff benchmark --what=evaluate [--image_size=256] [--batch_size=64]
transdiff benchmark --what=aot --config=FILE --topology=v5e:4x4 [--mode=sample] [--num_slices=2] [--hlo=FILE]
transdiff benchmark --what=aot --config=FILE --topology=h100:8
"""

import json

from absl import flags

from transdiff_jax.benchmark import aot
from transdiff_jax.benchmark.chips import CHIPS
from transdiff_jax.benchmark.input_speed import benchmark_data
from transdiff_jax.benchmark.sampling_speed import benchmark_sample
from transdiff_jax.benchmark.scoring_speed import benchmark_evaluate
from transdiff_jax.benchmark.training_speed import benchmark_train
from transdiff_jax.cli import app
from transdiff_jax.cli.number_flags import define_integer
from transdiff_jax.config import Config, MeshConfig, make_config, ranges
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.set_features import BATCH_SIZE as INCEPTION_BATCH_SIZE
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.storage.files import Json

FLAGS = flags.FlagValues()
WHAT = flags.DEFINE_enum(
    "what",
    None,
    ["sample", "train", "data", "evaluate", "aot"],
    "What to measure: sampling, the training step, the input of training, or the scoring of images; or aot: compile "
    "for TPUs or GPUs on any host.",
    flag_values=FLAGS,
    required=True,
)
CONFIG = app.define_config(FLAGS)
BATCH_SIZE = define_integer(
    "batch_size",
    None,
    ranges.ROWS,
    "Images (in training: rows) at once, over all devices; default: the configuration's.",
    FLAGS,
)
REPETITIONS = define_integer(
    "repetitions", 3, ranges.REPETITIONS, "Timed batches; the median counts, with --what=data the mean.", FLAGS
)
FLOPS_ONLY = flags.DEFINE_bool("flops_only", False, "Count FLOPs and run nothing.", flag_values=FLAGS)
COMPARE_NAIVE = flags.DEFINE_bool(
    "compare_naive", False, "Also time a sampler that shares no work, in turns with the other.", flag_values=FLAGS
)
DECODE = flags.DEFINE_bool(
    "decode", False, "With --what=sample: also time the decoding of a batch to pixels.", flag_values=FLAGS
)
COMPARE_TRAIN = flags.DEFINE_bool(
    "compare_train", False, "With --what=data: also time the training step that consumes the data.", flag_values=FLAGS
)
IMAGE_SIZE = define_integer(
    "image_size", None, ranges.IMAGE_SIDES, "With --what=evaluate: side of the images, pixels; default: 256.", FLAGS
)
TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "With --what=aot: chip and shape of a TPU slice, such as v5e:4x4; or kind and number of GPUs, such as h100:8, or "
    "h100:2x8 for two hosts of eight.",
    flag_values=FLAGS,
)
MODE = flags.DEFINE_enum(
    "mode", None, ["train", "sample"], "With --what=aot: the program; default: train.", flag_values=FLAGS
)
NUM_SLICES = define_integer(
    "num_slices",
    None,
    ranges.SLICES,
    "With --what=aot: number of TPU slices, which split the data axis; default: 1.",
    FLAGS,
)
HLO = flags.DEFINE_string(
    "hlo", None, "With --what=aot: file for the text of the optimised program.", flag_values=FLAGS
)
# The flags that only some measurements take.
_FLAGS = {
    "sample": (REPETITIONS, FLOPS_ONLY, COMPARE_NAIVE, DECODE),
    "train": (REPETITIONS, FLOPS_ONLY),
    "data": (REPETITIONS, COMPARE_TRAIN),
    "evaluate": (REPETITIONS, IMAGE_SIZE),
    "aot": (TOPOLOGY, MODE, NUM_SLICES, HLO),
}


def _config() -> Config:
    if not FLAGS["config"].present:
        raise UserError(f"--what={WHAT.value} needs --config=FILE")
    values = app.read_config(CONFIG).to_dict()
    if BATCH_SIZE.value is not None:
        samples = WHAT.value == "sample" or MODE.value == "sample"
        values["sampling" if samples else "train"]["batch_size"] = BATCH_SIZE.value
    return make_config(values)


def _check_flags() -> None:
    """Refuses flags that the requested measurement does not take."""
    known = {flag.name for flag in _FLAGS[WHAT.value]}
    for flag in (flag for group in _FLAGS.values() for flag in group):
        if flag.name not in known and flag.value != flag.default:
            raise UserError(f"--{flag.name} does not go with --what={WHAT.value}")
    if WHAT.value == "evaluate" and FLAGS["config"].present:
        raise UserError("--config does not go with --what=evaluate")


def _compile_ahead() -> Json:
    topology = TOPOLOGY.value
    if topology is None:
        raise UserError("--what=aot needs --topology, such as --topology=v5e:4x4 or --topology=h100:8")
    aot.prepare(topology)
    config = _config()
    devices = aot.topology_devices(topology, NUM_SLICES.value or 1)
    mode = "sample" if MODE.value == "sample" else "train"
    hlo = app.folder(HLO) if HLO.value else None
    return {"topology": topology} | aot.benchmark_aot(config, devices, CHIPS[aot.chip_of(topology)], mode, hlo)


def _measure() -> Json:
    config = _config()
    mesh, repetitions = make_mesh(config.mesh), REPETITIONS.value
    if WHAT.value == "data":
        return benchmark_data(config, mesh, repetitions=repetitions, compare_train=COMPARE_TRAIN.value)
    if WHAT.value == "train":
        return benchmark_train(config, mesh, repetitions=repetitions, flops_only=FLOPS_ONLY.value)
    return benchmark_sample(
        config,
        mesh,
        repetitions=repetitions,
        compare_naive=COMPARE_NAIVE.value,
        decode=DECODE.value,
        flops_only=FLOPS_ONLY.value,
    )


def _evaluate() -> Json:
    return benchmark_evaluate(
        make_mesh(MeshConfig()),
        image_size=IMAGE_SIZE.value or 256,
        batch_size=BATCH_SIZE.value or INCEPTION_BATCH_SIZE,
        repetitions=REPETITIONS.value,
    )


def main() -> None:
    """Measures and prints the record."""
    _check_flags()
    kinds = {"aot": _compile_ahead, "evaluate": _evaluate}
    print(json.dumps(kinds.get(WHAT.value, _measure)()))


if __name__ == "__main__":
    app.run(main, FLAGS)
