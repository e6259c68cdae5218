"""Whole checkpoints: a `.pth` of the reference becomes a folder of ours, and back.

A converted model is a run like any other, at step 0 and without optimizer state: it is sampled by its workdir and
fine-tuned through `config.train.init_from`. Beside it lie the tensors that the reference itself never reads, so that
the way back gives the same file contents to the last bit.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from transdiff_jax.checkpoints.record import FOLDER, NO_DATA, RunRecord
from transdiff_jax.checkpoints.store import CheckpointStore
from transdiff_jax.checkpoints.weights import load_weights
from transdiff_jax.config import Config, DataConfig, MeshConfig, ModelConfig, TokenizerConfig
from transdiff_jax.config.validation import KL16_FACTOR, validate
from transdiff_jax.convert import inception_names, kl16_names, transdiff_names
from transdiff_jax.convert.table import NameTable, check_reference, from_reference, to_reference
from transdiff_jax.data.sources import imagenet
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.inception.weights import PUBLISHED_SHA256, InceptionWeights, save_inception
from transdiff_jax.model.params import Params
from transdiff_jax.model.variants import published_heads, published_sampling
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.storage.checksums import sha256
from transdiff_jax.storage.torch_file import Checkpoint, Tensors, read_checkpoint, write_checkpoint
from transdiff_jax.tokenizer.kl16 import Kl16Config
from transdiff_jax.tokenizer.kl16_weights import load_tokenizer, save_weights
from transdiff_jax.training.state import TrainState

UNUSED_FILE = "unused_tensors.npz"
RELEASE_FILE = "checkpoint-last.pth"  # the name that the release gives and looks for
_MODEL, _EMA = "model", "ema"
_HEAD_WIDTH = 64  # of the published B and L models


class Imported(NamedTuple):
    """A checkpoint of the reference in our layout, apart from the file it came from."""

    table: NameTable
    config: ModelConfig | Kl16Config
    params: Params
    ema: Params | None
    unused: dict[str, np.ndarray]  # by "model/" or "ema/" and the reference's name


def import_transdiff(path: Path, out: Path, *, heads: int | None = None, tokenizer: str = "") -> NameTable:
    """A TransDiff checkpoint of the release -> a workdir of ours.

    Args:
        path: the `.pth` file.
        out: new workdir.
        heads: attention heads, where the width is not a published one.
        tokenizer: folder of converted KL-16 weights, for sampling; may be named later.

    Returns:
        What became of every tensor.

    Raises:
        UserError: the file cannot be read or does not fit a model, or the workdir is taken.
    """
    imported = _read_transdiff(path, heads)
    model = imported.config
    config = Config(
        model=model,
        tokenizer=TokenizerConfig(kind="kl16", weights=str(Path(tokenizer).absolute()) if tokenizer else ""),
        data=DataConfig(image_size=KL16_FACTOR * model.latent_size, image_channels=3),
        sampling=published_sampling(model),
    )
    validate(config)
    _check_new(out)
    if imported.ema is None:
        logging.warning("%s has no model_ema: its model stands in for the average", path)
    _save_unused(out, imported.unused)
    _save_run(out, config, imported.params, imported.params if imported.ema is None else imported.ema)
    return imported.table


def _read_transdiff(path: Path, heads: int | None) -> Imported:
    checkpoint, source = read_checkpoint(path), str(path)
    shapes = checkpoint.model.shapes()
    model = transdiff_names.infer_model(shapes, source, _find_heads(checkpoint, heads, source))
    table = transdiff_names.name_table(model)
    # Both before either is converted, which takes a while.
    check_reference(table, shapes, source)
    if checkpoint.ema is not None:
        check_reference(table, checkpoint.ema.shapes(), f"{source} (model_ema)")
    params = _to_jax(from_reference(table, checkpoint.model, source))
    ema = None if checkpoint.ema is None else _to_jax(from_reference(table, checkpoint.ema, source))
    return Imported(table, model, params, ema, _unused_tensors(table, checkpoint))


def export_transdiff(workdir: Path, out: Path) -> NameTable:
    """A run's newest checkpoint -> a `.pth` file with the release's names; the inverse of `import_transdiff`.

    Args:
        workdir: a run, converted or trained here.
        out: the file, or a folder for a file of the release's name.

    Raises:
        UserError: the run cannot be read, or the file not written.
    """
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    raw, ema = (load_weights(workdir, mesh, kind=kind) for kind in ("raw", "ema"))
    config = raw.config
    table = transdiff_names.name_table(config.model)
    tensors = {
        name: to_reference(table, weights.params, _load_unused(workdir, name), str(workdir))
        for name, weights in ((_MODEL, raw), (_EMA, ema))
    }
    args = {"img_size": config.data.image_size, "heads": config.model.heads}
    write_checkpoint(_release_path(out), tensors[_MODEL], tensors[_EMA], args)
    return table


def import_kl16(path: Path, out: Path) -> NameTable:
    """A KL-16 checkpoint -> a folder for `config.tokenizer.weights`; arguments and errors as `import_transdiff`."""
    imported = _read_kl16(path)
    save_weights(out, imported.params, imported.config)
    _save_unused(out, imported.unused)
    return imported.table


def _read_kl16(path: Path) -> Imported:
    checkpoint, source = read_checkpoint(path), str(path)
    shapes = checkpoint.model.shapes()
    config = kl16_names.infer_config(shapes, source)
    table = kl16_names.name_table(config, shapes)
    params = _to_jax(from_reference(table, checkpoint.model, source))
    return Imported(table, config, params, None, _unused_tensors(table, checkpoint))


def export_kl16(folder: Path, out: Path) -> NameTable:
    """The inverse of `import_kl16`; arguments and errors as `export_transdiff`."""
    tokenizer = load_tokenizer(folder, "float32", 1)
    unused = _load_unused(folder, _MODEL)
    table = kl16_names.name_table(tokenizer.config, {name: tensor.shape for name, tensor in unused.items()})
    write_checkpoint(_release_path(out), to_reference(table, tokenizer.params, unused, str(folder)), None, {})
    return table


def import_inception(path: Path, out: Path) -> NameTable:
    """A published Inception file -> a folder for the evaluation; arguments and errors as `import_transdiff`.

    Scores are comparable only if everybody's weights are the same: the folder notes the file's SHA-256, and a digest
    that is not the published one is told, though not refused (saving a file anew changes its digest and no weight).
    """
    checkpoint = read_checkpoint(path)
    digest = sha256(path)
    if digest != PUBLISHED_SHA256:
        logging.warning(
            "%s has SHA-256 %s, and the published file %s: scores are comparable only if the weights are the same",
            path,
            digest,
            PUBLISHED_SHA256,
        )
    table = inception_names.name_table(checkpoint.model.shapes())
    params = _to_jax(from_reference(table, checkpoint.model, str(path)))
    save_inception(out, InceptionWeights(params, path.name, digest))
    return table


def _find_heads(checkpoint: Checkpoint, heads: int | None, source: str) -> int | None:
    """The number of attention heads: as given, as noted in the file, or of the published model of this width.

    For any other width it is assumed, loudly: the parameters are the same under any number of heads, so the conversion
    and the way back are right, but samples are not if the assumption is wrong.
    """
    noted = checkpoint.args.get("heads")
    if heads is not None or isinstance(noted, int):
        return noted if heads is None else heads
    width = checkpoint.model.shapes().get("class_emb.weight", (0, 0))[-1]
    if published_heads(width) is None and width > 0:
        heads = max(width // _HEAD_WIDTH, 1)
        logging.warning(
            "%s has width %d, which is no published size, and nothing in it shows the number of attention heads: "
            "assuming %d. Give --heads if that is wrong, or samples will be.",
            source,
            width,
            heads,
        )
    return heads


def _to_jax(params: dict) -> dict:
    """The tree with JAX arrays, in place and leaf by leaf.

    Orbax copies NumPy arrays before it writes them, twice; a full-size model must not be in memory so often.
    """
    for name, value in params.items():
        params[name] = _to_jax(value) if isinstance(value, dict) else jnp.asarray(value)
    return params


def _check_new(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out} cannot be used: {error.strerror}") from None
    if (out / FOLDER).exists():
        raise UserError(f"{out} already holds checkpoints; choose another folder")


def _save_run(out: Path, config: Config, params: Params, ema: Params) -> None:
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(zero, zero, zero, params, opt_state=(), ema=(ema,))
    wnids = imagenet.wnids()
    names = imagenet.readable_names(wnids) if config.model.num_classes == len(wnids) else ()
    store = CheckpointStore(out, keep_last=1)
    try:
        store.save(0, state, RunRecord(config, NO_DATA, train_seconds=0.0, class_names=names))
    finally:
        store.close()


def _unused_tensors(table: NameTable, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    sources = {_MODEL: checkpoint.model} | ({} if checkpoint.ema is None else {_EMA: checkpoint.ema})
    return {
        # A copy: a view would keep the whole file mapped.
        f"{name}/{unused.reference}": np.array(source[unused.reference])
        for name, source in sources.items()
        for unused in table.unused
    }


def _save_unused(out: Path, tensors: Tensors) -> None:
    if tensors:
        np.savez(out / UNUSED_FILE, **tensors)


def _load_unused(folder: Path, name: str) -> Tensors:
    if not (folder / UNUSED_FILE).exists():
        return {}
    with np.load(folder / UNUSED_FILE) as arrays:
        return {key.removeprefix(f"{name}/"): arrays[key] for key in arrays.files if key.startswith(f"{name}/")}


def _release_path(out: Path) -> Path:
    return out if out.suffix else out / RELEASE_FILE
