"""Encodes a dataset once, so that training reads latents instead of images.

python -m transdiff_jax.cli.cache_latents --config=FILE --out=DIR [--config.data.crop=center] [--dtype=float16]
python -m transdiff_jax.cli.cache_latents --check --out=DIR

A stopped job goes on with the same command; train with --config.data.source=latents:DIR.
"""

from absl import flags, logging
from ml_collections import config_flags

from transdiff_jax.caching import cache_latents
from transdiff_jax.cli import app
from transdiff_jax.data.latent_format import check_all
from transdiff_jax.errors import UserError

FLAGS = flags.FlagValues()
CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration file; any field is overridden by --config.section.field=value.",
    lock_config=True,
    flag_values=FLAGS,
)
OUT = flags.DEFINE_string("out", None, "Folder of the latents; a stopped job goes on there.", flag_values=FLAGS)
DTYPE = flags.DEFINE_enum("dtype", "float16", ["float16", "bfloat16"], "Of the records.", flag_values=FLAGS)
CHECK = flags.DEFINE_bool("check", False, "Make nothing; read every byte and compare.", flag_values=FLAGS)
flags.mark_flag_as_required("out", FLAGS)


def main() -> None:
    """Makes or checks the folder."""
    out = app.folder(OUT.value)
    if CHECK.value:
        manifest = check_all(out)
        logging.info("%s is intact: %d records in %d files", out, manifest.records, len(manifest.shards))
        return
    if not FLAGS["config"].present and not FLAGS["config"].value:
        raise UserError("give --config=FILE, which names the images and the weights, or --check")
    cache_latents(app.read_config(CONFIG), out, DTYPE.value)


if __name__ == "__main__":
    app.run(main, FLAGS)
