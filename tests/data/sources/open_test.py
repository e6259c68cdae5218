import dataclasses
import json
import shutil

import cloudpickle
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.support.buckets import upload
from tests.support.photos import CLASSES, Photos, write_folder, write_tfds
from transdiff_jax.config import DataConfig
from transdiff_jax.data.groups.index import IndexedGroups
from transdiff_jax.data.sources import tfds as tfds_source
from transdiff_jax.data.sources.digits import prepare_digits
from transdiff_jax.data.sources.imagenet import readable_names, wnids
from transdiff_jax.data.sources.open import class_names, open_source
from transdiff_jax.data.sources.tfds import TfdsSource
from transdiff_jax.errors import UserError


@pytest.mark.parametrize(("split", "count"), [("train", 1437), ("test", 360)])
def test_records_of_a_split(digits_config, split, count):
    source = open_source(digits_config(data={"split": split}).data)
    assert (len(source), source.class_names) == (count, tuple("0123456789"))
    record = source[count - 1]
    assert (record["image"].shape, record["image"].dtype) == ((8, 8, 1), np.uint8)
    assert type(record["label"]) is int


def test_labels_are_those_of_the_records(digits_config):
    source = open_source(digits_config(data={"split": "test"}).data)
    labels = source.labels()
    assert labels.dtype == np.int32
    assert labels.tolist() == [source[index]["label"] for index in range(len(source))]


def test_pixels_are_those_that_tfds_decodes(digits_config, digits_directory):
    source = open_source(digits_config(data={"split": "test"}).data)
    for index, record in enumerate(prepare_digits(str(digits_directory)).as_data_source(split="test")):
        np.testing.assert_array_equal(source[index]["image"], record["image"])
        assert source[index]["label"] == source.label(index) == record["label"]


def test_grey_images_may_be_asked_for_in_colour(digits_config):
    grey, colour = (open_source(dataclasses.replace(digits_config().data, image_channels=c)) for c in (1, 3))
    np.testing.assert_array_equal(colour[3]["image"], np.repeat(grey[3]["image"], 3, axis=-1))


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


def test_metadata_that_is_no_text_ends_in_one_line(digits_directory, digits_config, tmp_path):
    directory = shutil.copytree(digits_directory, tmp_path / "copy")
    (file,) = directory.rglob("dataset_info.json")
    file.write_bytes(b"\xff" + file.read_bytes())
    with pytest.raises(UserError, match=r"the dataset in .* is damaged \(.*\): delete that folder"):
        open_source(digits_config(data={"directory": str(directory)}).data)


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
        ("tfds:mnist:9.9.9", "config.data.source='tfds:mnist:9.9.9': TFDS cannot make it: .* only: "),
        ("tfds:mnist/no_such_config", "config.data.source='tfds:mnist/no_such_config': TFDS cannot make it: "),
    ],
)
def test_datasets_that_are_not_there(digits_config, source, message):
    with pytest.raises(UserError, match=message):
        open_source(digits_config(data={"source": source}).data)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a b", "huggingface:x", "kubric:x", "x\0", "x/y/z", ".."])
