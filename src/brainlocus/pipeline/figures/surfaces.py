"""Maps of regions: both hemispheres from outside and inside, and bars of the structures below the cortex."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from brainlocus.core.errors import import_extra
from brainlocus.core.surfaces import Surface, SurfaceLabels
from brainlocus.genetics.twas import border_edges, face_codes, face_values
from brainlocus.pipeline.figures.canvas import save_figure

__all__ = ["MapLook", "draw_region_map"]

_MISSING = (0.70, 0.70, 0.70)
_WALL = (0.88, 0.88, 0.88)
_VIEWS = (("lateral", -1.0), ("medial", 1.0))
"""Of the left hemisphere: where the eye is on the x axis. The right one is seen from the other side."""
_CELLS = 160
_BEHIND_MM = 8.0
"""An edge that lies this far behind the surface before it is hidden."""


@dataclass(frozen=True, slots=True)
class MapLook:
    """How a map is drawn."""

    title: str
    quantity: str
    """What the colour bar says."""
    limit: float
    """Value of the darkest colours, both ways from 0."""
    colours: str = "RdBu_r"


def draw_region_map(
    hemispheres: Sequence[tuple[Surface, SurfaceLabels]],
    values: Mapping[str, float],
    subcortex: Mapping[str, float],
    look: MapLook,
    path: Path,
) -> None:
    """Draw the four views of the cortex, and bars of the subcortex where it has values.

    Regions without a value are dark grey, what is no region (medial wall) light grey.
    """
    figure_module = import_extra("matplotlib.figure", extra="plot")
    colours: Any = import_extra("matplotlib.colors", extra="plot")
    matplotlib: Any = import_extra("matplotlib", extra="plot")
    cm: Any = import_extra("matplotlib.cm", extra="plot")
    scale = cm.ScalarMappable(colours.Normalize(-look.limit, look.limit), matplotlib.colormaps[look.colours])
    brain, bars = 6.6 if hemispheres else 0.0, 3.9 if subcortex else 0.0
    width, height = brain + bars + 0.2, 5.4 if hemispheres else 1.2 + 0.27 * _n_structures(subcortex)
    figure = figure_module.Figure(figsize=(width, height))
    figure.text(0.1 / width, 1 - 0.3 / height, look.title, fontsize=11)
    for column, (surface, labels) in enumerate(hemispheres):
        for row, (name, eye) in enumerate(_VIEWS):
            left, bottom = 0.1 + column * brain / 2, 0.85 + (1 - row) * 2.1
            axis = figure.add_axes((left / width, bottom / height, brain / 2 / width, 2.1 / height))
            _draw_view(axis, surface, labels, values, scale, eye if column == 0 else -eye)
            text = f"{('left', 'right')[column]} {name}"
            figure.text((left + 0.05) / width, (bottom + 1.9) / height, text, fontsize=8)
    if hemispheres:
        bar = figure.colorbar(
            scale, cax=figure.add_axes(((0.1 + brain / 2 - 1.3) / width, 0.5 / height, 2.6 / width, 0.13 / height)),
            orientation="horizontal",
        )  # fmt: skip
        bar.ax.tick_params(labelsize=8)
        bar.set_label(look.quantity, fontsize=9)
    if subcortex:
        axis = figure.add_axes(((brain + 1.55) / width, 0.65 / height, (bars - 1.6) / width, (height - 1.2) / height))
        _draw_bars(axis, subcortex, scale, look)
    save_figure(figure, path)


def _draw_view(
    axis: Any, surface: Surface, labels: SurfaceLabels, values: Mapping[str, float], scale: Any, eye: float
) -> None:
    """Draw the faces that look to the eye, far ones first, and the borders of regions over them."""
    collections = import_extra("matplotlib.collections", extra="plot")
    # The eye looks along x; the front of the brain is left for an eye at -x, right for one at +x.
    across, up, depth = eye * surface.vertices[:, 1], surface.vertices[:, 2], eye * surface.vertices[:, 0]
    corner = surface.vertices[surface.faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    length = np.linalg.norm(normal, axis=1)
    facing = eye * normal[:, 0] / np.where(length > 0, length, 1.0)
    # Normals point outwards in FreeSurfer's meshes; turned round where the mesh has them inwards.
    outward = np.sign(np.einsum("fk,fk->", normal, corner.mean(axis=1) - surface.vertices.mean(axis=0))) or 1.0
    facing = facing * outward
    codes = face_codes(surface, labels)
    found, inside = face_values(codes, labels.names, values)
    rgb = scale.to_rgba(np.nan_to_num(found))[:, :3]
    rgb[np.isnan(found)] = _MISSING
    rgb[~inside] = _WALL
    shade = 0.62 + 0.38 * np.clip(facing, 0, 1)
    rgb = np.clip(rgb * shade[:, None], 0, 1)
    middle = depth[surface.faces].mean(axis=1)
    shown = np.flatnonzero(facing > 0)
    shown = shown[np.argsort(middle[shown], kind="stable")]
    flat = np.stack([across, up], axis=1)
    axis.add_collection(
        collections.PolyCollection(flat[surface.faces[shown]], facecolors=rgb[shown], edgecolors=rgb[shown], lw=0.25)
    )
    edges, sides = border_edges(surface, np.where(inside, codes, -1))
    front = _in_front(flat, depth, surface.faces[shown], edges) & (facing[sides] > 0).all(axis=1)
    axis.add_collection(collections.LineCollection(flat[edges[front]], colors="#30303a", linewidths=0.5))
    axis.set_xlim(across.min() - 3, across.max() + 3)
    axis.set_ylim(up.min() - 3, up.max() + 3)
    axis.set_aspect("equal")
    axis.set_axis_off()


def _in_front(
    flat: Float64[np.ndarray, "vertices 2"],
    depth: Float64[np.ndarray, " vertices"],
    faces: Int[np.ndarray, "shown 3"],
    edges: Int64[np.ndarray, "edges 2"],
) -> Bool[np.ndarray, " edges"]:
    """Return which edges no nearer part of the surface hides, by the nearest depth in cells of the picture."""
    low, high = flat.min(axis=0), flat.max(axis=0)
    size = float((high - low).max()) / _CELLS or 1.0

    def cells(points: Float64[np.ndarray, "points 2"]) -> Int64[np.ndarray, "points 2"]:
        place: Int64[np.ndarray, "points 2"] = np.clip(((points - low) / size).astype(np.int64), 0, _CELLS)
        return place

    nearest = np.full((_CELLS + 1, _CELLS + 1), -np.inf)
    place = cells(flat[faces].mean(axis=1))
    np.maximum.at(nearest, (place[:, 0], place[:, 1]), depth[faces].mean(axis=1))
    at = cells(flat[edges].mean(axis=1))
    return np.asarray(depth[edges].mean(axis=1) >= nearest[at[:, 0], at[:, 1]] - _BEHIND_MM, dtype=bool)


def _structure(label: str) -> tuple[str, int]:
    """Return the name of a structure without its side, and the side: 0 left, 1 right, 2 neither."""
    for side, word in enumerate(("Left-", "Right-")):
        if label.startswith(word):
            return label[len(word) :], side
    return label, 2


def _n_structures(subcortex: Mapping[str, float]) -> int:
    return len({_structure(label)[0] for label in subcortex})


def _draw_bars(axis: Any, subcortex: Mapping[str, float], scale: Any, look: MapLook) -> None:
    """Draw a bar for each side of each structure."""
    rows = list(dict.fromkeys(_structure(label)[0] for label in subcortex))
    for label, value in subcortex.items():
        name, side = _structure(label)
        shift = (0.19, -0.19, 0.0)[side]
        axis.barh(
            len(rows) - 1 - rows.index(name) + shift, value, height=0.34, color=scale.to_rgba(value)[:3],
            edgecolor="#30303a", lw=0.6, hatch="////" if side == 1 else None,
        )  # fmt: skip
    patches = import_extra("matplotlib.patches", extra="plot")
    kinds = [
        patches.Patch(facecolor="white", edgecolor="#30303a", hatch=h, label=n)
        for n, h in (("left", ""), ("right", "////"))
    ]
    axis.legend(handles=kinds, fontsize=7, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    axis.axvline(0, color="#30303a", lw=0.8)
    span = max(abs(v) for v in subcortex.values()) * 1.1 or 1.0
    axis.set_xlim(-span, span)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.set_yticks(np.arange(len(rows))[::-1], [r.replace("-", " ").replace("_", " ") for r in rows], fontsize=8)
    axis.tick_params(labelsize=8)
    axis.set_xlabel(look.quantity, fontsize=9)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
