"""The configuration of a run: frozen dataclasses, made from an ml_collections file and checked once.

The dataclasses are the schema, the defaults and the documentation of every field. A config file starts from
`default_config_dict()` and sets what differs; `Config.from_dict` turns the result (after command-line overrides,
or out of a checkpoint) into a `Config`, or raises a `UserError` that names the field.
"""

import dataclasses
import math
import runpy
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import ml_collections

from transdiff_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of the two networks. 1-step AR is MRAR with one image (SPEC of the paper: section 3, figure 2)."""

    width: int = 768  # d: token width of both networks
    heads: int = 12
    encoder_blocks: int = 24  # semantic encoder (the AR Transformer)
    decoder_blocks: int = 12  # diffusion decoder
    num_classes: int = 1000
    class_tokens: int = 64  # the class vector, repeated this often in front of the image tokens
    num_images: int = 1  # images of one sequence: 1 is 1-step AR, 4 is the published MRAR
    tokens_per_image: int = 256  # semantic tokens of one image
    mask_tokens: int = 1  # learned mask vectors: 1 shared, or one for each of tokens_per_image positions
    reference_patch: int = 1  # MRAR: side of the latent patch that becomes one reference token; unused with one image
    latent_size: int = 16  # side of the latent grid; the decoder sees latent_size**2 tokens
    latent_channels: int = 16
    dropout: float = 0.1  # on attention weights, attention outputs, and twice in each MLP; training only
    label_dropout: float = 0.1  # probability that a training row's class becomes the null class
    # Compute; parameters are always float32. With "float32", matrix products have the device's default precision, which
    # is TF32 on recent GPUs; JAX_DEFAULT_MATMUL_PRECISION=highest asks for all bits.
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "dots", "full"] = "none"  # what a block keeps for the backward pass: all, matmuls, nothing

    @property
    def semantic_tokens(self) -> int:
        """Image tokens of the whole encoder sequence (all images)."""
        return self.num_images * self.tokens_per_image

    @property
    def latent_tokens(self) -> int:
        """Tokens of one image in the diffusion decoder."""
        return self.latent_size**2


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Image <-> latent grid."""

    kind: Literal["pixels", "kl16"] = "pixels"
    patch: int = 2  # pixels: side of the square of pixels that becomes one latent position
    weights: str = ""  # kl16: folder made by cli.convert --kind=kl16
    slice_size: int = 32  # kl16: images encoded or decoded at once, which bounds the memory of a large batch
    dtype: Literal["float32", "bfloat16"] = "float32"  # kl16: compute


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from and what happens to them before the tokenizer."""

    source: str = "digits"  # "digits" (embedded), or "tfds:NAME" for an image-classification dataset of TFDS
    directory: str = "~/tensorflow_datasets"  # where TFDS keeps prepared datasets
    split: str = "train"
    image_size: int = 8
    image_channels: int = 1
    crop: Literal["none", "random"] = "none"  # random: a square of the full short side, resized to image_size
    flip: bool = False  # random horizontal flip
    read_threads: int = 4


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Flow matching (section 3.2 of the paper)."""

    pairs_per_latent: int = 4  # (time, noise) pairs drawn for each latent against the same semantic features
    diversity_weight: float = 0.0  # weight of the semantic diversity term; the release trains without it (0)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with decoupled decay, global-norm clipping, linear warm-up."""

    learning_rate: float = 1e-4
    scale_with_batch: bool = True  # multiply learning_rate by train.batch_size / 256
    schedule: Literal["constant", "cosine"] = "constant"  # after the warm-up; cosine ends at 0
    warmup_steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.02  # where it applies is decided by parameter path: training/optimizer.py
    clip_norm: float = 3.0  # global gradient norm


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    batch_size: int = 256  # rows of a global step; a row is num_images images of one class
    accumulation: int = 1  # micro-batches that a step's rows are split into; gradients are averaged
    steps: int = 1000
    ema_rates: tuple[float, ...] = (0.9999,)  # the first is the one that is sampled from by default
    only: Literal["all", "decoder"] = "all"  # "decoder" freezes the semantic encoder
    init_from: str = ""  # workdir of another run to take weights from (fine-tuning); empty: from scratch
    init_weights: Literal["ema", "raw"] = "ema"  # which weights of init_from
    max_nonfinite_steps: int = 10  # stop after so many non-finite steps in a row
    log_every: int = 50
    sample_every: int = 0  # steps between sample grids in the event file; 0: none
    checkpoint_every: int = 1000
    keep_last: int = 2  # checkpoints to keep
    keep_every: int = 0  # and every checkpoint whose step is a multiple of this; 0: none


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """The reverse process (SDE or ODE from noise at t = 1 to data at t = 0)."""

    solver: Literal["euler_maruyama", "euler"] = "euler_maruyama"
    steps: int = 100
    last_time: float = 0.04  # t of the last network evaluation; from there one step goes to 0
    guidance: tuple[float, ...] = (1.0,)  # classifier-free guidance weight, for all images or one for each; 1: off
    drift_scale: float = 1.0  # scale_0 of the release, on all but the last step of euler_maruyama
    noise_scale: float = 1.0  # scale_1 of the release, likewise
    batch_size: int = 64  # images sampled at once, over all devices


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the device mesh's axes; -1 (once) takes the devices that remain."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes."""

    seed: int = 0
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Builds and validates a configuration.

        Args:
            values: nested mapping with the sections above; absent fields take their defaults.

        Raises:
            UserError: an unknown key, a wrong type, a value out of range, or sizes that cannot work together.
        """
        config = _build(cls, values, "config")
        validate(config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionaries, the inverse of `from_dict`."""
        return dataclasses.asdict(self)


