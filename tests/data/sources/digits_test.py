import numpy as np
import pytest
from sklearn.datasets import load_digits

from transdiff_jax.data.sources.digits import prepare_digits


@pytest.fixture(scope="module")
def splits(digits_directory):
    builder = prepare_digits(str(digits_directory))
    return {
        name: [(record["image"], int(record["label"])) for record in builder.as_data_source(split=name)]
        for name in builder.info.splits
    }


def test_split_sizes(splits):
    assert {name: len(records) for name, records in splits.items()} == {"train": 1437, "test": 360}


def test_pixels_and_labels_are_those_of_scikit_learn(splits):
    scans = load_digits()
    stored = np.array([np.append(image.ravel(), label) for records in splits.values() for image, label in records])
    pixels = np.round(scans.images * 255 / 16).astype(np.uint8).reshape(-1, 64)
    expected = np.concatenate([pixels, scans.target[:, None]], axis=1)
    # TFDS shuffles, so the rows are compared as sets.
    np.testing.assert_array_equal(stored[np.lexsort(stored.T)], expected[np.lexsort(expected.T)])
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_every_fifth_scan_is_held_out(splits):
    scans = load_digits()
    held_out = np.round(scans.images[::5] * 255 / 16).astype(np.uint8).reshape(-1, 64)
    stored = np.array([image.ravel() for image, _ in splits["test"]])
    np.testing.assert_array_equal(stored[np.lexsort(stored.T)], held_out[np.lexsort(held_out.T)])
    assert not {image.tobytes() for image, _ in splits["train"]} & {image.tobytes() for image, _ in splits["test"]}


def test_every_class_is_in_both_splits(splits):
    for records in splits.values():
        assert np.bincount([label for _, label in records], minlength=10).min() > len(records) / 20


def test_images_are_small_and_grey(splits):
    image, _ = splits["train"][0]
    assert (image.shape, image.dtype) == ((8, 8, 1), np.uint8)


def test_second_preparation_reuses_the_files(tmp_path):
    def times():
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}

    prepare_digits(str(tmp_path))
    before = times()
    prepare_digits(str(tmp_path))
    assert times() == before
    assert any(".array_record" in path.name for path in before)


def test_two_preparations_are_the_same(digits_directory, splits, tmp_path):
    again = prepare_digits(str(tmp_path)).as_data_source(split="test")
    for record, (image, label) in zip(again, splits["test"], strict=True):
        np.testing.assert_array_equal(record["image"], image)
        assert record["label"] == label
