"""TransDiff against a golden file: features, velocities, losses and gradients.

The file's tensors are NCHW, images before rows, and noise stands in the order in which the reference drew it; the
functions here bring them into our order.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax.convert.table import NameTable, from_reference, to_reference
from transdiff_jax.convert.transdiff_names import infer_model, name_table
from transdiff_jax.errors import UserError
from transdiff_jax.model.loss import LossDraws, flow_matching_losses
from transdiff_jax.model.params import Params
from transdiff_jax.model.transdiff import TransDiff
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

Array = jax.Array
Tensors = Mapping[str, np.ndarray]


class Subject(NamedTuple):
    """The model and the inputs of a golden file, in our layout."""

    model: TransDiff
    table: NameTable
    params: Params
    latents: Array  # [b, num_images, h, w, channels]
    labels: Array  # [b]
    pairs: int  # (time, noise) pairs of each latent in the losses


def subject(file: GoldenFile) -> Subject:
    """What a golden file tests.

    Raises:
        UserError: the file's `config` contradicts its tensors.
    """
    source = str(file.path)
    config = infer_model(file.weight_shapes(), source, file.setting("heads"))
    inferred = {
        "kind": "mrar" if config.num_images > 1 else "1step",
        "dim": config.width,
        "encoder_blocks": config.encoder_blocks,
        "decoder_blocks": config.decoder_blocks,
        "classes": config.num_classes,
        "latent_channels": config.latent_channels,
        "buffer_size": config.class_tokens,
    }
    for name, value in inferred.items():
        if file.config.get(name, value) != value:
            raise UserError(f"{source}: its config says {name}={file.config[name]}, its tensors say {value}")
    table = name_table(config)
    return Subject(
        model=TransDiff(config),
        table=table,
        params=jax.tree.map(jnp.asarray, from_reference(table, file.weights(), source)),
        latents=jnp.asarray(file["input/images"].transpose(1, 0, 3, 4, 2)),
        labels=jnp.asarray(file["input/labels"]),
        pairs=file.setting("diffusion_batch_mul"),
    )


def _encode(model: TransDiff, params: Params, labels: Array, latents: Array) -> Array:
    references = latents[:, :-1] if model.config.num_images > 1 else None
    null = jnp.zeros_like(labels, bool)
    return model.apply({"params": params}, labels, null, references, method=TransDiff.encode).features


def _velocity(model: TransDiff, params: Params, features: Array, x_t: Array, timesteps: Array) -> Array:
    variables = {"params": params}
    keys_values = model.apply(variables, features, method=TransDiff.condition)
    return model.apply(variables, x_t[:, None], timesteps[:, None], keys_values, method=TransDiff.velocity)[:, 0]


def _loss_and_gradient(
    model: TransDiff, params: Params, latents: Array, labels: Array, draws: LossDraws
) -> tuple[Array, Params]:
    def loss(params: Params) -> Array:
        return jnp.mean(flow_matching_losses(model, params, latents, labels, draws).flow)

    return jax.value_and_grad(loss)(params)


def check_network(file: GoldenFile, subject: Subject) -> list[Check]:
    """Semantic features and the velocity on them, in MRAR also from the first one, two and three groups."""
    config = subject.model.config
    encode, velocity_of = jax.jit(_encode, static_argnums=0), jax.jit(_velocity, static_argnums=0)
    features = encode(subject.model, subject.params, subject.labels, subject.latents)
    x_t, timesteps = file["input/x_t"], file["input/timesteps"]
    errors = {"output/semantic_features": relative_error(features, file["output/semantic_features"])}
    groups = {"output/velocity": config.num_images}
    groups |= {f"output/velocity_refs{count}": count for count in range(1, config.num_images)}
    for name, count in groups.items():
        if name in file:
            visible = features[:, : count * config.tokens_per_image]
            velocity = velocity_of(subject.model, subject.params, visible, x_t, timesteps)
            errors[name] = relative_error(velocity, file[name])
    return [Check(name, error, ONE_PASS) for name, error in errors.items()]


def draws(subject: Subject, timesteps: np.ndarray, noise: np.ndarray, dropped: bool) -> LossDraws:
    """The reference's draws of one loss as ours.

    Args:
        subject: whose batch and images they are for.
        timesteps: [images * pairs * b], image-major, then pair, then row.
        noise: likewise, [images * pairs * b, tokens, channels].
        dropped: whether all labels are dropped.
    """
    batch, images = subject.latents.shape[:2]

    def ours(values: np.ndarray) -> Array:
        split = values.reshape(images, subject.pairs, batch, *values.shape[1:])
        return jnp.asarray(np.moveaxis(split, 2, 0))

    return LossDraws(jnp.full(batch, dropped), ours(timesteps), ours(noise))


def check_loss(file: GoldenFile, subject: Subject, section: str) -> list[Check]:
    """A loss and its gradient.

    Args:
        file: the golden file.
        subject: made of it.
        section: "loss" (labels kept) or "loss_dropped" (all dropped).
    """
    given = draws(subject, file[f"{section}/timesteps"], file[f"{section}/noise"], section == "loss_dropped")
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
    """All tensors of the reference as one vector, and the worst one alone.

    The one vector is what float32 can promise; the worst tensor shows a mistake in a small one, which the vector
    would drown.
    """
    ours, reference = meaningful(ours, reference), meaningful(reference, reference)
    errors = [relative_error(ours[key], reference[key]) for key in reference]
    return [
        Check(name, relative_error_of_all(ours, reference), MANY_PASSES),
        Check(f"{name}/worst_tensor", max(errors), ONE_TENSOR),
    ]


def compare_norms(name: str, ours: Tensors, norms: Tensors) -> list[Check]:
    """The norms of all tensors as one vector, and the worst one alone."""
    found = {key: np.linalg.norm(value.astype(np.float64)) for key, value in meaningful(ours, norms).items()}
    errors = [relative_error(norm, norms[key]) for key, norm in found.items()]
    together = relative_error(np.array([*found.values()]), np.array([norms[key] for key in found]))
    return [Check(name, together, NORM), Check(f"{name}/worst_tensor", max(errors), NORM)]


def meaningful(tensors: Tensors, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The named tensors without biases of attention keys.

    They add the same to all of a query's logits, which softmax does not see: their true gradient is zero, and what a
    float32 gradient holds there is rounding noise.
    """
    kept = {name: tensors[name] for name in names if not name.endswith("attn2.wk.bias")}
    for name in kept:
        if name.endswith("qkv.bias"):
            query, _, value = np.split(kept[name], 3)
            kept[name] = np.concatenate([query, value])
    return kept
