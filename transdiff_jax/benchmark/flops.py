"""Floating-point operations of one sample and of one training row, counted by hand: two for each multiply-add.

Only matrix products and attention count; norms, activations and softmax add about 1 %. XLA's own count is no
substitute, because it counts the body of a loop once. What a mask hides counts, because it is computed.
"""

import dataclasses

import numpy as np

from transdiff_jax.config import ModelConfig, SamplingConfig
from transdiff_jax.flow.guidance import guidance_weights, is_guided
from transdiff_jax.flow.solvers import SOLVERS
from transdiff_jax.flow.timesteps import solver_grid
from transdiff_jax.nn.layers import TIME_FEATURES

PUBLISHED_CLASSES_PER_SAMPLE = 1 / 50  # published sets hold 50 images of each class


@dataclasses.dataclass(frozen=True)
class Sharing:
    """Which work of a sample is done once, or not at all. Each field is one saving of the sampler."""

    keys_values: bool = True  # cross-attention keys, values and condition projection: once per image, not per step
    times: bool = True  # time embeddings: once for all rows of all samples, not once per row
    first_attention: bool = True  # block 0 up to its cross-attention's queries: once per guided pair
    classes: bool = True  # start of the sequence: once per class and, for the null class, once per batch
    cache: bool = True  # MRAR: each group of the sequence once, not again at every later image
    unguided: bool = True  # no unconditional half at times when the guidance weight is 1


NAIVE = Sharing(**{field.name: False for field in dataclasses.fields(Sharing)})


def encoder_block_flops(model: ModelConfig, tokens: int, attended: int) -> int:
    """FLOPs of one encoder block, for `tokens` tokens that attend to `attended` tokens."""
    return tokens * (24 * model.width**2 + 4 * attended * model.width)


def self_attention_flops(model: ModelConfig) -> int:
    """FLOPs of the self-attention of one decoder block, for one row."""
    tokens = model.latent_tokens
    return tokens * (8 * model.width**2 + 4 * tokens * model.width)


def after_attention_flops(model: ModelConfig, semantic_tokens: int) -> int:
    """FLOPs of cross-attention (its keys and values given) and MLP of one decoder block, for one row."""
    return model.latent_tokens * (20 * model.width**2 + 4 * semantic_tokens * model.width)


def condition_flops(model: ModelConfig, semantic_tokens: int) -> int:
    """FLOPs of the condition projection, and of the keys and values of all decoder blocks."""
    return semantic_tokens * (2 + 4 * model.decoder_blocks) * model.width**2


def time_flops(model: ModelConfig) -> int:
    """FLOPs of the embedding and the shared modulation of one time."""
    return 2 * (TIME_FEATURES + 7 * model.width) * model.width


def encoder_flops(model: ModelConfig, groups: int, cached: int = 0) -> int:
    """FLOPs of the semantic encoder over class tokens and `groups` groups, the first `cached` of which are cached."""
    tokens = model.class_tokens + groups * model.tokens_per_image
    new = tokens - (model.class_tokens + cached * model.tokens_per_image if cached else 0)
    patch = model.latent_channels * model.reference_patch**2
    earlier_images = 2 * (groups - max(cached, 1)) * model.tokens_per_image * patch * model.width
    return earlier_images + model.encoder_blocks * encoder_block_flops(model, new, tokens)


def velocity_flops(model: ModelConfig, semantic_tokens: int) -> int:
    """FLOPs of one decoder pass of one row, without keys, values and time embedding."""
    block = self_attention_flops(model) + after_attention_flops(model, semantic_tokens)
    ends = 4 * model.latent_tokens * model.latent_channels * model.width
    return ends + model.decoder_blocks * block


def sample_flops(
    model: ModelConfig,
    sampling: SamplingConfig,
    sharing: Sharing = Sharing(),
    classes_per_sample: float = PUBLISHED_CLASSES_PER_SAMPLE,
) -> float:
    """FLOPs of one sample: all images of its sequence, without decoding them to pixels.

    Args:
        model: sizes.
        sampling: steps and guidance.
        sharing: what is computed once.
        classes_per_sample: starts of sequences that are encoded per sample, if classes are shared.
    """
    return sum(sample_flops_by_part(model, sampling, sharing, classes_per_sample).values())


