"""Whole checkpoints: a PyTorch file becomes a folder of ours, and back.

A converted model is an ordinary run at step 0 without optimizer state: `transdiff sample` takes its workdir, and
`config.train.init_from` fine-tunes it. Its folder also keeps the tensors that the PyTorch network never reads, so that
the export gives the same file contents to the last bit.
"""

from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from transdiff_jax.checkpoints.weights import load_raw_and_average
from transdiff_jax.config import Config, DataConfig, MeshConfig, ModelConfig, TokenizerConfig
from transdiff_jax.config.validation import KL16_FACTOR, validate
from transdiff_jax.convert import inception_names, kl16_names, transdiff_names
from transdiff_jax.convert.converted_run import check_new, save_converted
from transdiff_jax.convert.table import NameTable, check_reference, from_reference, to_reference
from transdiff_jax.convert.unused_tensors import load_unused, save_unused
from transdiff_jax.data.sources import imagenet
from transdiff_jax.evaluation.inception.weights import PUBLISHED_SHA256, InceptionWeights, save_inception
from transdiff_jax.model.params import Params
from transdiff_jax.model.variants import published_heads, published_sampling
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.storage.checksums import sha256
from transdiff_jax.storage.torch_file import Checkpoint, read_checkpoint, write_checkpoint
from transdiff_jax.tokenizer.kl16 import Kl16Config
from transdiff_jax.tokenizer.kl16_weights import load_tokenizer, save_weights

RELEASE_FILE = "checkpoint-last.pth"  # the name that the release writes and looks for
_MODEL, _EMA = "model", "ema"
_HEAD_WIDTH = 64  # of the published B and L models
Sizes = TypeVar("Sizes", ModelConfig, Kl16Config)


class Imported(NamedTuple, Generic[Sizes]):
    """A PyTorch checkpoint in our layout."""

    table: NameTable
    config: Sizes
    params: Params
    ema: Params | None
    unused: dict[str, np.ndarray]  # by "model/" or "ema/" and PyTorch's name


