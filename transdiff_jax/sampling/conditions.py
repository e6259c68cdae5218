"""What samples are conditioned on, each part computed once: a class for all its samples, an image for all later ones.

The class tokens and the first group of a sequence depend on the class alone. A batch is encoded one distinct class
at a time (chunks of a few), however many of its rows have it, and the null class once; MRAR then extends each row's
sequence by one group an image, through the encoder's cache. Decoder keys and values are made once for each group.

Deduplication happens inside the jitted program and inside each shard of the batch: sampling stays a function of its
arguments, with no table to keep in step with the parameters, and no row leaves its device. Published sets come in
class order, so that a batch holds few classes; where all differ, the loop encodes each row once, as it would without.
Keys and values of the decoder are made for each row from its class's features: they are what the rows attend to, so
sharing them would save 0.1 % of a sample's FLOPs and no memory. Those of the null class are shared.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transdiff_jax.model.encoder import Prefix
from transdiff_jax.model.params import Params
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.nn.attention import GuidedPair, KeysValues, append_tokens
from transdiff_jax.parallel import axes
from transdiff_jax.sampling.fusion import check_splice, splice_features

Array = jax.Array

NULL = -1  # stands for the null class among labels
CHUNKS_PER_SHARD = 8  # a shard whose rows all differ is encoded in about so many chunks


class Conditions(NamedTuple):
    """The conditions of the next image of b samples; keys and values are [blocks, rows, tokens, heads, head_dim].

    A sample has as many sequences as its encoder must see classes: its own, or the two that are fused, and the null
    class where it is guided. All refer to the same images.
    """

    conditional: KeysValues  # b rows
    unconditional: KeysValues | None  # b rows, or one for each shard while there are no earlier images; None unguided
    cache: KeysValues | None  # of the semantic encoder, those of a sample's sequences together; None with one image
    splice: Array | None  # bool [b, later semantic tokens]: which take the second class's feature; None of one class

    def pair(self) -> GuidedPair:
        """What the decoder attends to for a guided image."""
        return GuidedPair(self.conditional, self.unconditional)


def first_conditions(
    model: TransDiff, params: Params, labels: Array, splice: Array | None, *, guided: bool
) -> Conditions:
    """Conditions of the first image.

    Args:
        labels: classes [b], or [b, 2] where two are fused.
        splice: for two classes: which semantic tokens of all images take the second one's feature, bool [b, tokens].
        guided: whether any image of the sequence is.

    Raises:
        ValueError: labels and splice are not of shapes that fit each other and the model.
    """
    variables, batch = {"params": params}, len(labels)
    check_splice(model, labels, splice)

    def encode(classes: Array) -> Prefix:
        classes, split = axes.gather_inside(classes, params)
        prefix = model.apply({"params": split}, jnp.maximum(classes, 0), classes == NULL, method=TransDiff.start)
        return prefix._replace(cache=_swap_rows(prefix.cache))

    own, null = encode_distinct(encode, labels.reshape(labels.size), with_null=guided)
    sequences = jax.tree.map(lambda leaf: leaf.reshape(batch, labels.size // batch, *leaf.shape[1:]), own)
    features, later = splice_features(sequences.features, splice)
    conditional = model.apply(variables, features, method=TransDiff.condition)
    if null is None:
        return Conditions(conditional, None, _swap_rows(own.cache), later)
    unconditional = model.apply(variables, null.features, method=TransDiff.condition)
    cache = jax.tree.map(lambda ours, shared: _append_null(ours, shared), sequences.cache, null.cache)
    return Conditions(conditional, unconditional, _swap_rows(cache), later)


def next_conditions(model: TransDiff, params: Params, conditions: Conditions, image: Array) -> Conditions:
    """Conditions of the image after `image`, a latent [b, h, w, channels]."""
    variables, batch = {"params": params}, len(image)
    count = (1 if conditions.splice is None else 2) + (conditions.unconditional is not None)
    prefix = model.apply(variables, _spread(image, batch * count, 0), conditions.cache, method=TransDiff.extend)
    sequences = prefix.features.reshape(batch, count, *prefix.features.shape[1:])
    features, later = splice_features(sequences, conditions.splice)
    conditional = append_tokens(conditions.conditional, model.apply(variables, features, method=TransDiff.condition))
    if conditions.unconditional is None:
        return Conditions(conditional, None, prefix.cache, later)
    shared = jax.tree.map(lambda leaf: _spread(leaf, batch, 1), conditions.unconditional)
    unconditional = append_tokens(shared, model.apply(variables, sequences[:, -1], method=TransDiff.condition))
    return Conditions(conditional, unconditional, prefix.cache, later)


def encode_distinct(encode: Callable[[Array], Any], labels: Array, *, with_null: bool) -> tuple[Any, Any | None]:
    """`encode` of every row's class, computed once for each distinct class of a shard.

    Shards are the equal runs of rows of the mesh that the function is traced over. They share nothing, so that a
    sharded batch stays where it is.

    Args:
        encode: classes [n], NULL among them, to a tree of arrays [n, ...].
        labels: classes [b].
        with_null: encode the null class too.

    Returns:
        A tree of [b, ...], and one of [shards, ...] for the null class, or None.
    """
    shards = axes.row_shards()
    rows = len(labels) // shards
    chunk = _chunk(rows)
    groups = labels.reshape(shards, rows)
    if with_null:
        groups = jnp.concatenate([jnp.full((shards, 1), NULL, labels.dtype), groups], axis=1)
    slots = -(-groups.shape[1] // chunk) * chunk
    distinct, slot = jax.vmap(lambda group: jnp.unique(group, size=slots, return_inverse=True))(groups)
    table = _encode_chunks(encode, distinct, slot.max() + 1, chunk)
    # Sorted, so that the null class is the first.
    own, null = slot[:, int(with_null) :], jax.tree.map(lambda leaf: leaf[:, 0], table) if with_null else None

    def gather(leaf: Array) -> Array:
        return jax.vmap(lambda entries, index: entries[index])(leaf, own).reshape(len(labels), *leaf.shape[2:])

    return jax.tree.map(gather, table), null


def classes_encoded(labels: np.ndarray, shards: int, *, with_null: bool) -> int:
    """How many classes `encode_distinct` encodes for a batch, over all shards: whole chunks, for FLOP counts."""
    groups = np.reshape(labels, (shards, len(labels) // shards))
    chunk = _chunk(groups.shape[1])
    most = max(len(np.unique(group)) for group in groups) + with_null
    return shards * chunk * -(-most // chunk)


def _chunk(rows: int) -> int:
    """Classes of one shard that are encoded at once."""
    return max(1, rows // CHUNKS_PER_SHARD)


def _encode_chunks(encode: Callable[[Array], Any], classes: Array, count: Array, chunk: int) -> Any:
    """`encode` of the first `count` of classes [shards, slots], `chunk` at a time -> tree of [shards, slots, ...]."""
    shards, slots = classes.shape

    def empty(leaf: jax.ShapeDtypeStruct) -> Array:
        return jnp.zeros((shards, slots, *leaf.shape[1:]), leaf.dtype)

    def step(state: tuple[Array, Any]) -> tuple[Array, Any]:
        start, table = state
        made = encode(jax.lax.dynamic_slice_in_dim(classes, start, chunk, axis=1).reshape(shards * chunk))

        def write(entries: Array, leaf: Array) -> Array:
            new = leaf.reshape(shards, chunk, *leaf.shape[1:])
            return jax.lax.dynamic_update_slice_in_dim(entries, new, start, axis=1)

        return start + chunk, jax.tree.map(write, table, made)

    shapes = jax.eval_shape(encode, jax.ShapeDtypeStruct((shards * chunk,), classes.dtype))
    initial = jnp.zeros((), count.dtype), jax.tree.map(empty, shapes)
    return jax.lax.while_loop(lambda state: state[0] < count, step, initial)[1]


def _swap_rows(cache: KeysValues | None) -> KeysValues | None:
    """[blocks, rows, ...] <-> [rows, blocks, ...]."""
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), cache)


def _spread(leaf: Array, rows: int, axis: int) -> Array:
    """Repeats each of n entries along an axis rows / n times, in place: [..., n, ...] -> [..., rows, ...]."""
    lead, (entries, *rest) = leaf.shape[:axis], leaf.shape[axis:]
    wide = jnp.broadcast_to(jnp.expand_dims(leaf, axis + 1), (*lead, entries, rows // entries, *rest))
    return wide.reshape(*lead, rows, *rest)


def _append_null(own: Array, null: Array) -> Array:
    """[b, classes, ...] and one row a shard [shards, ...] -> [b * (classes + 1), ...], the null class last of each."""
    batch, classes, *rest = own.shape
    rows = jnp.concatenate([own, _spread(null, batch, 0)[:, None]], axis=1)
    return rows.reshape(batch * (classes + 1), *rest)
