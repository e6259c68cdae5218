import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.flags import run
from tests.support.networks import installed, lookup, numbered, projection
from transdiff_jax.cli import evaluate, sample, sampling_flags
from transdiff_jax.convert.inception_names import name_table
from transdiff_jax.convert.table import from_reference
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation import scoring
from transdiff_jax.evaluation.inception.weights import PUBLISHED_SHA256, InceptionWeights, save_inception
from transdiff_jax.evaluation.metrics import inception_score
from transdiff_jax.evaluation.protocols import PROTOCOLS
from transdiff_jax.evaluation.scores import Scores
from transdiff_jax.images.png import load_png, save_png
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.storage.checksums import sha256
from transdiff_jax.training.loop import train
from transdiff_jax.verification.golden import GoldenFile
from transdiff_jax.verification.inception_checks import inception_rule_weight

GOLDEN = GoldenFile("tests/golden/inception_a.npz")
COUNT = 24


def score(tmp_path, *arguments):
    """The certificate that the command writes."""
    path = tmp_path / "certificate.json"
    run(evaluate, "--inception=small", f"--certificate={path}", *arguments)
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The same images as a folder and as a .npz, and real images."""
    folder = tmp_path_factory.mktemp("sets")
    draw = np.random.default_rng(0)
    images, real = (draw.integers(low, 256, (COUNT, 8, 8, 3)).astype(np.uint8) for low in (0, 40))
    (folder / "images").mkdir()
    for index, image in enumerate(images):
        save_png(folder / "images" / f"{index:03d}.png", image)
    np.savez(folder / "images.npz", arr_0=images)
    np.savez(folder / "real.npz", arr_0=real)
    return folder


@pytest.fixture
def small(patch):
    with installed(patch, projection(8)):
        yield


@pytest.fixture(scope="module")
def trained(patch, tmp_path_factory, sets):
    """A run that scored itself at its last step, its sample set, and a run without scores."""
    folder = tmp_path_factory.mktemp("trained")
    scores = {"every": 4, "num_samples": COUNT, "reference": str(sets / "real.npz"), "inception": "small"}
    data = {"directory": str(folder / "data")}
    with installed(patch, projection(8)):
        train(tiny_config(data=data, eval=scores), folder / "run")
    train(tiny_config(data=data), folder / "plain")
    run(sample, f"--workdir={folder / 'run'}", f"--out={folder / 'samples'}", f"--num_samples={COUNT}", "--npz")
    return folder


def test_scores_are_the_golden_ones(patch, tmp_path, capsys):
    """The release's features through the whole command."""
    generated, real = GOLDEN["metrics/features_generated"], GOLDEN["metrics/features_real"]
    tables = {name: np.zeros((2, len(generated), width)) for name, width in (("2048", 64), ("logits_unbiased", 20))}
    tables["2048"][0], tables["2048"][1, : len(real)] = generated, real
    tables["logits_unbiased"][0] = GOLDEN["metrics/logits"]
    tables["spatial"] = np.random.default_rng(0).normal(size=(2, len(generated), 3))
    np.savez(tmp_path / "generated.npz", arr_0=numbered(len(generated), 0))
    np.savez(tmp_path / "real.npz", arr_0=numbered(len(real), 1))
    flags = f"--samples={tmp_path / 'generated.npz'}", f"--reference={tmp_path / 'real.npz'}"
    tables = {name: table.astype(np.float32) for name, table in tables.items()}
    with installed(patch, lookup(tables)):
        for name, protocol in PROTOCOLS.items():
            small = dataclasses.replace(protocol, kernel_subsets=20, kernel_subset_size=200)
            patch.setitem(PROTOCOLS, name, small)
        found, adm = score(tmp_path, *flags)["scores"], score(tmp_path, *flags, "--protocol=adm")["scores"]
        patch.undo()
    assert found["fid"] == pytest.approx(float(GOLDEN["metrics/fid"]), rel=1e-6)
    for names in (("inception_score", "inception_score_std"), ("precision", "recall"), ("kid", "kid_std")):
        expected = GOLDEN[f"metrics/{'_'.join(names) if names[0] == 'precision' else names[0]}"]
        np.testing.assert_allclose([found[name] for name in names], expected, rtol=1e-6)
    # ADM makes one split of 600 images, in their order.
    assert adm["inception_score"] == pytest.approx(inception_score(GOLDEN["metrics/logits"], splits=1, seed=None).mean)
    assert {name: adm[name] for name in ("fid", "sfid", "kid", "recall")} == {
        name: found[name] for name in ("fid", "sfid", "kid", "recall")
    }
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"transdiff", "adm"}
    assert f"{float(GOLDEN['metrics/fid']):.6g}" in next(line for line in lines if " fid " in line)


