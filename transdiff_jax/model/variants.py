"""The published models (arXiv 2506.09482, table 1): three sizes, each of three kinds."""

import dataclasses
from typing import Literal, NamedTuple

from transdiff_jax.config import ModelConfig, SamplingConfig
from transdiff_jax.errors import UserError

Kind = Literal["one_step_256", "mrar_256", "one_step_512"]


class Size(NamedTuple):
    """The fields that differ between B, L and H."""

    width: int
    heads: int
    encoder_blocks: int  # twice the "depth" of the release
    decoder_blocks: int


SIZES: dict[str, Size] = {
    "b": Size(width=768, heads=12, encoder_blocks=24, decoder_blocks=12),
    "l": Size(width=1024, heads=16, encoder_blocks=32, decoder_blocks=16),
    "h": Size(width=1280, heads=16, encoder_blocks=40, decoder_blocks=20),
}

# Without the fields of the size. MRAR (section 3.3) has four images of 64 tokens; a token is a 2x2 patch of the latent.
KINDS: dict[str, ModelConfig] = {
    "one_step_256": ModelConfig(),
    "mrar_256": ModelConfig(num_images=4, tokens_per_image=64, mask_tokens=64, reference_patch=2),
    "one_step_512": ModelConfig(latent_size=32),
}

# Guidance weight, drift scale (scale_0 of the release) and noise scale (scale_1) of the published scores.
SAMPLING: dict[tuple[str, Kind], tuple[float, float, float]] = {
    ("b", "one_step_256"): (1.30, 0.87, 0.91),
    ("l", "one_step_256"): (1.30, 0.89, 0.95),
    ("h", "one_step_256"): (1.23, 0.87, 0.93),
    ("b", "mrar_256"): (1.30, 0.87, 0.91),
    ("l", "mrar_256"): (1.30, 0.925, 0.95),
    ("h", "mrar_256"): (1.28, 0.87, 0.91),
    ("l", "one_step_512"): (1.30, 0.87, 0.87),
}


def published_model(size: str, kind: Kind) -> ModelConfig:
    """The configuration of a published model.

    Args:
        size: "b", "l" or "h".
        kind: one of `KINDS`.

    Raises:
        UserError: no such size or kind was published.
    """
    if size not in SIZES:
        raise UserError(f"model size {size!r} is not one of {', '.join(SIZES)}")
    if kind not in KINDS:
        raise UserError(f"model kind {kind!r} is not one of {', '.join(KINDS)}")
    return dataclasses.replace(KINDS[kind], **SIZES[size]._asdict())


def published_sampling(model: ModelConfig) -> SamplingConfig:
    """The settings of a model's published score; without one, the defaults, which are unguided."""
    for (size, kind), (guidance, drift_scale, noise_scale) in SAMPLING.items():
        if dataclasses.replace(model, dtype="float32", attention="xla", remat="none") == published_model(size, kind):
            return SamplingConfig(guidance=(guidance,), drift_scale=drift_scale, noise_scale=noise_scale)
    return SamplingConfig()


def published_heads(width: int) -> int | None:
    """Attention heads of the published model of this width; None if no published model has it."""
    return next((size.heads for size in SIZES.values() if size.width == width), None)
