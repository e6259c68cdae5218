"""Scores images: FID, sFID, Inception Score, precision, recall, KID. Prints a table and writes a JSON certificate.

transdiff evaluate --samples=DIR|FILE.npz --reference=STATS.npz|DIR|FILE.npz --inception=DIR
transdiff evaluate --workdir=RUN --reference=STATS.npz --inception=DIR [flags of transdiff sample]
transdiff evaluate --samples=DIR|FILE.npz --make-reference=STATS.npz --inception=DIR
"""

import dataclasses
from pathlib import Path

from absl import flags, logging
from jax.sharding import Mesh

from transdiff_jax.checkpoints.weights import load_weights
from transdiff_jax.cli import app
from transdiff_jax.cli.compile_cache import define_compile_cache
from transdiff_jax.cli.number_flags import define_integer
from transdiff_jax.cli.run_folders import run_folder
from transdiff_jax.cli.sampling_flags import SamplingFlags
from transdiff_jax.config import MeshConfig, ranges
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.certificate import certificate_name, format_table
from transdiff_jax.evaluation.features import FeatureExtractor
from transdiff_jax.evaluation.image_sets import ImageSet, open_images
from transdiff_jax.evaluation.inception.weights import SOURCE, InceptionWeights, load_inception
from transdiff_jax.evaluation.protocols import PROTOCOLS
from transdiff_jax.evaluation.reference import write_reference
from transdiff_jax.evaluation.reference_set import load_reference
from transdiff_jax.evaluation.sampled_images import sampled_images
from transdiff_jax.evaluation.scoring import certify
from transdiff_jax.evaluation.set_features import collect, make_extractor
from transdiff_jax.generation.request import SampleRequest, balanced_labels
from transdiff_jax.generation.sample_files import NPZ, RECORD
from transdiff_jax.hub.local_runs import is_remote
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.parallel.processes import do_in_first_process
from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.storage.checksums import MANIFEST
from transdiff_jax.storage.files import Json, write_errors, write_json

FLAGS = flags.FlagValues()
define_compile_cache(FLAGS)
SAMPLES = flags.DEFINE_string(
    "samples",
    None,
    "Images to score: a finished folder of transdiff sample, a folder of PNG and JPEG files, or a .npz with arr_0.",
    flag_values=FLAGS,
)
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Instead of --samples: a trained run, sampled and scored without writing images.",
    flag_values=FLAGS,
)
NUM_SAMPLES = define_integer(
    "num_samples",
    None,
    ranges.NUM_SAMPLES,
    "With --workdir: how many images, balanced over all classes; default: the protocol's.",
    FLAGS,
)
SAMPLING = SamplingFlags(FLAGS)
REFERENCE = flags.DEFINE_string(
    "reference",
    None,
    "What to compare with: statistics (.npz of ADM, .pt of torch-fidelity), a .npz of images, or a folder of them.",
    flag_values=FLAGS,
)
INCEPTION = flags.DEFINE_string(
    "inception",
    None,
    "Folder of the Inception weights, made by transdiff convert --kind=inception.",
    flag_values=FLAGS,
    required=True,
)
PROTOCOL = flags.DEFINE_enum(
    "protocol", "transdiff", sorted(PROTOCOLS), "How to compute the scores.", flag_values=FLAGS
)
INCEPTION_BATCH_SIZE = define_integer(
    "inception_batch_size", None, ranges.ROWS, "Images at once through Inception, over all devices.", FLAGS
)
CERTIFICATE_FILE = flags.DEFINE_string(
    "certificate",
    None,
    f"File for the scores; default: {certificate_name('PROTOCOL')} beside the images or in the run, where the newest "
    "scores replace all others, even those against another reference.",
    flag_values=FLAGS,
)
MAKE_REFERENCE = flags.DEFINE_string(
    "make-reference", None, "Score nothing: write the statistics of the images to this .npz.", flag_values=FLAGS
)
flags.DEFINE_alias("make_reference", "make-reference", flag_values=FLAGS)


def main() -> None:
    """Scores, or writes reference statistics."""
    _check_flags()
    mesh = make_mesh(MeshConfig())
    out = _out_path()
    images = _images(SAMPLING.mesh())
    inception = load_inception(app.place(INCEPTION))
    extractor = make_extractor(inception.params, mesh, INCEPTION_BATCH_SIZE.value)
    if MAKE_REFERENCE.value is not None:
        _make_reference(images, extractor, out)
    else:
        _score(images, extractor, inception, mesh, out)