@pytest.mark.usefixtures("small")
def test_containers_batches_and_devices_change_nothing(sets, tmp_path, monkeypatch):
    reference = f"--reference={sets / 'real.npz'}"
    first = score(tmp_path, f"--samples={sets / 'images'}", reference)
    npz = score(tmp_path, f"--samples={sets / 'images.npz'}", reference)
    assert npz["scores"] == first["scores"]
    assert npz["samples"]["pixels_sha256"] == first["samples"]["pixels_sha256"]
    batches = score(tmp_path, f"--samples={sets / 'images.npz'}", reference, "--inception_batch_size=8")
    devices = jax.devices()[:1]
    for module in (evaluate, sampling_flags):
        monkeypatch.setattr(
            module, "make_mesh", lambda config, field="config.mesh", make=make_mesh: make(config, devices, field)
        )
    single = score(tmp_path, f"--samples={sets / 'images.npz'}", reference, "--inception_batch_size=5")
    assert (first["machine"]["devices"], single["machine"]["devices"]) == (8, 1)
    for other in (batches, single):
        for name, value in first["scores"].items():
            assert (other["scores"][name] is None) == (value is None) == (name in ("kid", "kid_std")), name
            if value is not None:
                assert other["scores"][name] == pytest.approx(value, rel=1e-5), name
    assert first["scores"]["fid"] > 0.1


@pytest.mark.usefixtures("small")
def test_a_reference_that_was_made_here(sets, tmp_path):
    made = tmp_path / "made.npz"
    run(evaluate, "--inception=small", f"--samples={sets / 'real.npz'}", f"--make-reference={made}")
    statistics, images = (
        score(tmp_path, f"--samples={sets / 'images'}", f"--reference={path}") for path in (made, sets / "real.npz")
    )
    for name in ("fid", "sfid", "inception_score"):
        assert statistics["scores"][name] == images["scores"][name]
    for name in ("precision", "recall", "kid"):
        assert statistics["scores"][name] is None
        assert "only statistics" in statistics["not_computed"][name]
    assert statistics["reference"] == {"source": str(made), "sha256": sha256(made), "images": COUNT}
    of_itself = score(tmp_path, f"--samples={sets / 'real.npz'}", f"--reference={made}")
    assert of_itself["scores"]["fid"] == pytest.approx(0, abs=1e-9)
    of_folder = score(tmp_path, f"--samples={sets / 'images'}", f"--reference={sets / 'images'}")
    assert of_folder["scores"]["precision"] == of_folder["scores"]["recall"] == 1
    assert of_folder["reference"]["sha256"] == of_folder["samples"]["pixels_sha256"]


