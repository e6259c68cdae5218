"""Pictures of a report: loss curves, and sample grids with titles."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from transdiff_jax.data.sources.digits import require_demo
from transdiff_jax.storage.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120


def _row_of_axes(count: int, size: tuple[float, float]) -> "tuple[Figure, list[Axes]]":
    """A figure of some size in inches, and as many axes side by side."""
    require_demo("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _save(figure: "Figure", path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def save_loss_curves(path: Path, curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
    """Draws the flow-matching loss over training steps, one panel per run, side by side.

    Raises:
        UserError: matplotlib is not installed.
    """
    figure, axes = _row_of_axes(len(curves), (5 * len(curves), 3.5))
    for axis, (title, (steps, losses)) in zip(axes, curves.items(), strict=True):
        axis.plot(steps, losses)
        axis.set(title=title, xlabel="step", ylabel="flow-matching loss", yscale="log")
        axis.grid(visible=True, which="both", alpha=0.3)
    _save(figure, path)


def save_panels(
    path: Path, panels: Mapping[str, UInt8[np.ndarray, "height width channels"]], row_names: Sequence[str]
) -> None:
    """Draws pictures of equal height side by side, each below its title. Their rows are named on the left.

    Raises:
        UserError: matplotlib is not installed.
    """
    aspect = sum(picture.shape[1] / picture.shape[0] for picture in panels.values())
    figure, axes = _row_of_axes(len(panels), (5 * aspect + 0.5, 5.5))
    for axis, (title, picture) in zip(axes, panels.items(), strict=True):
        axis.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, fontsize=9)
        axis.set_frame_on(False)
    centres = (np.arange(len(row_names)) + 0.5) * next(iter(panels.values())).shape[0] / len(row_names)
    axes[0].set_yticks(centres, row_names)
    axes[0].tick_params(length=0)
    _save(figure, path)
