import os

import pytest

from transdiff_jax.storage.json_files import JsonError, is_number, parse_json, read_json, read_json_object

BAD = {
    b"": "is not JSON",
    b'{"a": 1': "is not JSON",
    b"\xff\xfe{}": "is not UTF-8",
    b"[" * 200_000: "is nested too deeply",
    b'{"a":' * 200_000: "is nested too deeply",
    b"9" * 5000: "is not JSON",  # Python refuses to read such a number
}


@pytest.mark.parametrize(("data", "reason"), BAD.items(), ids=range(len(BAD)))
def test_what_is_not_json_is_said_in_a_few_words(tmp_path, data, reason):
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(JsonError, match=reason) as raised:
        read_json(tmp_path / "x.json")
    assert len(str(raised.value).splitlines()) == 1


def test_values_are_read(tmp_path):
    (tmp_path / "x.json").write_text('{"a": [1, null, "é"]}')
    assert read_json(tmp_path / "x.json") == read_json_object(tmp_path / "x.json") == {"a": [1, None, "é"]}
    assert parse_json(b"[1, 2]") == [1, 2]


@pytest.mark.parametrize(
    ("text", "kind"), [("[]", "a list"), ("5", "a number"), ('"x"', "a text"), ("null", "null"), ("true", "true")]
)
def test_only_an_object_is_an_object(tmp_path, text, kind):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(JsonError, match=f"holds {kind}, not a JSON object"):
        read_json_object(tmp_path / "x.json")


def test_a_large_file_is_not_read(tmp_path):
    (tmp_path / "x.json").write_text('"' + "a" * 100 + '"')
    with pytest.raises(JsonError, match="holds 102 bytes, more than the 101"):
        read_json(tmp_path / "x.json", most_bytes=101)


def test_numbers_are_those_that_can_be_shown():
    assert all(map(is_number, (0, -5, 0.5, float("nan"), 10**18)))
    assert not any(map(is_number, (True, None, "1", [], 10**400)))


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "x.json")
    os.mkfifo(tmp_path / "pipe")
    for name in (".", "pipe"):
        with pytest.raises(JsonError, match="is not a file"):
            read_json(tmp_path / name)
