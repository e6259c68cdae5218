import pytest
from absl import flags

from transdiff_jax.cli.profile_flags import ProfileFlags
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.profiling import Profile


def profile(*arguments):
    values = flags.FlagValues()
    defined = ProfileFlags(values, "steps")
    values(["command", *arguments])
    return defined.profile()


def test_a_folder_and_a_range(tmp_path):
    assert profile() is None
    assert profile(f"--profile={tmp_path}") == Profile(tmp_path, 10, 15)
    assert profile(f"--profile={tmp_path}", "--profile_steps=1:3") == Profile(tmp_path, 1, 3)
    assert profile(f"--profile={tmp_path}", "--profile_steps=7:7") == Profile(tmp_path, 7, 7)


@pytest.mark.parametrize(
    "steps", ["", "3", "3:2", "0:2", "-1:2", "1:2:3", "a:b", "1:", "\u0664:\u0666", "1:" + "9" * 30]
)
def test_other_ranges_are_refused(tmp_path, steps):
    with pytest.raises(UserError, match=f"--profile_steps={steps} must be FIRST:LAST, counted from 1, such as 10:15"):
        profile(f"--profile={tmp_path}", f"--profile_steps={steps}")


def test_steps_without_a_folder():
    with pytest.raises(UserError, match="--profile_steps=1:2 has an effect only with --profile=DIR"):
        profile("--profile_steps=1:2")
    with pytest.raises(UserError, match="--profile= is empty"):
        profile("--profile=")
