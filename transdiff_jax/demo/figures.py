"""Pictures of a report: loss curves, sample grids with titles."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from transdiff_jax.storage.files import atomic_path

DPI = 120


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def save_loss_curves(path: Path, curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
    """One panel a run, side by side: flow-matching loss over training steps."""
    figure = Figure(figsize=(5 * len(curves), 3.5), layout="constrained")
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for axis, (title, (steps, losses)) in zip(axes, curves.items(), strict=True):
        axis.plot(steps, losses)
        axis.set(title=title, xlabel="step", ylabel="flow-matching loss", yscale="log")
        axis.grid(visible=True, which="both", alpha=0.3)
    _save(figure, path)


def save_panels(path: Path, panels: Mapping[str, np.ndarray], row_names: Sequence[str]) -> None:
    """Pictures uint8 [height, width, channels] of equal height with a title each; rows are named on the left."""
    aspect = sum(picture.shape[1] / picture.shape[0] for picture in panels.values())
    figure = Figure(figsize=(5 * aspect + 0.5, 5.5), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, picture) in zip(axes, panels.items(), strict=True):
        axis.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, fontsize=9)
        axis.set_frame_on(False)
    centres = (np.arange(len(row_names)) + 0.5) * next(iter(panels.values())).shape[0] / len(row_names)
    axes[0].set_yticks(centres, row_names)
    axes[0].tick_params(length=0)
    _save(figure, path)
