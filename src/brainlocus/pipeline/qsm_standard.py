"""What `qsm run` does with a standard space: maps of a scan brought to it, labels of an atlas brought from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainlocus.core import FormatError, Grid, Mask, Parcellation, Transform, Volume
from brainlocus.images.idp import add_regions
from brainlocus.images.qsm import QsmMaps
from brainlocus.io import GradientEchoFiles, find_derivative, read_grid, write_derivative
from brainlocus.io.nifti import is_nifti
from brainlocus.io.nifti_header import read_header
from brainlocus.numerics.resample import resample_labels, resample_map
from brainlocus.pipeline.qsm_spaces import Place, Route, StandardSpace, find_route, read_atlas, read_route

__all__ = [
    "StandardChains",
    "StandardPlan",
    "plan_standard",
    "standard_peak_bytes",
    "with_atlas",
    "write_standard",
]

_MAP_BYTES = 24
_FIELD_BYTES = 200
"""A voxel of a field while it is read: FNIRT's take 192, ITK's 50 (measured at 182 x 218 x 182)."""
_POINTS_BYTES = 200 << 20


@dataclass(frozen=True, slots=True)
class StandardPlan:
    """A standard space and the ways of one scan to and from it."""

    space: StandardSpace
    to_standard: Route | None
    """From points of the standard space to the scan's, for maps; None: no maps are wanted there."""
    from_standard: Route | None
    """From points of the scan to those of the standard space, for the atlas; None: there is no atlas."""
    t1w: Path | None
    """T1-weighted image whose grid FSL's transforms need."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All that the scan's outputs depend on."""
        routes = [route for route in (self.to_standard, self.from_standard) if route is not None]
        images = [path for path in (self.space.grid, self.space.atlas, self.t1w) if path is not None]
        return (*images, *(path for route in routes for path in route.files))

    @property
    def described(self) -> dict[str, str]:
        """What the page of a scan shows."""
        shown = {} if self.space.atlas is None else {"atlas": self.space.atlas.name}
        for name, route in (("to standard space", self.to_standard), ("atlas to scan", self.from_standard)):
            if route is not None and route.legs:
                shown[name] = ", then ".join(route.described)
        return shown


@dataclass(frozen=True, slots=True)
class StandardChains:
    """A plan with what its transforms are read with."""

    plan: StandardPlan
    grid: Grid
    """Of the scan."""
    t1w: Grid | None
    """Of the T1-weighted image, where the plan has none."""
    register: Callable[[], tuple[Transform, ...]]
    """Gives the chain from points of the scan to points of the T1-weighted image."""

    def read(self, route: Route) -> tuple[Transform, ...]:
        """Return the chain of a route.

        Raises
        ------
        FormatError
            As `read_route`.
        """
        reference = self.plan.space.reference
        grids: dict[Place, Grid | None] = {
            "scan": self.grid,
            "T1w": self.t1w if self.plan.t1w is None else read_grid(self.plan.t1w),
            "standard": None if reference is None else read_grid(reference),
        }
        return read_route(route, grids, self.register)


def plan_standard(
    space: StandardSpace,
    folders: Mapping[str, Path],
    files: GradientEchoFiles,
    scan_names: Sequence[str],
    *,
    can_register: bool,
) -> StandardPlan:
    """Return the ways of a scan, looked up.

    Parameters
    ----------
    folders
        Datasets with ``transforms``, and with T1-weighted images: ``segmentations``, ``scans``.
    scan_names
        What the scan may be called in names of transforms, besides its own suffix.
    can_register
        There is a T1-weighted image to register where its transform is missing.
    """
    names: dict[Place, tuple[str, ...]] = {
        "scan": tuple(dict.fromkeys((files.suffix, *scan_names))),
        "T1w": ("T1w",),
        "standard": (space.name,),
    }
    folder, stem = folders["transforms"], (files.participant_id, files.session_id)
    to_standard = from_standard = None
    if space.grid is not None:
        to_standard = find_route(folder, stem, names, target="standard", source="scan", can_register=can_register)
    if space.atlas is not None:
        from_standard = find_route(folder, stem, names, target="scan", source="standard", can_register=can_register)
    routes = [route for route in (to_standard, from_standard) if route is not None]
    needs_t1w = any("T1w" in (leg.moved, leg.fixed) for route in routes for leg in route.legs)
    return StandardPlan(space, to_standard, from_standard, _find_t1w(folders, files) if needs_t1w else None)


