"""Folders with all that a command reads, made once by the commands themselves and copied for each case.

Paths in them and in command lines are relative, so that a copy is complete: commands run in its root.
"""

import json
import os
import shutil
import subprocess

import numpy as np

from tests.support.configs import tiny_config, write_config
from tests.support.latents import photo_config, save_tiny_weights
from tests.support.networks import projection
from tests.support.paths import ROOT
from tests.support.photos import write_folder
from tests.withstand.hub_cache import publish
from transdiff_jax.data.latents.claim import Claim
from transdiff_jax.data.latents.format import read_manifest
from transdiff_jax.data.latents.job import LatentJob
from transdiff_jax.data.sources.digits import prepare_digits
from transdiff_jax.evaluation.inception.weights import InceptionWeights, save_inception
from transdiff_jax.generation.sample_set import PROGRESS, RECORD, SUMS
from transdiff_jax.storage.files import write_json

GOLDEN = ROOT / "tests" / "golden"
DIGITS = {"directory": "data"}
SAMPLE = ("sample", "--workdir=run", "--out=out", "--num_samples=6", "--npz")
ARCHIVES = (*SAMPLE, "--format=zip")
CACHE = ("cache_latents", "--config=photos.py", "--out=latents")


class Bases:
    """The folders by name; each is made when it is first asked for."""

    def __init__(self, folder, warm):
        self._folder, self._warm = folder, warm

    def copy(self, name, place):
        """Copies a base; `place` is a new folder."""
        subprocess.run(["cp", "-a", str(self._made(name)), str(place)], check=True)

    def _made(self, name):
        folder = self._folder / name
        if not folder.exists():
            before, make = BASES[name]
            temporary = self._folder / f"{name}.new"
            if before is None:
                (temporary / "home").mkdir(parents=True)
            else:
                self.copy(before, temporary)
            make(temporary, lambda *line, **options: self._run(temporary, line, **options))
            temporary.rename(folder)
        return folder

    def _run(self, folder, line, **options):
        outcome = self._warm.run(line, folder, self._folder, **options)
        assert outcome.code == 0 and outcome.complaint() is None, f"{line}: {outcome.complaint()}\n{outcome.err}"


def _write(config, file):
    """Writes a config file under its own name."""
    (file.parent / "new").mkdir()
    write_config(config, file.parent / "new").rename(file)
    (file.parent / "new").rmdir()


def _data(root, run):
    prepare_digits(str(root / "data"))
    _write(tiny_config(data=DIGITS), root / "config.py")


def _run(root, run):
    run("train", "--config=config.py", "--workdir=run")


def _samples(root, run):
    run(*SAMPLE)


def _unfinished(root, run):
    """A job that a kill ended: one image is missing, and the digests are in a journal."""
    out = root / "out"
    record = json.loads((out / RECORD).read_text())
    write_json(out / RECORD, {name: record[name] for name in ("settings", "config", "runs") if name in record})
    (out / PROGRESS).mkdir()
    lines = [line for line in (out / SUMS).read_text().splitlines() if line.endswith(".png")]
    (out / PROGRESS / "0123456789abcdef").write_text("\n".join(lines) + "\n")
    for name in (SUMS, "images/000003.png", "samples.npz", "grid.png"):
        (out / name).unlink()


def _archives(root, run):
    run(*ARCHIVES)


def _scored(root, run):
    """A run with scores."""
    certificate = {"protocol": {"name": "transdiff"}, "num_samples": 6, "scores": {"fid": 3.25, "kid": None}}
    (root / "run" / "evaluation").mkdir()
    write_json(root / "run" / "evaluation" / "4.json", certificate | {"date": "2026-11-28T00:00:00+00:00"})


def _published(root, run):
    """A run of photographs as the cache of huggingface_hub holds it after `transdiff push`."""
    data = {"source": "folder:photos", "crop": "center"}
    _write(photo_config("weights", data=data, train={"steps": 2}), root / "photos_run.py")
    run("train", "--config=photos_run.py", "--workdir=run")
    publish(root, root / "run")


def _photos(root, run):
    write_folder(root / "photos", count=4)
    save_tiny_weights(root / "weights")
    data = {"source": "folder:photos", "crop": "center"}
    _write(photo_config("weights", data=data), root / "photos.py")


