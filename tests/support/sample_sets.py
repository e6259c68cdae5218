"""Makes sample sets as `transdiff sample` leaves them, without a model."""

import contextlib
import hashlib

import numpy as np

from tests.support.configs import tiny_config
from transdiff_jax.generation.sample_set import SampleSet
from transdiff_jax.images.png import save_png

DETAILS = {"config": tiny_config().to_dict()}
FIGURES = {"images_made": 7, "seconds": 2.5, "compile_seconds": 0.5, "images_per_second": 3.5}


def write_samples(folder, images, settings, npz=True, until=None, similarity=False):
    """Makes what is missing of a set of these images, as the command does.

    Args:
        folder: of the set.
        images: its results.
        settings: its settings.
        npz: also write samples.npz.
        until: stop like a kill before "sampling" begins, or before "finish".
        similarity: ask for the similarity of semantic tokens.

    Returns:
        How many samples were missing.
    """
    with contextlib.closing(SampleSet(folder, len(images), 2)) as samples:
        missing = samples.open(settings, DETAILS, {"devices": 1})
        if until != "sampling" and missing.any():
            samples.begin({"images_made": int(missing.sum()), "compile_seconds": FIGURES["compile_seconds"]})
            _write(samples, missing, images)
        if until is None:
            measured = similarity and samples.lacks("semantic_similarity")
            additions = {"semantic_similarity": {"0": 0.5}} if measured else {}
            draw = lambda reader: save_png(folder / "grid.png", images[0])  # noqa: E731
            samples.finish(FIGURES, additions, npz=npz, channels=3, draw=draw)
    return int(missing.sum())


def _write(samples, missing, images):
    lines = []
    for index in np.flatnonzero(missing):
        for name in samples.names(index):
            path = samples.folder / name
            save_png(path, images[index] if name.startswith("images") else 255 - images[index])
            lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n")
    (samples.folder / "progress" / "0").write_text("".join(lines))
