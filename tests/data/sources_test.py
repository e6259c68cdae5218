import shutil

import numpy as np
import pytest

from transdiff_jax.data.sources import open_source
from transdiff_jax.errors import UserError


@pytest.mark.parametrize(("split", "count"), [("train", 1437), ("test", 360)])
def test_records_of_a_split(digits_config, split, count):
    source = open_source(digits_config(data={"split": split}).data)
    assert (len(source), source.num_classes) == (count, 10)
    record = source[count - 1]
    assert (record["image"].shape, record["image"].dtype) == ((8, 8, 1), np.uint8)
    assert type(record["label"]) is int


def test_labels_are_those_of_the_records(digits_config):
    source = open_source(digits_config(data={"split": "test"}).data)
    labels = source.labels()
    assert labels.dtype == np.int32
    assert labels.tolist() == [source[index]["label"] for index in range(len(source))]


def test_random_access(digits_config):
    source = open_source(digits_config(data={"split": "test"}).data)
    np.testing.assert_array_equal(source[7]["image"], source[7]["image"])
    assert (source[7]["image"] != source[8]["image"]).any()


def test_unknown_split(digits_config):
    with pytest.raises(UserError) as caught:
        open_source(digits_config(data={"split": "validation"}).data)
    assert str(caught.value) == "config.data.split='validation' is not a split of digits; it has test, train"


@pytest.mark.parametrize("name", ["a_file", "a_file/below"])
def test_directory_that_is_a_file(digits_config, tmp_path, name):
    (tmp_path / "a_file").write_text("")
    with pytest.raises(UserError) as caught:
        open_source(digits_config(data={"directory": str(tmp_path / name)}).data)
    assert str(caught.value).startswith(f"config.data.directory={str(tmp_path / name)!r} cannot hold the dataset: ")
    assert "\n" not in str(caught.value)


def test_directory_may_start_at_home(digits_config, digits_directory, monkeypatch):
    monkeypatch.setenv("HOME", str(digits_directory.parent))
    source = open_source(digits_config(data={"directory": f"~/{digits_directory.name}", "split": "test"}).data)
    assert len(source) == 360
    assert not (digits_directory.parent / "~").exists()


@pytest.mark.parametrize("name", ["dataset_info.json", "digits-test.array_record-00000-of-00001"])
def test_a_damaged_dataset_ends_in_one_line(digits_directory, digits_config, tmp_path, name):
    directory = shutil.copytree(digits_directory, tmp_path / "copy")
    (file,) = directory.rglob(name)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=r"the dataset in .* is damaged \(.*\): delete that folder"):
        open_source(digits_config(data={"split": "test", "directory": str(directory)}).data).labels()


def test_a_prepared_tfds_dataset_is_read_by_name(digits_directory, digits_config):
    by_name = open_source(digits_config(data={"split": "test", "source": "tfds:digits"}).data)
    embedded = open_source(digits_config(data={"split": "test"}).data)
    assert by_name.labels().tolist() == embedded.labels().tolist()
    np.testing.assert_array_equal(by_name[5]["image"], embedded[5]["image"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tfds:nonsense", "TFDS knows no dataset of that name"),
        ("tfds:imagenet2012", "run `tfds build imagenet2012 --file_format=array_record"),
    ],
)
def test_datasets_that_are_not_there(digits_config, source, message):
    with pytest.raises(UserError, match=message):
        open_source(digits_config(data={"source": source}).data)
