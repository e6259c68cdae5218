"""Checks, before anything is compiled, that a mesh can run a model."""

from jax.sharding import Mesh

from transdiff_jax.config import ModelConfig
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.axes import FSDP, TENSOR


def check_model(model: ModelConfig, mesh: Mesh) -> None:
    """Raises a UserError if the mesh cannot split the model evenly."""
    tensor, fsdp = mesh.shape[TENSOR], mesh.shape[FSDP]
    for size, field, split, axis in (
        (model.heads, f"config.model.heads={model.heads}", tensor, TENSOR),
        (4 * model.width, f"the MLP's 4 x config.model.width={model.width}", tensor, TENSOR),
        (model.width, f"config.model.width={model.width}", fsdp, FSDP),
    ):
        if size % split:
            raise UserError(f"{field} must be divisible by {split}, the mesh's {axis} devices")


_HOPPER = 9.0  # compute capability


def check_implementation(model: ModelConfig, mesh: Mesh, *, training: bool) -> None:
    """Raises a UserError if the mesh cannot run the model's kind of attention.

    The configuration's own checks cover what it alone decides: dtype and head size.
    """
    if model.attention == "xla":
        return
    platform = mesh.devices.flat[0].platform
    named, needed = f'config.model.attention="{model.attention}"', {"cudnn": "gpu", "flash": "tpu"}[model.attention]
    if platform != needed:
        machines = {"gpu": "NVIDIA GPUs", "tpu": "TPUs"}[needed]
        raise UserError(f'{named} needs {machines}, but these devices are {platform}: set config.model.attention="xla"')
    if training and model.weight_dropout > 0:
        raise UserError(
            f"{named} cannot drop attention weights: train with config.model.attention_dropout=0 in place of "
            f'{model.weight_dropout}, or with config.model.attention="xla"'
        )
    if model.attention == "cudnn":
        _check_cudnn(model, mesh, training=training)


def _check_cudnn(model: ModelConfig, mesh: Mesh, *, training: bool) -> None:
    size, capability = model.width // model.heads, mesh.devices.flat[0].compute_capability
    if size > 128 and float(capability) < _HOPPER:
        raise UserError(
            f'config.model.attention="cudnn" takes heads of at most 128 on GPUs of compute capability {capability}, '
            f'but config.model.width / config.model.heads = {size}: use more heads or config.model.attention="xla"'
        )
    masked = model.num_images > 1
    if training and masked and (model.class_tokens % 2 or model.semantic_tokens % 2):
        raise UserError(
            f'config.model.attention="cudnn" trains MRAR with even numbers of tokens only, but there are '
            f"config.model.class_tokens={model.class_tokens} and {model.semantic_tokens} semantic tokens: make both "
            'even, or set config.model.attention="xla"'
        )
