"""Ctrl-C while a command still loads its modules ends it as other programs end, without Python's traceback.

The package imports this first, so that `python -m transdiff_jax.cli.COMMAND` has it before the slow imports. From
`transdiff_jax.cli.app.run` on, `transdiff_jax.parallel.signals` ends commands.
"""

import signal
import sys


def end_quietly() -> None:
    """Lets Ctrl-C end the process at once, unless something else is to happen."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if sys.argv[:1] == ["-m"]:  # Python has it there while it looks for the module that it was told to run
    end_quietly()
