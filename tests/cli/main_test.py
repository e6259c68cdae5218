import subprocess
import sys

import pytest

import transdiff_jax
from tests.support.paths import ROOT
from transdiff_jax.cli import main

CLI = ROOT / "transdiff_jax" / "cli"


def script(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "transdiff_jax.cli.main", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_help_lists_all_commands_with_a_line_each(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["transdiff", "--help"])
    main.main()
    lines = capsys.readouterr().out.splitlines()
    for command in main.COMMANDS:
        (line,) = [line for line in lines if line.split()[:1] == [command]]
        assert len(line) > 20
    runnable = {path.stem for path in CLI.glob("*.py") if "app.run(" in path.read_text()} - {"app"}
    assert runnable == set(main.COMMANDS)


def test_a_command_is_its_module():
    by_script, by_module = (
        script("verify", "--help"),
        subprocess.run(
            [sys.executable, "-m", "transdiff_jax.cli.verify", "--help"], cwd=ROOT, capture_output=True, text=True
        ),
    )
    assert by_script.returncode == by_module.returncode == 0
    assert by_script.stdout == by_module.stdout
    assert "Checks this code against tensors" in by_script.stdout


def test_nothing_heavy_is_loaded_for_help_and_version():
    code = (
        "import sys; from transdiff_jax.cli import main; sys.argv = ['transdiff', '--help']; main.main(); "
        "sys.exit(bool({'jax', 'numpy', 'absl'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0
    assert script("--version").stdout == f"transdiff_jax {transdiff_jax.__version__}\n"


@pytest.mark.parametrize(("word", "hint"), [("trian", "did you mean train?"), ("x", "the commands are train, distill")])
def test_an_unknown_command_is_one_line(word, hint):
    result = script(word)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert hint in result.stderr
