import numpy as np
import pytest
from scipy.spatial.distance import cdist

from transdiff_jax.errors import UserError
from transdiff_jax.evaluation import metrics
from transdiff_jax.evaluation.metrics import precision_recall


def literal(generated, real, neighbours):
    across = cdist(generated, real)
    generated_radii, real_radii = (np.sort(cdist(s, s), axis=1)[:, neighbours] for s in (generated, real))
    return (across <= real_radii).any(axis=1).mean(), (across <= generated_radii[:, None]).any(axis=0).mean()


@pytest.mark.parametrize("values", [2**24, 64])
@pytest.mark.parametrize("neighbours", [1, 3])
def test_by_the_definition_in_blocks_of_any_size(monkeypatch, values, neighbours):
    monkeypatch.setattr(metrics, "_BLOCK_VALUES", values)
    draw = np.random.default_rng(0)
    generated, real = draw.normal(size=(40, 3)) + 101, draw.normal(size=(33, 3)) + 100
    found = precision_recall(generated, real, neighbours=neighbours)
    assert found == pytest.approx(literal(generated, real, neighbours))
    assert 0 < found.recall < 1
    assert 0 < found.precision < 1


def test_which_is_which():
    draw = np.random.default_rng(0)
    narrow, wide = draw.normal(size=(100, 2)) * 0.05, draw.normal(size=(100, 2))
    assert precision_recall(narrow, wide).precision > 0.9
    assert precision_recall(narrow, wide).recall < 0.3


def test_copies_have_balls_without_extent():
    draw = np.random.default_rng(0)
    few = draw.normal(size=(6, 501)).astype(np.float32)
    others = draw.normal(size=(10, 501)).astype(np.float32) + 10
    collapsed = few.repeat(10, axis=0)
    assert precision_recall(collapsed, others) == (0, 0)
    # The balls hold the copied images and no others, whatever the rounding.
    assert precision_recall(collapsed, np.concatenate([others, few])) == (1, 6 / 16)


def test_too_few_images():
    with pytest.raises(UserError, match="more than 3 real images, but there are 3"):
        precision_recall(np.zeros((5, 2)), np.zeros((3, 2)))