@pytest.mark.usefixtures("small")
def test_a_run_is_scored_as_the_samples_that_it_writes(trained, sets, tmp_path, capsys):
    reference = f"--reference={sets / 'real.npz'}"
    written = score(tmp_path, f"--samples={trained / 'samples'}", reference)
    streamed = score(tmp_path, f"--workdir={trained / 'run'}", reference, f"--num_samples={COUNT}")
    for key in ("scores", "warnings", "num_samples", "reference"):
        assert streamed[key] == written[key]
    for key in ("pixels_sha256", "seed", "sampler"):
        assert streamed["samples"][key] == written["samples"][key]
    other = score(
        tmp_path, f"--workdir={trained / 'run'}", reference, f"--num_samples={COUNT}", "--seed=5", "--steps=2"
    )
    assert other["samples"]["pixels_sha256"] != written["samples"]["pixels_sha256"]
    assert (other["samples"]["seed"], other["samples"]["sampler"]["sampling"]["steps"]) == (5, 2)
    npz = score(tmp_path, f"--samples={trained / 'samples' / 'samples.npz'}", reference)
    assert npz["scores"] == written["scores"]
    assert npz["samples"]["sampler"] is None
    # Training scored the same images, with the run's seed.
    metrics = [json.loads(line) for line in (trained / "run" / "metrics.jsonl").read_text().splitlines()]
    (logged,) = [line for line in metrics if "eval/transdiff/fid" in line]
    assert logged["step"] == 4
    assert logged["eval/transdiff/fid"] == pytest.approx(written["scores"]["fid"], rel=1e-6)
    assert "eval/transdiff/kid" not in logged
    certificate = json.loads((trained / "run" / "evaluation" / "4.json").read_text())
    assert certificate["samples"]["pixels_sha256"] == written["samples"]["pixels_sha256"]
    assert certificate["warnings"] == written["warnings"]


def test_scores_in_training_change_no_training(trained):
    losses = [
        [line["loss"] for line in map(json.loads, (trained / name / "metrics.jsonl").open()) if "loss" in line]
        for name in ("run", "plain")
    ]
    assert len(losses[0]) == 4
    assert losses[0] == losses[1]


@pytest.mark.usefixtures("small")
def test_what_a_certificate_holds(trained, sets, capsys):
    run(evaluate, "--inception=x", f"--samples={trained / 'samples'}", f"--reference={sets / 'real.npz'}")
    certificate = json.loads((trained / "samples" / "evaluation.transdiff.json").read_text())
    assert certificate["protocol"]["name"] == "transdiff"
    assert certificate["num_samples"] == COUNT
    assert certificate["inception"] == {"file": "small.pth", "sha256": PUBLISHED_SHA256}
    assert certificate["reference"]["sha256"] == sha256(sets / "real.npz")
    assert certificate["machine"]["versions"]["jax"] == jax.__version__
    assert certificate["samples"]["sampler"]["sampling"]["steps"] == 3
    assert certificate["samples"]["sampler"]["num_labels"] == COUNT
    assert certificate["not_computed"].keys() == {"kid", "kid_std"}
    warnings = " / ".join(certificate["warnings"])
    assert f"{COUNT} samples, not the 50000" in warnings
    assert "2 to 3 samples of each class, not 50" in warnings
    table = capsys.readouterr().out
    assert all(warning in table for warning in certificate["warnings"])
    assert "not computed: KID draws subsets of 1000 images" in table
    run(evaluate, "--inception=x", f"--samples={sets / 'images.npz'}", f"--reference={sets / 'real.npz'}")
    before = (sets / "images.evaluation.transdiff.json").read_bytes()
    run(
        evaluate,
        *("--inception=x", f"--samples={sets / 'images.npz'}", f"--reference={sets / 'real.npz'}", "--protocol=adm"),
    )
    assert json.loads((sets / "images.evaluation.adm.json").read_text())["protocol"]["name"] == "adm"
    assert (sets / "images.evaluation.transdiff.json").read_bytes() == before