TFDS_PREFIX = "tfds:"  # of config.data.source


def default_config_dict() -> ml_collections.ConfigDict:
    """All fields at their defaults, for a config file to change; assigning an unknown field raises."""
    return ml_collections.ConfigDict(Config().to_dict()).lock()


def load_config_dict(path: Path) -> ml_collections.ConfigDict:
    """What `get_config()` of a config file returns, for a config file that starts from another."""
    return runpy.run_path(str(path))["get_config"]()


def _build(schema: type, values: Any, path: str) -> Any:
    if not isinstance(values, Mapping) and not isinstance(values, ml_collections.ConfigDict):
        raise UserError(f"{path} must be a section with fields, but is {values!r}")
    hints = typing.get_type_hints(schema)
    for key in values:
        if key not in hints:
            raise UserError(f"{path}.{key} is not a configuration field; fields there: {', '.join(sorted(hints))}")
    fields = {}
    for name, value in values.items():
        build = _build if dataclasses.is_dataclass(hints[name]) else _typed
        fields[name] = build(hints[name], value, f"{path}.{name}")
    return schema(**fields)


def _typed(hint: Any, value: Any, path: str) -> Any:
    """`value` as the field type `hint`, or a UserError; an int is taken for a float, a list for a tuple."""
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise UserError(f"{path}={value!r} is not one of {', '.join(map(repr, choices))}")
        return value
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (tuple, list)):
            raise UserError(f'{path}={value!r} must be a tuple such as "(0.5, 0.9)" or "(0.9,)"')
        return tuple(_typed(typing.get_args(hint)[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        raise UserError(f"{path}={value!r} must be of type {hint.__name__}, not {type(value).__name__}")
    if hint is float and not math.isfinite(value):
        raise UserError(f"{path}={value!r} must be a finite number")
    return value


def validate(config: Config) -> None:
    """Raises a UserError for values out of range and for sizes that cannot work together."""
    _check_ranges(config)
    _check_model(config.model)
    _check_latents(config)
    _check_training(config)
    _check_sampling(config)


_AT_LEAST = {
    0: (
        "seed",
        "optimizer.warmup_steps",
        "train.sample_every",
        "train.keep_every",
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
            "data.image_channels",
            "data.read_threads",
            "loss.pairs_per_latent",
        ),
        *(f"train.{name}" for name in ("batch_size", "accumulation", "steps", "max_nonfinite_steps", "log_every")),
        *("train.checkpoint_every", "train.keep_last", "sampling.steps", "sampling.batch_size"),
    ),
}
_FRACTIONS = ("model.dropout", "model.label_dropout", "optimizer.beta1", "optimizer.beta2")  # in [0, 1)
_POSITIVE = ("optimizer.learning_rate", "optimizer.epsilon", "optimizer.clip_norm", "sampling.last_time")


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
    _require(config.seed < 2**31, f"config.seed={config.seed} must be below {2**31}: keys are made of 32 bits")
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


KL16_FACTOR = 16  # side of the square of pixels that becomes one latent position of KL-16


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
        return  # its channels are known when the weights are read
    channels = data.image_channels * patch**2
    _require(
        model.latent_channels == channels,
        f"config.model.latent_channels={model.latent_channels} must be {channels}: {patch}x{patch} patches of "
        f"{data.image_channels} channel(s)",
    )


def _check_training(config: Config) -> None:
    train, source = config.train, config.data.source
    _require(
        source == "digits" or (source.startswith(TFDS_PREFIX) and source != TFDS_PREFIX),
        f'config.data.source={source!r} must be "digits" or "tfds:NAME"',
    )
    _require(
        train.batch_size % train.accumulation == 0,
        f"config.train.accumulation={train.accumulation} must divide config.train.batch_size={train.batch_size}",
    )
    _require(
        train.only == "all" or config.loss.diversity_weight == 0,
        f"config.loss.diversity_weight={config.loss.diversity_weight} needs a semantic encoder that is trained: "
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
