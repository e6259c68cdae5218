import os
import signal
import subprocess
import sys

import pytest

from tests.support.paths import ROOT


def not_ignored():
    """Undoes what a job in the background inherits."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("command", [["main", "train"], ["train"]], ids=["script", "module"])
def test_ctrl_c_while_modules_are_loaded_prints_no_traceback(command):
    name, *arguments = command
    process = subprocess.Popen(
        [sys.executable, "-m", f"transdiff_jax.cli.{name}", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=not_ignored,
    )
    loading = iter(process.stderr.readline, "")
    assert any(line.split("|")[-1].strip().startswith("jax") for line in loading)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in rest


def test_imports_by_others_leave_ctrl_c_alone():
    code = "import signal, transdiff_jax.cli; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, preexec_fn=not_ignored
    )
    assert result.stdout == "True\n"
