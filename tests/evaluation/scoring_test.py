import json

import numpy as np
import pytest

import transdiff_jax as td
from tests.support.flags import run
from tests.support.networks import installed, projection
from transdiff_jax.cli import evaluate
from transdiff_jax.images.png import save_png

SIDE = 8


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (24, SIDE, SIDE, 3), np.uint8)


@pytest.fixture
def folder(images, tmp_path):
    (tmp_path / "real").mkdir()
    for number, image in enumerate(images):
        save_png(tmp_path / "real" / f"{number:02d}.png", image // 2)
    np.savez(tmp_path / "samples.npz", arr_0=images)
    return tmp_path


def test_scores_are_those_of_the_command(images, folder, monkeypatch):
    with installed(monkeypatch, projection(SIDE)):
        run(
            evaluate,
            f"--samples={folder / 'samples.npz'}",
            f"--reference={folder / 'real'}",
            "--inception=small",
            f"--certificate={folder / 'certificate.json'}",
        )
        expected = json.loads((folder / "certificate.json").read_text())
        of_array = td.evaluate(images, reference=folder / "real", inception="small")
        of_path = td.evaluate(str(folder / "samples.npz"), reference=str(folder / "real"), inception="small")
    assert expected["scores"]["fid"] > 0
    for made in (of_array, of_path):
        assert made["scores"] == expected["scores"]
        assert made["samples"]["pixels_sha256"] == expected["samples"]["pixels_sha256"]
        assert made["protocol"]["name"] == "transdiff"


@pytest.mark.parametrize(
    ("samples", "settings", "message"),
    [
        (np.zeros((2, 8, 8), np.uint8), {}, r"^samples must be uint8 \[n, height, width, 1 or 3\]"),
        (np.zeros((2, 8, 8, 3)), {}, "^samples must be uint8"),
        ("absent", {}, "^samples=absent: no such folder"),
        ("absent", {"protocol": "fid"}, "^protocol='fid' is not one of adm, transdiff"),
    ],
)
def test_mistakes_name_arguments(samples, settings, message):
    with pytest.raises(td.UserError, match=message):
        td.evaluate(samples, reference="absent.npz", inception="absent", **settings)
