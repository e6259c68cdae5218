"""Checks that values are in range and that sizes fit together."""

from typing import Any

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
    _check_eval(config.eval)


_AT_LEAST = {
    0: (
        "seed",
        "optimizer.warmup_steps",
        "data.workers",
        "train.sample_every",
        "train.keep_every",
        "eval.every",
        "loss.diversity_weight",
        "optimizer.weight_decay",
        "sampling.drift_scale",
        "sampling.noise_scale",
    ),
    1: (
        *(f"model.{name}" for name in ("width", "heads", "encoder_blocks", "decoder_blocks", "num_classes")),
        *(f"model.{name}" for name in ("class_tokens", "num_images", "tokens_per_image", "mask_tokens")),
        *(f"model.{name}" for name in ("reference_patch", "latent_size", "latent_channels")),
        *(
            "tokenizer.patch",
            "tokenizer.slice_size",
            "data.image_size",
            "data.read_threads",
            "loss.pairs_per_latent",
        ),
        *(f"train.{name}" for name in ("batch_size", "accumulation", "steps", "max_nonfinite_steps", "log_every")),
        *("train.checkpoint_every", "train.keep_last", "sampling.steps", "sampling.batch_size"),
        "eval.num_samples",
    ),
}
_FRACTIONS = (  # in [0, 1)
    "model.dropout",
    "model.label_dropout",
    "data.max_unreadable",
    "optimizer.beta1",
    "optimizer.beta2",
)
_SOURCE_PREFIXES = (TFDS_PREFIX, FOLDER_PREFIX, LATENTS_PREFIX)
_POSITIVE = (
    *("optimizer.learning_rate", "optimizer.epsilon", "optimizer.clip_norm"),
    *("sampling.last_time", "sampling.guidance_power"),
)


def _get(config: Config, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


def _check_ranges(config: Config) -> None:
    for least, paths in _AT_LEAST.items():
        for path in paths:
            value = _get(config, path)
            _require(value >= least, f"config.{path}={value} must be at least {least}")
    _require(config.seed < 2**31, f"config.seed={config.seed} must be below {2**31}, because seeds are int32")
    slices = config.mesh.dcn_data
    _require(
        slices == -1 or slices > 0, f"config.mesh.dcn_data={slices} must be at least 1, or -1 for the slices found"
    )
    for path in _FRACTIONS:
        value = _get(config, path)
        _require(0 <= value < 1, f"config.{path}={value} must be at least 0 and below 1")
    for path in _POSITIVE:
        value = _get(config, path)
        _require(value > 0, f"config.{path}={value} must be above 0")


def _check_model(model: ModelConfig) -> None:
    _require(
        model.width % model.heads == 0,
        f"config.model.heads={model.heads} must divide config.model.width={model.width}",
    )
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
    _require(len(train.ema_rates) > 0, "config.train.ema_rates=() must name at least one rate")
    for rate in train.ema_rates:
        _require(0 <= rate < 1, f"config.train.ema_rates={train.ema_rates}: {rate} must be at least 0 and below 1")
    _require(
        len(set(train.ema_rates)) == len(train.ema_rates),
        f"config.train.ema_rates={train.ema_rates} must not name a rate twice",
    )
    _require(
        config.optimizer.warmup_steps <= train.steps,
        f"config.optimizer.warmup_steps={config.optimizer.warmup_steps} must not exceed config.train.steps="
        f"{train.steps}",
    )


def _check_sampling(config: Config) -> None:
    sampling, images = config.sampling, config.model.num_images
    _require(
        sampling.last_time < 1,
        f"config.sampling.last_time={sampling.last_time} must be below 1, the time of pure noise",
    )
    _require(
        len(sampling.guidance) in (1, images),
        f"config.sampling.guidance={sampling.guidance} must hold one weight, or one for each of "
        f"config.model.num_images={images} images",
    )
    for weight in sampling.guidance:
        _require(weight >= 1, f"config.sampling.guidance={sampling.guidance}: weights must be at least 1 (1: off)")
    _require(
        len(sampling.steps_by_image) in (0, images),
        f"config.sampling.steps_by_image={sampling.steps_by_image} must be empty, or hold one number of steps for each "
        f"of config.model.num_images={images} images",
    )
    for steps in sampling.steps_by_image:
        _require(steps >= 1, f"config.sampling.steps_by_image={sampling.steps_by_image}: steps must be at least 1")
    interval = sampling.guidance_interval
    _require(
        len(interval) == 2 and 0 <= interval[0] <= interval[1] <= 1,
        f"config.sampling.guidance_interval={interval} must be two times, 0 <= low <= high <= 1",
    )
    fraction = sampling.fuse_fraction
    _require(0 <= fraction <= 1, f"config.sampling.fuse_fraction={fraction} must be from 0 to 1")


def _check_eval(scores: EvalConfig) -> None:
    for name in ("reference", "inception"):
        _require(
            not scores.every or bool(getattr(scores, name)),
            f"config.eval.every={scores.every} needs config.eval.{name}; name it, or set config.eval.every=0",
        )
