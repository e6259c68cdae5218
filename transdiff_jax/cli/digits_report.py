"""Scores the digits demo and draws its pictures; needs pip install 'transdiff_jax[demo]'.

transdiff digits_report --folder=runs/digits
"""

import json

from absl import flags

from transdiff_jax.checkpoints.record import FOLDER as CHECKPOINTS
from transdiff_jax.cli import app
from transdiff_jax.demo.report import FILES, TITLES, write_report

FLAGS = flags.FlagValues()
FOLDER = flags.DEFINE_string(
    "folder", None, "Folder with the runs one_step and mrar and their samples.", flag_values=FLAGS, required=True
)


def main() -> None:
    """Writes the report and prints it."""
    folder = app.folder(FOLDER)
    print(json.dumps(write_report(folder), indent=2))
    for name in (*FILES, *(f"{run}/{CHECKPOINTS}" for run in TITLES)):
        print(folder / name)


if __name__ == "__main__":
    app.run(main, FLAGS)
