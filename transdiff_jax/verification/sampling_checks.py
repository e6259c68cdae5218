"""Sampled trajectories against a golden file, with the reference's noise."""

import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax.config import SamplingConfig
from transdiff_jax.sampling.mrar import sample_latents
from transdiff_jax.sampling.noise import GivenNoise
from transdiff_jax.verification.check import MANY_PASSES, Check, relative_error
from transdiff_jax.verification.golden import GoldenFile
from transdiff_jax.verification.transdiff_checks import Subject

Array = jax.Array


def check_sample(file: GoldenFile, subject: Subject, section: str) -> list[Check]:
    """The last image of each sequence.

    Args:
        file: the golden file.
        subject: made of it.
        section: "sample_guided" or "sample_unguided".
    """
    steps, weight, drift_scale, noise_scale = file[f"{section}/settings"].tolist()
    config = SamplingConfig(steps=int(steps), guidance=(weight,), drift_scale=drift_scale, noise_scale=noise_scale)
    noise = given_noise(subject, config, file[f"{section}/init_noise"], file[f"{section}/step_noise"])
    sample = jax.jit(sample_latents, static_argnums=(0, 4))
    latents = sample(subject.model, subject.params, subject.labels, noise, config)[:, -1]
    name = f"{section}/latents"
    return [Check(name, relative_error(np.moveaxis(latents, -1, 1), file[name]), MANY_PASSES)]


def given_noise(subject: Subject, config: SamplingConfig, initial: np.ndarray, step: np.ndarray) -> GivenNoise:
    """The reference's noise as ours.

    Args:
        subject: whose images it is for.
        config: with the number of solver steps.
        initial: [b, tokens, channels].
        step: [images * (steps - 1), b, tokens, channels], image-major; the last interval has none.
    """
    images = subject.model.config.num_images
    drawn = step.reshape(images, config.steps - 1, *step.shape[1:])
    padding = [(0, 0), (0, 1)] + [(0, 0)] * (drawn.ndim - 2)
    return GivenNoise(jnp.asarray(initial), jnp.asarray(np.pad(drawn, padding)))
