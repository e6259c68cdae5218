"""ImageNet's 1,000 classes in the usual order, which is that of their wnids, the names of their folders."""

import functools
from collections.abc import Iterable, Sequence


@functools.cache
def wnids() -> tuple[str, ...]:
    """WordNet ids such as "n01440764", by class index."""
    from tensorflow_datasets.core import tfds_path  # it takes seconds to load

    return tuple(tfds_path("datasets/imagenet2012/labels.txt").read_text().split())


def are_wnids(folders: Iterable[str]) -> bool:
    """Whether all names are of ImageNet's classes."""
    return set(wnids()) >= set(folders)


def readable_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """The same names, or words ("tench, Tinca tinca") if they are all of ImageNet's wnids."""
    names = tuple(class_names)
    if names != wnids():
        return names
    from tensorflow_datasets.datasets.siscore.labels import IMAGENET_LABELS_LIST

    return tuple(IMAGENET_LABELS_LIST)
