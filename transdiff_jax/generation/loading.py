"""Loads a run into memory, and writes a model's samples into a folder."""

import dataclasses
from pathlib import Path

from jax.sharding import Mesh

from transdiff_jax.checkpoints.weights import load_weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.generation.generate import generate_samples
from transdiff_jax.generation.numerics import Numerics, with_numerics
from transdiff_jax.generation.request import SampleRequest
from transdiff_jax.generation.trained_model import TrainedModel
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.storage.files import Json
from transdiff_jax.storage.paths import location


def load(
    workdir: str | Path,
    *,
    step: int | None = None,
    ema_rate: float | None = None,
    dtype: str | None = None,
    attention: str | None = None,
    tokenizer_dtype: str | None = None,
    mesh: Mesh | None = None,
) -> TrainedModel:
    """Reads a run that was trained here or converted; changes nothing in its folder.

    Args:
        workdir: the folder of the run. `td.load` also takes models of the Hugging Face Hub: hf://OWNER/NAME, or the
            name of a published model.
        step: of the checkpoint; None for the newest intact one.
        ema_rate: which average; None for the run's first.
        dtype: of the computation, as `config.model.dtype`; None for bfloat16 on NVIDIA GPUs that multiply it, and for
            the run's on other devices. Parameters stay float32.
        attention: implementation, as `config.model.attention`; None for cuDNN's on such GPUs where it can run, and for
            the run's on other devices.
        tokenizer_dtype: in which KL-16 computes; None for the run's.
        mesh: devices to compute on; None for all of them, each with the whole model.

    Raises:
        UserError: there is no such run, step or average, or the settings do not fit the model.
    """
    mesh = make_mesh(MeshConfig()) if mesh is None else mesh
    weights = load_weights(location(workdir, "workdir"), mesh, ema_rate=ema_rate, step=step)
    config = with_numerics(weights.config, mesh, Numerics(dtype, attention, tokenizer_dtype))
    return TrainedModel(dataclasses.replace(weights, config=config), mesh)


def generate(model: TrainedModel, request: SampleRequest, out: str | Path, format: str | None = None) -> Json:
    """Writes samples into a folder, resumably: existing samples are not made again.

    Args:
        model: from `load`, with the run's own sampling settings or those of `TrainedModel.with_settings`.
        request: which samples.
        out: the folder, which all processes of a job must see; local, or gs://BUCKET/FOLDER.
        format: "png", a file for each image, or "zip", an archive for each 1,000 samples; None: zip in a bucket, png
            elsewhere.

    Returns:
        The record of the set, as in samples.json.

    Raises:
        UserError: a class does not exist, or the folder cannot be used or holds samples of other settings.
    """
    return generate_samples(model.weights, request, location(out, "out"), model.mesh, image_format=format)
