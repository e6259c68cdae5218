"""Fine-tuning on other classes: which class vectors are taken from the other run, and where the others start."""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np
from absl import logging

from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.errors import UserError
from transdiff_jax.model.params import Params

_SHOWN = 8  # names in a line of the log


def with_classes(
    weights: Weights, names: Sequence[str], classes: Literal["same", "fresh", "by_name"], origin: str
) -> Params:
    """The parameters of another run, with a class vector for each class of the data.

    The null class is taken as it is. A class that starts anew gets the mean of all class vectors of the other run.

    Args:
        weights: of the other run.
        names: of the data's classes, in their order.
        classes: "same" keeps all vectors by their place, "fresh" takes none, "by_name" takes those of the same name.
        origin: where the weights come from, for messages.

    Raises:
        UserError: names are asked for, and the other run has none.
    """
    if classes == "same":
        _warn_of_other_names(weights.class_names, names)
        return weights.params
    if classes == "by_name" and not weights.class_names:
        raise UserError(
            f'config.train.classes="by_name": {origin} has no class names; choose "fresh", or "same" if its classes '
            "are in the same order"
        )
    places = match_names(weights.class_names, names) if classes == "by_name" else [None] * len(names)
    _log(places, weights.class_names, names)
    table = weights.params["encoder"]["class_embedding"]
    taken = np.array([place is not None for place in places])
    indices = np.array([place or 0 for place in places])
    vectors = jnp.where(taken[:, None], table[indices], jnp.mean(table, axis=0))
    return weights.params | {"encoder": weights.params["encoder"] | {"class_embedding": vectors}}


def match_names(known: Sequence[str], names: Sequence[str]) -> list[int | None]:
    """The place of each name among the known ones, None where there is no such name or more than one.

    Case does not count, and an underscore is a space. A known name may be a list of synonyms, such as ImageNet's
    "tench, Tinca tinca": the whole list matches, and each of them.
    """
    whole, parts = _places([[name] for name in known]), _places([name.split(",") for name in known])
    found = [whole.get(_plain(name)) or parts.get(_plain(name), []) for name in names]
    return [places[0] if len(places) == 1 else None for places in found]


def _places(spellings: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, names in enumerate(spellings):
        for name in {_plain(name) for name in names}:
            places.setdefault(name, []).append(place)
    return places


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _log(places: Sequence[int | None], known: Sequence[str], names: Sequence[str]) -> None:
    taken = [f"{names[i]} ({known[place]})" for i, place in enumerate(places) if place is not None]
    fresh = [name for name, place in zip(names, places, strict=True) if place is None]
    if taken:
        logging.info("fine-tuning: %d of %d class vectors are taken by name: %s", len(taken), len(names), _few(taken))
    if fresh:
        logging.info(
            "fine-tuning: %d of %d class vectors start at the mean of all: %s", len(fresh), len(names), _few(fresh)
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _warn_of_other_names(known: Sequence[str], names: Sequence[str]) -> None:
    others = [pair for pair in zip(known, names, strict=False) if _plain(pair[0]) != _plain(pair[1])]
    if others and len(known) == len(names):
        logging.warning(
            'fine-tuning: config.train.classes="same" keeps class vectors by their place, but %d of %d classes have '
            'other names, such as %s in place of %s; "by_name" and "fresh" start others anew',
            *(len(others), len(names), others[0][1], others[0][0]),
        )
