import numpy as np

from transdiff_jax.demo.nearness import _score

LABELS = np.repeat(np.arange(2), 30)


class Judge:
    """Stands in for the digits' judge: the features are the pixels."""

    def features(self, images):
        return images.reshape(len(images), -1).astype(float)


def sequences(pull):
    """60 sequences of random images, whose last is moved towards its own references by a share of the way."""
    images = np.random.default_rng(0).normal(size=(60, 4, 4, 4, 1))
    images[:, -1] = (1 - pull) * images[:, -1] + pull * images[:, :-1].mean(axis=1)
    return images


def test_results_that_do_not_follow_their_references_score_about_zero():
    found = _score(Judge(), sequences(0), LABELS)
    assert abs(found["score"]) < 3 * found["error"] < 0.1
    assert found["count"] == 60


def test_the_nearer_a_result_is_the_higher_the_score():
    scores = [_score(Judge(), sequences(pull), LABELS) for pull in (0.2, 0.6, 1)]
    assert 3 * scores[0]["error"] < scores[0]["score"] < scores[1]["score"] < scores[2]["score"] < 1
    same = np.repeat(sequences(0)[:, :1], 4, axis=1)
    assert _score(Judge(), same, LABELS)["score"] == 1


def test_other_classes_do_not_count():
    images = sequences(0)
    far = images + 1000 * LABELS[:, None, None, None, None]
    assert np.isclose(_score(Judge(), far, LABELS)["score"], _score(Judge(), images, LABELS)["score"])
