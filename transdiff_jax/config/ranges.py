"""The range of every number: those of a configuration, and those that commands and programs ask for beside it."""

from typing import NamedTuple

from transdiff_jax.errors import UserError


class Range(NamedTuple):
    """The numbers from `low` to `high`; an open end is not one of them."""

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is in the range; NaN is in none."""
        above = self.low < value if self.low_open else self.low <= value
        return above and (value < self.high if self.high_open else value <= self.high)

    def __str__(self) -> str:
        """Such as "at least 1 and at most 65536"."""
        low, high = ("above" if self.low_open else "at least"), ("below" if self.high_open else "at most")
        return f"{low} {self.low} and {high} {self.high}"


INT32 = 2**31 - 1  # the type of counters and indices
FLOAT32 = 1e38  # below what overflows in the type of the computation
SEEDS = Range(0, INT32)  # keys are made of 32-bit integers
COUNTS = Range(1, INT32)  # of steps and files
COUNTS_OR_NONE = Range(0, INT32)
ROWS = Range(1, 2**24)  # of a batch
NUM_SAMPLES = Range(1, 10**7)  # a request lists the class of each
SOLVER_STEPS = Range(1, 10**5)
IMAGE_SIDES = Range(1, 2**14)
GROUP_SIZES = Range(2, 256)  # images of an MRAR sequence
HEADS = Range(1, 2**12)
REPETITIONS = Range(1, 10**6)
SLICES = Range(1, 2**12)
_FRACTIONS = Range(0, 1, high_open=True)
_TOKENS, _BLOCKS = Range(1, 2**16), Range(1, 2**10)
_THREADS = 2**10
_FACTORS = Range(0, FLOAT32)
_POSITIVE = Range(0, FLOAT32, low_open=True)

# By section and field; of a tuple, those of its items. Of the other numbers, attention_dropout, image_channels and
# guidance_interval have checks of their own, and the mesh is checked where the devices are known.
RANGES: dict[str, Range] = {
    "seed": SEEDS,
    "model.width": Range(1, 2**16),
    "model.heads": HEADS,
    "model.encoder_blocks": _BLOCKS,
    "model.decoder_blocks": _BLOCKS,
    "model.num_classes": Range(0, 10**7),
    "model.class_tokens": _TOKENS,
    "model.num_images": Range(1, 2**8),
    "model.tokens_per_image": _TOKENS,
    "model.mask_tokens": _TOKENS,
    "model.reference_patch": Range(1, 2**8),
    "model.latent_size": Range(1, 2**8),
    "model.latent_channels": Range(1, 2**16),
    "model.dropout": _FRACTIONS,
    "model.label_dropout": _FRACTIONS,
    "tokenizer.patch": Range(1, 2**8),
    "tokenizer.slice_size": ROWS,
    "data.image_size": IMAGE_SIDES,
    "data.read_threads": Range(1, _THREADS),
    "data.workers": Range(0, _THREADS),
    "data.max_unreadable": _FRACTIONS,
    "loss.pairs_per_latent": Range(1, 2**16),
    "loss.diversity_weight": _FACTORS,
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.warmup_steps": COUNTS_OR_NONE,
    "optimizer.beta1": _FRACTIONS,
    "optimizer.beta2": _FRACTIONS,
    "optimizer.epsilon": _POSITIVE,
    "optimizer.weight_decay": _FACTORS,
    "optimizer.clip_norm": _POSITIVE,
    "train.batch_size": ROWS,
    "train.accumulation": ROWS,
    "train.steps": COUNTS,
    "train.ema_rates": _FRACTIONS,
    "train.max_nonfinite_steps": COUNTS,
    "train.log_every": COUNTS,
    "train.sample_every": COUNTS_OR_NONE,
    "train.checkpoint_every": COUNTS,
    "train.keep_last": COUNTS,
    "train.keep_every": COUNTS_OR_NONE,
    "sampling.steps": SOLVER_STEPS,
    "sampling.steps_by_image": SOLVER_STEPS,
    "sampling.last_time": Range(0, 1, low_open=True, high_open=True),
    "sampling.guidance": Range(1, FLOAT32),
    "sampling.guidance_power": _POSITIVE,
    "sampling.fuse_fraction": Range(0, 1),
    "sampling.drift_scale": _FACTORS,
    "sampling.noise_scale": _FACTORS,
    "sampling.batch_size": ROWS,
    "distillation.guidance": Range(1, 10**6),
    "distillation.anchor_share": Range(0, 1),
    "distillation.noise_end_share": Range(0, 1),
    "distillation.data_end_share": Range(0, 1),
    "eval.every": COUNTS_OR_NONE,
    "eval.num_samples": NUM_SAMPLES,
}


def check_range(shown: str, value: float, allowed: Range) -> None:
    """Checks a number.

    Args:
        shown: the number with its name, as the user gave it, such as "--steps=0".
        value: the number.
        allowed: its range.

    Raises:
        UserError: the number is not in the range.
    """
    if not allowed.holds(value):
        raise UserError(f"{shown} must be {allowed}")
