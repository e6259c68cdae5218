"""Whether references matter: how much nearer an MRAR result is to its references than to others of its class."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Int, UInt8

from transdiff_jax.demo.judge import DigitsJudge, real_digits
from transdiff_jax.generation.trained_model import TrainedModel
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.sampling.mrar import sample_latents
from transdiff_jax.sampling.noise import SeededNoise
from transdiff_jax.storage.files import Json

SEED = 1  # of the noise; the sequences of the demo have 0
OF_EACH_CLASS = 40  # sequences

Labels = Int[np.ndarray, " n"]
Sequences = UInt8[np.ndarray, "n images height width 1"]


def nearness(model: TrainedModel, judge: DigitsJudge, sequences: Sequences, labels: Labels) -> Json:
    """How much nearer results are to their references than to those of other sequences of the class.

    Args:
        model: the MRAR run.
        judge: makes the features.
        sequences: samples of the run, in the order of their classes.
        labels: their classes.

    Returns:
        A `score`, its standard `error` and the `count` of sequences: for references from held-out `data`, for earlier
        images of the given sequences under `other_noise`, and for the `sequences` as they are, whose images share their
        first noise. The score is one minus the mean ratio of two distances in the judge's features: to the sequence's
        own earlier images, and to those of the other sequences of its class. 0: references do not matter; 1: the result
        repeats them.
    """
    step = max(1, len(labels) // (OF_EACH_CLASS * len(np.unique(labels))))
    some, classes = sequences[::step], labels[::step]
    data = _from_data(model, classes)
    return {
        "data": _score(judge, _after(model, data, classes), classes),
        "other_noise": _score(judge, _after(model, some[:, :-1], classes), classes),
        "sequences": _score(judge, sequences, labels),
    }


def _from_data(model: TrainedModel, classes: Labels) -> Sequences:
    """Held-out digits as references, drawn anew for each sequence."""
    images, labels = real_digits(model.config.data, "test")
    count, generator = model.config.model.num_images - 1, np.random.default_rng(SEED)
    rows = [generator.choice(np.flatnonzero(labels == label), count, replace=False) for label in classes]
    return images[np.stack(rows)]


def _after(model: TrainedModel, references: Sequences, labels: Labels) -> Sequences:
    """The references, and the last image of a sequence that begins with them."""
    network, indices = TransDiff(model.config.model), jnp.arange(len(labels))

    @jax.jit
    def last(params: Any, labels: Int[Array, " n"], given: Float[Array, "n given h w c"]) -> Float32[Array, "n h w c"]:
        noise = SeededNoise(jnp.int32(SEED), indices)
        return sample_latents(network, params, labels, noise, model.config.sampling, None, given)[:, -1]

    latents = model.encode(references.reshape(-1, *references.shape[2:]))
    given = latents.reshape(*references.shape[:2], *latents.shape[1:])
    made = model.decode(np.asarray(last(model.weights.params, jnp.asarray(labels), jnp.asarray(given))))
    return np.concatenate([references, made[:, None]], axis=1)


def _score(judge: DigitsJudge, sequences: Sequences, labels: Labels) -> Json:
    n, images = sequences.shape[:2]
    features = judge.features(sequences.reshape(-1, *sequences.shape[2:])).reshape(n, images, -1)
    results, references = features[:, -1], features[:, :-1]
    # Row i, column j: the mean distance of result i to the references of sequence j.
    distances = np.linalg.norm(results[:, None, None] - references[None], axis=-1).mean(axis=-1)
    others = (labels[:, None] == labels) & ~np.eye(n, dtype=bool)
    ratios = np.diag(distances) / (np.where(others, distances, 0).sum(axis=1) / others.sum(axis=1))
    return {"score": float(1 - ratios.mean()), "error": float(ratios.std(ddof=1) / np.sqrt(n)), "count": n}
