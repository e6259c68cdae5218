"""Checks sampled trajectories against a golden file, with the release's noise."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from transdiff_jax.config import SamplingConfig
from transdiff_jax.errors import UserError
from transdiff_jax.sampling.mrar import sample_latents
from transdiff_jax.sampling.noise import GivenNoise
from transdiff_jax.verification.check import MANY_PASSES, Check, relative_error
from transdiff_jax.verification.golden import GoldenFile
from transdiff_jax.verification.transdiff_checks import Subject


def check_sample(file: GoldenFile, subject: Subject, section: str) -> list[Check]:
    """Checks the last image of each sequence.

    Args:
        file: the golden file.
        subject: its model and inputs.
        section: "sample_guided" or "sample_unguided".
    """
    steps, weight, drift_scale, noise_scale = file.array(f"{section}/settings", 4).tolist()
    if not 1 <= steps < 2**31:
        raise UserError(f"{file.path}: {section}/settings must begin with the number of solver steps, not {steps}")
    config = SamplingConfig(steps=int(steps), guidance=(weight,), drift_scale=drift_scale, noise_scale=noise_scale)
    batch, images, height, width, channels = subject.latents.shape
    rows = (batch, height * width, channels)
    initial = file.array(f"{section}/init_noise", *rows)
    step = file.array(f"{section}/step_noise", images * (config.steps - 1), *rows)
    noise = given_noise(subject, config, initial, step)
    sample = jax.jit(sample_latents, static_argnums=(0, 4))
    latents = sample(subject.model, subject.params, subject.labels, noise, config)[:, -1]
    name = f"{section}/latents"
    return [Check(name, relative_error(np.moveaxis(latents, -1, 1), file[name]), MANY_PASSES)]


def given_noise(
    subject: Subject,
    config: SamplingConfig,
    initial: Float[np.ndarray, "b tokens c"],
    step: Float[np.ndarray, "images*(steps-1) b tokens c"],
) -> GivenNoise:
    """The release's noise in our layout.

    Args:
        subject: the model that it is for.
        config: says the number of solver steps.
        initial: at t = 1.
        step: of the solver intervals, image-major. The last interval has none.
    """
    images = subject.model.config.num_images
    drawn = step.reshape(images, config.steps - 1, *step.shape[1:])
    padding = [(0, 0), (0, 1)] + [(0, 0)] * (drawn.ndim - 2)
    return GivenNoise(jnp.asarray(initial), jnp.asarray(np.pad(drawn, padding)))
