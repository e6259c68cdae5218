"""Caches latents: encodes the moments of every image of a source once, on any devices and processes.

Each process encodes whole files of records on its own devices, so that none waits for another. A batch holds records of
one file alone, so the content of a file depends neither on the files that exist already nor on the process that makes
it, and an interrupted job ends with the bytes of an undisturbed one. job.py describes the files and the folder.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from transdiff_jax.config import Config, DataConfig, MeshConfig
from transdiff_jax.config.schema import LATENTS_PREFIX
from transdiff_jax.data.image_batches import ImageBatch, read_batches
from transdiff_jax.data.latents.claim import PROGRESS, Claim
from transdiff_jax.data.latents.format import LatentSettings, Manifest, read_manifest
from transdiff_jax.data.latents.job import LatentJob, ShardContent
from transdiff_jax.data.same_records import check_same_records
from transdiff_jax.data.sources.base import Source
from transdiff_jax.data.sources.open import open_source
from transdiff_jax.errors import UserError
from transdiff_jax.images.uint8 import to_unit_range
from transdiff_jax.parallel.arrays import batch_sharding, replicated
from transdiff_jax.parallel.lookahead import dispatched
from transdiff_jax.parallel.memory import check_devices, check_host
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.parallel.processes import do_in_first_process, in_first_process
from transdiff_jax.parallel.progress import Progress
from transdiff_jax.parallel.shared_folders import check_shared
from transdiff_jax.tokenizer.kl16 import LOG_VARIANCE_RANGE, Kl16Tokenizer
from transdiff_jax.tokenizer.kl16_weights import weights_digest
from transdiff_jax.tokenizer.make import make_tokenizer

Encoded = tuple[Array, Array] | None  # moments [b, 2, h, w, 2c] and whether they are finite [b]; None without images
Encode = Callable[[np.ndarray], Encoded]

SHARD_RECORDS = 4096  # ImageNet's 256x256 latents then make 313 files of 134 MB


def cache_latents(config: Config, out: Path, dtype: str = "float16", shard_records: int = SHARD_RECORDS) -> Manifest:
    """Encodes the latents that are missing in a folder; every process of the job must call this.

    Args:
        config: `data` names the images and their transform, `tokenizer` the weights; each device encodes
            `tokenizer.slice_size` images at once.
        out: the folder, which all processes must see; format.py describes it.
        dtype: of the records, float16 or bfloat16.
        shard_records: records of the source that go into one file.

    Returns:
        The manifest of the complete folder.

    Raises:
        UserError: the settings cannot be cached, the folder cannot be used or holds latents of other settings, too many
            images are unreadable, the dtype cannot hold the moments, or a file cannot be written. If another process
            fails, JAX may end this one.
    """
    _check_data(config.data)
    tokenizer = _kl16(config)
    _check_memory(config, tokenizer)
    check_shared(out, "out")
    claim = Claim(out)
    try:
        do_in_first_process(claim.take)
        source = open_source(config.data, out / PROGRESS)
        check_same_records(source, f"config.data.source={config.data.source}")
        settings = _settings(config, tokenizer, source, dtype, shard_records)
        job = LatentJob(out, settings, claim)
        missing = _missing(job, settings.num_shards)
        own = np.flatnonzero(missing)[jax.process_index() :: jax.process_count()].tolist()
        _encode_shards(config, tokenizer, source, job, settings, own)
        multihost_utils.sync_global_devices("all latents are written")
        do_in_first_process(functools.partial(_finish, config.data, job, len(source)))
    finally:
        claim.close()
    manifest = read_manifest(out)
    logging.info("%d records are in %s, %d were unreadable", manifest.records, out, len(manifest.skipped))
    return manifest


def _kl16(config: Config) -> Kl16Tokenizer:
    tokenizer = make_tokenizer(config)
    if not isinstance(tokenizer, Kl16Tokenizer):
        raise UserError(
            f"config.tokenizer.kind={config.tokenizer.kind!r}: only kl16's latents are slow to make, so cache no others"
        )
    return tokenizer


def _check_data(data: DataConfig) -> None:
    if data.source.startswith(LATENTS_PREFIX):
        raise UserError(f"config.data.source={data.source!r} holds latents already: name the images")
    if data.crop == "random":
        raise UserError(
            "config.data.crop='random' differs from epoch to epoch and cannot be cached: use config.data.crop=center"
        )


def _check_memory(config: Config, tokenizer: Kl16Tokenizer) -> None:
    """Refuses batches that surely fit neither the host nor the devices: images, and the output of the first layer."""
    mesh, remedy = make_mesh(MeshConfig(), jax.local_devices()), "lower config.tokenizer.slice_size"
    pixels, channels = config.tokenizer.slice_size * config.data.image_size**2, config.data.image_channels
    images = pixels * channels  # of one byte
    check_host("a batch", {"images": images * mesh.size}, remedy)
    features = pixels * tokenizer.config.width * jnp.dtype(tokenizer.config.dtype).itemsize
    check_devices("a batch", {"images": images, "features": features}, mesh, remedy)


def _settings(
    config: Config, tokenizer: Kl16Tokenizer, source: Source, dtype: str, shard_records: int
) -> LatentSettings:
    side = config.data.image_size // tokenizer.config.factor
    return LatentSettings(
        source=config.data.source,
        split=config.data.split,
        source_records=len(source),
        crop=config.data.crop,
        image_size=config.data.image_size,
        tokenizer_sha256=weights_digest(config.tokenizer.weights),
        tokenizer_dtype=config.tokenizer.dtype,
        dtype=dtype,
        shape=(2, side, side, 2 * tokenizer.config.latent_channels),
        class_names=source.class_names,
        shard_records=shard_records,
    )


def _missing(job: LatentJob, count: int) -> np.ndarray:
    """Whether each file of records must be made, bool [count]; each process reads a part of the finished files."""
    noted = in_first_process(job.open, count)
    own = np.flatnonzero(noted)[jax.process_index() :: jax.process_count()]
    fine = np.zeros(count, bool)
    fine[sorted(job.intact(own.tolist()))] = True
    fine = multihost_utils.process_allgather(fine).reshape(-1, count).any(axis=0)
    changed = int((noted & ~fine).sum())
    if changed:
        logging.warning("%d finished files have changed or are gone: they are made again", changed)
    if not fine.all():
        do_in_first_process(job.reopen)
    return ~fine


def _finish(config: DataConfig, job: LatentJob, total: int) -> None:
    _check_unreadable(job.skipped(), total, config)
    job.finish()


def _check_unreadable(skipped: int, total: int, config: DataConfig) -> None:
    if skipped > config.max_unreadable * total:
        raise UserError(
            f"{skipped} of the {total} records of config.data.source={config.source!r} are unreadable so far, more "
            f"than config.data.max_unreadable={config.max_unreadable} allows: repair them (they are named above)"
        )


def _encode_shards(
    config: Config,
    tokenizer: Kl16Tokenizer,
    source: Source,
    job: LatentJob,
    settings: LatentSettings,
    shards: list[int],
) -> None:
    """Makes some files of records on this process's devices."""
    mesh = make_mesh(MeshConfig(), jax.local_devices())
    size = config.tokenizer.slice_size * mesh.size
    progress = Progress("cached", "images", sum(len(settings.source_range(shard)) for shard in shards))
    images = read_batches(source, config.data, {shard: settings.source_range(shard) for shard in shards}, size)
    encode = _encoder(tokenizer, size, settings.dtype, mesh)
    batches = dispatched(images, lambda batch: None if batch.images is None else encode(batch.images))
    skipped = 0
    with contextlib.closing(images):
        for shard, group in itertools.groupby(batches, key=lambda item: item[0].number):
            with job.write_shard(shard) as content:
                for batch, encoded in group:
                    _add(content, batch, encoded, settings.dtype)
                    skipped += len(batch.skipped)
                    _check_unreadable(skipped, len(source), config.data)
                    progress.add(len(batch.ids) + len(batch.skipped))
    progress.finish()


