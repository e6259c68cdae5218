"""Marks single cases of a parametrised test."""

import functools

import pytest

# A case that is left out of the quick set, because others of its kind are in it: slow(1, 2) beside (3, 4).
slow = functools.partial(pytest.param, marks=pytest.mark.slow)
