"""The published training recipes on ImageNet (arXiv 2506.09482), one for each size and kind of model."""

import dataclasses
from collections.abc import Mapping

import ml_collections

from transdiff_jax.config import default_config_dict
from transdiff_jax.model.variants import Kind, published_model, published_sampling

IMAGENET_IMAGES = 1_281_167  # in the training split; in MRAR each of them ends a group
BATCH_SIZE = 2048
STUDENT_BATCH_SIZE = 512
STUDENT_STEPS = 50_000
STEPS_PER_EPOCH = IMAGENET_IMAGES // BATCH_SIZE  # whole batches only


def published_recipe(size: str, kind: Kind) -> ml_collections.ConfigDict:
    """The configuration of a published run, for a config file to return or to change.

    MRAR and 512 start from the 1-step model of the same size, which the run of its config file trained.

    Args:
        size: "b", "l" or "h".
        kind: "one_step_256", "mrar_256" or "one_step_512".

    Raises:
        UserError: no such size or kind was published.
    """
    config, model = default_config_dict(), published_model(size, kind)
    config.model.update(dataclasses.asdict(model) | {"dtype": "bfloat16", "remat": "dots"})
    config.sampling.update(_sampling(size, kind))
    config.data.update(
        source="tfds:imagenet2012",
        image_size=16 * model.latent_size,
        image_channels=3,
        crop="random",
        flip=True,
        read_threads=4,
        workers=8,
    )
    config.tokenizer.update(kind="kl16", weights="runs/kl16", dtype="bfloat16")
    config.train.update(
        batch_size=BATCH_SIZE,
        ema_rates=(0.9999,),
        checkpoint_every=4 * STEPS_PER_EPOCH,
        sample_every=4 * STEPS_PER_EPOCH,
    )
    schedule = {"one_step_256": _from_scratch, "mrar_256": _to_mrar, "one_step_512": _to_512}[kind]
    schedule(config, f"runs/transdiff_{size}")
    return config


def student_recipe(size: str, kind: Kind) -> ml_collections.ConfigDict:
    """The configuration of a few-step student of a published run. Untested: nobody has trained it.

    Args:
        size: "b", "l" or "h".
        kind: "one_step_256" or "mrar_256".

    Raises:
        UserError: no such size or kind was published.
    """
    config = published_recipe(size, kind)
    config.model.update(flow_map=True, dropout=0.0)
    config.distillation.update(objective="shortcut", guidance=(1.0, 2.5))
    config.loss.pairs_per_latent = 2
    suffix = "" if kind == "one_step_256" else "_mrar"
    config.train.update(
        batch_size=STUDENT_BATCH_SIZE,
        steps=STUDENT_STEPS,
        only="decoder",
        init_from=f"runs/transdiff_{size}{suffix}",
        checkpoint_every=1000,
        keep_every=0,
        sample_every=5000,
    )
    config.optimizer.update(
        learning_rate=1e-4,
        scale_with_batch=False,
        schedule="cosine",
        warmup_steps=1000,
        weight_decay=0.0,
        clip_norm=1.0,
    )
    config.sampling.update(solver="flow_map", steps=1)
    return config


def _sampling(size: str, kind: Kind) -> Mapping[str, object]:
    """The settings of the published score; at 512 only L has one, so all sizes take its settings."""
    model = published_model("l" if kind == "one_step_512" else size, kind)
    return dataclasses.asdict(published_sampling(model)) | {"batch_size": 256}


def _from_scratch(config: ml_collections.ConfigDict, one_step_run: str) -> None:
    del one_step_run
    config.train.update(steps=800 * STEPS_PER_EPOCH, keep_every=100 * STEPS_PER_EPOCH)
    config.optimizer.update(learning_rate=1e-4, scale_with_batch=True, warmup_steps=100 * STEPS_PER_EPOCH)


def _to_mrar(config: ml_collections.ConfigDict, one_step_run: str) -> None:
    config.loss.pairs_per_latent = 2
    config.train.update(steps=40 * STEPS_PER_EPOCH, keep_every=10 * STEPS_PER_EPOCH, init_from=one_step_run)
    config.optimizer.update(learning_rate=5e-5, scale_with_batch=False, warmup_steps=10 * STEPS_PER_EPOCH)


def _to_512(config: ml_collections.ConfigDict, one_step_run: str) -> None:
    config.train.update(
        steps=150 * STEPS_PER_EPOCH,
        keep_every=25 * STEPS_PER_EPOCH,
        init_from=one_step_run,
        only="decoder",
        ema_rates=(0.999,),
    )
    config.optimizer.update(learning_rate=1e-4, scale_with_batch=False, warmup_steps=10 * STEPS_PER_EPOCH)
