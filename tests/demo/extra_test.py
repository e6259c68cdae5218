"""The digits without the packages of the extra `demo`."""

import subprocess
import sys

import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.paths import ROOT
from transdiff_jax.data.sources.digits import prepare_digits
from transdiff_jax.demo.figures import save_loss_curves, save_panels
from transdiff_jax.demo.judge import DigitsJudge
from transdiff_jax.demo.report import write_report
from transdiff_jax.errors import UserError

HINT = r"which is not installed: pip install 'transdiff_jax\[demo\]'$"


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("sklearn", lambda folder: prepare_digits(str(folder / "data"))),
        ("sklearn", lambda folder: DigitsJudge(tiny_config().data)),
        ("sklearn", write_report),
        ("matplotlib", write_report),
        ("matplotlib", lambda folder: save_loss_curves(folder / "a.png", {"a": ([1, 2], [0.5, 0.4])})),
        ("matplotlib", lambda folder: save_panels(folder / "a.png", {"a": np.zeros((8, 8, 1), np.uint8)}, ["0"])),
    ],
)
def test_what_is_missing_is_named(tmp_path, monkeypatch, package, use):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"^the digits need {package}, {HINT}"):
        use(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_ends_in_one_line(tmp_path):
    code = (
        "import sys; sys.modules |= dict.fromkeys(['sklearn', 'matplotlib']); from transdiff_jax.cli import main; "
        f"sys.argv = ['transdiff', 'digits_report', '--folder={tmp_path}']; main.main()"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert (
        result.stderr == "error: the digits need sklearn, which is not installed: pip install 'transdiff_jax[demo]'\n"
    )