@pytest.mark.usefixtures("small")
def test_too_few_samples_are_said_to_be_too_few(sets, tmp_path):
    np.savez(tmp_path / "few.npz", arr_0=np.load(sets / "images.npz")["arr_0"][:6])
    found = score(tmp_path, f"--samples={tmp_path / 'few.npz'}", f"--reference={sets / 'real.npz'}")
    (warning,) = [line for line in found["warnings"] if "singular" in line]
    assert warning.startswith("fid, samples: 6 images for features of width 6: the covariance is singular")
    assert "into 10 parts; there are only 6 images" in found["not_computed"]["inception_score"]
    few = tmp_path / "few_statistics.npz"
    run(evaluate, "--inception=small", f"--samples={tmp_path / 'few.npz'}", f"--make-reference={few}")
    for reference in (few, tmp_path / "few.npz"):
        found = score(tmp_path, f"--samples={sets / 'images.npz'}", f"--reference={reference}")
        (warning,) = [line for line in found["warnings"] if "singular" in line]
        assert warning.startswith("fid, reference: 6 images for features of width 6: the covariance is singular")
        assert found["reference"]["images"] == 6
    np.savez(tmp_path / "unknown.npz", mu=np.zeros(6), sigma=np.eye(6))
    found = score(tmp_path, f"--samples={sets / 'images.npz'}", f"--reference={tmp_path / 'unknown.npz'}")
    assert found["reference"]["images"] is None


def test_inception_itself(sets, tmp_path, patch):
    """Two images through the real network, with weights from a converted folder."""
    shapes = name_table().reference_shapes()
    weights = {name: inception_rule_weight(name, shape, 3) for name, shape in shapes.items()}
    save_inception(tmp_path / "inception", InceptionWeights(from_reference(name_table(), weights, "a"), "a", "0" * 64))
    np.savez(tmp_path / "two.npz", arr_0=np.load(sets / "images.npz")["arr_0"][:2])
    patch.setattr(scoring, "make_scores", lambda features, *rest: _shapes(features))
    run(
        evaluate,
        *(f"--samples={tmp_path / 'two.npz'}", f"--reference={_empty_reference(tmp_path)}"),
        *(f"--inception={tmp_path / 'inception'}", "--inception_batch_size=8"),
    )
    patch.undo()
    certificate = json.loads((tmp_path / "two.evaluation.transdiff.json").read_text())
    assert certificate["scores"] == {"2048": 2048, "logits_unbiased": 1008, "spatial": 2023}
    other = f": a has SHA-256 {'0' * 64}, not {PUBLISHED_SHA256}"
    assert any(warning.endswith(other) for warning in certificate["warnings"])


def _shapes(features):
    assert features.count == 2
    widths = features.pooled.shape[1], features.logits.shape[1], features.spatial_statistics.width
    return Scores(dict(zip(("2048", "logits_unbiased", "spatial"), widths, strict=True)), {}, [])


def _empty_reference(folder):
    np.savez(folder / "reference.npz", mu=np.zeros(2048), sigma=np.zeros((2048, 2048)))
    return folder / "reference.npz"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "give one of --samples=DIR"),
        (["--samples=a", "--workdir=b"], "give one of --samples=DIR"),
        (["--samples=a"], "give one of --reference="),
        (["--samples=a", "--reference=b", "--make-reference=c.npz"], "give one of --reference="),
        (["--samples=a", "--reference=b", "--num_samples=3"], "--num_samples goes only with --workdir"),
        (["--samples=a", "--reference=b", "--guidance=2"], "--guidance goes only with --workdir"),
        (["--samples=a", "--reference=b", "--batch_size=2"], "--batch_size goes only with --workdir"),
        (["--samples=a", "--make-reference=c.npz", "--protocol=adm"], "--protocol does not go with --make-reference"),
        (["--samples=a", "--make_reference=c.json"], "--make-reference=c.json must be the name of a .npz file"),
        (["--samples=a", "--reference=b", "--certificate=/absent/a.json"], "there is no folder /absent; make it"),
        (
            ["--workdir=hf://a/b", "--reference=b"],
            "--certificate=FILE.json must say where the scores",
        ),
        (["--samples=/absent", "--reference=b"], "samples=/absent: no such folder or file"),
    ],
)
def test_flags_that_do_not_fit(flags, line):
    with pytest.raises(UserError) as error:
        run(evaluate, "--inception=x", *flags)
    assert line in str(error.value)


