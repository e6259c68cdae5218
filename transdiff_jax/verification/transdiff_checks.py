"""Checks TransDiff against a golden file: features, velocities, losses and gradients.

The file's tensors are NCHW, with images before rows, and its noise is in the order in which the release drew it. The
functions here bring them into our order.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from transdiff_jax.convert.table import NameTable, from_reference, to_reference
from transdiff_jax.convert.transdiff_names import infer_model, name_table
from transdiff_jax.errors import UserError
from transdiff_jax.model.loss import LossDraws, flow_matching_losses
from transdiff_jax.model.params import Params, applied
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.storage.torch_file import Tensors
from transdiff_jax.verification.check import (
    MANY_PASSES,
    NORM,
    ONE_PASS,
    ONE_TENSOR,
    Check,
    relative_error,
    relative_error_of_all,
)
from transdiff_jax.verification.golden import GoldenFile


class Subject(NamedTuple):
    """The model and the inputs of a golden file, in our layout."""

    model: TransDiff
    table: NameTable
    params: Params
    latents: Float[Array, "b images h w c"]
    labels: Int[Array, " b"]
    pairs: int  # (time, noise) pairs of each latent in the losses


def subject(file: GoldenFile) -> Subject:
    """The model and the inputs of a golden file.

    Raises:
        UserError: the file's `config` contradicts its tensors.
    """
    source = str(file.path)
    config = infer_model(file.weight_shapes(), source, file.setting("heads"))
    file.check_config(
        {
            "kind": "mrar" if config.num_images > 1 else "1step",
            "dim": config.width,
            "encoder_blocks": config.encoder_blocks,
            "decoder_blocks": config.decoder_blocks,
            "classes": config.num_classes,
            "latent_channels": config.latent_channels,
            "buffer_size": config.class_tokens,
        }
    )
    table, size = name_table(config), config.latent_size
    images = file.array("input/images", config.num_images, None, config.latent_channels, size, size)
    labels = file.array("input/labels", images.shape[1])
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= config.num_classes:
        raise UserError(f"{source}: its array input/labels must hold classes from 0 to {config.num_classes - 1}")
    return Subject(
        model=TransDiff(config),
        table=table,
        params=jax.tree.map(jnp.asarray, from_reference(table, file.weights(), source)),
        latents=jnp.asarray(images.transpose(1, 0, 3, 4, 2)),
        labels=jnp.asarray(labels),
        pairs=file.setting("diffusion_batch_mul"),
    )


def _encode(model: TransDiff, params: Params, labels: Array, latents: Array) -> Array:
    earlier = latents[:, :-1] if model.config.num_images > 1 else None
    null = jnp.zeros_like(labels, bool)
    return applied(model, params, TransDiff.encode)(labels, null, earlier).features


def _velocity(model: TransDiff, params: Params, features: Array, x_t: Array, timesteps: Array) -> Array:
    keys_values = applied(model, params, TransDiff.condition)(features)
    return applied(model, params, TransDiff.velocity)(x_t[:, None], timesteps[:, None], keys_values)[:, 0]


def _loss_and_gradient(
    model: TransDiff, params: Params, latents: Array, labels: Array, draws: LossDraws
) -> tuple[Array, Params]:
    def loss(params: Params) -> Array:
        return jnp.mean(flow_matching_losses(model, params, latents, labels, draws).flow)

    return jax.value_and_grad(loss)(params)


def check_network(file: GoldenFile, subject: Subject) -> list[Check]:
    """Checks semantic features and the velocity on them; with MRAR also on the first one, two and three groups."""
    config = subject.model.config
    encode, velocity_of = jax.jit(_encode, static_argnums=0), jax.jit(_velocity, static_argnums=0)
    features = encode(subject.model, subject.params, subject.labels, subject.latents)
    rows = len(subject.labels)
    x_t = file.array("input/x_t", rows, config.latent_size**2, config.latent_channels)
    timesteps = file.array("input/timesteps", rows)
    errors = {"output/semantic_features": relative_error(features, file["output/semantic_features"])}
    groups = {"output/velocity": config.num_images}
    groups |= {f"output/velocity_refs{count}": count for count in range(1, config.num_images)}
    for name, count in groups.items():
        if name in file:
            visible = features[:, : count * config.tokens_per_image]
            velocity = velocity_of(subject.model, subject.params, visible, x_t, timesteps)
            errors[name] = relative_error(velocity, file[name])
    return [Check(name, error, ONE_PASS) for name, error in errors.items()]


def draws(
    subject: Subject,
    timesteps: Int[np.ndarray, " images*pairs*b"],
    noise: Float[np.ndarray, "images*pairs*b tokens c"],
    dropped: bool,
) -> LossDraws:
    """The release's draws of one loss in our layout.

    Args:
        subject: the batch and images that they are for.
        timesteps: by image, then pair, then row.
        noise: in the same order.
        dropped: whether all labels are dropped.
    """
    batch, images = subject.latents.shape[:2]

    def ours(values: np.ndarray) -> Array:
        split = values.reshape(images, subject.pairs, batch, *values.shape[1:])
        return jnp.asarray(np.moveaxis(split, 2, 0))

    return LossDraws(jnp.full(batch, dropped), ours(timesteps), ours(noise))


def file_draws(file: GoldenFile, subject: Subject, timesteps: str, noise: str, *, dropped: bool) -> LossDraws:
    """As `draws`, from the arrays of these names."""
    batch, images, height, width, channels = subject.latents.shape
    count = images * subject.pairs * batch
    given = file.array(timesteps, count), file.array(noise, count, height * width, channels)
    return draws(subject, *given, dropped)


def check_loss(file: GoldenFile, subject: Subject, section: str) -> list[Check]:
    """Checks a loss and its gradient.

    Args:
        file: the golden file.
        subject: its model and inputs.
        section: "loss" (labels kept) or "loss_dropped" (all dropped).
    """
    dropped = section == "loss_dropped"
    given = file_draws(file, subject, f"{section}/timesteps", f"{section}/noise", dropped=dropped)
    differentiate = jax.jit(_loss_and_gradient, static_argnums=0)
    value, gradient = differentiate(subject.model, subject.params, subject.latents, subject.labels, given)
    checks = [Check(f"{section}/value", relative_error(value, file[f"{section}/value"]), ONE_PASS)]
    ours = to_reference(subject.table, jax.device_get(gradient), {}, "gradient")
    if f"{section}/grad/" in file:
        checks += compare_gradients(f"{section}/grad", ours, file.below(f"{section}/grad/"))
    if f"{section}/grad_norm/" in file:
        checks += compare_norms(f"{section}/grad_norm", ours, file.below(f"{section}/grad_norm/"))
    return checks


def compare_gradients(name: str, ours: Tensors, reference: Tensors) -> list[Check]:
    """Compares all tensors as one vector, and the worst tensor alone.

    Float32 can promise the vector. The worst tensor shows a mistake in a small one, which the vector would drown.
    """
    ours, reference = meaningful(ours, reference), meaningful(reference, reference)
    errors = [relative_error(ours[key], reference[key]) if key in ours else math.inf for key in reference]
    return [
        Check(name, relative_error_of_all(ours, reference), MANY_PASSES),
        Check(f"{name}/worst_tensor", max(errors, default=math.inf), ONE_TENSOR),
    ]


def compare_norms(name: str, ours: Tensors, norms: Tensors) -> list[Check]:
    """Compares the norms of all tensors as one vector, and the worst norm alone."""
    norms = meaningful(norms, norms)
    exact = {key: value.astype(np.float64) for key, value in meaningful(ours, norms).items()}
    found = {key: np.asarray(np.linalg.norm(value)) for key, value in exact.items()}
    errors = [relative_error(found[key], norms[key]) if key in found else math.inf for key in norms]
    return [
        Check(name, relative_error_of_all(found, norms), NORM),
        Check(f"{name}/worst_tensor", max(errors, default=math.inf), NORM),
    ]


def meaningful(tensors: Tensors, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the named tensors that there are, without the biases of attention keys.

    Such a bias adds the same to all logits of a query, which softmax does not see. Its true gradient is zero, and a
    float32 gradient holds rounding noise there.
    """
    kept = {name: tensors[name] for name in names if name in tensors and not name.endswith("attn2.wk.bias")}
    for name, bias in kept.items():
        if name.endswith("qkv.bias") and bias.ndim == 1 and len(bias) % 3 == 0:
            query, _, value = np.split(bias, 3)
            kept[name] = np.concatenate([query, value])
    return kept
