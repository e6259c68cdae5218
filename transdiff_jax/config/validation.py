"""Checks that values are in range and that sizes fit together."""

from typing import Any

from transdiff_jax.config.ranges import RANGES, check_range
from transdiff_jax.config.schema import (
    FOLDER_PREFIX,
    INDEX_PREFIX,
    LATENTS_PREFIX,
    TFDS_PREFIX,
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
)
from transdiff_jax.config.student_rules import check_student
from transdiff_jax.errors import UserError


def validate(config: Config) -> None:
    """Checks a configuration.

    Raises:
        UserError: a value is out of range, or sizes do not fit together.
    """
    _check_ranges(config)
    _check_model(config.model)
    _check_data(config.data)
    _check_latents(config)
    _check_training(config)
    _check_sampling(config)
    check_student(config)
    _check_eval(config.eval)


_SOURCE_PREFIXES = (TFDS_PREFIX, FOLDER_PREFIX, LATENTS_PREFIX)
MAX_SEQUENCE = 2**15  # tokens of the semantic encoder, whose attention is quadratic


def _get(config: Config, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


def _check_ranges(config: Config) -> None:
    for path, allowed in RANGES.items():
        value = _get(config, path)
        if isinstance(value, tuple):
            for item in value:
                check_range(f"config.{path}={value}: {item}", item, allowed)
        else:
            check_range(f"config.{path}={value}", value, allowed)
    slices = config.mesh.dcn_data
    _require(
        slices == -1 or slices > 0, f"config.mesh.dcn_data={slices} must be at least 1, or -1 for the slices found"
    )


def _check_model(model: ModelConfig) -> None:
    _require(
        model.attention_dropout == -1 or 0 <= model.attention_dropout < 1,
        f"config.model.attention_dropout={model.attention_dropout} must be at least 0 and below 1, or -1 for "
        "config.model.dropout",
    )
    _require(
        model.width % model.heads == 0,
        f"config.model.heads={model.heads} must divide config.model.width={model.width}",
    )
    _check_attention(model)
    sequence = model.class_tokens + model.semantic_tokens
    _require(
        sequence <= MAX_SEQUENCE,
        f"config.model has a sequence of class_tokens + num_images x tokens_per_image = {sequence} tokens, which must "
        f"be at most {MAX_SEQUENCE}",
    )
    _require(
        model.mask_tokens in (1, model.tokens_per_image),
        f"config.model.mask_tokens={model.mask_tokens} must be 1 or config.model.tokens_per_image="
        f"{model.tokens_per_image}",
    )
    if model.num_images > 1:
        _require(
            model.latent_size % model.reference_patch == 0,
            f"config.model.reference_patch={model.reference_patch} must divide config.model.latent_size="
            f"{model.latent_size}",
        )
        tokens = (model.latent_size // model.reference_patch) ** 2
        _require(
            model.tokens_per_image == tokens,
            f"config.model.tokens_per_image={model.tokens_per_image} must be {tokens}, the number of "
            f"{model.reference_patch}x{model.reference_patch} patches of a {model.latent_size}x{model.latent_size} "
            "latent, when config.model.num_images is above 1",
        )


def _check_attention(model: ModelConfig) -> None:
    if model.attention == "cudnn":
        _require(
            model.dtype == "bfloat16",
            f'config.model.attention="cudnn" needs config.model.dtype="bfloat16", not {model.dtype!r}; or set '
            'config.model.attention="xla"',
        )
        size = model.width // model.heads
        _require(
            size % 8 == 0 and size <= 256,
            'config.model.attention="cudnn" needs heads whose size is a multiple of 8 and at most 256, not '
            f'config.model.width / config.model.heads = {size}; or set config.model.attention="xla"',
        )
    _require(
        model.attention != "flash" or model.num_images == 1,
        f'config.model.attention="flash" has no mask for MRAR: set config.model.attention="xla", or '
        f"config.model.num_images=1 in place of {model.num_images}",
    )


def _check_data(data: DataConfig) -> None:
    _require(
        data.source == "digits" or any(data.source.startswith(p) and data.source != p for p in _SOURCE_PREFIXES),
        f'config.data.source={data.source!r} must be "digits", "tfds:NAME", "folder:PATH" or "latents:DIR"',
    )
    _require(
        data.groups == "random" or (data.groups.startswith(INDEX_PREFIX) and data.groups != INDEX_PREFIX),
        f'config.data.groups={data.groups!r} must be "random" or "index:FILE"',
    )
    _require(
        data.image_channels in (1, 3),
        f"config.data.image_channels={data.image_channels} must be 1 (grey) or 3 (RGB)",
    )


KL16_FACTOR = 16  # side of the pixel square that becomes one latent position


def _check_latents(config: Config) -> None:
    data, model, kind = config.data, config.model, config.tokenizer.kind
    patch, name = (
        (config.tokenizer.patch, "config.tokenizer.patch") if kind == "pixels" else (KL16_FACTOR, "KL-16's factor")
    )
    _require(
        data.image_size % patch == 0,
        f"{name}={patch} must divide config.data.image_size={data.image_size}",
    )
    size = data.image_size // patch
    _require(
        model.latent_size == size,
        f"config.model.latent_size={model.latent_size} must be {size}: images of {data.image_size} pixels in "
        f"patches of {patch}",
    )
    if kind == "kl16":
        return  # KL-16's channels are only known once its weights are read
    channels = data.image_channels * patch**2
    _require(
        model.latent_channels == channels,
        f"config.model.latent_channels={model.latent_channels} must be {channels}: {patch}x{patch} patches of "
        f"{data.image_channels} channel(s)",
    )


def _check_training(config: Config) -> None:
    train = config.train
    _require(
        config.tokenizer.kind == "kl16" or not config.data.source.startswith(LATENTS_PREFIX),
        f"config.data.source={config.data.source!r} holds KL-16 latents: config.tokenizer.kind must be kl16, and "
        "config.tokenizer.weights the folder that made them",
    )
    _require(
        train.batch_size % train.accumulation == 0,
        f"config.train.accumulation={train.accumulation} must divide config.train.batch_size={train.batch_size}",
    )
    _require(
        train.only == "all" or config.loss.diversity_weight == 0,
        f"config.loss.diversity_weight={config.loss.diversity_weight} needs a trained semantic encoder: "
        'config.train.only must be "all"',
    )
    _require(
        train.only == "all" or train.classes == "same",
        f'config.train.classes="{train.classes}" needs a trained semantic encoder: config.train.only must be "all"',
    )
    _require(len(train.ema_rates) > 0, "config.train.ema_rates=() must name at least one rate")
    for name, noun in (("ema_rates", "rate"), ("loggers", "logger")):
        values = getattr(train, name)
        _require(len(set(values)) == len(values), f"config.train.{name}={values} must not name a {noun} twice")
    _require(
        config.optimizer.warmup_steps <= train.steps,
        f"config.optimizer.warmup_steps={config.optimizer.warmup_steps} must not exceed config.train.steps="
        f"{train.steps}",
    )


def _check_sampling(config: Config) -> None:
    sampling, images = config.sampling, config.model.num_images
    _require(
        len(sampling.guidance) in (1, images),
        f"config.sampling.guidance={sampling.guidance} must hold one weight, or one for each of "
        f"config.model.num_images={images} images",
    )
    _require(
        len(sampling.steps_by_image) in (0, images),
        f"config.sampling.steps_by_image={sampling.steps_by_image} must be empty, or hold one number of steps for each "
        f"of config.model.num_images={images} images",
    )
    interval = sampling.guidance_interval
    _require(
        len(interval) == 2 and 0 <= interval[0] <= interval[1] <= 1,
        f"config.sampling.guidance_interval={interval} must be two times, 0 <= low <= high <= 1",
    )


def _check_eval(scores: EvalConfig) -> None:
    for name in ("reference", "inception"):
        _require(
            not scores.every or bool(getattr(scores, name)),
            f"config.eval.every={scores.every} needs config.eval.{name}; name it, or set config.eval.every=0",
        )