def _check_flags() -> None:
    if (SAMPLES.value is None) == (WORKDIR.value is None):
        raise UserError("give one of --samples=DIR (or FILE.npz) and --workdir=RUN")
    if (REFERENCE.value is None) == (MAKE_REFERENCE.value is None):
        raise UserError("give one of --reference=STATS.npz (or DIR) and --make-reference=STATS.npz")
    if WORKDIR.value is None:
        _refuse((NUM_SAMPLES.name, SAMPLING.batch_size.name, *SAMPLING.names()), "goes only with --workdir")
    if MAKE_REFERENCE.value is not None:
        _refuse((PROTOCOL.name, CERTIFICATE_FILE.name), "does not go with --make-reference, which scores nothing")


def _refuse(names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if FLAGS[name].present:
            raise UserError(f"--{name} {reason}")


def _path(flag: flags.FlagHolder[str | None]) -> Path | None:
    return None if flag.value is None else app.place(flag)


def _out_path() -> Path:
    """The file of the result. Checks its folder now, because scoring takes hours."""
    read = _files_read(_path(SAMPLES), _path(REFERENCE), app.place(INCEPTION))
    flag = CERTIFICATE_FILE if MAKE_REFERENCE.value is None else MAKE_REFERENCE
    path = _path(flag)
    if path is None:
        if is_remote(WORKDIR.value or ""):
            raise UserError(f"--{flag.name}=FILE.json must say where the scores of a model of the hub go")
        source = app.place(WORKDIR if SAMPLES.value is None else SAMPLES)
        name = certificate_name(PROTOCOL.value)
        return source.with_suffix(f".{name}") if source.is_file() else source / name
    suffix = ".json" if flag is CERTIFICATE_FILE else ".npz"
    if path.suffix != suffix or path.is_dir():
        raise UserError(f"--{flag.name}={path} must be the name of a {suffix} file")
    if not isinstance(path, BucketPath) and not path.parent.is_dir():
        raise UserError(f"--{flag.name}={path}: there is no folder {path.parent}; make it")
    if path.resolve() in {other.resolve() for other in read}:
        raise UserError(f"--{flag.name}={path} would replace a file that is read, or its record; choose another name")
    return path


def _files_read(samples: Path | None, reference: Path | None, inception: Path) -> list[Path]:
    sets = [path for path in (samples, reference) if path is not None]
    within = [path / name for path in sets for name in (RECORD, NPZ)]
    return [*sets, *within, inception / SOURCE, inception / MANIFEST]


def _images(mesh: Mesh) -> ImageSet:
    workdir = WORKDIR.value
    if workdir is None:
        return open_images(app.place(SAMPLES), "samples")
    weights = load_weights(run_folder(WORKDIR), mesh, ema_rate=SAMPLING.ema_rate.value)
    weights = dataclasses.replace(weights, config=SAMPLING.apply(weights.config, mesh))
    count = NUM_SAMPLES.value or PROTOCOLS[PROTOCOL.value].num_samples
    request = SampleRequest(tuple(balanced_labels(count, weights.config.model.num_classes)), SAMPLING.seed.value)
    return sampled_images(weights, request, mesh, workdir)


def _make_reference(images: ImageSet, extractor: FeatureExtractor, out: Path) -> None:
    found = collect(extractor, images.batches(extractor.batch_size), images.source)
    pooled, spatial = (part.gaussian(images.source) for part in (found.pooled_statistics, found.spatial_statistics))
    do_in_first_process(lambda: write_reference(out, pooled, spatial, found.count))
    logging.info("statistics of %d images are in %s", found.count, out)


def _score(images: ImageSet, extractor: FeatureExtractor, inception: InceptionWeights, mesh: Mesh, out: Path) -> None:
    protocol = PROTOCOLS[PROTOCOL.value]
    reference = load_reference(app.place(REFERENCE), extractor)
    logging.info("features of %s", images.source)
    certificate = certify(images, reference, extractor, inception, protocol, mesh)
    do_in_first_process(lambda: _publish(certificate, out))
    logging.info("the certificate is %s", out)


def _publish(certificate: Json, out: Path) -> None:
    print("\n".join(format_table(certificate)), flush=True)  # first, so that a full disk does not cost the scores
    with write_errors(out):
        write_json(out, certificate)


if __name__ == "__main__":
    app.run(main, FLAGS, several=True)