def _add(content: ShardContent, batch: ImageBatch, encoded: Encoded, dtype: str) -> None:
    """Writes the records of a batch; waits for the device."""
    content.skipped.extend(batch.skipped)
    if encoded is None:
        return
    moments, finite = (np.asarray(array) for array in encoded)
    for name, label, record, fine in zip(batch.ids, batch.labels, moments, finite, strict=False):
        if not fine:
            raise UserError(
                f"the moments of record {name} are not finite in {dtype}: use dtype=bfloat16, or compute in "
                "config.tokenizer.dtype=float32"
            )
        content.add(record, label, name)


def _encoder(tokenizer: Kl16Tokenizer, size: int, dtype: str, mesh: Mesh) -> Encode:
    """The jitted encoder of `size` images at a time."""
    rows, everywhere = batch_sharding(mesh), replicated(mesh)
    weights = jax.device_put(dataclasses.replace(tokenizer, slice_size=size), everywhere)

    @functools.partial(jax.jit, in_shardings=(everywhere, rows), out_shardings=rows)
    def encode(tokenizer: Kl16Tokenizer, pixels: Array) -> tuple[Array, Array]:
        images = to_unit_range(pixels)
        both = jnp.stack([tokenizer.moments(images), tokenizer.moments(images[:, :, ::-1])], axis=1)
        mean, log_variance = jnp.split(both, 2, axis=-1)
        # The posterior clamps it too; clamping here keeps float16 from overflowing.
        stored = jnp.concatenate([mean, jnp.clip(log_variance, *LOG_VARIANCE_RANGE)], axis=-1).astype(dtype)
        return stored, jnp.isfinite(stored).all(axis=(1, 2, 3, 4))

    return lambda images: encode(weights, jax.device_put(images, rows))
