import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.meshes import over_shards
from transdiff_jax.sampling.conditions import NULL, classes_encoded, encode_distinct


def encoder(log):
    """A function from classes to a tree whose rows are computed from them; it logs its arguments."""

    def encode(classes):
        jax.debug.callback(lambda values: log.append(values.tolist()), classes, ordered=True)
        return {"vector": 10.0 * classes[:, None] + jnp.arange(3), "number": -classes}

    return encode


def run(labels, shards, with_null):
    log = []

    def encode(labels):
        with over_shards(shards):
            return encode_distinct(encoder(log), labels, with_null=with_null)

    made = jax.jit(encode)(labels)
    jax.effects_barrier()
    assert sum(map(len, log)) == classes_encoded(labels, shards, with_null=with_null)
    return made, log


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("with_null", [False, True])
def test_every_row_gets_its_class(shards, with_null):
    labels = np.random.default_rng(0).integers(0, 5, 48)
    (own, null), _ = run(labels, shards, with_null)
    np.testing.assert_array_equal(own["number"], -labels)
    np.testing.assert_array_equal(own["vector"], 10.0 * labels[:, None] + np.arange(3))
    if with_null:
        np.testing.assert_array_equal(null["number"], [-NULL] * shards)
        assert null["vector"].shape == (shards, 3)
    else:
        assert null is None


def test_classes_of_a_batch_are_encoded_once():
    # 32 rows are encoded in chunks of four classes: here the null class and three others.
    _, log = run(np.repeat([7, 2, 7, 5], 8), 1, with_null=True)
    assert log == [[NULL, 2, 5, 7]]
    # Five classes do not fit into one chunk, and the run of rows with few classes waits for the one with many.
    _, log = run(np.concatenate([np.arange(16) % 5, np.full(16, 9)]), 2, with_null=False)
    assert [chunk[:2] for chunk in log] == [[0, 1], [2, 3], [4, 0]]
    assert log[0][2] == 9


def test_rows_that_all_differ_are_encoded_once_each():
    _, log = run(np.arange(24)[::-1].copy(), 1, with_null=False)
    assert log == [[3 * k, 3 * k + 1, 3 * k + 2] for k in range(8)]


def test_one_row():
    (own, null), log = run(np.array([4]), 1, with_null=True)
    assert log == [[NULL], [4]]
    assert own["number"].tolist() == [-4]
    assert null["number"].tolist() == [1]
