"""KL-16: the name table, and the sizes of the autoencoder from the tensors of a checkpoint."""

from collections.abc import Mapping

from transdiff_jax.convert.table import Entry, NameTable, Unused, conv, count, norm
from transdiff_jax.errors import UserError
from transdiff_jax.storage.torch_file import Shape
from transdiff_jax.tokenizer.kl16 import Kl16Config

_TRAINING_LOSS = "belongs to the autoencoder's training losses (perceptual network, discriminator)"


def name_table(config: Kl16Config, shapes: Mapping[str, Shape] | None = None) -> NameTable:
    """Both names of every tensor of an autoencoder.

    Args:
        config: its sizes.
        shapes: of a checkpoint's tensors, by name, if it may hold the training losses beside the network.
    """
    channels = config.latent_channels
    losses = {name: shape for name, shape in (shapes or {}).items() if name.startswith("loss.")}
    entries = [
        *_encoder(config),
        *_decoder(config),
        *conv("quant_conv", "quant_conv", 2 * channels, 2 * channels, 1),
        *conv("post_quant_conv", "post_quant_conv", channels, channels, 1),
    ]
    unused = tuple(Unused(name, tuple(shape), _TRAINING_LOSS) for name, shape in losses.items())
    return NameTable(tuple(entries), unused)


def _encoder(config: Kl16Config) -> list[Entry]:
    widths = [config.width * multiplier for multiplier in config.multipliers]
    entries = conv("encoder.conv_in", "encoder/conv_in", config.image_channels, config.width, 3)
    inputs = config.width
    for level, width in enumerate(widths):
        theirs, ours = f"encoder.down.{level}", f"encoder/level{level}"
        for block in range(config.blocks):
            entries += _residual(f"{theirs}.block.{block}", f"{ours}_block{block}", inputs, width)
            if level in config.attention_levels:
                entries += _attention(f"{theirs}.attn.{block}", f"{ours}_attention{block}", width)
            inputs = width
        if level < len(widths) - 1:
            entries += conv(f"{theirs}.downsample.conv", f"{ours}_downsample", width, width, 3)
    return [
        *entries,
        *_middle("encoder", inputs),
        *norm("encoder.norm_out", "encoder/norm_out", inputs),
        *conv("encoder.conv_out", "encoder/conv_out", inputs, 2 * config.latent_channels, 3),
    ]


def _decoder(config: Kl16Config) -> list[Entry]:
    widths = [config.width * multiplier for multiplier in config.multipliers]
    inputs = widths[-1]
    entries = conv("decoder.conv_in", "decoder/conv_in", config.latent_channels, inputs, 3)
    entries += _middle("decoder", inputs)
    for level, width in reversed(list(enumerate(widths))):
        theirs, ours = f"decoder.up.{level}", f"decoder/level{level}"
        for block in range(config.blocks + 1):
            entries += _residual(f"{theirs}.block.{block}", f"{ours}_block{block}", inputs, width)
            inputs = width
        if level > 0:
            entries += conv(f"{theirs}.upsample.conv", f"{ours}_upsample", width, width, 3)
    return [
        *entries,
        *norm("decoder.norm_out", "decoder/norm_out", inputs),
        *conv("decoder.conv_out", "decoder/conv_out", inputs, config.image_channels, 3),
    ]


def _middle(half: str, width: int) -> list[Entry]:
    return [
        *_residual(f"{half}.mid.block_1", f"{half}/middle/block1", width, width),
        *_attention(f"{half}.mid.attn_1", f"{half}/middle/attention", width),
        *_residual(f"{half}.mid.block_2", f"{half}/middle/block2", width, width),
    ]


def _residual(theirs: str, ours: str, inputs: int, outputs: int) -> list[Entry]:
    entries = [
        *norm(f"{theirs}.norm1", f"{ours}/norm1", inputs),
        *conv(f"{theirs}.conv1", f"{ours}/conv1", inputs, outputs, 3),
        *norm(f"{theirs}.norm2", f"{ours}/norm2", outputs),
        *conv(f"{theirs}.conv2", f"{ours}/conv2", outputs, outputs, 3),
    ]
    if inputs != outputs:
        entries += conv(f"{theirs}.nin_shortcut", f"{ours}/shortcut", inputs, outputs, 1)
    return entries


def _attention(theirs: str, ours: str, width: int) -> list[Entry]:
    names = {"q": "query", "k": "key", "v": "value", "proj_out": "output"}
    convs = [
        entry for name, mine in names.items() for entry in conv(f"{theirs}.{name}", f"{ours}/{mine}", width, width, 1)
    ]
    return [*norm(f"{theirs}.norm", f"{ours}/norm", width), *convs]


def infer_config(shapes: Mapping[str, Shape], source: str) -> Kl16Config:
    """The sizes of the autoencoder from the tensors of a checkpoint.

    Args:
        shapes: of the checkpoint's tensors, by name.
        source: name of the checkpoint in errors.

    Raises:
        UserError: the checkpoint is not of a KL autoencoder.
    """
    width, image_channels = _conv_shape(shapes, "encoder.conv_in.weight", source)
    _, channels = _conv_shape(shapes, "decoder.conv_in.weight", source)
    levels = count(shapes, r"encoder\.down\.(\d+)\.block\.")
    blocks = count(shapes, r"encoder\.down\.0\.block\.(\d+)\.")
    outputs = [_conv_shape(shapes, f"encoder.down.{level}.block.0.conv1.weight", source)[0] for level in range(levels)]
    return Kl16Config(
        width=width,
        multipliers=tuple(output // width for output in outputs),
        blocks=blocks,
        attention_levels=tuple(level for level in range(levels) if f"encoder.down.{level}.attn.0.q.weight" in shapes),
        latent_channels=channels,
        image_channels=image_channels,
    )


def _conv_shape(shapes: Mapping[str, Shape], name: str, source: str) -> Shape:
    """The numbers of outputs and inputs of a convolution."""
    if name not in shapes or len(shapes[name]) != 4:
        raise UserError(f"{source} is not a KL-16 checkpoint: it has no convolution {name}; check --kind")
    return tuple(shapes[name][:2])
