"""Trains a few-step student of a trained run, or resumes it.

transdiff distill --config=configs/digits_student.py --workdir=DIR --config.train.init_from=RUN
"""

from absl import flags

from transdiff_jax.cli import app
from transdiff_jax.cli.compile_cache import define_compile_cache
from transdiff_jax.cli.profile_flags import ProfileFlags
from transdiff_jax.hub.starts import distill

FLAGS = flags.FlagValues()
define_compile_cache(FLAGS)
CONFIG = app.define_config(FLAGS)
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the student's run, local or gs://BUCKET/FOLDER: checkpoints, metrics.jsonl, TensorBoard events.",
    flag_values=FLAGS,
    required=True,
)
PROFILE = ProfileFlags(FLAGS, "steps")
flags.mark_flag_as_required("config", FLAGS)


def main() -> None:
    """Distills a student in the workdir."""
    distill(app.read_config(CONFIG), app.place(WORKDIR), PROFILE.profile())


if __name__ == "__main__":
    app.run(main, FLAGS, several=True, rerun="resumes")