def import_transdiff(path: Path, out: Path, *, heads: int | None = None, tokenizer: str = "") -> NameTable:
    """A TransDiff checkpoint of the release -> a workdir of ours.

    Args:
        path: the `.pth` file.
        out: new workdir.
        heads: number of attention heads, if the width is not a published one.
        tokenizer: folder of converted KL-16 weights, for sampling; it may also be given later.

    Returns:
        The name table, which says where each tensor went.

    Raises:
        UserError: the file cannot be read or does not fit a model, or the workdir already holds checkpoints.
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
    check_new(out)
    if imported.ema is None:
        logging.warning("%s has no model_ema: its model replaces the average", path)
    save_unused(out, imported.unused)
    average = imported.params if imported.ema is None else imported.ema
    save_converted(out, config, imported.params, average, class_names=_class_names(model.num_classes))
    return imported.table


def _read_transdiff(path: Path, heads: int | None) -> Imported[ModelConfig]:
    checkpoint, source = read_checkpoint(path), str(path)
    shapes = checkpoint.model.shapes()
    model = transdiff_names.infer_model(shapes, source, _find_heads(checkpoint, heads, source))
    table = transdiff_names.name_table(model)
    # Check both before converting either, because conversion is slow.
    check_reference(table, shapes, source)
    if checkpoint.ema is not None:
        check_reference(table, checkpoint.ema.shapes(), f"{source} (model_ema)")
    params = _to_jax(from_reference(table, checkpoint.model, source))
    ema = None if checkpoint.ema is None else _to_jax(from_reference(table, checkpoint.ema, source))
    return Imported(table, model, params, ema, _unused_tensors(table, checkpoint))


def export_transdiff(workdir: Path, out: Path) -> NameTable:
    """The newest checkpoint of a run -> a `.pth` file with the release's names; the inverse of `import_transdiff`.

    Args:
        workdir: a run, converted or trained here.
        out: the file, or a folder for a file with the release's name.

    Returns:
        The name table, which says where each tensor came from.

    Raises:
        UserError: the run cannot be read, or the file cannot be written.
    """
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    raw, ema = load_raw_and_average(workdir, mesh)
    config = raw.config
    table = transdiff_names.name_table(config.model)
    tensors = {
        name: to_reference(table, weights.params, load_unused(workdir, name), str(workdir))
        for name, weights in ((_MODEL, raw), (_EMA, ema))
    }
    args = {"img_size": config.data.image_size, "heads": config.model.heads}
    write_checkpoint(_release_path(out), tensors[_MODEL], tensors[_EMA], args)
    return table


def import_kl16(path: Path, out: Path) -> NameTable:
    """A KL-16 checkpoint -> a folder for `config.tokenizer.weights`; arguments and errors as `import_transdiff`."""
    imported = _read_kl16(path)
    save_weights(out, imported.params, imported.config)
    save_unused(out, imported.unused)
    return imported.table


def _read_kl16(path: Path) -> Imported[Kl16Config]:
    checkpoint, source = read_checkpoint(path), str(path)
    shapes = checkpoint.model.shapes()
    config = kl16_names.infer_config(shapes, source)
    table = kl16_names.name_table(config, shapes)
    params = _to_jax(from_reference(table, checkpoint.model, source))
    return Imported(table, config, params, None, _unused_tensors(table, checkpoint))


def export_kl16(folder: Path, out: Path) -> NameTable:
    """The inverse of `import_kl16`; arguments and errors as `export_transdiff`."""
    tokenizer = load_tokenizer(folder, "float32", 1)
    unused = load_unused(folder, _MODEL)
    table = kl16_names.name_table(tokenizer.config, {name: tensor.shape for name, tensor in unused.items()})
    write_checkpoint(_release_path(out), to_reference(table, tokenizer.params, unused, str(folder)), None, {})
    return table


def import_inception(path: Path, out: Path) -> NameTable:
    """A published Inception file -> a folder for the evaluation; arguments and errors as `import_transdiff`.

    Scores are comparable only if the weights are the same, so the folder notes the SHA-256 of the file. A digest other
    than the published one is reported but accepted, because saving a file again changes its digest but no weight.
    """
    checkpoint = read_checkpoint(path)
    digest = sha256(path)
    if digest != PUBLISHED_SHA256:
        logging.warning(
            "%s has SHA-256 %s, but the published file has %s: scores are comparable only if the weights are the same",
            path,
            digest,
            PUBLISHED_SHA256,
        )
    table = inception_names.name_table(checkpoint.model.shapes())
    params = _to_jax(from_reference(table, checkpoint.model, str(path)))
    save_inception(out, InceptionWeights(params, path.name, digest))
    return table


def _class_names(num_classes: int) -> tuple[str, ...]:
    wnids = imagenet.wnids()
    return imagenet.readable_names(wnids) if num_classes == len(wnids) else ()


def _find_heads(checkpoint: Checkpoint, heads: int | None, source: str) -> int | None:
    """The number of attention heads: the given one, the one in the file, or that of the published model of this width.

    For any other width it is assumed, with a warning. Parameters do not depend on the number of heads, so import and
    export are right even if the assumption is wrong, but samples are not.
    """
    noted = checkpoint.args.get("heads")
    if heads is not None or isinstance(noted, int):
        return noted if heads is None else heads
    width = checkpoint.model.shapes().get("class_emb.weight", (0, 0))[-1]
    if published_heads(width) is None and width > 0:
        heads = max(width // _HEAD_WIDTH, 1)
        logging.warning(
            "%s has width %d, which is not a published size, and nothing in it shows the number of attention heads: "
            "assuming %d. If that is wrong, samples will be wrong too: give --heads.",
            source,
            width,
            heads,
        )
    return heads


def _to_jax(params: Params) -> Params:
    """The tree with JAX arrays, converted in place and leaf by leaf.

    Orbax copies NumPy arrays twice before it writes them, which is too much memory for a full-size model.
    """
    for name, value in params.items():
        params[name] = _to_jax(value) if isinstance(value, dict) else jnp.asarray(value)
    return params


def _unused_tensors(table: NameTable, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    sources = {_MODEL: checkpoint.model} | ({} if checkpoint.ema is None else {_EMA: checkpoint.ema})
    return {
        # A copy, because a view would keep the whole file mapped.
        f"{name}/{unused.reference}": np.array(source[unused.reference])
        for name, source in sources.items()
        for unused in table.unused
    }


def _release_path(out: Path) -> Path:
    return out if out.suffix else out / RELEASE_FILE
