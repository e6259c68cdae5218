import numpy as np
import pytest

from transdiff_jax.data.references import ReferenceGroups
from transdiff_jax.errors import UserError

LABELS = np.array([0, 1, 0, 2, 1, 0, 1, 2, 0, 2, 1, 2, 0], np.int32)


def test_group_is_of_one_class_without_repeats_and_ends_with_its_record():
    groups, generator = ReferenceGroups(LABELS, 4), np.random.default_rng(0)
    for index in list(range(len(LABELS))) * 5:
        group = groups.group(index, generator)
        assert group.shape == (4,)
        assert group[-1] == index
        assert len(set(group.tolist())) == 4
        assert (LABELS[group] == LABELS[index]).all()


def test_references_are_drawn_anew_and_in_any_order():
    groups, generator = ReferenceGroups(LABELS, 3), np.random.default_rng(0)
    drawn = [tuple(groups.group(0, generator)[:-1].tolist()) for _ in range(300)]
    assert set(drawn) == {(a, b) for a in (2, 5, 8, 12) for b in (2, 5, 8, 12) if a != b}


def test_generator_decides():
    groups = ReferenceGroups(LABELS, 4)
    first, again = (groups.group(0, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_one_image_is_the_record_alone():
    groups = ReferenceGroups(np.array([0, 1, 1]), 1)
    assert [groups.group(index, np.random.default_rng(0)).tolist() for index in range(3)] == [[0], [1], [2]]


def test_smallest_class_that_will_do_gives_all_its_images():
    group = ReferenceGroups(np.array([5, 5, 5]), 3).group(1, np.random.default_rng(0))
    assert sorted(group.tolist()) == [0, 1, 2]


def test_class_that_is_too_small_is_named():
    with pytest.raises(UserError) as caught:
        ReferenceGroups(np.array([5, 5, 5, 7, 7]), 3)
    assert str(caught.value).startswith("class 7 has 2 image(s), but config.model.num_images=3 needs as many")
    assert "\n" not in str(caught.value)
