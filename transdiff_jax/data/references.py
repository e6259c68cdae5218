"""MRAR groups: which images of a class are read together as one sequence."""

import numpy as np

from transdiff_jax.errors import UserError


class ReferenceGroups:
    """Random groups of one class without repeats inside a group.

    Every record ends one group an epoch (the last image of a sequence is the one that refers to all others); the
    images before it are drawn anew each time.
    """

    def __init__(self, labels: np.ndarray, num_images: int) -> None:
        self._labels = labels
        self._num_images = num_images
        self._members = {label: np.flatnonzero(labels == label) for label in np.unique(labels)}
        for label, members in self._members.items():
            if len(members) < num_images:
                raise UserError(
                    f"class {label} has {len(members)} image(s), but config.model.num_images={num_images} needs as "
                    "many of one class; use a larger split or fewer images"
                )

    def group(self, index: int, generator: np.random.Generator) -> np.ndarray:
        """Record indices [num_images] of the group that ends with record `index`."""
        members = self._members[self._labels[index]]
        others = members[members != index]
        return np.append(generator.choice(others, self._num_images - 1, replace=False), index)
