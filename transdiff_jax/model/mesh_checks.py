"""Whether a mesh can run a model, before anything is compiled."""

from jax.sharding import Mesh

from transdiff_jax.config import ModelConfig
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.axes import FSDP, TENSOR


def check_model(model: ModelConfig, mesh: Mesh) -> None:
    """Raises a UserError, before anything is compiled, for a model that the mesh cannot split evenly."""
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
    """Raises a UserError, before anything is compiled, where a mesh cannot run the model's kind of attention.

    What the configuration alone decides (dtype, size of a head) has been checked with it.
    """
    if model.attention == "xla":
        return
    platform = mesh.devices.flat[0].platform
    if platform != "gpu":
        raise UserError(
            f'config.model.attention="cudnn" needs NVIDIA GPUs, and these devices are {platform}: set '
            'config.model.attention="xla"'
        )
    if training and model.dropout > 0:
        raise UserError(
            f'config.model.attention="cudnn" has no dropout of attention weights: train with config.model.dropout=0 '
            f'instead of {model.dropout}, or with config.model.attention="xla"'
        )
    size, capability = model.width // model.heads, mesh.devices.flat[0].compute_capability
    if size > 128 and float(capability) < _HOPPER:
        raise UserError(
            f'config.model.attention="cudnn" takes heads of at most 128 on GPUs of compute capability {capability}, '
            f'not config.model.width / config.model.heads = {size}; or set config.model.attention="xla"'
        )
    masked = model.num_images > 1
    if training and masked and (model.class_tokens % 2 or model.semantic_tokens % 2):
        raise UserError(
            f'config.model.attention="cudnn" trains MRAR with even numbers of tokens, not config.model.class_tokens='
            f"{model.class_tokens} and {model.semantic_tokens} semantic tokens; or set config.model.attention="
            '"xla"'
        )
