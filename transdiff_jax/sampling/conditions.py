"""The conditions of samples, each part computed once: a class for all its samples, an image for all later ones.

The class tokens and the first group of a sequence depend on the class alone. So the encoder sees each distinct class of
a batch once (in chunks of a few classes), however many rows have it, and the null class once. MRAR then extends each
row's sequence by one group an image, through the encoder's cache. The decoder's keys and values are made once for each
group.

Deduplication happens inside the jitted program, separately for the rows of each device: sampling stays a function of
its arguments, no table has to follow the parameters, and no row leaves its device. Published sets are in class order,
so a batch holds few classes; if all rows differ, each is encoded once, as it would be without deduplication. The
decoder's keys and values are made for each row from its class's features: the rows attend to them, so sharing would
save 0.1 % of a sample's FLOPs and no memory. Those of the null class are made once, and copied for each row.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, Shaped

from transdiff_jax.flow.guidance import interleave
from transdiff_jax.model.encoder import Prefix
from transdiff_jax.model.params import Params, applied
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.nn.attention import KeysValues, append_tokens
from transdiff_jax.parallel import axes
from transdiff_jax.sampling.fusion import Labels, Splice, check_splice, splice_features

Tree = TypeVar("Tree")  # of arrays

NULL = -1  # stands for the null class among labels
CHUNKS = 8  # about as many encode a run of rows that all differ


class Conditions(NamedTuple):
    """The conditions of the next image of b samples; keys and values are [blocks, rows, tokens, heads, head_dim].

    A sample has one sequence for each class that the encoder must see: its own or the two that are fused, and the null
    class if the sample is guided. All its sequences have the same earlier images.
    """

    conditional: KeysValues  # b rows
    unconditional: KeysValues | None  # b rows, or for the first image one for each run of rows; None unguided
    cache: KeysValues | None  # the semantic encoder's; a sample's sequences are adjacent; None with one image
    splice: Splice | None  # of later images only; None without fused classes

    def pairs(self) -> KeysValues:
        """Keys and values for guided images: 2b rows, interleaved (conditional, unconditional).

        Raises:
            ValueError: the conditions were made unguided.
        """
        if self.unconditional is None:
            raise ValueError("conditions without the null class have no guided pair: make them with guided=True")
        batch = self.conditional.key.shape[1]
        rows = jax.tree.map(lambda leaf: _spread(leaf, batch, 1), self.unconditional)
        return jax.tree.map(jax.vmap(interleave), self.conditional, rows)


def first_conditions(
    model: TransDiff, params: Params, labels: Labels, splice: Splice | None, *, guided: bool
) -> Conditions:
    """Conditions of the first image.

    Args:
        model: both networks.
        params: their parameters.
        labels: a class, or two to fuse, for each sample.
        splice: for fused classes, over all images; None otherwise.
        guided: whether any image of the sequence is guided.

    Raises:
        ValueError: the shapes of labels and splice do not fit each other and the model.
    """
    batch, condition = len(labels), applied(model, params, TransDiff.condition)
    check_splice(model, labels, splice)

    def encode(classes: Int[Array, " n"]) -> Prefix:
        classes, split = axes.gather_inside(classes, params)
        prefix = applied(model, split, TransDiff.start)(jnp.maximum(classes, 0), classes == NULL)
        return prefix._replace(cache=_swap_rows(prefix.cache))

    own, null = encode_distinct(encode, labels.reshape(labels.size), with_null=guided)
    sequences = jax.tree.map(lambda leaf: leaf.reshape(batch, labels.size // batch, *leaf.shape[1:]), own)
    features, later = splice_features(sequences.features, splice)
    if null is None:
        return Conditions(condition(features), None, _swap_rows(own.cache), later)
    cache = jax.tree.map(lambda ours, shared: _append_null(ours, shared), sequences.cache, null.cache)
    return Conditions(condition(features), condition(null.features), _swap_rows(cache), later)


def next_conditions(
    model: TransDiff, params: Params, conditions: Conditions, image: Float[Array, "b h w c"]
) -> Conditions:
    """Conditions of the image after `image`, a latent; raises like `SemanticEncoder.extend`."""
    batch, condition = len(image), applied(model, params, TransDiff.condition)
    count = (1 if conditions.splice is None else 2) + (conditions.unconditional is not None)
    prefix = applied(model, params, TransDiff.extend)(_spread(image, batch * count, 0), conditions.cache)
    sequences = prefix.features.reshape(batch, count, *prefix.features.shape[1:])
    features, later = splice_features(sequences, conditions.splice)
    conditional = append_tokens(conditions.conditional, condition(features))
    if conditions.unconditional is None:
        return Conditions(conditional, None, prefix.cache, later)
    shared = jax.tree.map(lambda leaf: _spread(leaf, batch, 1), conditions.unconditional)
    unconditional = append_tokens(shared, condition(sequences[:, -1]))
    return Conditions(conditional, unconditional, prefix.cache, later)


def encode_distinct(
    encode: Callable[[Int[Array, " n"]], Tree], labels: Int[Array | np.ndarray, " b"], *, with_null: bool
) -> tuple[Tree, Tree | None]:
    """`encode` of every row's class, computed once for each distinct class of a run of rows.

    The runs are those into which the mesh splits a batch while this function is traced over it. They share nothing, so
    a sharded batch stays in place.

    Args:
        encode: from n classes, which may include NULL, to a tree of arrays with n rows.
        labels: the class of each row.
        with_null: encode the null class too.

    Returns:
        A tree with b rows, and one with a row of the null class for each run, or None.
    """
    runs = axes.row_shards()
    rows = len(labels) // runs
    chunk = _chunk(rows)
    groups = labels.reshape(runs, rows)
    if with_null:
        groups = jnp.concatenate([jnp.full((runs, 1), NULL, labels.dtype), groups], axis=1)
    slots = -(-groups.shape[1] // chunk) * chunk  # the distinct classes of a run, filled up to whole chunks
    distinct, slot = jax.vmap(lambda group: jnp.unique(group, size=slots, return_inverse=True))(groups)
    table = _encode_chunks(encode, distinct, slot.max() + 1, chunk)
    # The classes are sorted, so the null class is the first.
    own, null = slot[:, int(with_null) :], jax.tree.map(lambda leaf: leaf[:, 0], table) if with_null else None

    def gather(leaf: Shaped[Array, "runs slots ..."]) -> Shaped[Array, "b ..."]:
        return jax.vmap(lambda entries, index: entries[index])(leaf, own).reshape(len(labels), *leaf.shape[2:])

    return jax.tree.map(gather, table), null


def classes_encoded(labels: Int[np.ndarray, " b"], runs: int, *, with_null: bool) -> int:
    """How many classes `encode_distinct` encodes for a batch of so many runs, in whole chunks; for FLOP counts."""
    groups = np.reshape(labels, (runs, len(labels) // runs))
    chunk = _chunk(groups.shape[1])
    most = max(len(np.unique(group)) for group in groups) + with_null
    return runs * chunk * -(-most // chunk)


def _chunk(rows: int) -> int:
    """Classes of one run that are encoded at once."""
    return max(1, rows // CHUNKS)


def _encode_chunks(
    encode: Callable[[Int[Array, " n"]], Tree], classes: Int[Array, "runs slots"], count: Int[Array, ""], chunk: int
) -> Tree:
    """`encode` of the first `count` classes of each run, `chunk` at a time -> a tree of [runs, slots, ...]."""
    runs, slots = classes.shape

    def empty(leaf: jax.ShapeDtypeStruct) -> Shaped[Array, "runs slots ..."]:
        return jnp.zeros((runs, slots, *leaf.shape[1:]), leaf.dtype)

    def step(state: tuple[Int[Array, ""], Tree]) -> tuple[Int[Array, ""], Tree]:
        start, table = state
        made = encode(jax.lax.dynamic_slice_in_dim(classes, start, chunk, axis=1).reshape(runs * chunk))

        def write(entries: Shaped[Array, "runs slots ..."], leaf: Shaped[Array, "n ..."]) -> Array:
            new = leaf.reshape(runs, chunk, *leaf.shape[1:])
            return jax.lax.dynamic_update_slice_in_dim(entries, new, start, axis=1)

        return start + chunk, jax.tree.map(write, table, made)

    shapes = jax.eval_shape(encode, jax.ShapeDtypeStruct((runs * chunk,), classes.dtype))
    initial = jnp.zeros((), count.dtype), jax.tree.map(empty, shapes)
    return jax.lax.while_loop(lambda state: state[0] < count, step, initial)[1]


def _swap_rows(cache: KeysValues | None) -> KeysValues | None:
    """[blocks, rows, ...] <-> [rows, blocks, ...]."""
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), cache)


def _spread(leaf: Shaped[Array, "..."], rows: int, axis: int) -> Shaped[Array, "..."]:
    """Repeats each of n entries along an axis rows / n times, next to itself: [..., n, ...] -> [..., rows, ...]."""
    lead, (entries, *rest) = leaf.shape[:axis], leaf.shape[axis:]
    wide = jnp.broadcast_to(jnp.expand_dims(leaf, axis + 1), (*lead, entries, rows // entries, *rest))
    return wide.reshape(*lead, rows, *rest)


def _append_null(own: Shaped[Array, "b classes ..."], null: Shaped[Array, "runs ..."]) -> Shaped[Array, "rows ..."]:
    """Puts the null class after the classes of each sample: b * (classes + 1) rows."""
    batch, classes, *rest = own.shape
    rows = jnp.concatenate([own, _spread(null, batch, 0)[:, None]], axis=1)
    return rows.reshape(batch * (classes + 1), *rest)
