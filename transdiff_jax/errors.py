"""The one exception that means: the user can fix this."""


class UserError(Exception):
    """A mistake in a flag, a file or a setting.

    Its message is one line that says what is wrong, where, and what to do. The command lines print that line
    and exit with code 2; everything else that escapes is a bug and keeps its traceback.
    """
