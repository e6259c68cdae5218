"""The flags --profile and --profile_steps."""

import re

from absl import flags

from transdiff_jax.cli import app
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.profiling import Profile


class ProfileFlags:
    """The flags of a command that can trace its steps."""

    def __init__(self, flag_values: flags.FlagValues, unit: str) -> None:
        """Defines them among the command's flags; `unit` is what its steps are called, in the plural."""
        self._folder = flags.DEFINE_string(
            "profile", None, f"Folder for a jax.profiler trace of some {unit}.", flag_values=flag_values
        )
        self._steps = flags.DEFINE_string(
            "profile_steps",
            None,
            f"With --profile: the first and the last of these {unit}, counted from 1 where this command starts; "
            f"default: {Profile.first}:{Profile.last}.",
            flag_values=flag_values,
        )

    def profile(self) -> Profile | None:
        """What to trace; None without --profile.

        Raises:
            UserError: the steps are no range, or they are given without a folder.
        """
        text = self._steps.value
        if self._folder.value is None:
            if text is not None:
                raise UserError(f"--profile_steps={text} has an effect only with --profile=DIR")
            return None
        folder = app.folder(self._folder)
        if text is None:
            return Profile(folder)
        found = re.fullmatch(r"([0-9]{1,18}):([0-9]{1,18})", text)
        first, last = (int(number) for number in found.groups()) if found else (0, 0)
        if not 1 <= first <= last:
            raise UserError(f"--profile_steps={text} must be FIRST:LAST, counted from 1, such as 10:15")
        return Profile(folder, first, last)