@pytest.mark.parametrize("name", ["samples", "workdir", "reference", "inception", "make-reference", "certificate"])
def test_paths_that_are_empty(name):
    flags = {"samples": "a", "reference": "b", "inception": "c"} | {name: ""}
    for other in {"workdir": ["samples"], "make-reference": ["reference"]}.get(name, []):
        del flags[other]
    with pytest.raises(UserError, match=f"^--{name}= is empty: give it a path"):
        run(evaluate, *(f"--{flag}={value}" for flag, value in flags.items()))


def test_a_result_replaces_nothing_that_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    (tmp_path / "link.npz").symlink_to("a.npz")
    for flags in (
        ["--samples=a.npz", "--make-reference=link.npz"],
        ["--samples=set", "--make-reference=set/samples.npz"],
        ["--samples=set", "--reference=a.npz", "--certificate=set/samples.json"],
        ["--samples=a.npz", "--reference=set", f"--certificate={tmp_path}/set/samples.json"],
        ["--workdir=run", "--reference=a.npz", "--inception=set", "--certificate=set/source.json"],
    ):
        with pytest.raises(UserError, match=f"^{flags[-1]} would replace a file that is read, or its record; choose"):
            run(evaluate, "--inception=x", *flags)


def test_missing_inception_weights(sets, tmp_path):
    flags = f"--samples={sets / 'images'}", f"--reference={sets / 'real.npz'}"
    with pytest.raises(
        UserError, match=r"/absent: no such folder with the Inception weights; get https://.*transdiff convert"
    ):
        run(evaluate, f"--inception={tmp_path}/absent", *flags)
    (tmp_path / "a.pth").touch()
    with pytest.raises(UserError, match=rf"transdiff convert --kind=inception --checkpoint={tmp_path}/a\.pth --out="):
        run(evaluate, f"--inception={tmp_path}/a.pth", *flags)


@pytest.mark.usefixtures("small")
def test_references_and_sets_that_cannot_be_scored(sets, trained, tmp_path):
    wide = tmp_path / "wide.npz"
    np.savez(wide, mu=np.zeros(9), sigma=np.eye(9))
    with pytest.raises(UserError, match=r"wide\.npz: mu has shape \(9,\); features of width 6 need \(6,\)"):
        score(tmp_path, f"--samples={sets / 'images'}", f"--reference={wide}")
    np.savez(tmp_path / "nan.npz", arr_0=np.full((3, 8, 8, 3), np.nan, np.float32))
    with pytest.raises(UserError, match=r"its arr_0 must be uint8"):
        score(tmp_path, f"--samples={tmp_path / 'nan.npz'}", f"--reference={sets / 'real.npz'}")
    copy = shutil.copytree(trained / "samples", tmp_path / "copy")
    black = np.zeros_like(load_png(copy / "images" / "000003.png", 1))
    save_png(copy / "images" / "000003.png", black)
    with pytest.raises(UserError, match=r"000003\.png has changed since transdiff sample wrote it; run the same"):
        score(tmp_path, f"--samples={copy}", f"--reference={sets / 'real.npz'}")


def test_features_that_are_not_finite(sets, tmp_path, patch):
    compute, params, widths = projection(8)
    params["2048"][:, 1] = np.inf
    reference = f"--reference={sets / 'real.npz'}"
    line = r"real\.npz: features of image 0 \(from 0\) are not finite numbers; check"
    with installed(patch, (compute, params, widths)), pytest.raises(UserError, match=line):
        score(tmp_path, f"--samples={sets / 'images'}", reference)
    assert not (tmp_path / "certificate.json").exists()
