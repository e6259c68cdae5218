"""Pictures that MRAR sequences begin with: read, cropped, and encoded for the sampler."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, UInt8
from PIL import Image

from transdiff_jax.config import Config, DataConfig
from transdiff_jax.data.transforms import center_square
from transdiff_jax.errors import UserError
from transdiff_jax.generation.arguments import describe_array
from transdiff_jax.images.decoding import UnreadableImage, decode, pixels_of
from transdiff_jax.images.uint8 import to_unit_range
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.arrays import replicated
from transdiff_jax.parallel.mesh import batch_shards
from transdiff_jax.parallel.processes import check_same
from transdiff_jax.parallel.row_batches import map_rows
from transdiff_jax.sampling.sampler import Sampler
from transdiff_jax.storage.json_files import JsonError, read_bytes
from transdiff_jax.storage.paths import location
from transdiff_jax.tokenizer.base import Tokenizer

Encode = Callable[[Tokenizer, Array], Array]  # pictures uint8 [b, height, width, c] -> latents float32 [b, h, w, c]
Picture = str | Path | Image.Image | UInt8[np.ndarray, "height width channels"]


def reference_pictures(pictures: Sequence[Picture], config: Config) -> tuple[UInt8[np.ndarray, "size size c"], ...]:
    """Pictures as the model takes them: the middle square, in the run's size and number of channels.

    Args:
        pictures: files, Pillow's images, or arrays of any size; none is none.
        config: of the run.

    Raises:
        UserError: the model does not take so many, or one is not a picture.
    """
    if not pictures:
        return ()
    most = config.model.num_images - 1
    if not most:
        raise UserError("references: this model makes one image at a time; a run with model.num_images=4 takes 1 to 3")
    if len(pictures) > most:
        raise UserError(f"references: this model takes 1 to {most} pictures, not {len(pictures)}")
    return tuple(center_square(_pixels(picture, config.data), config.data.image_size) for picture in pictures)


def _pixels(picture: Picture, config: DataConfig) -> UInt8[np.ndarray, "height width channels"]:
    channels = config.image_channels
    try:
        if isinstance(picture, str | Path):
            return decode(read_bytes(location(picture, "references")), channels)
        if isinstance(picture, Image.Image):
            return pixels_of(picture, channels)
    except OSError as error:
        raise UserError(f"references: {picture} cannot be read: {error.strerror}") from None
    except (UnreadableImage, JsonError) as error:
        raise UserError(f"references: {picture} cannot be read as an image: {error}") from None
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != channels or not picture.size:
        raise UserError(
            f"references: an array must be uint8 [height, width, {channels}], not {describe_array(picture)}"
        )
    return picture


def encode_on(mesh: Mesh) -> Encode:
    """The jitted function from a tokenizer and pictures to their most likely latents, which every process holds."""

    def encode(tokenizer: Tokenizer, images: UInt8[Array, "b height width channels"]) -> Float[Array, "b h w c"]:
        with axes.over(mesh):
            return tokenizer.mean(tokenizer.moments(to_unit_range(images)))

    return jax.jit(encode, out_shardings=replicated(mesh))


def with_references(sampler: Sampler, pictures: Sequence[UInt8[np.ndarray, "size size c"]], encode: Encode) -> Sampler:
    """The sampler, whose sequences begin with the pictures; as it is for none.

    Args:
        sampler: of the run.
        pictures: from `reference_pictures`, the same in every process.
        encode: from `encode_on` the sampler's mesh.

    Raises:
        UserError: another process has other pictures.
    """
    if not pictures:
        return sampler
    digest = hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).hexdigest()
    check_same(digest, "references: the pictures are not the same in all processes of the job")
    rows, size = {"images": np.stack(pictures)}, batch_shards(sampler.mesh)
    return sampler.with_references(
        map_rows(lambda rows: encode(sampler.tokenizer, rows["images"]), rows, size, sampler.mesh)
    )
