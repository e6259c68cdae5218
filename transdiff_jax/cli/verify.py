"""Checks this code against tensors of the release.

transdiff verify FILE.npz ...

Prints one JSON line per file. Exits with 1 if any check of any file is out of tolerance.
"""

import json
import sys

from absl import flags

from transdiff_jax.cli import app
from transdiff_jax.cli.compile_cache import define_compile_cache
from transdiff_jax.errors import UserError
from transdiff_jax.storage.paths import user_path
from transdiff_jax.verification.check_file import verify

FLAGS = flags.FlagValues()
define_compile_cache(FLAGS)
FAILED_CODE = 1


def main(files: list[str]) -> None:
    """Checks the files one by one."""
    if not files:
        raise UserError("name at least one golden file: transdiff verify tests/golden/one_step_256_a.npz")
    ok = True
    for file in files:
        report = verify(str(user_path(file, "FILE")))
        print(json.dumps(report), flush=True)
        ok = ok and report["ok"]
    if not ok:
        sys.exit(FAILED_CODE)


if __name__ == "__main__":
    app.run(main, FLAGS, files=True)