def sample_flops_by_part(
    model: ModelConfig,
    sampling: SamplingConfig,
    sharing: Sharing = Sharing(),
    classes_per_sample: float = PUBLISHED_CLASSES_PER_SAMPLE,
) -> dict[str, float]:
    """The FLOPs of `sample_flops` by what they are for: semantic features, keys and values, the solver's passes."""
    passes = [evaluations(settings, model.flow_map) for settings in sampling.of_images(model.num_images)]
    halves = 2 if any(guided for guided, _ in passes) else 1
    parts = {"semantic_features": 0.0, "keys_values": 0.0, "decoder": 0.0}
    for image, (guided, unguided) in enumerate(passes):
        rows = 2 if guided else 1
        if not sharing.unguided and guided:
            guided, unguided = guided + unguided, 0
        parts["decoder"] += guided * _step_flops(model, image, 2, sharing)
        parts["decoder"] += unguided * _step_flops(model, image, 1, sharing)
        encoded = halves if sharing.cache else rows
        parts["semantic_features"] += _encoding_flops(model, image, encoded, sharing, classes_per_sample)
        if sharing.keys_values:
            parts["keys_values"] += _once_flops(model, image, encoded, sharing)
    return parts


def evaluations(sampling: SamplingConfig, flow_map: bool) -> tuple[int, int]:
    """How often one image's solver computes a guided velocity, and an unguided one.

    Args:
        sampling: settings of one image (`SamplingConfig.of_images`).
        flow_map: whether the model is a few-step student, which is guided in one pass.
    """
    weights = guidance_weights(sampling, SOLVERS[sampling.solver].times(solver_grid(sampling)))
    guided = 0 if flow_map else int(np.sum(is_guided(weights)))
    return guided, len(weights) - guided


def sample_flops_by_saving(
    model: ModelConfig, sampling: SamplingConfig, classes_per_sample: float = PUBLISHED_CLASSES_PER_SAMPLE
) -> dict[str, float]:
    """FLOPs of one sample without savings, then with the savings added one by one."""
    sharing, counts = NAIVE, {"naive": sample_flops(model, sampling, NAIVE)}
    for field in dataclasses.fields(Sharing):
        sharing = dataclasses.replace(sharing, **{field.name: True})
        counts[field.name] = sample_flops(model, sampling, sharing, classes_per_sample)
    return counts


def training_flops(model: ModelConfig, pairs_per_latent: int, train_encoder: bool = True) -> int:
    """FLOPs of one row (all images of a sequence) of a training step. A backward pass costs twice its forward pass.

    Args:
        model: sizes.
        pairs_per_latent: (time, noise) pairs of each latent.
        train_encoder: False if the semantic encoder has no backward pass.
    """
    inputs = model.num_images * pairs_per_latent
    decoder = inputs * (velocity_flops(model, model.semantic_tokens) + time_flops(model))
    encoder = (3 if train_encoder else 1) * encoder_flops(model, model.num_images)
    return encoder + 3 * (condition_flops(model, model.semantic_tokens) + decoder)


def _step_flops(model: ModelConfig, image: int, rows: int, sharing: Sharing) -> int:
    """FLOPs of one solver step of one sample's image, for one row or a guided pair."""
    semantic_tokens = (image + 1) * model.tokens_per_image
    total = rows * velocity_flops(model, semantic_tokens)
    if not sharing.keys_values:
        total += rows * condition_flops(model, semantic_tokens)
    if not sharing.times:
        total += rows * time_flops(model)
    if sharing.first_attention:
        projections = 2 * model.latent_tokens * (model.latent_channels + model.width) * model.width  # input, queries
        total -= (rows - 1) * (projections + self_attention_flops(model))
    return total


def _encoding_flops(model: ModelConfig, image: int, rows: int, sharing: Sharing, classes_per_sample: float) -> float:
    """FLOPs of the semantic encoder for one image."""
    if image and sharing.cache:
        return rows * encoder_flops(model, image + 1, cached=image)
    if image:
        return rows * encoder_flops(model, image + 1)
    return (classes_per_sample if sharing.classes else rows) * encoder_flops(model, 1)


def _once_flops(model: ModelConfig, image: int, rows: int, sharing: Sharing) -> int:
    """FLOPs of the keys and values that are made once for one image."""
    if image == 0 and sharing.classes:
        rows = 1  # those of the null class serve the whole batch
    new = 1 if sharing.cache else image + 1
    return rows * condition_flops(model, new * model.tokens_per_image)
