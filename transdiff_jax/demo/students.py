"""Scores few-step students of the digits beside their teachers."""

import itertools
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float32, Int, UInt8

from transdiff_jax.demo.judge import DigitsJudge
from transdiff_jax.distillation.teacher import Teacher, flow_map
from transdiff_jax.generation.trained_model import TrainedModel
from transdiff_jax.model.params import Params, applied
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.nn.patches import latent_to_tokens
from transdiff_jax.sampling.mrar import sample_latents
from transdiff_jax.sampling.noise import SeededNoise
from transdiff_jax.storage.files import Json

PASSES = (1, 2, 4)
ODE = {"solver": "heun", "steps": 50}  # close to the exact guided ODE, which a student learns
SEED = 0
ROWS = 250  # of one call

Images = UInt8[np.ndarray, "n height width 1"]
Labels = Int[np.ndarray, " n"]
Ends = Float32[np.ndarray, "n images h w c"]


class StudentScores(NamedTuple):
    """What a report says of one student and its teacher."""

    student: Json  # by the number of passes
    teacher_ode: Json
    naive: Json  # the teacher's own solver with as few steps
    images: dict[str, Images]  # of the student, by the number of passes


def score_student(teacher: TrainedModel, student: TrainedModel, judge: DigitsJudge, labels: Labels) -> StudentScores:
    """Samples a student and its teacher from the same noise, and scores all sets.

    Args:
        teacher: the model that the student learned from.
        student: the few-step model.
        judge: scores the images.
        labels: class of each sample.
    """
    ends = _ends(teacher.with_settings(guidance=student.config.sampling.guidance, **ODE), labels)
    exact = teacher.decode(ends[:, -1])
    distances = _rmse(student, labels, ends)
    scores, naive, shown = {}, {}, {}
    for passes in PASSES:
        images, speed = _timed(student, labels, passes)
        scores[str(passes)] = _scores(judge, images, labels) | {
            "rmse_to_teacher": distances[passes],
            "spread": _spread(images, labels) / _spread(exact, labels),
            "images_per_second": speed,
        }
        naive[str(passes)] = _scores(judge, teacher.sample(labels, seed=SEED, steps=passes), labels)
        shown[str(passes)] = images
    return StudentScores(scores, _scores(judge, exact, labels), naive, shown)


def _scores(judge: DigitsJudge, images: Images, labels: Labels) -> Json:
    return {"class_agreement": judge.class_agreement(images, labels), "frechet": judge.frechet(images)}


def _timed(model: TrainedModel, labels: Labels, passes: int) -> tuple[Images, float]:
    """Samples, and how many a second the compiled sampler makes."""
    model.sample(labels[:1], seed=SEED, steps=passes)
    began = time.monotonic()
    images = model.sample(labels, seed=SEED, steps=passes)
    return images, len(images) / (time.monotonic() - began)


def _spread(images: Images, labels: Labels) -> float:
    """The standard deviation of a pixel within its class, over all pixels and classes."""
    variances = [images[labels == label].astype(np.float64).var(axis=0) for label in np.unique(labels)]
    return float(np.sqrt(np.mean(variances)))


def _ends(ode: TrainedModel, labels: Labels) -> Ends:
    """All latents of each sequence where the teacher's guided ODE ends."""
    model = TransDiff(ode.config.model)

    @jax.jit
    def sample(params: Params, labels: Int[Array, " b"], indices: Int[Array, " b"]) -> Float32[Array, "b images h w c"]:
        return sample_latents(model, params, labels, SeededNoise(jnp.int32(SEED), indices), ode.config.sampling)

    return np.concatenate([np.asarray(sample(ode.weights.params, *part)) for part in _parts(labels)])


def _parts(labels: Labels) -> Iterator[tuple[Int[Array, " b"], Int[Array, " b"]]]:
    """Labels and indices of at most `ROWS` samples at a time."""
    for first in range(0, len(labels), ROWS):
        part = jnp.asarray(labels[first : first + ROWS])
        yield part, first + jnp.arange(len(part))


def _rmse(student: TrainedModel, labels: Labels, ends: Ends) -> dict[int, float]:
    """Root mean squared distances of a student's latents from `ends`, by number of passes.

    The student starts from the same noise and sees the teacher's earlier images.
    """

    @jax.jit
    def squares(
        params: Params,
        labels: Int[Array, " b"],
        indices: Int[Array, " b"],
        ends: Float32[Array, "b images h w c"],
    ) -> list[Float32[Array, ""]]:
        return [
            jnp.sum((_jumps(student, params, labels, indices, ends, n) - latent_to_tokens(ends)) ** 2) for n in PASSES
        ]

    sums = [
        squares(student.weights.params, part, indices, jnp.asarray(ends[np.asarray(indices)]))
        for part, indices in _parts(labels)
    ]
    return {
        passes: float(np.sqrt(np.sum(column) / ends.size))
        for passes, column in zip(PASSES, zip(*sums, strict=True), strict=True)
    }


def _jumps(
    student: TrainedModel,
    params: Params,
    labels: Int[Array, " b"],
    indices: Int[Array, " b"],
    ends: Float32[Array, "b images h w c"],
    passes: int,
) -> Float32[Array, "b images tokens c"]:
    """All images of each sequence in a few jumps, under the earlier images of `ends`."""
    model, c = TransDiff(student.config.model), student.config.model
    references = ends[:, :-1] if c.num_images > 1 else None
    features = Teacher(model, student.config.sampling).features(params, labels, references)
    keys_values = applied(model, params, TransDiff.condition)(features.conditional)
    noise = SeededNoise(jnp.int32(SEED), indices).initial((c.latent_tokens, c.latent_channels))
    x = jnp.broadcast_to(noise[:, None, None], (len(noise), c.num_images, 1, *noise.shape[1:]))
    times = np.linspace(1, 0, passes + 1)
    weights = jnp.broadcast_to(jnp.asarray(student.config.sampling.guidance), (len(noise), c.num_images))[..., None]
    for t, r in itertools.pairwise(times):
        ones = jnp.ones_like(weights)
        x = x - (t - r) * flow_map(model, params, keys_values, x, t * ones, r * ones, weights)
    return x[:, :, 0]
