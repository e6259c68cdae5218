"""TransDiff: the name table, and the sizes of the model from the tensors of a checkpoint."""

import math
import re
from collections.abc import Mapping

from transdiff_jax.config import ModelConfig
from transdiff_jax.convert.table import Entry, NameTable, Unused, count, linear, norm, plain
from transdiff_jax.errors import UserError
from transdiff_jax.model.variants import published_heads
from transdiff_jax.nn.layers import TIME_FEATURES
from transdiff_jax.storage.torch_file import Shape

_DECODER = "diffdecoder.net"
_UNUSED_PROJECTION = "projects earlier images; 1-step AR has none, so the release never reads it"


def name_table(config: ModelConfig) -> NameTable:
    """Both names of every tensor of a model.

    Raises:
        UserError: the model is a few-step student, which the release cannot hold.
    """
    if config.flow_map:
        raise UserError(
            "a few-step student (config.model.flow_map=True) has no form in the release, whose decoder knows neither "
            "jump lengths nor guidance weights; transdiff convert --to-torch takes its teacher"
        )
    width, inputs = config.width, config.latent_channels * config.reference_patch**2
    entries = [*_encoder(config), *_decoder(config)]
    if config.num_images > 1:
        entries += linear("z_proj", "encoder/reference_projection", (inputs,), (width,))
        return NameTable(tuple(entries))
    unused = (
        Unused("z_proj.weight", (width, inputs), _UNUSED_PROJECTION),
        Unused("z_proj.bias", (width,), _UNUSED_PROJECTION),
    )
    return NameTable(tuple(entries), unused)


def _encoder(config: ModelConfig) -> list[Entry]:
    d, tokens, layers = config.width, config.semantic_tokens, config.encoder_blocks
    positions = config.class_tokens + tokens
    ours, theirs = "encoder", "encoder_blocks.{}"
    blocks = f"{ours}/blocks"
    return [
        *plain("class_emb.weight", f"{ours}/class_embedding", (config.num_classes, d), (config.num_classes, d)),
        *plain("fake_latent", f"{ours}/null_class", (1, d), (d,)),
        *plain("mask_token", f"{ours}/mask_embedding", (1, config.mask_tokens, d), (config.mask_tokens, d)),
        *plain("encoder_pos_embed_learned", f"{ours}/position_embedding", (1, positions, d), (positions, d)),
        *plain("diffusion_pos_embed_learned", f"{ours}/output_position_embedding", (1, tokens, d), (tokens, d)),
        *norm("z_proj_ln", f"{ours}/input_norm", d),
        *norm(f"{theirs}.norm1", f"{blocks}/attention_norm", d, layers),
        *_self_attention(f"{theirs}.attn", f"{blocks}/attention", config, layers),
        *norm(f"{theirs}.norm2", f"{blocks}/mlp_norm", d, layers),
        *_mlp(f"{theirs}.mlp", f"{blocks}/mlp", d, layers),
        *norm("encoder_norm", f"{ours}/output_norm", d),
    ]


def _decoder(config: ModelConfig) -> list[Entry]:
    d, tokens, channels = config.width, config.latent_tokens, config.latent_channels
    ours, theirs, time = "decoder", _DECODER, f"{_DECODER}.time_embed"
    positions = f"{ours}/position_embedding"
    return [
        *plain(f"{theirs}.diffusion_pos_embed_learned", positions, (1, tokens, d), (tokens, d)),
        *linear(f"{time}.time_embedder.linear_1", f"{ours}/time_embedding/up", (TIME_FEATURES,), (d,)),
        *linear(f"{time}.time_embedder.linear_2", f"{ours}/time_embedding/down", (d,), (d,)),
        *linear(f"{time}.time_proj", f"{ours}/time_embedding/modulation", (d,), (6, d)),
        *linear(f"{theirs}.cond_embed", f"{ours}/condition_projection", (d,), (d,)),
        *linear(f"{theirs}.input_proj", f"{ours}/input_projection", (channels,), (d,)),
        *_decoder_blocks(f"{theirs}.res_blocks.{{}}", config),
        *plain(f"{theirs}.final_layer.scale_shift_table", f"{ours}/output_modulation", (1, 2, d), (2, d)),
        *linear(f"{theirs}.final_layer.linear", f"{ours}/output_projection", (d,), (channels,)),
    ]