def standard_peak_bytes(plan: StandardPlan | None) -> int:
    """Return the memory that a scan's maps in the standard space and its atlas take, with a displacement field."""
    if plan is None or plan.space.reference is None:
        return 0
    voxels = int(np.prod(read_grid(plan.space.reference).shape))
    routes = [route for route in (plan.to_standard, plan.from_standard) if route is not None]
    has_field = any(is_nifti(path) or path.suffix == ".h5" for route in routes for path in route.files)
    return (_MAP_BYTES + _FIELD_BYTES * has_field) * voxels + _POINTS_BYTES


def with_atlas(chains: StandardChains, labels: Parcellation | None) -> tuple[Parcellation | None, list[str]]:
    """Return the labels with those of the atlas on the scan's grid, and what went wrong."""
    space, route = chains.plan.space, chains.plan.from_standard
    if space.atlas is None or route is None:
        return labels, []
    try:
        atlas = resample_labels(read_atlas(space.atlas), chains.grid, chains.read(route))
        if not atlas.labels.any():
            raise FormatError(f"None of its voxels falls on the scan. Are these its transforms: {_named(route)}?")
        return (atlas if labels is None else add_regions(labels, atlas)), []
    except FormatError as error:
        return labels, [f"The atlas's regions are not measured. {error}"]


def write_standard(chains: StandardChains, maps: QsmMaps, start: Path, sidecar: Mapping[str, Any]) -> list[str]:
    """Write the maps in the standard space; return what went wrong.

    Parameters
    ----------
    start
        Folder and beginning of the names.
    """
    space, route = chains.plan.space, chains.plan.to_standard
    if space.grid is None or route is None:
        return []
    try:
        chain = chains.read(route)
    except FormatError as error:
        return [f"There are no maps in {space.name}. {error}"]
    grid, header = read_grid(space.grid), read_header(space.grid)
    about = {
        "SpatialReference": space.grid.name,
        "Transforms": route.described,
        "TransformOrder": f"the first is applied first to points of {space.name}, the last gives points of the scan",
        "Interpolation": "linear, among voxels with a value",
        "OutsideMask": "NaN",
    }
    for ending, volume, inside in _maps(maps):
        moved = resample_map(volume, grid, chain, inside=inside)
        if not np.isfinite(moved.data).any():
            return [
                f"There are no maps in {space.name}: none of the scan's voxels falls on the grid of "
                f"{space.grid.name}. Are these its transforms: {_named(route)}?"
            ]
        path = start.with_name(f"{start.name}_space-{space.name}_{ending}.nii.gz")
        write_derivative(moved, path, {**sidecar, **about}, like=header)
    return []


def _maps(maps: QsmMaps) -> list[tuple[str, Volume, Mask]]:
    """Return the maps for a standard space, with where they have values."""
    affine = maps.acquisition.grid.affine
    chosen = []
    if maps.reference is None or maps.reference.status == "ok":
        chi = Volume(maps.referenced_ppm, affine, "susceptibility", "ppm")
        chosen.append(("Chimap", chi, Mask(maps.mask, affine)))
    if maps.t2star_s is not None:
        chosen.append(("T2starmap", Volume(maps.t2star_s, affine, "T2star", "s"), Mask(maps.brain, affine)))
    return chosen


def _named(route: Route) -> str:
    return ", ".join(route.described)


def _find_t1w(folders: Mapping[str, Path], files: GradientEchoFiles) -> Path | None:
    """Return the T1-weighted image beside segmentations, transforms or scan; None where there is none, or several."""
    for kind in ("segmentations", "transforms", "scans"):
        if kind not in folders:
            continue
        try:
            found = find_derivative(folders[kind], files.participant_id, files.session_id, suffix="T1w")
        except FormatError:
            continue
        if found is not None:
            return found
    return None
