"""Trains a model, or resumes a run.

transdiff train --config=configs/digits.py --workdir=DIR [--config.section.field=VALUE ...]
"""

from absl import flags

from transdiff_jax.cli import app
from transdiff_jax.cli.compile_cache import define_compile_cache
from transdiff_jax.cli.profile_flags import ProfileFlags
from transdiff_jax.hub.starts import train

FLAGS = flags.FlagValues()
define_compile_cache(FLAGS)
CONFIG = app.define_config(FLAGS)
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run, local or gs://BUCKET/FOLDER: checkpoints, metrics.jsonl, TensorBoard events.",
    flag_values=FLAGS,
    required=True,
)
PROFILE = ProfileFlags(FLAGS, "steps")
flags.mark_flag_as_required("config", FLAGS)


def main() -> None:
    """Trains a configuration in the workdir."""
    train(app.read_config(CONFIG), app.place(WORKDIR), PROFILE.profile())


if __name__ == "__main__":
    app.run(main, FLAGS, several=True, rerun="resumes")
