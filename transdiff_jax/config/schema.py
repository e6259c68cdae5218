"""The fields of a configuration: schema, defaults and documentation in one."""

import dataclasses
from typing import Any, Literal

# For DataConfig.source.
TFDS_PREFIX = "tfds:"
FOLDER_PREFIX = "folder:"
LATENTS_PREFIX = "latents:"
INDEX_PREFIX = "index:"  # for DataConfig.groups


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of the two networks. 1-step AR is MRAR with one image (arXiv 2506.09482, section 3 and figure 2)."""

    width: int = 768  # d: token width of both networks
    heads: int = 12
    encoder_blocks: int = 24  # semantic encoder (the AR Transformer)
    decoder_blocks: int = 12  # diffusion decoder
    num_classes: int = 1000  # 0: as many as the data has, counted when training starts
    class_tokens: int = 64  # copies of the class vector in front of the image tokens
    num_images: int = 1  # images in a sequence: 1 is 1-step AR, 4 is the published MRAR
    tokens_per_image: int = 256  # semantic tokens of one image
    mask_tokens: int = 1  # learned mask vectors: 1 shared, or one for each of tokens_per_image positions
    reference_patch: int = 1  # MRAR: side of the latent patch that becomes one token of an earlier image
    latent_size: int = 16  # side of the latent grid; the decoder sees latent_size**2 tokens
    latent_channels: int = 16
    dropout: float = 0.1  # on attention outputs, and twice in each MLP; training only; rounded to a multiple of 1/256
    attention_dropout: float = -1.0  # on attention weights, likewise; -1: as dropout
    label_dropout: float = 0.1  # probability that a training row's class becomes the null class
    # Of the computation; parameters are always float32. With "float32", matrix products have the device's default
    # precision, which is TF32 on recent GPUs; JAX_DEFAULT_MATMUL_PRECISION=highest asks for all bits.
    dtype: Literal["float32", "bfloat16"] = "float32"
    # cudnn: NVIDIA GPUs, bfloat16. flash: TPUs, models of one image. Both train with attention_dropout=0.
    attention: Literal["xla", "cudnn", "flash"] = "xla"
    remat: Literal["none", "dots", "full"] = "none"  # a block keeps all, matmuls or nothing for the backward pass
    flow_map: bool = False  # few-step students: the decoder also takes a jump's length and its guidance weight

    @property
    def weight_dropout(self) -> float:
        """The rate of dropout on attention weights."""
        return self.dropout if self.attention_dropout == -1 else self.attention_dropout

    @property
    def semantic_tokens(self) -> int:
        """Image tokens of the whole encoder sequence, over all images."""
        return self.num_images * self.tokens_per_image

    @property
    def latent_tokens(self) -> int:
        """Tokens of one image in the diffusion decoder."""
        return self.latent_size**2


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Image <-> latent grid."""

    kind: Literal["pixels", "kl16"] = "pixels"
    patch: int = 2  # pixels: side of the pixel square that becomes one latent position
    weights: str = ""  # kl16: folder made by transdiff convert --kind=kl16
    slice_size: int = 32  # kl16: images that a device encodes or decodes at once; bounds the memory of a large batch
    dtype: Literal["float32", "bfloat16"] = "float32"  # kl16: of the computation


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from and what happens to them before the tokenizer."""

    # "digits" (embedded), "tfds:NAME" for an image-classification dataset of TFDS, "folder:PATH" for a folder with one
    # subfolder of images for each class, or "latents:DIR" for a folder made by transdiff cache_latents.
    source: str = "digits"
    directory: str = "~/tensorflow_datasets"  # where TFDS keeps prepared datasets
    split: str = "train"  # of a TFDS dataset; a folder is one split
    image_size: int = 8
    image_channels: int = 1  # images are converted to 1 (grey) or 3 (RGB)
    # How an image becomes image_size pixels wide and high. none: it must be already; random: a random square of the
    # full short side, resized; center: the middle square, resized as ADM does.
    crop: Literal["none", "random", "center"] = "none"
    flip: bool = False  # random horizontal flip
    read_threads: int = 4  # of each reading process; a thread prepares some rows at a time
    workers: int = 0  # reading processes; 0: threads of the training process read
    max_unreadable: float = 0.001  # stop when more than this share of the records cannot be decoded
    # MRAR groups: "random" draws the earlier images anew each epoch; "index:FILE" takes the groups of an index file as
    # they are (the release's, or one made by transdiff cache_latents --groups).
    groups: str = "random"
    # Random groups: what to do with classes of fewer than num_images images.
    small_classes: Literal["error", "skip", "repeat"] = "error"


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Flow matching (paper, section 3.2)."""

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
    weight_decay: float = 0.02  # training/optimizer.py decides by parameter path where it applies
    clip_norm: float = 3.0  # global gradient norm


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    batch_size: int = 256  # rows of a global step; a row is num_images images of one class
    accumulation: int = 1  # micro-batches that a step's rows are split into; gradients are averaged
    steps: int = 1000
    ema_rates: tuple[float, ...] = (0.9999,)  # sampling uses the first one by default
    # Of dropout's masks. "threefry" draws the same on all hardware, and each device draws for its own rows. "rbg" is
    # the hardware's own generator; every device draws for all rows, so it can only help a few devices.
    dropout_rng: Literal["threefry", "rbg"] = "threefry"
    only: Literal["all", "decoder"] = "all"  # "decoder" freezes the semantic encoder
    init_from: str = ""  # workdir of another run to take weights from (fine-tuning); empty: from scratch
    init_weights: Literal["ema", "raw"] = "ema"  # which weights of init_from
    # Which class vectors of init_from: all by their place, none, or those of classes of the same name. Others start at
    # the mean of all.
    classes: Literal["same", "fresh", "by_name"] = "same"
    ema_warmup: bool = False  # the rate of an average is at most (1 + n) / (10 + n) after n steps
    max_nonfinite_steps: int = 10  # stop after this many non-finite steps in a row
    log_every: int = 50
    # Where numbers and sample grids go beside metrics.jsonl. wandb: Weights & Biases, with the extra of that name.
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    sample_every: int = 0  # steps between sample grids in the event file; 0: none
    checkpoint_every: int = 1000
    keep_last: int = 2  # newest checkpoints to keep
    keep_every: int = 0  # also keep checkpoints whose step is a multiple of this; 0: none


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """The reverse process: an SDE or ODE from noise at t = 1 to data at t = 0."""

    # euler_maruyama solves the SDE; the published scores use it. The others solve the ODE, deterministically after the
    # initial noise: euler is of first order, heun (two network evaluations per step) and dpmpp_2m are of second order.
    # flow_map jumps along the ODE with a student (`distillation`), in equal steps from 1 to 0.
    solver: Literal["euler_maruyama", "euler", "heun", "dpmpp_2m", "flow_map"] = "euler_maruyama"
    steps: int = 100
    steps_by_image: tuple[int, ...] = ()  # MRAR: steps of each image; earlier images may take fewer; empty: `steps`
    last_time: float = 0.04  # t of the last network evaluation; from there one step goes to 0
    guidance: tuple[float, ...] = (1.0,)  # classifier-free guidance weight, for all images or one for each; 1: off
    guidance_interval: tuple[float, ...] = (0.0, 1.0)  # [low, high] in t; outside it no guidance
    # How the weight grows from 1 at t = 1 to `guidance` at t = 0: at once, with 1 - t, or with
    # (1 - cos(pi (1 - t)^guidance_power)) / 2 (MDT, section 4).
    guidance_schedule: Literal["constant", "linear", "power_cosine"] = "constant"
    guidance_power: float = 4.0
    fuse_fraction: float = 0.5  # when two classes are fused, the share of semantic tokens taken from the second
    drift_scale: float = 1.0  # the release's scale_0, on all but the last step of euler_maruyama
    noise_scale: float = 1.0  # the release's scale_1, on all but the last step of euler_maruyama
    batch_size: int = 64  # images sampled at once, over all devices

    def of_images(self, num_images: int) -> "tuple[SamplingConfig, ...]":
        """The settings of each image in a sequence, with one guidance weight and one number of steps."""
        weights = self.guidance * num_images if len(self.guidance) == 1 else self.guidance
        steps = self.steps_by_image or (self.steps,) * num_images
        return tuple(
            dataclasses.replace(self, guidance=(weight,), steps=count, steps_by_image=())
            for weight, count in zip(weights, steps, strict=True)
        )


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """Few-step students of the run in `train.init_from`; `transdiff distill` reads it (docs/distill.md)."""

    # none: no student. shortcut: the guided velocity, and jumps that equal two half jumps. trajectory: jumps between
    # states of the teacher's paths. guidance: the guided velocity alone, for solvers that need no null class then.
    objective: Literal["none", "shortcut", "trajectory", "guidance"] = "none"
    guidance: tuple[float, ...] = (1.0,)  # weights that the student learns: one, or the ends of a range
    anchor_share: float = 0.5  # shortcut: share of loss.pairs_per_latent that learns the guided velocity
    noise_end_share: float = 0.3  # share of jumps that start at pure noise
    data_end_share: float = 0.3  # share of jumps that end at data
    own_average: bool = True  # shortcut: the first average makes the half jumps, not the parameters themselves
    # MRAR: where earlier images come from in training: the data, or the teacher's own samples.
    references: Literal["data", "teacher"] = "data"


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Scores during training. The samples come from the first average, with the run's sampling settings and seed."""

    every: int = 0  # steps between scores; 0: none
    num_samples: int = 10_000  # balanced over the classes
    reference: str = ""  # statistics or images, as for transdiff evaluate --reference
    inception: str = ""  # folder made by transdiff convert --kind=inception
    protocol: Literal["transdiff", "adm"] = "transdiff"


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the device mesh's axes; one of them may be -1 and takes the remaining devices."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    # Number of slices joined only by a data center network; the data axis alone spans them. -1: as many as the TPUs
    # have, and one for other devices.
    dcn_data: int = -1


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings that decide what a run computes."""

    seed: int = 0
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionaries, the inverse of `make_config`."""
        return dataclasses.asdict(self)
