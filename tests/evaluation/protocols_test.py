import numpy as np
import pytest

from transdiff_jax.evaluation.metrics import inception_score
from transdiff_jax.evaluation.protocols import PROTOCOLS, unmet_requirements

ORDERED = [label for label in range(1000) for _ in range(50)]
SHUFFLED = np.random.default_rng(0).permutation(ORDERED).tolist()


def unmet(name, labels, num_classes=1000):
    return unmet_requirements(PROTOCOLS[name], len(labels), labels, num_classes)


def test_published_sets_meet_their_protocol():
    assert unmet("transdiff", ORDERED) == unmet("transdiff", SHUFFLED) == unmet("adm", SHUFFLED) == []


def test_adm_does_not_shuffle():
    (warning,) = unmet("adm", ORDERED)
    assert "in the order of their classes" in warning
    assert unmet_requirements(PROTOCOLS["adm"], 50_000, None, None) == []


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (ORDERED[:-50], ["49950 samples, not the 50000", "only 999 of the 1000 classes"]),
        (ORDERED[:-1], ["49999 samples", "49 to 50 samples of each class, not 50"]),
        ([0, 1] * 25_000, ["only 2 of the 1000 classes", "25000 samples of each class, not 50"]),
    ],
)
def test_what_the_published_protocol_misses(labels, expected):
    found = unmet("transdiff", labels)
    assert len(found) == len(expected)
    assert all(text in warning for text, warning in zip(expected, found, strict=True))


def test_unknown_classes():
    (warning,) = unmet_requirements(PROTOCOLS["transdiff"], 50_000, None, None)
    assert "classes of the samples are not known" in warning


def test_splits_of_a_size_leave_the_rest_to_the_last():
    logits = np.random.default_rng(0).normal(size=(23, 5))
    parts = [
        inception_score(logits[rows], splits=1, seed=None).mean for rows in (slice(0, 10), slice(10, 20), slice(20, 23))
    ]
    assert inception_score(logits, split_size=10, seed=None) == pytest.approx((np.mean(parts), np.std(parts)))
    # A size that divides the number of images gives the same as that number of splits.
    assert inception_score(logits[:20], split_size=2) == pytest.approx(inception_score(logits[:20], splits=10))
