"""Three-plane mosaics of a map with outlines and regions, and histograms: the pictures of reports and quality control.

A map is turned to RAS by swapping and flipping axes, never resampled, and every panel is drawn in millimetres, so that
thick slices keep their height. Panels are cut to what is shown: the regions, else the mask, else voxels that are not 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from brainlocus.core import Mask, Parcellation, Volume, check_same_grid
from brainlocus.core.errors import import_extra
from brainlocus.numerics.cropping import bounding_box
from brainlocus.numerics.orientation import to_ras
from brainlocus.pipeline.figures.canvas import BLUE, GREY, PALETTE, new_figure

__all__ = ["Convention", "Overlay", "histogram", "mosaic"]

Convention = Literal["neurological", "radiological"]
"""Which side of the picture the left of the head is on: neurological left, radiological right."""

_MARGIN_MM = 4.0
_GAP = 0.016
"""Space around panels, where their coordinates stand, in widths of the figure."""
_WIDTH_IN = 11.0
_PLANES = (("axial", 2), ("coronal", 1), ("sagittal", 0))
_MOST_NAMES = 24
_OBLIQUE_DEGREES = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """A statistic drawn over a map: red to yellow above the threshold, blue to light blue below its negative."""

    volume: Volume
    threshold: float
    limit: float
    """Absolute value of the lightest colours."""


def mosaic(
    volume: Volume,
    *,
    window: tuple[float, float] | None = None,
    mask: Mask | Mapping[str, Mask] | None = None,
    labels: Parcellation | None = None,
    n_slices: int = 7,
    title: str = "",
    convention: Convention = "neurological",
    colours: str = "gray",
    overlay: Overlay | None = None,
) -> Any:
    """Return a figure of axial, coronal and sagittal slices at even steps.

    Parameters
    ----------
    volume
        NaN is drawn black, as is all below the window.
    window
        Values drawn black and white, in the map's unit; by default the 2nd and 98th percentile of what is shown.
    mask
        Outlined: one mask, or several by name (with a legend).
    labels
        Regions in colours, named below the slices when there are at most 24.
    n_slices
        Slices of each plane.
    convention
        Side of the picture on which the left of the head is; the figure has the letters L and R.
    colours
        Name of a colour map of matplotlib.
    overlay
        A statistic on the same grid, drawn where it passes its threshold; the colour bar is then its own.

    Raises
    ------
    AlignmentError
        A mask, the labels or the overlay lie on another grid.
    ValueError
        `n_slices` is below 1, or the window is empty.
    MissingExtraError
        matplotlib is absent.
    """
    if n_slices < 1:
        raise ValueError(f"n_slices must be at least 1, got {n_slices}.")
    masks = {"": mask} if isinstance(mask, Mask) else dict(mask or {})
    for name, one in masks.items():
        check_same_grid(one.grid, volume.grid, what=f"Mask {name!r}" if name else "The mask")
    if labels is not None:
        check_same_grid(labels.grid, volume.grid, what="The parcellation")
    if overlay is not None:
        check_same_grid(overlay.volume.grid, volume.grid, what="The overlay")
    data, affine = to_ras(volume.data, volume.affine)
    outlines = {name: to_ras(one.data, one.affine)[0] for name, one in masks.items()}
    regions = None if labels is None else to_ras(labels.labels, labels.affine)[0]
    low, high = _shown(data, outlines, regions, np.asarray(np.linalg.norm(affine[:3, :3], axis=0)))
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    limits = window if window is not None else _percentiles(data[box])
    if not limits[0] < limits[1]:
        raise ValueError(f"The window must have its lower value first, got {limits}.")
    picture = _Picture(data, affine, low, high, limits, outlines, regions, convention)
    return _draw(picture, volume, labels, n_slices, title, colours, overlay)


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """Everything in RAS, and where the cut lies."""

    data: Float[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    low: Int[np.ndarray, "3"]
    high: Int[np.ndarray, "3"]
    limits: tuple[float, float]
    outlines: dict[str, Bool[np.ndarray, "x y z"]]
    regions: Int[np.ndarray, "x y z"] | None
    convention: Convention

    @property
    def size(self) -> Float[np.ndarray, "3"]:
        """Edges of a voxel in mm."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    def cut(self, array: Shaped[np.ndarray, "x y z"], normal: int, at: int) -> Shaped[np.ndarray, "rows columns"]:
        """Return a slice with up up and the left of the head where the convention has it, cropped."""
        window = [slice(a, b) for a, b in zip(self.low, self.high, strict=True)]
        window[normal] = slice(at, at + 1)
        part = np.asarray(np.take(array[tuple(window)], 0, axis=normal).T)
        return part[:, ::-1] if normal != 0 and self.convention == "radiological" else part

    def extent(self, normal: int) -> tuple[float, float]:
        """Return width and height of a panel in mm."""
        across, up = [a for a in range(3) if a != normal]
        lengths = (self.high - self.low) * self.size
        return float(lengths[across]), float(lengths[up])

    def positions(self, normal: int, count: int) -> list[int]:
        """Return slices at the middles of `count` equal parts of the cut."""
        margin = min(np.ceil(_MARGIN_MM / self.size[normal]), (self.high - self.low)[normal] // 2 - 1)
        first, last = self.low[normal] + max(margin, 0), self.high[normal] - max(margin, 0)
        return [int(first + share * (last - first)) for share in (np.arange(count) + 0.5) / count]

    def world_mm(self, normal: int, at: int) -> float:
        """Return the world coordinate of a slice's middle."""
        index = (self.low + self.high - 1) / 2.0
        index[normal] = at
        return float(self.affine[normal, :3] @ index + self.affine[normal, 3])


def _draw(
    picture: _Picture,
    volume: Volume,
    labels: Parcellation | None,
    n_slices: int,
    title: str,
    colours: str,
    overlay: Overlay | None,
) -> Any:
    over = None if overlay is None else to_ras(overlay.volume.data, overlay.volume.affine)[0]
    places = _places(picture, n_slices)
    width = max(x + w for x, _, w, _, _, _ in places)
    height = max(y + h for _, y, _, h, _, _ in places)
    figure_module = import_extra("matplotlib.figure", extra="plot")
    named = [] if labels is None else _named(labels)
    below = 0.18 * -(-len(named) // 6) if len(named) <= _MOST_NAMES else 0.0
    figure = figure_module.Figure(
        figsize=(_WIDTH_IN, (_WIDTH_IN - 1.0) * height / width + 0.5 + below), layout="constrained", facecolor="white"
    )
    axis = figure.subplots()
    axis.set_facecolor("black")
    shown = None
    for x, y, w, h, normal, at in places:
        box = (x, x + w, y, y + h)
        shown = axis.imshow(
            picture.cut(picture.data, normal, at), cmap=_with_black(colours), vmin=picture.limits[0],
            vmax=picture.limits[1], extent=box, origin="lower", interpolation="nearest",
        )  # fmt: skip
        if over is not None and overlay is not None:
            strong = picture.cut(over, normal, at)
            shown = axis.imshow(
                np.ma.masked_where(~(np.abs(strong) >= overlay.threshold), strong), cmap=_hot_and_cold(overlay),
                vmin=-overlay.limit, vmax=overlay.limit, extent=box, origin="lower", interpolation="nearest",
            )  # fmt: skip
        if picture.regions is not None:
            _draw_regions(axis, picture.cut(picture.regions, normal, at), box)
        for k, outline in enumerate(picture.outlines.values()):
            _draw_outline(axis, picture.cut(outline, normal, at), box, PALETTE[(k + 1) % len(PALETTE)])
        _write_place(axis, picture, box, normal, at, gap=_GAP * width)
    axis.set_xlim(0, width)
    axis.set_ylim(0, height)
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    for artist in (*axis.images, *axis.collections, *axis.texts):
        artist.set_in_layout(False)  # all inside the axes: the layout need not measure them
    drawn = volume if overlay is None else overlay.volume
    figure.colorbar(shown, ax=axis, shrink=0.6, pad=0.01, label=_quantity(drawn))
    axis.set_title(_heading(title, volume), fontsize=11, loc="left")
    _write_legend(figure, picture, named)
    return figure


def _places(picture: _Picture, n_slices: int) -> list[tuple[float, float, float, float, int, int]]:
    """Return x, y, width, height in mm, normal axis and slice of every panel: a row a plane, axial at the top."""
    places = []
    widest = n_slices * max(picture.extent(normal)[0] for _, normal in _PLANES)
    gap = _GAP * widest
    bottom = gap
    for _, normal in reversed(_PLANES):
        w, h = picture.extent(normal)
        indent = n_slices * (widest / n_slices - w) / 2
        for k, at in enumerate(picture.positions(normal, n_slices)):
            places.append((indent + k * (w + gap), bottom, w, h, normal, at))
        bottom += h + gap
    return places


def _shown(
    data: Float[np.ndarray, "x y z"],
    outlines: dict[str, Bool[np.ndarray, "x y z"]],
    regions: Int[np.ndarray, "x y z"] | None,
    size: Float[np.ndarray, "3"],
) -> tuple[Int[np.ndarray, "3"], Int[np.ndarray, "3"]]:
    """Return first and past-the-last voxel of what is shown, with a margin; the whole image when there is nothing."""
    inside = regions > 0 if regions is not None else np.zeros(data.shape, dtype=bool)
    if not inside.any():
        for outline in outlines.values():
            inside |= outline
    if not inside.any():
        inside = np.isfinite(data) & (data != 0)
    shape = np.array(data.shape, dtype=np.int64)
    if not inside.any():
        return np.zeros(3, dtype=np.int64), shape
    x, y, z = (int(n) for n in np.ceil(_MARGIN_MM / size))
    box = bounding_box(inside, (x, y, z))
    return np.array([s.start for s in box], dtype=np.int64), np.array([s.stop for s in box], dtype=np.int64)


def _percentiles(data: Float[np.ndarray, "x y z"]) -> tuple[float, float]:
    values = data[np.isfinite(data) & (data != 0)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, (2.0, 98.0)))
    return (low, high) if low < high else (low - 0.5, low + 0.5)


def _with_black(name: str) -> Any:
    """Return a colour map that draws NaN black."""
    return import_extra("matplotlib", extra="plot").colormaps[name].with_extremes(bad="black")


def _hot_and_cold(overlay: Overlay) -> Any:
    """Return a colour map: red to yellow above the threshold, blue to light blue below its negative, grey between."""
    colors = import_extra("matplotlib.colors", extra="plot")
    hot = colors.LinearSegmentedColormap.from_list("hot", ["#c00000", "#ff7000", "#ffff40"])
    cold = colors.LinearSegmentedColormap.from_list("cold", ["#1030c0", "#2080ff", "#80f0ff"])
    steps = np.linspace(-1.0, 1.0, 512)
    share = overlay.threshold / overlay.limit
    strength = np.clip((np.abs(steps) - share) / max(1.0 - share, 1e-6), 0.0, 1.0)
    table = np.where((steps > 0)[:, None], hot(strength), cold(strength))
    table[np.abs(steps) < share] = (0.3, 0.3, 0.3, 1.0)
    return colors.ListedColormap(table).with_extremes(bad=(0.0, 0.0, 0.0, 0.0))


def _region_colours(labels: Shaped[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """Return a colour a label: neighbouring numbers a golden-ratio step apart on the colour circle."""
    colours = import_extra("matplotlib", extra="plot").colormaps["hsv"]((labels * 0.61803398875) % 1.0)
    return np.asarray(colours)[..., :3]


def _draw_regions(axis: Any, part: Int[np.ndarray, "rows columns"], box: tuple[float, float, float, float]) -> None:
    colours = np.concatenate([_region_colours(part), np.where(part > 0, 0.55, 0.0)[..., None]], axis=-1)
    axis.imshow(colours, extent=box, origin="lower", interpolation="nearest")


def _draw_outline(
    axis: Any, part: Bool[np.ndarray, "rows columns"], box: tuple[float, float, float, float], colour: str
) -> None:
    if not part.any():
        return
    padded = np.pad(part.astype(np.float64), 1)
    left, right, bottom, top = box
    rows, columns = part.shape
    x = left + (np.arange(columns + 2) - 0.5) * (right - left) / columns
    y = bottom + (np.arange(rows + 2) - 0.5) * (top - bottom) / rows
    axis.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=0.8)


def _write_place(
    axis: Any, picture: _Picture, box: tuple[float, float, float, float], normal: int, at: int, *, gap: float
) -> None:
    """Write the world coordinate of a panel below it, between the letters of its left and right side."""
    left, right, bottom, _ = box
    left_right = ("L", "R") if picture.convention == "neurological" else ("R", "L")
    sides = ("P", "A") if normal == 0 else left_right
    style = {"y": bottom - 0.1 * gap, "va": "top", "color": "white", "fontsize": 7}
    axis.text(x=(left + right) / 2, s=f"{'xyz'[normal]} {picture.world_mm(normal, at):.0f} mm", ha="center", **style)
    axis.text(x=left, s=sides[0], ha="left", **style)
    axis.text(x=right, s=sides[1], ha="right", **style)


def _quantity(volume: Volume) -> str:
    name = volume.quantity.replace("_", " ")
    return f"{name} ({volume.unit})" if name and volume.unit else name or volume.unit


def _heading(title: str, volume: Volume) -> str:
    cosines = np.abs(volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)).max(axis=0)
    degrees = float(np.degrees(np.arccos(np.clip(cosines.min(), 0.0, 1.0))))
    return f"{title}  (oblique by {degrees:.0f}°)".strip() if degrees > _OBLIQUE_DEGREES else title


def _named(labels: Parcellation) -> list[tuple[int, str]]:
    present = np.unique(labels.labels[labels.labels > 0])
    return [(int(k), labels.names.get(int(k), str(int(k)))) for k in present]


def _write_legend(figure: Any, picture: _Picture, named: list[tuple[int, str]]) -> None:
    patches = import_extra("matplotlib.patches", extra="plot")
    lines = import_extra("matplotlib.lines", extra="plot")
    marks: list[Any] = [
        lines.Line2D([], [], color=PALETTE[(k + 1) % len(PALETTE)], label=name)
        for k, name in enumerate(picture.outlines)
        if name
    ]
    if len(named) <= _MOST_NAMES:
        marks += [
            patches.Patch(color=tuple(_region_colours(np.array([float(label)]))[0]), label=name)
            for label, name in named
        ]
    if marks:
        figure.legend(handles=marks, loc="outside lower center", ncols=min(6, len(marks)), fontsize=7, frameon=False)


def histogram(
    values: Float[np.ndarray, "..."],
    *,
    label: str,
    window: tuple[float, float] | None = None,
    lines: Mapping[str, float] | None = None,
    bins: int = 100,
    title: str = "",
    logarithmic: bool = False,
) -> Any:
    """Return a figure of the distribution of values; NaN is left out, and what lies outside the window is counted.

    Parameters
    ----------
    label
        What the values are, with their unit.
    window
        Range of the axis; by default that of the values.
    lines
        Named values to mark, such as thresholds.
    logarithmic
        Draw the counts on a logarithmic scale.
    """
    finite = np.asarray(values, dtype=np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    figure, axes = new_figure(width=4.6, height=2.8)
    axis = axes[0, 0]
    if window is None:
        window = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    heights, _, _ = axis.hist(finite, bins=bins, range=window if window[0] < window[1] else None, color=BLUE)
    outside = int(((finite < window[0]) | (finite > window[1])).sum())
    for k, (name, at) in enumerate((lines or {}).items()):
        axis.axvline(at, color=PALETTE[(k + 1) % len(PALETTE)], lw=1.2, ls="--", label=f"{name}: {at:g}")
    if lines:
        axis.legend(frameon=False, fontsize=8)
    if logarithmic and heights.any():
        axis.set_yscale("log")
    axis.set_xlabel(label)
    axis.set_ylabel("voxels")
    axis.set_title(title, fontsize=10)
    if outside:
        axis.text(1.0, 1.0, f"{outside} outside", transform=axis.transAxes, ha="right", va="bottom", fontsize=7,
                  color=GREY)  # fmt: skip
    return figure
