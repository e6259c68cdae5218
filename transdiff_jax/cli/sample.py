"""Samples images of a trained run.

transdiff sample --workdir=DIR --out=DIR (--labels=207,88 | --num_samples=50000 | --fuse=207,88)
"""

import dataclasses

from absl import flags
from jax.sharding import Mesh

from transdiff_jax.checkpoints.weights import load_weights
from transdiff_jax.cli import app
from transdiff_jax.cli.compile_cache import define_compile_cache
from transdiff_jax.cli.number_flags import define_integer
from transdiff_jax.cli.profile_flags import ProfileFlags
from transdiff_jax.cli.run_folders import run_folder
from transdiff_jax.cli.sampling_flags import SamplingFlags, numbers
from transdiff_jax.config import Config, make_config, ranges
from transdiff_jax.errors import UserError
from transdiff_jax.generation.generate import generate_samples
from transdiff_jax.generation.request import SampleRequest, balanced_labels
from transdiff_jax.generation.sample_files import FORMATS

FLAGS = flags.FlagValues()
define_compile_cache(FLAGS)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a trained run.", flag_values=FLAGS, required=True)
OUT = flags.DEFINE_string(
    "out", None, "Folder for the images; a stopped job resumes there.", flag_values=FLAGS, required=True
)
LABELS = flags.DEFINE_list("labels", None, "Classes to sample, one image each: --labels=207,88.", flag_values=FLAGS)
NUM_SAMPLES = define_integer(
    "num_samples", None, ranges.NUM_SAMPLES, "Number of images, balanced over all classes in order.", FLAGS
)
FUSE = flags.DEFINE_list(
    "fuse",
    None,
    "Two classes whose semantic features are spliced at random, token by token, into one image: --fuse=207,88; "
    "--num_samples makes several such images.",
    flag_values=FLAGS,
)
FUSE_FRACTION = flags.DEFINE_float(
    "fuse_fraction", None, "Share of tokens from the second class; default: the run's (0.5).", flag_values=FLAGS
)
SAMPLING = SamplingFlags(FLAGS)
ALL_IMAGES = flags.DEFINE_bool(
    "all_images", False, "Also write the earlier images of each MRAR sequence.", flag_values=FLAGS
)
REFERENCES = flags.DEFINE_list(
    "references",
    None,
    "Pictures that each MRAR sequence begins with, 1 to 3 files of any size: --references=a.png,b.png. The sampled "
    "images follow them.",
    flag_values=FLAGS,
)
FORMAT = flags.DEFINE_enum(
    "format",
    None,
    FORMATS,
    "How to store images: png, a file each; zip, an uncompressed archive for each 1,000 samples. Default: zip in a "
    "bucket, png elsewhere.",
    flag_values=FLAGS,
)
NPZ = flags.DEFINE_bool(
    "npz", False, "Also write samples.npz: arr_0, uint8 [n, height, width, channels].", flag_values=FLAGS
)
SIMILARITY = flags.DEFINE_bool(
    "semantic_similarity",
    False,
    "Also record how alike the semantic tokens of each class are; compiles a second program.",
    flag_values=FLAGS,
)
PROFILE = ProfileFlags(FLAGS, "batches")


def _with_flags(config: Config, mesh: Mesh) -> Config:
    """The run's configuration with the sampling settings of the command line."""
    changed = SAMPLING.apply(config, mesh)
    if FUSE_FRACTION.value is None:
        return changed
    if FUSE.value is None:
        raise UserError("--fuse_fraction has an effect only with --fuse")
    values = changed.to_dict()
    values["sampling"]["fuse_fraction"] = FUSE_FRACTION.value
    return make_config(values)


def _request(num_classes: int) -> SampleRequest:
    fuse_with = None
    given, fused, count = LABELS.value, FUSE.value, NUM_SAMPLES.value
    if given is not None and fused is None and count is None:
        labels = numbers("--labels", given, int)
    elif given is None and fused is not None:
        classes = numbers("--fuse", fused, int)
        if len(classes) != 2:
            raise UserError(f"--fuse={','.join(fused)} must name two classes, such as --fuse=207,88")
        labels, fuse_with = (classes[0],) * (count or 1), classes[1]
    elif given is None and count is not None:
        labels = tuple(balanced_labels(count, num_classes))
    else:
        raise UserError("give one of --labels=207,88, --num_samples=50000, and --fuse=207,88 (--num_samples optional)")
    references = tuple(REFERENCES.value or ())
    files = ALL_IMAGES.value, NPZ.value, SIMILARITY.value
    return SampleRequest(labels, SAMPLING.seed.value, fuse_with, *files, references)


def main() -> None:
    """Loads an average of the run and writes the samples."""
    mesh = SAMPLING.mesh()
    weights = load_weights(run_folder(WORKDIR), mesh, ema_rate=SAMPLING.ema_rate.value)
    weights = dataclasses.replace(weights, config=_with_flags(weights.config, mesh))
    request = _request(weights.config.model.num_classes)
    generate_samples(weights, request, app.place(OUT), mesh, PROFILE.profile(), FORMAT.value)


if __name__ == "__main__":
    app.run(main, FLAGS, several=True, rerun="goes on")
