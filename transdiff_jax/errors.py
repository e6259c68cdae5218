"""The one exception for mistakes that the user can fix."""


class UserError(Exception):
    """A mistake in a flag, a file or a setting.

    Its message is one line that says what is wrong, where, and what to do. The command line prints that line and exits
    with code 2. Any other exception that escapes is a bug and keeps its traceback.
    """
