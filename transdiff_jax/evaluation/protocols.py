"""Protocols: the settings that two scores must share before they may be compared."""

import collections
import dataclasses

from transdiff_jax.evaluation.metrics import KERNEL_SUBSET_SIZE, KERNEL_SUBSETS, NEIGHBOURS, SEED, SPLITS


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Settings of the scores, and requirements on the samples."""

    name: str
    num_samples: int  # of published scores
    per_class: int | None  # samples of each class; None: any number
    splits: int  # of the Inception Score; used if split_size is None
    split_size: int | None  # images in each split
    shuffle_seed: int | None  # None: the set is split in its own order
    neighbours: int = NEIGHBOURS  # precision and recall
    kernel_subsets: int = KERNEL_SUBSETS  # KID
    kernel_subset_size: int = KERNEL_SUBSET_SIZE


# docs/convert.md says where these come from and how they differ from the original programs.
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("transdiff", 50_000, 50, splits=SPLITS, split_size=None, shuffle_seed=SEED),
        Protocol("adm", 50_000, None, splits=SPLITS, split_size=5000, shuffle_seed=None),
    )
}


def unmet_requirements(protocol: Protocol, count: int, labels: list[int] | None, num_classes: int | None) -> list[str]:
    """Requirements of a protocol that a set of samples does not meet, one sentence each.

    Args:
        protocol: the protocol.
        count: number of samples.
        labels: their classes in order; None if unknown.
        num_classes: classes of the model; None if unknown.
    """
    unmet = []
    if count != protocol.num_samples:
        unmet.append(
            f"{count} samples, not the {protocol.num_samples} of published scores: scores of sets of different sizes "
            "cannot be compared"
        )
    if protocol.per_class is not None:
        unmet += _unbalanced(protocol.per_class, labels, num_classes)
    if protocol.shuffle_seed is None and labels is not None and len(set(labels)) > 1 and labels == sorted(labels):
        unmet.append(
            "samples are in the order of their classes, and this protocol does not shuffle: each split of the "
            "Inception Score holds only some of the classes, which makes the score too low"
        )
    return unmet


def _unbalanced(per_class: int, labels: list[int] | None, num_classes: int | None) -> list[str]:
    if labels is None:
        return [f"the classes of the samples are not known: it cannot be checked that there are {per_class} of each"]
    counts = collections.Counter(labels).values()
    unmet = []
    if num_classes is not None and len(counts) < num_classes:
        unmet.append(f"samples of only {len(counts)} of the {num_classes} classes")
    if set(counts) != {per_class}:
        shown = str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        unmet.append(f"{shown} samples of each class, not {per_class}")
    return unmet