def test_what_is_no_name_of_a_dataset_is_one_line(digits_config, name):
    with pytest.raises(UserError, match=r"must be tfds:NAME, tfds:NAME/CONFIG or one") as caught:
        open_source(digits_config(data={"source": f"tfds:{name}"}).data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"directory": ""}, "config.data.directory"),
        ({"directory": "", "source": "tfds:mnist"}, "config.data.directory"),
        ({"source": "folder: "}, "config.data.source"),
    ],
)
def test_an_empty_path_is_not_the_current_folder(digits_config, tmp_path, monkeypatch, data, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^{name}= is empty: give it a path"):
        open_source(digits_config(data=data).data)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder, and the same files prepared by TFDS."""
    folder = write_folder(tmp_path_factory.mktemp("folder"))
    return folder, write_tfds(folder, tmp_path_factory.mktemp("tfds"))


def test_a_folder_and_tfds_give_the_same_records(photos):
    folder, directory = photos
    ours = open_source(DataConfig(source=f"folder:{folder}", image_channels=3))
    theirs = open_source(DataConfig(source="tfds:photos", directory=str(directory), image_channels=3))
    assert ours.class_names == theirs.class_names == CLASSES
    places = {ours.id(index): index for index in range(len(ours))}
    assert sorted(theirs.id(index) for index in range(len(theirs))) == sorted(places)  # its feature file_name
    for index in range(len(theirs)):
        place = places[theirs.id(index)]
        np.testing.assert_array_equal(theirs[index]["image"], ours[place]["image"])
        assert theirs.label(index) == theirs.labels()[index] == ours.labels()[place] == ours.label(place)


def test_the_classes_of_a_folder_are_known_without_a_list_of_its_images(photos, monkeypatch):
    monkeypatch.setattr("transdiff_jax.data.sources.folder.list_folder", None)
    assert class_names(DataConfig(source=f"folder:{photos[0]}")) == CLASSES


class CountedRecords:
    """Raw records that can only be read in batches; notes which were read."""

    def __init__(self, records):
        self._records, self.read = records, []

    def __len__(self):
        return len(self._records)

    def __getitems__(self, indices):
        self.read.extend(indices)
        return self._records.__getitems__(indices)


@pytest.mark.parametrize("at_once", [3, 16, 256])
def test_an_index_file_costs_one_pass_over_tfds(photos, monkeypatch, tmp_path, at_once):
    directory = photos[1]
    source = open_source(DataConfig(source="tfds:photos", directory=str(directory), image_channels=3))
    ids = [source.id(index) for index in range(len(source))]
    lines = [{"cate": name, "files": ["002.JPEG", "005.png", "000.JPEG"]} for name in CLASSES]
    (tmp_path / "index").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setattr(tfds_source, "_RECORDS_AT_ONCE", at_once)
    source._records = CountedRecords(source._records)
    groups = IndexedGroups(tmp_path / "index", source, 3)
    assert source._records.read == list(range(16))
    members = [groups.members(row, np.random.default_rng(0)).tolist() for row in range(len(groups))]
    assert [[ids[index] for index in group] for group in members] == [
        [f"{name}/{file}" for file in ("002.JPEG", "005.png", "000.JPEG")] for name in CLASSES
    ]


@pytest.mark.parametrize("kind", ["folder", "tfds", "digits"])
def test_labels_and_ids_are_those_of_the_records(photos, digits_config, kind):
    folder, directory = photos
    config = {
        "folder": DataConfig(source=f"folder:{folder}", image_channels=3),
        "tfds": DataConfig(source="tfds:photos", directory=str(directory), image_channels=3),
        "digits": digits_config(data={"split": "test"}).data,
    }[kind]
    source = open_source(config)
    labels, ids = source.labels_and_ids()
    assert labels.dtype == np.int32
    assert labels.tolist() == [source.label(index) for index in range(len(source))]
    assert ids == [source.id(index) for index in range(len(source))] == [source[i]["id"] for i in range(len(source))]


def test_a_source_pickles_to_something_small(photos):
    folder, directory = photos
    for name in (f"folder:{folder}", "tfds:photos"):
        source = open_source(DataConfig(source=name, directory=str(directory), image_channels=3))
        pickled = cloudpickle.dumps(source)
        assert len(pickled) < 2000
        np.testing.assert_array_equal(cloudpickle.loads(pickled)[5]["image"], source[5]["image"])


def test_names_of_imagenet_are_words(digits_config):
    assert readable_names(wnids())[:2] == ("tench, Tinca tinca", "goldfish, Carassius auratus")
    assert readable_names(wnids()[:5]) == wnids()[:5]
    assert readable_names(("cat", "dog")) == ("cat", "dog")
    labels = tfds.builder_cls("imagenet2012")().info.features["label"]
    assert readable_names(labels.names)[988:990] == ("acorn", "hip, rose hip, rosehip")


def test_a_record_without_a_class(photos, monkeypatch):
    folder, directory = photos
    source = TfdsSource(Photos(folder, data_dir=str(directory), file_format="array_record"), "train", 3)
    source.class_names = CLASSES[:1]
    with pytest.raises(UserError, match=r"record \d+ of split train in .* has no class"):
        source.labels()


def test_a_dataset_is_read_from_a_bucket_but_not_prepared_there(bucket, tmp_path):
    directory = write_tfds(write_folder(tmp_path / "folder"), tmp_path / "tfds")
    config = DataConfig(source="tfds:photos", directory=str(upload(directory, bucket / "tfds")), image_channels=3)
    here, there = open_source(dataclasses.replace(config, directory=str(directory))), open_source(config)
    assert len(there) == len(here) == 16
    assert there.labels_and_ids()[0].tolist() == here.labels_and_ids()[0].tolist()
    np.testing.assert_array_equal(there[3]["image"], here[3]["image"])
    with pytest.raises(UserError, match="cannot be prepared in a bucket: prepare it in a local folder, then copy"):
        open_source(dataclasses.replace(config, directory=str(bucket / "nothing")))
    with pytest.raises(UserError, match=r"config.data.directory=gs://.* is no local path, and only local paths work"):
        open_source(DataConfig(source="digits", directory=str(bucket)))
    with pytest.raises(UserError, match=r"image files are read from local folders only: .* cache its latents in the"):
        open_source(DataConfig(source=f"folder:{bucket}"))
