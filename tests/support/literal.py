"""The networks (paper, section 3) in float64 NumPy, with plain loops over heads, rows and blocks, for comparison."""

import math

import numpy as np


def to_numpy(tree):
    if isinstance(tree, dict):
        return {name: to_numpy(value) for name, value in tree.items()}
    return np.asarray(tree, np.float64)


def layer(tree, index):
    """One layer of a stacked tree."""
    return {name: layer(value, index) if isinstance(value, dict) else value[index] for name, value in tree.items()}


def linear(p, x):
    kernel, bias = p["kernel"], p["bias"]
    out = x @ kernel.reshape(x.shape[-1], -1) + bias.reshape(-1)
    return out.reshape(*x.shape[:-1], *bias.shape)


def norm(p, x):
    mean = x.mean(-1, keepdims=True)
    x = (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-6)
    return x if p is None else x * p["scale"] + p["bias"]


def gelu(x):
    return np.vectorize(lambda value: value * 0.5 * (1 + math.erf(value / math.sqrt(2))))(x)


def silu(x):
    return x / (1 + np.exp(-x))


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def mlp(p, x):
    return linear(p["down"], gelu(linear(p["up"], x)))


def attend(query, key, value, mask=None):
    """[q, heads, head_dim] and [k, heads, head_dim] of one row -> [q, heads * head_dim]."""
    out = []
    for head in range(query.shape[1]):
        logits = query[:, head] @ key[:, head].T * query.shape[2] ** -0.5
        if mask is not None:
            logits = np.where(mask, logits, -np.inf)
        out.append(softmax(logits) @ value[:, head])
    return np.concatenate(out, axis=-1)


def output(p, x):
    return x @ p["kernel"].reshape(x.shape[-1], -1) + p["bias"]


def self_attention(p, x, mask=None):
    query, key, value = np.moveaxis(linear(p["qkv"], x), -3, 0)
    return np.stack([output(p["output"], attend(q, k, v, mask)) for q, k, v in zip(query, key, value, strict=True)])


def cross_attention(p, keys_values, x, condition):
    query, key, value = (
        linear(p["query"], x),
        linear(keys_values["key"], condition),
        linear(keys_values["value"], condition),
    )
    return np.stack([output(p["output"], attend(q, k, v)) for q, k, v in zip(query, key, value, strict=True)])


def patches(latent, side):
    """[h, w, c] -> [tokens, c * side**2]: tokens row-major; channel, then row, then column of a patch."""
    height, width, channels = latent.shape
    return np.array(
        [
            [latent[i + p, j + q, c] for c in range(channels) for p in range(side) for q in range(side)]
            for i in range(0, height, side)
            for j in range(0, width, side)
        ]
    )


def encode(p, config, labels, null, references=()):
    """The encoder (sections 3.1, 3.3): features and encoded of one more group than earlier images [b, h, w, c]."""
    rows, groups = len(labels), 1 + len(references)
    vector = [
        p["null_class"] if drop else p["class_embedding"][label] for label, drop in zip(labels, null, strict=True)
    ]
    tokens, width = config.tokens_per_image, config.width
    parts = [np.repeat(np.array(vector)[:, None], config.class_tokens, axis=1)]
    parts.append(np.broadcast_to(p["mask_embedding"], (rows, tokens, width)))
    for latents in references:
        parts.append(linear(p["reference_projection"], np.stack([patches(x, config.reference_patch) for x in latents])))
    x = np.concatenate(parts, axis=1)
    group = [0] * config.class_tokens + [1 + k for k in range(groups) for _ in range(tokens)]
    mask = None if config.num_images == 1 else np.array([[there <= here for there in group] for here in group])
    x = norm(p["input_norm"], x + p["position_embedding"][: x.shape[1]])
    for index in range(config.encoder_blocks):
        block = layer(p["blocks"], index)
        x = x + self_attention(block["attention"], norm(block["attention_norm"], x), mask)
        x = x + mlp(block["mlp"], norm(block["mlp_norm"], x))
    encoded = norm(p["output_norm"], x)[:, config.class_tokens :]
    return encoded + p["output_position_embedding"][: groups * tokens], encoded


def time_features(t):
    frequencies = [10000 ** (-i / 128) for i in range(128)]
    return np.array([np.cos(t * f) for f in frequencies] + [np.sin(t * f) for f in frequencies])


def velocity(p, config, x, timesteps, features):
    """The decoder (section 3.2) for one input [tokens, channels] in each row of features."""
    x = linear(p["input_projection"], x) + p["position_embedding"]
    raw = np.stack([time_features(t) for t in timesteps])
    embedding = linear(p["time_embedding"]["down"], silu(linear(p["time_embedding"]["up"], raw)))
    shared = linear(p["time_embedding"]["modulation"], silu(embedding))
    condition = linear(p["condition_projection"], features)
    for index in range(config.decoder_blocks):
        block = layer(p["blocks"], index)
        modulation = shared + block["modulation"]
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation[:, i][:, None] for i in range(6))
        normed = norm(block["attention_norm"], x) * (1 + scale1) + shift1
        x = x + gate1 * self_attention(block["attention"], normed)
        normed = norm(block["cross_norm"], x)
        x = x + cross_attention(block["cross_attention"], layer(p["keys_values"], index), normed, condition)
        normed = norm(block["mlp_norm"], x) * (1 + scale2) + shift2
        x = x + gate2 * mlp(block["mlp"], normed)
    table = p["output_modulation"] + embedding[:, None]
    return linear(p["output_projection"], norm(None, x) * (1 + table[:, 1:]) + table[:, :1])
