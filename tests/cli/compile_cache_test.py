import stat

import jax
import pytest
from absl import flags

from transdiff_jax.cli import cache_latents, evaluate, sample, train, verify
from transdiff_jax.cli.compile_cache import define_compile_cache, use_compile_cache


@pytest.fixture(autouse=True)
def _unchanged(monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", "before")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def folder_with(*arguments):
    """JAX's folder of compiled programs in a command with these arguments."""
    values = flags.FlagValues()
    define_compile_cache(values)
    values(["command", *arguments])
    use_compile_cache(values)
    return jax.config.jax_compilation_cache_dir


def test_the_default_is_in_the_home_and_private(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".cache" / "transdiff_jax"
    assert folder_with() == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not list(folder.iterdir())


def test_the_flag_wins_over_the_variable_and_the_variable_over_the_default(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    assert folder_with() == "before"
    assert folder_with(f"--compile_cache={tmp_path / 'a' / 'b'}") == str(tmp_path / "a" / "b")
    assert folder_with("--compile_cache=") is None


@pytest.mark.parametrize("name", ["file/below", "/proc/none", "a\0b", "gs://bucket/cache"])
def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path, monkeypatch, caplog, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with caplog.at_level("WARNING", logger="absl"):
        assert folder_with(f"--compile_cache={name}") is None
    (record,) = caplog.records
    assert f"compiled programs are not kept: --compile_cache={name} cannot be written (" in record.getMessage()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_commands_that_compile_have_the_flag_and_others_do_nothing():
    for command in (train, sample, evaluate, cache_latents, verify):
        assert "compile_cache" in command.FLAGS
    use_compile_cache(flags.FlagValues())
    assert jax.config.jax_compilation_cache_dir == "before"
