"""Calls with arguments that the annotations forbid."""

import contextlib

import jaxtyping


@contextlib.contextmanager
def unchecked():
    """The annotations are not checked, so that the function itself refuses what does not fit."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
