import pytest

from transdiff_jax.errors import UserError
from transdiff_jax.generation.request import SampleRequest, balanced_labels, check_labels


@pytest.mark.parametrize(
    ("count", "classes", "expected"),
    [
        (6, 3, [0, 0, 1, 1, 2, 2]),
        (5, 3, [0, 0, 1, 1, 2]),
        (2, 3, [0, 1]),
        (1, 1, [0]),
    ],
)
def test_balanced_labels(count, classes, expected):
    assert balanced_labels(count, classes) == expected


@pytest.mark.parametrize("count", [0, 10**7 + 1, 10**20])
def test_more_samples_than_a_request_can_list_are_refused(count):
    with pytest.raises(UserError, match=f"^num_samples={count} must be at least 1 and at most 10000000$"):
        balanced_labels(count, 3)


def test_published_labels_are_fifty_of_each_in_class_order():
    assert balanced_labels(50_000, 1000) == [index // 50 for index in range(50_000)]


def test_labels_that_the_model_does_not_have():
    check_labels(SampleRequest((0, 9), 0, fuse_with=3), 10)
    for request, message in (
        (SampleRequest((0, 10), 0), "^labels: class 10 does not exist; this model has classes 0 to 9$"),
        (SampleRequest((0,), 0, fuse_with=-1), "^fuse_with: class -1 does not exist"),
        (SampleRequest((), 0), "^no samples were asked for"),
        (SampleRequest((0,), -1), "^seed=-1 must be at least 0"),
        (SampleRequest((0,), 2**31), "^seed=2147483648 must be at least 0 and at most 2147483647"),
    ):
        with pytest.raises(UserError, match=message):
            check_labels(request, 10)