def _latents(root, run):
    run(*CACHE)


def _half(root, run):
    """A job that a kill ended before its manifest: the records and the notes are there."""
    folder = root / "latents"
    job = LatentJob(folder, read_manifest(folder).settings, Claim(folder))
    job.open()
    job.reopen()


def _groups(root, run):
    run("cache_latents", "--groups=random", "--group_size=2", "--out=latents")
    data = {"source": "latents:latents", "crop": "center", "groups": "index:latents/groups_random.jsonl"}
    config = photo_config("weights", mrar=True, data=data, train={"batch_size": 4, "steps": 2})
    _write(config, root / "groups.py")


def _scores(root, run):
    """Images in a folder and in a .npz, references, and small weights in place of Inception's."""
    import torch

    _, params, widths = projection(8)
    save_inception(root / "inception", InceptionWeights(params, "small.pth", "0" * 64))
    draw = np.random.default_rng(0)
    np.savez(root / "real.npz", arr_0=draw.integers(40, 256, (12, 8, 8, 3)).astype(np.uint8))
    statistics = {"mu": np.zeros(widths["2048"]), "sigma": np.eye(widths["2048"])}
    np.savez(root / "statistics.npz", **statistics, num_images=np.array(12))
    torch.save({name: torch.from_numpy(value) for name, value in statistics.items()}, root / "statistics.pt")
    np.savez_compressed(root / "packed.npz", arr_0=np.load(root / "real.npz")["arr_0"])
    shutil.copytree(root / "out" / "images", root / "pictures")


def _release(root, run):
    for name in ("one_step_256_a.pth", "kl16_a.npz"):
        shutil.copy(GOLDEN / name, root / name)


def _converted(root, run):
    run("convert", "--checkpoint=one_step_256_a.pth", "--kind=transdiff", "--heads=2", "--out=converted")


def _report(root, run):
    sampling = {"steps": 1, "batch_size": 100}
    for name in ("one_step", "mrar"):
        config = tiny_config(name == "mrar", data=DIGITS, sampling=sampling, train={"steps": 2})
        _write(config, root / "config.py")
        run("train", "--config=config.py", f"--workdir=report/{name}")
        run(
            *("sample", f"--workdir=report/{name}", f"--out=report/samples/{name}", "--num_samples=100"),
            *(["--all_images"] if name == "mrar" else []),
        )


def _world(root, run):
    """All that a command line may name."""
    _photos(root, run)
    _latents(root, run)
    _release(root, run)
    (root / "good_link").symlink_to("run")
    _traps(root, run)


def _traps(root, run):
    """Paths and configurations that lead nowhere."""
    (root / "link").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    with (root / "huge.py").open("wb") as file:
        file.truncate(8 << 30)
    for name, text in CONFIGS.items():
        (root / f"{name}.py").write_bytes(text)


CONFIGS = {
    "syntax": b"def get_config(:\n",
    "raises": b"def get_config():\n    raise RuntimeError('first\\nsecond')\n",
    "number": b"def get_config():\n    return 5\n",
    "nothing": b"",
    "no_function": b"get_config = 5\n",
    "unknown_field": b"def get_config():\n    return {'trian': {}}\n",
    "wrong_type": b"def get_config():\n    return {'train': 5}\n",
    "deep": b"def get_config():\n    return get_config()\n",
    "exits": b"import sys\n\ndef get_config():\n    sys.exit('no')\n",
    "binary": bytes(range(256)),
}


# Name -> the base that it starts from, and what it adds.
BASES = {
    "data": (None, _data),
    "run": ("data", _run),
    "samples": ("run", _samples),
    "unfinished": ("samples", _unfinished),
    "scored": ("run", _scored),
    "archives": ("run", _archives),
    "scored_archives": ("archives", _scores),
    "photos": (None, _photos),
    "latents": ("photos", _latents),
    "published": ("photos", _published),
    "half": ("latents", _half),
    "groups": ("latents", _groups),
    "scores": ("samples", _scores),
    "traps": ("run", _traps),
    "world": ("scores", _world),
    "release": (None, _release),
    "converted": ("release", _converted),
    "report": ("data", _report),
}
