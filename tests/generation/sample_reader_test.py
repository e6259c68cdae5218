import hashlib
import io
import random
import zipfile

import pytest

from transdiff_jax.errors import UserError
from transdiff_jax.generation.sample_reader import SampleReader

ARCHIVE = "images/000000.zip"
CONTENT = bytes(range(200))


def archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for index in range(5):
            file.writestr(zipfile.ZipInfo(f"images/{index:06d}.png"), CONTENT)
    return buffer.getvalue()


def read(folder, data):
    (folder / ARCHIVE).parent.mkdir(exist_ok=True)
    (folder / ARCHIVE).write_bytes(data)
    return SampleReader(folder, {ARCHIVE: hashlib.sha256(data).hexdigest()}).read("images/000003.png")


def test_archives_are_read_by_the_names_of_their_images(tmp_path):
    assert read(tmp_path, archive()) == CONTENT


def test_whatever_an_archive_holds_it_is_read_or_refused_in_one_line(tmp_path):
    """Digests do not protect from an archive that was made to fit them."""
    draw, whole, refused = random.Random(0), archive(), 0
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 1, 4))):
            data[draw.randrange(len(data))] = draw.choice((0, 255, draw.randrange(256)))
        try:
            assert read(tmp_path, bytes(data)) == CONTENT
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("data", [b"", b"PK", b"no zip"])
def test_what_is_no_archive(tmp_path, data):
    with pytest.raises(UserError, match=r"000000\.zip is no archive of transdiff sample; run the same"):
        read(tmp_path, data)
