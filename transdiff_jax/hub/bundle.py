"""The files of a published run: one average with all that sampling needs.

model.safetensors       the average, float32, by our names
config.json             configuration, class names, step and digest of the checkpoint
tokenizer.safetensors   KL-16, if the run has it, with its sizes in tokenizer.json
README.md               the model card
evaluation/             certificates of scores
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from transdiff_jax.checkpoints.record import NO_DATA, RunRecord
from transdiff_jax.checkpoints.step_names import LAST
from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.config import Config
from transdiff_jax.config.schema import FOLDER_PREFIX, INDEX_PREFIX, LATENTS_PREFIX
from transdiff_jax.convert.converted_run import save_converted
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import init_shapes
from transdiff_jax.storage.checksums import DamageError
from transdiff_jax.storage.files import write_json
from transdiff_jax.storage.json_files import JsonError, read_json_object
from transdiff_jax.storage.paths import location
from transdiff_jax.storage.safetensors_file import read_tensors, write_tensors
from transdiff_jax.tokenizer.kl16_weights import load_tokenizer, param_shapes, parse_sizes, save_weights

MODEL, CONFIG = "model.safetensors", "config.json"
TOKENIZER, TOKENIZER_SIZES = "tokenizer.safetensors", "tokenizer.json"
FORMAT = 1
UNNAMED = "unnamed"  # stands for a folder elsewhere
_PATHS = (FOLDER_PREFIX, LATENTS_PREFIX, INDEX_PREFIX)


def write_bundle(weights: Weights, folder: Path) -> None:
    """Writes the weights, the configuration and the tokenizer.

    Args:
        weights: an average.
        folder: an empty folder.

    Raises:
        UserError: the tokenizer's weights cannot be read, or a file cannot be written.
    """
    config = weights.config
    write_tensors(folder / MODEL, _flat(weights.params))
    if config.tokenizer.kind == "kl16":
        tokenizer = load_tokenizer(location(config.tokenizer.weights, "config.tokenizer.weights"), "float32", 1)
        write_tensors(folder / TOKENIZER, _flat(tokenizer.params))
        write_json(folder / TOKENIZER_SIZES, dataclasses.asdict(tokenizer.config))
    record = RunRecord(without_paths(config, weights.name), NO_DATA, 0.0, weights.class_names)
    note = {"format": FORMAT, "step": weights.step, "weights": weights.name, "checkpoint_sha256": weights.digest}
    write_json(folder / CONFIG, note | record.to_json())


def _flat(params: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in flatten_dict(params, sep="/").items()}


def without_paths(config: Config, name: str) -> Config:
    """The configuration without names of folders, which mean nothing elsewhere, and with the one average."""

    def short(value: str) -> str:
        prefix = next((prefix for prefix in _PATHS if value.startswith(prefix)), None)
        return value if prefix is None else prefix + (Path(value.removeprefix(prefix)).name or UNNAMED)

    data, defaults = config.data, Config()
    start = "" if config.distillation.objective == "none" else UNNAMED  # a student must name its teacher
    rates = tuple(rate for rate in config.train.ema_rates if name == f"ema {rate}")
    return dataclasses.replace(
        config,
        data=dataclasses.replace(
            data, source=short(data.source), groups=short(data.groups), directory=defaults.data.directory
        ),
        tokenizer=dataclasses.replace(config.tokenizer, weights=""),
        train=dataclasses.replace(config.train, ema_rates=rates, init_from=start),
        eval=dataclasses.replace(config.eval, reference="", inception="", every=0),
    )


def read_bundle(read: Callable[[str], Path], out: Path, tokenizer: Path) -> None:
    """Writes a published run as a run of this machine.

    Args:
        read: from a file of the bundle to its local copy.
        out: folder of the run.
        tokenizer: folder for its KL-16, if it has one.

    Raises:
        UserError: a file is missing or does not fit the others, or the run cannot be written.
    """
    step, record = read_note(read(CONFIG))
    config = record.config
    shapes = flatten_dict(nn.unbox(init_shapes(config.model)), sep="/")
    path = read(MODEL)
    params = unflatten_dict(_checked(read_tensors(path), shapes, path), sep="/")
    if config.tokenizer.kind == "kl16":
        _read_tokenizer(read(TOKENIZER), read(TOKENIZER_SIZES), tokenizer)
        weights = dataclasses.replace(config.tokenizer, weights=str(tokenizer.absolute()))
        config = dataclasses.replace(config, tokenizer=weights)
    params = jax.tree.map(jnp.asarray, params)
    save_converted(out, config, params, params, step=step, class_names=record.class_names)


def read_note(path: Path) -> tuple[int, RunRecord]:
    """The step and the record in the config.json of a bundle.

    Raises:
        UserError: it is none.
    """
    try:
        note = read_json_object(path)
        record, step = RunRecord.from_json(note), note.get("step")
    except (JsonError, DamageError) as error:
        raise UserError(f"{path} is no configuration of a published run: {error}") from None
    if note.get("format") != FORMAT or type(step) is not int or not 0 <= step <= LAST:
        raise UserError(f"{path} is of another format than {FORMAT}, or has no step: use a newer version")
    if record.class_names and len(record.class_names) != record.config.model.num_classes:
        raise UserError(f"{path} names {len(record.class_names)} of {record.config.model.num_classes} classes")
    if len(record.config.train.ema_rates) != 1:
        raise UserError(f"{path} has the settings of {len(record.config.train.ema_rates)} averages, but one is there")
    return step, record


def _checked(tensors: dict[str, np.ndarray], shapes: dict[str, Any], path: Path) -> dict[str, np.ndarray]:
    wanted = {name: (leaf.shape, np.dtype(leaf.dtype)) for name, leaf in shapes.items()}
    found = {name: (array.shape, array.dtype) for name, array in tensors.items()}
    if wanted != found:
        name = min(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise UserError(f"{path}: {name} is {found.get(name)}, but its configuration asks for {wanted.get(name)}")
    return tensors


def _read_tokenizer(path: Path, sizes: Path, out: Path) -> None:
    try:
        value = read_json_object(sizes)
    except JsonError as error:
        raise UserError(f"{sizes} {error}") from None
    config = parse_sizes({name: size for name, size in value.items() if name != "dtype"})
    if config is None:
        raise UserError(f"{sizes} does not hold the sizes of an autoencoder")
    tensors = _checked(read_tensors(path), flatten_dict(param_shapes(config), sep="/"), path)
    save_weights(out, unflatten_dict(tensors, sep="/"), config)