def _decoder_blocks(theirs: str, config: ModelConfig) -> list[Entry]:
    d, layers = config.width, config.decoder_blocks
    heads = (config.heads, d // config.heads)
    blocks, keys_values = "decoder/blocks", "decoder/keys_values"
    cross, attention = f"{theirs}.attn2", f"{blocks}/cross_attention"
    return [
        *plain(f"{theirs}.scale_shift_table", f"{blocks}/modulation", (1, 6, d), (6, d), layers),
        *norm(f"{theirs}.norm1", f"{blocks}/attention_norm", d, layers),
        *_self_attention(f"{theirs}.attn1", f"{blocks}/attention", config, layers),
        *norm(f"{theirs}.norm2", f"{blocks}/cross_norm", d, layers),
        *linear(f"{cross}.wq", f"{attention}/query", (d,), heads, layers),
        *linear(f"{cross}.wk", f"{keys_values}/key", (d,), heads, layers),
        *linear(f"{cross}.wv", f"{keys_values}/value", (d,), heads, layers),
        *linear(f"{cross}.proj", f"{attention}/output", heads, (d,), layers),
        *norm(f"{theirs}.norm3", f"{blocks}/mlp_norm", d, layers),
        *_mlp(f"{theirs}.mlp", f"{blocks}/mlp", d, layers),
    ]


def _self_attention(theirs: str, ours: str, config: ModelConfig, layers: int) -> list[Entry]:
    d, heads = config.width, (config.heads, config.width // config.heads)
    return [
        *linear(f"{theirs}.qkv", f"{ours}/qkv", (d,), (3, *heads), layers),
        *linear(f"{theirs}.proj", f"{ours}/output", heads, (d,), layers),
    ]


def _mlp(theirs: str, ours: str, width: int, layers: int) -> list[Entry]:
    return [
        *linear(f"{theirs}.fc1", f"{ours}/up", (width,), (4 * width,), layers),
        *linear(f"{theirs}.fc2", f"{ours}/down", (4 * width,), (width,), layers),
    ]


def infer_model(shapes: Mapping[str, Shape], source: str, heads: int | None = None) -> ModelConfig:
    """The sizes of the model from the tensors of a checkpoint.

    More than one mask token means MRAR: one for each token of an image. No tensor shows the number of heads, and a
    wrong number changes every output without changing a shape. It is therefore given, or that of the published model of
    this width, and never guessed.

    Args:
        shapes: of the release's tensors, by name.
        source: name of the checkpoint in errors.
        heads: needed for a width that is not published; overrides a published one.

    Raises:
        UserError: the checkpoint is not of TransDiff, its sizes contradict each other, or the number of heads is
            unknown.
    """
    classes, width = _shape(shapes, "class_emb.weight", 2, source)
    _, positions, _ = _shape(shapes, "encoder_pos_embed_learned", 3, source)
    _, semantic, _ = _shape(shapes, "diffusion_pos_embed_learned", 3, source)
    _, masks, _ = _shape(shapes, "mask_token", 3, source)
    _, latent, _ = _shape(shapes, f"{_DECODER}.diffusion_pos_embed_learned", 3, source)
    _, channels = _shape(shapes, f"{_DECODER}.input_proj.weight", 2, source)
    _, inputs = _shape(shapes, "z_proj.weight", 2, source)
    tokens = masks if masks > 1 else semantic
    _require(semantic % tokens == 0, source, f"{masks} mask tokens do not divide {semantic} semantic tokens")
    _require(inputs % channels == 0, source, f"z_proj has {inputs} inputs for patches of {channels} channels")
    config = ModelConfig(
        width=width,
        heads=_heads(width, heads, source),
        encoder_blocks=count(shapes, r"encoder_blocks\.(\d+)\."),
        decoder_blocks=count(shapes, rf"{re.escape(_DECODER)}\.res_blocks\.(\d+)\."),
        num_classes=classes,
        class_tokens=positions - semantic,
        num_images=semantic // tokens,
        tokens_per_image=tokens,
        mask_tokens=masks,
        reference_patch=_side(inputs // channels, "latent positions of a reference token", source),
        latent_size=_side(latent, "latent positions", source),
        latent_channels=channels,
    )
    _require(config.encoder_blocks > 0 and config.decoder_blocks > 0, source, "it has no Transformer blocks")
    return config


def _shape(shapes: Mapping[str, Shape], name: str, rank: int, source: str) -> Shape:
    if name not in shapes:
        raise UserError(f"{source} is not a TransDiff checkpoint: it has no tensor {name}; check --kind")
    shape = tuple(shapes[name])
    _require(len(shape) == rank, source, f"{name} of shape {shape} must have {rank} axes")
    return shape


def _side(area: int, what: str, source: str) -> int:
    side = math.isqrt(area)
    _require(side**2 == area, source, f"{area} {what} are not a square")
    return side


def _heads(width: int, heads: int | None, source: str) -> int:
    heads = published_heads(width) if heads is None else heads
    if heads is None:
        raise UserError(
            f"{source} has width {width}, which is not a published size, and tensors do not show the number of "
            "attention heads: give it with --heads"
        )
    _require(heads > 0 and width % heads == 0, source, f"--heads={heads} must divide the width {width}")
    return heads


def _require(condition: bool, source: str, message: str) -> None:
    if not condition:
        raise UserError(f"{source}: {message}")
