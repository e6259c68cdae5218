"""The console script: `transdiff COMMAND …` is `python -m transdiff_jax.cli.COMMAND …`."""

import ast
import difflib
import importlib.util
import runpy
import sys
from pathlib import Path
from typing import NoReturn

from transdiff_jax import __version__
from transdiff_jax.cli.early_ctrl_c import end_quietly
from transdiff_jax.cli.quiet_end import open_closed_streams, quiet_end

COMMANDS = (
    "train",
    "distill",
    "sample",
    "evaluate",
    "info",
    "cache_latents",
    "convert",
    "push",
    "verify",
    "benchmark",
    "digits_report",
)
_PACKAGE = __package__ or "transdiff_jax.cli"
_USAGE = "usage: transdiff COMMAND [--flag=value ...]      transdiff COMMAND --help lists the flags"
USER_ERROR_CODE = 2


def summary(command: str) -> str:
    """The first line of a command's documentation. Does not load the command, nor anything that it needs."""
    spec = importlib.util.find_spec(f"{_PACKAGE}.{command}")
    if spec is None or spec.origin is None:
        raise ValueError(f"{command} is not a command")
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text()))
    return (text or "").partition("\n")[0]


def main() -> None:
    """Runs the command that the first argument names."""
    open_closed_streams()
    with quiet_end():
        _run()


def _run() -> None:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print("\n".join([_USAGE, "", *(f"  {name:<14} {summary(name)}" for name in COMMANDS)]))
    elif arguments[0] == "--version":
        print(f"transdiff_jax {__version__}")
    elif arguments[0] in COMMANDS:
        end_quietly()
        sys.argv = [f"transdiff {arguments[0]}", *arguments[1:]]
        runpy.run_module(f"{_PACKAGE}.{arguments[0]}", run_name="__main__", alter_sys=True)
    else:
        _fail(arguments[0])


def _fail(unknown: str) -> NoReturn:
    near = difflib.get_close_matches(unknown, COMMANDS, 1)
    hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
    print(f"error: {unknown!r} is not a command; {hint}", file=sys.stderr)
    sys.exit(USER_ERROR_CODE)


if __name__ == "__main__":
    main()
