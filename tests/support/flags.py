"""Runs command lines in this process."""

from absl.testing import flagsaver


def run(command, *arguments):
    saved = flagsaver.save_flag_values(command.FLAGS)
    try:
        command.FLAGS([command.__name__, *(str(argument) for argument in arguments)])
        command.main()
    finally:
        flagsaver.restore_flag_values(saved, command.FLAGS)
