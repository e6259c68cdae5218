"""Calls with arguments that the annotations forbid."""

import contextlib

import jaxtyping


@contextlib.contextmanager
def unchecked():
    """Turns off the checks of annotations, so that the function itself must refuse what does not fit."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
