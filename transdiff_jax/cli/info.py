"""Says what the folder of a run holds: settings that are not the defaults, steps, damage, scores, last metrics.

transdiff info --workdir=RUN [--json]

Reads all files of all checkpoints, to find damage; changes nothing.
"""

import json

from absl import flags

from transdiff_jax.cli import app
from transdiff_jax.cli.run_folders import run_folder
from transdiff_jax.training.run_info import describe_run, info_lines

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=FLAGS, required=True)
JSON = flags.DEFINE_bool("json", False, "Print one JSON object.", flag_values=FLAGS)


def main() -> None:
    """Prints what the folder holds."""
    info = describe_run(run_folder(WORKDIR))
    print(json.dumps(info, indent=2) if JSON.value else "\n".join(info_lines(info)))


if __name__ == "__main__":
    app.run(main, FLAGS)
