"""Named ways of making scores: what must be alike before two numbers may stand side by side."""

import collections
import dataclasses

from transdiff_jax.evaluation.metrics import KERNEL_SUBSET_SIZE, KERNEL_SUBSETS, NEIGHBOURS, SEED, SPLITS


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Settings of the scores, and what a set of samples must be to be scored so."""

    name: str
    num_samples: int  # that published scores have
    per_class: int | None  # samples of each class; None: not asked for
    splits: int  # of the Inception Score, where split_size is None
    split_size: int | None  # images in each split
    shuffle_seed: int | None  # None: splits are runs of the set in its own order
    neighbours: int = NEIGHBOURS  # precision and recall
    kernel_subsets: int = KERNEL_SUBSETS  # KID
    kernel_subset_size: int = KERNEL_SUBSET_SIZE


# docs/parity.md says where these come from, and what is not the same as the original programs.
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("transdiff", 50_000, 50, splits=SPLITS, split_size=None, shuffle_seed=SEED),
        Protocol("adm", 50_000, None, splits=SPLITS, split_size=5000, shuffle_seed=None),
    )
}


def unmet_requirements(protocol: Protocol, count: int, labels: list[int] | None, num_classes: int | None) -> list[str]:
    """How a set of samples is not what a protocol asks for, one sentence each.

    Args:
        protocol: which.
        count: samples.
        labels: their classes in order, or None where they are not known.
        num_classes: of the model, or None where it is not known.
    """
    unmet = []
    if count != protocol.num_samples:
        unmet.append(
            f"{count} samples, not the {protocol.num_samples} of published scores: scores of sets of different size do "
            "not compare"
        )
    if protocol.per_class is not None:
        unmet += _unbalanced(protocol.per_class, labels, num_classes)
    if protocol.shuffle_seed is None and labels is not None and len(set(labels)) > 1 and labels == sorted(labels):
        unmet.append(
            "samples lie in the order of their classes, and this protocol does not shuffle: each split of the "
            "Inception Score holds a part of the classes only, which makes the score too low"
        )
    return unmet


def _unbalanced(per_class: int, labels: list[int] | None, num_classes: int | None) -> list[str]:
    if labels is None:
        return [f"the classes of the samples are not known: whether there are {per_class} of each cannot be checked"]
    counts = collections.Counter(labels).values()
    unmet = []
    if num_classes is not None and len(counts) < num_classes:
        unmet.append(f"samples of {len(counts)} of the {num_classes} classes only")
    if set(counts) != {per_class}:
        shown = str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        unmet.append(f"{shown} samples of each class, not {per_class}")
    return unmet
