"""How much memory training and sampling surely take, from the configuration alone, and the refusal of what cannot fit.

These are lower bounds: what the compiler may fuse, free early or compute again is left out. So what fits here may still
be too much for a device, but what is refused fits on none like it.
"""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from transdiff_jax.config import Config
from transdiff_jax.model.params import abstract_params
from transdiff_jax.parallel.axes import TENSOR
from transdiff_jax.parallel.memory import check_devices, check_host, held_bytes
from transdiff_jax.parallel.mesh import batch_shards

_FLOAT32 = 4


def check_training_memory(config: Config, mesh: Mesh) -> None:
    """Refuses a training run of which not even a step could fit.

    Raises:
        UserError: devices or host hold less than it surely takes, or the mesh cannot split the model.
    """
    check_input_memory(config)
    check_host("training", {"mask of MRAR": _mask_bytes(config)}, "lower the sizes of config.model")
    remedy = "lower config.train.batch_size or the sizes of config.model, or train on more devices (config.mesh)"
    check_devices("training", training_needs(config, mesh), mesh, remedy)


def check_input_memory(config: Config) -> None:
    """Refuses a training batch of which this process's part could not fit; raises like `check_training_memory`."""
    part = config.train.batch_size * _row_bytes(config) // jax.process_count()
    check_host("a training batch", {"its rows": part}, "lower config.train.batch_size")


def check_sampling_memory(config: Config, mesh: Mesh) -> None:
    """Refuses batches of samples that could not fit; raises like `check_training_memory`."""
    remedy = "lower the batch size or the steps, or split the model over more devices (config.mesh, --mesh)"
    check_devices("sampling", sampling_needs(config, mesh), mesh, remedy)


def training_needs(config: Config, mesh: Mesh) -> dict[str, int]:
    """Bytes of each device that a training step takes at the same time, by what takes them."""
    train, params = config.train, abstract_params(config.model, mesh)
    held = held_bytes(params)
    trained = held if train.only == "all" else held_bytes(params["decoder"])
    rows = -(-train.batch_size // batch_shards(mesh))
    # Clipping by the global norm needs all gradients at once, but the backward pass has then freed the activations.
    activations = _kept_activations(config, -(-rows // train.accumulation))
    last, size = max(("activations", activations), ("gradients", trained), key=lambda part: part[1])
    return {
        "parameters": held,
        "averages": held * len(train.ema_rates),
        "moments of AdamW": 2 * trained,
        **({} if config.distillation.objective == "none" else {"teacher's decoder": held_bytes(params["decoder"])}),
        "batch": rows * _row_bytes(config),
        last: size,
    }


def sampling_needs(config: Config, mesh: Mesh) -> dict[str, int]:
    """Bytes of each device that the sampling of a batch takes at the same time, by what takes them."""
    model, sampling = config.model, config.sampling
    item, rows = jnp.dtype(model.dtype).itemsize, -(-sampling.batch_size // batch_shards(mesh))
    steps = max(sampling.steps_by_image or (sampling.steps,))
    keys_values = 2 * model.decoder_blocks * model.semantic_tokens * model.width * item // mesh.shape[TENSOR]
    return {
        "parameters": held_bytes(abstract_params(model, mesh)),
        "table of times": steps * (6 * model.decoder_blocks + 2) * model.width * item,
        "keys and values": rows * keys_values,
        "latents": rows * model.num_images * model.latent_tokens * model.latent_channels * _FLOAT32,
    }


def _kept_activations(config: Config, rows: int) -> int:
    """What every kind of rematerialisation keeps for the backward pass: the input of each block."""
    model = config.model
    encoder = model.encoder_blocks * (model.class_tokens + model.semantic_tokens)
    inputs = model.num_images * config.loss.pairs_per_latent
    decoder = model.decoder_blocks * inputs * model.latent_tokens
    tokens = decoder + (encoder if config.train.only == "all" else 0)
    return rows * tokens * model.width * jnp.dtype(model.dtype).itemsize


def _row_bytes(config: Config) -> int:
    """Of a training row: images of a byte a value, or moments of two bytes each as they are cached for KL-16."""
    data, model = config.data, config.model
    if config.tokenizer.kind == "kl16":
        return model.num_images * model.latent_tokens * 2 * model.latent_channels * 2
    return model.num_images * data.image_size**2 * data.image_channels


def _mask_bytes(config: Config) -> int:
    """Of the mask of MRAR, which the host makes before a step is compiled."""
    model = config.model
    inputs = model.num_images * config.loss.pairs_per_latent * model.latent_tokens
    return inputs * model.semantic_tokens if model.num_images > 1 else 0
