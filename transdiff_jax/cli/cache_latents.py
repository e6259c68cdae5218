"""Encodes a dataset once, so that training reads latents instead of images.

transdiff cache_latents --config=FILE --out=DIR [--config.data.crop=center] [--dtype=float16]
transdiff cache_latents --check --out=DIR
transdiff cache_latents --groups=latent --out=DIR

The same command resumes a stopped job. Train with --config.data.source=latents:DIR. The third command writes an index
of MRAR groups for a complete folder; train with --config.data.groups=index:FILE.
"""

from pathlib import Path

import jax
from absl import flags, logging

from transdiff_jax.checkpoints.weights import load_weights
from transdiff_jax.cli import app
from transdiff_jax.cli.compile_cache import define_compile_cache
from transdiff_jax.cli.number_flags import define_integer
from transdiff_jax.config import MeshConfig, ranges
from transdiff_jax.data.groups.making import ClassFeatures, write_neighbour_groups, write_random_groups
from transdiff_jax.data.latents.encode import cache_latents
from transdiff_jax.data.latents.format import check_all
from transdiff_jax.data.latents.source import LatentSource
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.sampling.reference_features import check_fits, reference_features

FLAGS = flags.FlagValues()
define_compile_cache(FLAGS)
CONFIG = app.define_config(FLAGS)
OUT = flags.DEFINE_string(
    "out", None, "Folder of the latents; a stopped job resumes there.", flag_values=FLAGS, required=True
)
DTYPE = flags.DEFINE_enum("dtype", "float16", ["float16", "bfloat16"], "Type of the records.", flag_values=FLAGS)
CHECK = flags.DEFINE_bool(
    "check", False, "Make nothing: read every byte and compare it with the manifest.", flag_values=FLAGS
)
GROUPS = flags.DEFINE_enum(
    "groups",
    None,
    ["random", "latent", "semantic"],
    "Write an index of MRAR groups: random images of a class, or each image after its nearest neighbours in latent "
    "space or in the space of a model's semantic features.",
    flag_values=FLAGS,
)
GROUP_SIZE = define_integer("group_size", 4, ranges.GROUP_SIZES, "Images in a group.", FLAGS)
GROUPS_RUN = flags.DEFINE_string("groups_run", None, "Workdir of the MRAR run of --groups=semantic.", flag_values=FLAGS)
SEED = define_integer("seed", 0, ranges.SEEDS, "Seed of --groups=random.", FLAGS)
SMALL_CLASSES = flags.DEFINE_enum(
    "small_classes",
    "error",
    ["error", "skip", "repeat"],
    "What --groups does with classes that have fewer images than a group.",
    flag_values=FLAGS,
)


def _write_groups(out: Path) -> None:
    if (GROUPS.value == "semantic") != (GROUPS_RUN.value is not None):
        raise UserError("--groups=semantic and --groups_run=WORKDIR go together")
    if jax.process_count() > 1:
        raise UserError("--groups works in one process only: start it alone, when the latents are complete")
    source, path, size = LatentSource(out), out / f"groups_{GROUPS.value}.jsonl", GROUP_SIZE.value
    if GROUPS.value == "random":
        count = write_random_groups(source, path, size, SEED.value, SMALL_CLASSES.value)
    else:
        count = write_neighbour_groups(source, path, size, SMALL_CLASSES.value, _features(source))
    logging.info("%d groups are in %s: train with --config.data.groups=index:%s", count, path, path)


def _features(source: LatentSource) -> ClassFeatures | None:
    """The semantic features of the run in --groups_run; None without that flag."""
    if GROUPS_RUN.value is None:
        return None
    mesh = make_mesh(MeshConfig())
    weights = load_weights(app.place(GROUPS_RUN), mesh)
    model, (_, size, _, channels) = weights.config.model, source.manifest.settings.shape
    check_fits(model, latent_size=size, latent_channels=channels // 2, num_classes=len(source.class_names))
    return reference_features(model, weights.params, mesh)


def main() -> None:
    """Makes or checks the folder, or writes the index of its groups."""
    out, has_config = app.place(OUT), FLAGS["config"].present or FLAGS["config"].value
    if bool(has_config) + CHECK.value + (GROUPS.value is not None) != 1:
        raise UserError("give one of --config=FILE (which names the images and the weights), --check, and --groups")
    if CHECK.value:
        manifest = check_all(out)
        logging.info("%s is intact: %d records in %d files", out, manifest.records, len(manifest.shards))
    elif GROUPS.value is not None:
        _write_groups(out)
    else:
        cache_latents(app.read_config(CONFIG), out, DTYPE.value)


if __name__ == "__main__":
    app.run(main, FLAGS, several=True, rerun="goes on")
