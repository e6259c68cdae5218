"""Which settings a run keeps when it resumes, because its checkpoints and what it has learned depend on them."""

import dataclasses
from pathlib import Path

from absl import logging
from flax.traverse_util import flatten_dict

from transdiff_jax.checkpoints.record import NO_DATA, RunRecord
from transdiff_jax.config import Config, ModelConfig, TokenizerConfig
from transdiff_jax.errors import UserError
from transdiff_jax.tokenizer.kl16_weights import weights_digest

# Fields that decide the content of a checkpoint or what latents mean. All others may change, with a warning. Weights of
# a tokenizer are compared by their digest, because their folder may move.
_FIXED = {
    "model": {field.name for field in dataclasses.fields(ModelConfig)}
    - {"dtype", "remat", "attention", "dropout", "attention_dropout", "label_dropout"},
    "tokenizer": {field.name for field in dataclasses.fields(TokenizerConfig)} - {"weights", "slice_size"},
    "train": {"ema_rates", "only"},
}


def tokenizer_digest(config: Config) -> str:
    """The SHA-256 that identifies the tokenizer's weights; empty for a tokenizer without any.

    Raises:
        UserError: there are no weights where the configuration says.
    """
    return "" if config.tokenizer.kind == "pixels" else weights_digest(config.tokenizer.weights)


def check_same_run(record: RunRecord, asked: Config, folder: Path) -> None:
    """Refuses to resume another run, and warns of changes that alter how a run continues.

    Args:
        record: of the checkpoint to resume from.
        asked: the configuration to resume with.
        folder: of the checkpoints, for messages.

    Raises:
        UserError: the checkpoint cannot be resumed with this configuration.
    """
    if record.data == NO_DATA:
        raise UserError(
            f"{folder} holds converted weights, which have no training state to resume: name that run in "
            "config.train.init_from and choose another workdir"
        )
    old, new = (flatten_dict(config.to_dict(), sep=".") for config in (record.config, asked))
    for path in (name for name in new if old[name] != new[name]):
        section, _, name = path.partition(".")
        if name in _FIXED.get(section, ()):
            raise UserError(
                f"{folder} was trained with config.{path}={old[path]}, not {new[path]}; choose another workdir or that "
                "value"
            )
        logging.warning("resuming with config.%s changed from %s to %s", path, old[path], new[path])
    known, digest = _digest_of(record), tokenizer_digest(asked)
    if known and known != digest:
        raise UserError(
            f"{folder} was trained with tokenizer weights of digest {known[:12]}…, but "
            f"config.tokenizer.weights={asked.tokenizer.weights} has digest {digest[:12]}…; choose another workdir or "
            "those weights"
        )


def _digest_of(record: RunRecord) -> str:
    """The digest of the weights that a run was trained with; empty if there are none, or nobody knows any more."""
    if record.tokenizer_sha256:
        return record.tokenizer_sha256
    try:
        return tokenizer_digest(record.config)  # version 0.1 kept only the name of the folder
    except UserError:
        return ""
