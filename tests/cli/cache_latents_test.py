import json
import shutil

import pytest

from tests.support.configs import write_config
from tests.support.latents import Photographs, photo_config, save_tiny_weights
from transdiff_jax.cli import cache_latents
from transdiff_jax.data.latents import encode
from transdiff_jax.data.latents.source import LatentSource
from transdiff_jax.errors import UserError


def run(*flags):
    cache_latents.FLAGS.unparse_flags()
    defaults = ["--nocheck", "--dtype=float16", "--groups=random", "--group_size=4"]
    cache_latents.FLAGS(["cache_latents", *defaults, *flags])
    if not any(flag.startswith("--groups=") for flag in flags):
        cache_latents.FLAGS["groups"].value = None
    cache_latents.main()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_tiny_weights(tmp_path_factory.mktemp("kl16") / "weights")


@pytest.fixture
def cached(weights, tmp_path, monkeypatch):
    """A folder that the command made from a configuration file."""
    monkeypatch.setattr(encode, "open_source", lambda *_: Photographs(6))
    file = write_config(photo_config(weights), tmp_path)
    run(f"--config={file}", f"--out={tmp_path / 'out'}", "--dtype=bfloat16")
    return tmp_path / "out"


def test_makes_and_checks(cached):
    assert len(LatentSource(cached)) == 6
    assert LatentSource(cached).manifest.settings.dtype == "bfloat16"
    run("--check", f"--out={cached}")


def test_a_damaged_file_is_named(cached, tmp_path):
    copy = shutil.copytree(cached, tmp_path / "copy")
    (file,) = copy.glob("latents-*")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=rf"{file} is damaged \(its SHA-256 is not the manifest's\)"):
        run("--check", f"--out={copy}")


def test_a_random_crop_is_refused(weights, tmp_path):
    file = write_config(photo_config(weights, data={"crop": "random"}), tmp_path)
    with pytest.raises(UserError, match=r"use config\.data\.crop=center"):
        run(f"--config={file}", f"--out={tmp_path / 'out'}")


@pytest.mark.parametrize("groups", ["random", "latent"])
def test_writes_groups_of_a_complete_folder(cached, groups):
    run(f"--groups={groups}", "--group_size=2", f"--out={cached}")
    lines = [json.loads(line) for line in (cached / f"groups_{groups}.jsonl").read_text().splitlines()]
    assert [line["files"][-1] for line in lines if line["cate"] == "china"] == ["0", "2", "4"]
    assert all(len(line["files"]) == 2 for line in lines)
    assert len(lines) == 6


def test_groups_of_semantic_features_need_a_run(cached):
    with pytest.raises(UserError, match="--groups=semantic and --groups_run=WORKDIR go together"):
        run("--groups=semantic", f"--out={cached}")
    with pytest.raises(UserError, match=r"class 0 has 3, class 1 has 3\).*small_classes"):
        run("--groups=latent", f"--out={cached}")
