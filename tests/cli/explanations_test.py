import jax
import pytest

from transdiff_jax.cli.explanations import explain


@pytest.mark.parametrize("kind", [jax.errors.JaxRuntimeError, ValueError])
def test_a_process_that_ended_is_named_by_what_its_neighbours_saw(kind):
    error = kind("UNKNOWN: Gloo all-reduce failed: Connection reset by peer")
    assert explain(error).startswith("another process of the job ended; its output says why (UNKNOWN: Gloo")


def test_other_errors_are_bugs():
    assert explain(ValueError("shapes differ")) is None
