"""How every figure is made and saved: Agg, one set of colours, no plotting state shared between threads."""

from pathlib import Path
from typing import Any

from brainlocus.core.errors import import_extra
from brainlocus.io import atomic_path

__all__ = ["BLUE", "GREY", "ORANGE", "PALETTE", "new_figure", "save_figure"]

BLUE, ORANGE, GREY = "#2b6ca3", "#d1622b", "#8a8a8a"
PALETTE = ("#2b6ca3", "#d1622b", "#4a9a62", "#8b5fa8", "#b8862d", "#3f9ea8", "#c0507c", "#6b7280")


def new_figure(columns: int = 1, rows: int = 1, *, width: float = 5.0, height: float = 3.6) -> tuple[Any, Any]:
    """Return a figure and a rows x columns array of axes, each `width` x `height` inches.

    Raises
    ------
    MissingExtraError
        matplotlib is absent.
    """
    figure_module = import_extra("matplotlib.figure", extra="plot")
    figure = figure_module.Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG; the file does not carry the time or the version of the library."""
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=130, metadata={"Software": None})
