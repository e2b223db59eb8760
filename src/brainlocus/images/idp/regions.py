"""Quantitative maps to measures of regions: medians of eroded structures, lesions against normal-appearing tissue.

Data flow::

    parcellation --erode_labels--> cores --measure_regions--> RegionMeasures      (per map)
    chi, T2*, parcellation, mask ... --subject_idps--> ResultTable                (per scan, one row a map and region)
    rows of everyone --assemble_idps--> CohortIdps                                (`images.idp.cohort`)

Rules (Wang et al. 2022): every label is eroded by 3 x 3 voxels in the plane of the slices, the measure is the median
of what remains inside the mask, and of the substantia nigra only voxels with susceptibility from 0 up count (its mask
comes from an atlas and may miss). The rule biases the median upwards, so the plain median is given too.

Maps stay in the units they are computed in (ppm, s); here they become those of tables, ppb and ms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int, Shaped
from scipy.ndimage import maximum_filter, minimum_filter

from brainlocus.core import Mask, Parcellation, ResultTable, Volume, check_same_grid, concat_results
from brainlocus.images.idp.structures import REGIONS, region_labels
from brainlocus.numerics import slice_axis

__all__ = [
    "LESIONS",
    "NORMAL_APPEARING",
    "Erosion",
    "RegionMeasures",
    "RegionSettings",
    "erode_labels",
    "lesion_difference",
    "measure_regions",
    "subject_idps",
]

Erosion = Literal["in-plane 3x3", "none"]

LESIONS, NORMAL_APPEARING = "white_matter_lesions", "normal_appearing_white_matter"

_TABLE_UNITS = {
    "ppm": (1000.0, "ppb"),
    "ppb": (1.0, "ppb"),
    "s": (1000.0, "ms"),
    "ms": (1.0, "ms"),
    "1/s": (1.0, "1/s"),
}
"""Unit of a map to the factor and unit of tables."""
_ISOTROPIC = 1.01
"""Voxels whose edges differ by less than 1 % have no thickest axis."""


@dataclass(frozen=True, slots=True)
class RegionSettings:
    """How regions are measured."""

    erosion: Erosion = "in-plane 3x3"
    min_voxels: int = 10
    """Regions with fewer usable voxels have no value."""
    min_inside: float = 0.5
    """Regions with a smaller share of usable voxels have no value."""
    from_zero: tuple[str, ...] = ("substantia_nigra",)
    """Structures of which only susceptibilities from 0 up count."""
    uneroded: tuple[str, ...] = ()
    """Structures that are measured whole."""


@dataclass(frozen=True, slots=True, eq=False)
class RegionMeasures:
    """One map in every region; NaN where the status is not ``ok``, volumes and counts always."""

    regions: tuple[str, ...]
    n_voxels: Int[np.ndarray, " regions"]
    """Voxels measured: of the eroded region, inside the mask and finite."""
    median: Float64[np.ndarray, " regions"]
    mean: Float64[np.ndarray, " regions"]
    standard_deviation: Float64[np.ndarray, " regions"]
    """With n - 1."""
    mad: Float64[np.ndarray, " regions"]
    """Median absolute deviation from the median, not scaled."""
    median_unfiltered: Float64[np.ndarray, " regions"]
    """Median before a rule such as that of the substantia nigra took voxels away."""
    inside_fraction: Float64[np.ndarray, " regions"]
    """Share of the eroded region that is inside the mask and finite; NaN where nothing is left of the region."""
    volume_mm3: Float64[np.ndarray, " regions"]
    """Of the whole region, before erosion."""
    unit: str
    status: tuple[str, ...]
    """``ok``, or why there is no value."""


def erode_labels(parcellation: Parcellation, *, keep: Sequence[int] = ()) -> Parcellation:
    """Return the labels without the voxels that have a voxel of another label in the 3 x 3 around them in the plane.

    The plane lies across the thickest voxel axis, which is that of the slices; where all edges are equal, across the
    axis nearest to the body's, which makes it axial. Voxels beyond the edge of the image count as another label.

    Parameters
    ----------
    keep
        Labels that stay whole.
    """
    footprint = [3, 3, 3]
    footprint[_slice_axis(parcellation.affine)] = 1
    labels = parcellation.labels
    low = minimum_filter(labels, size=footprint, mode="constant", cval=-1)
    high = maximum_filter(labels, size=footprint, mode="constant", cval=-1)
    stays = (low == high) | np.isin(labels, list(keep))
    return Parcellation(np.where(stays, labels, 0).astype(labels.dtype), parcellation.affine, parcellation.names)


def _slice_axis(affine: Float64[np.ndarray, "4 4"]) -> int:
    """Return the axis across the slices; that nearest to the body's where no edge is the longest."""
    size = np.linalg.norm(affine[:3, :3], axis=0)
    if size.max() / size.min() > _ISOTROPIC:
        return slice_axis((float(size[0]), float(size[1]), float(size[2])))
    return int(np.abs(affine[2, :3] / size).argmax())


def measure_regions(
    volume: Volume,
    parcellation: Parcellation,
    inside: Mask,
    *,
    regions: Mapping[str, int] | None = None,
    settings: RegionSettings | None = None,
    signed: bool = False,
) -> RegionMeasures:
    """Measure a map in every region.

    Parameters
    ----------
    inside
        Voxels where the map is known; NaN voxels of the map never count.
    regions
        Name of every region to its label; by default those `region_labels` finds.
    signed
        The map is a susceptibility, to which `RegionSettings.from_zero` applies.

    Raises
    ------
    AlignmentError
        Map, regions and mask lie on different grids.
    ValueError
        The map's unit is not one of ppm, ppb, s, ms and 1/s.
    FormatError
        As `region_labels`.
    """
    chosen = settings if settings is not None else RegionSettings()
    check_same_grid(parcellation.grid, volume.grid, what="The label image")
    check_same_grid(inside.grid, volume.grid, what="The mask")
    if volume.unit not in _TABLE_UNITS:
        raise ValueError(f"Expected a map in one of {', '.join(_TABLE_UNITS)}, got one in {volume.unit!r}.")
    factor, unit = _TABLE_UNITS[volume.unit]
    labels = dict(regions) if regions is not None else region_labels(parcellation)
    whole = [label for name, label in labels.items() if _is_one_of(name, chosen.uneroded)]
    cores = erode_labels(parcellation, keep=whole) if chosen.erosion != "none" else parcellation
    counted = np.bincount(parcellation.labels.ravel(), minlength=max(labels.values(), default=0) + 1)
    groups = _voxels_of(cores, list(labels.values()))
    flat, usable = volume.data.ravel(), inside.data.ravel() & np.isfinite(volume.data.ravel())
    rows = []
    for (name, label), voxels in zip(labels.items(), groups, strict=True):
        values = flat[voxels[usable[voxels]]].astype(np.float64) * factor
        from_zero = signed and _is_one_of(name, chosen.from_zero)
        rows.append(_measure(values, voxels.size, int(counted[label]), from_zero=from_zero, settings=chosen))
    numbers = np.array([row[:-1] for row in rows], dtype=np.float64).reshape(len(rows), 8)
    n_voxels, median, mean, deviation, mad, unfiltered, share, n_whole = (np.ascontiguousarray(c) for c in numbers.T)
    volumes = n_whole * volume.grid.voxel_volume_mm3
    status = tuple(row[-1] for row in rows)
    return RegionMeasures(
        tuple(labels), n_voxels.astype(np.int64), median, mean, deviation, mad, unfiltered, share, volumes, unit, status
    )  # fmt: skip


def _is_one_of(name: str, structures: Sequence[str]) -> bool:
    return any(name in (structure, f"left_{structure}", f"right_{structure}") for structure in structures)


def _voxels_of(parcellation: Parcellation, labels: list[int]) -> list[Int[np.ndarray, " voxels"]]:
    """Return the flat indices of every label's voxels, from one sort of the labelled voxels."""
    flat = parcellation.labels.ravel()
    voxels = np.flatnonzero(flat > 0)
    order = voxels[np.argsort(flat[voxels], kind="stable")]
    starts = np.searchsorted(flat[order], labels, side="left")
    stops = np.searchsorted(flat[order], labels, side="right")
    return [order[start:stop] for start, stop in zip(starts, stops, strict=True)]


def _measure(
    values: Float64[np.ndarray, " voxels"], n_core: int, n_whole: int, *, from_zero: bool, settings: RegionSettings
) -> tuple[int, float, float, float, float, float, float, int, str]:
    """Return the fields of one region, from number of voxels to status."""
    nothing = float("nan")
    share = values.size / n_core if n_core else nothing
    unfiltered = float(np.median(values)) if values.size else nothing
    kept = values[values >= 0] if from_zero else values
    status = "ok"
    if n_whole == 0:
        status = "region has no voxel"
    elif n_core == 0:
        status = "region vanished under erosion"
    elif share < settings.min_inside:
        status = f"{share:.0%} of the region inside the mask, {settings.min_inside:.0%} needed"
    elif kept.size < settings.min_voxels:
        status = f"{kept.size} voxels, {settings.min_voxels} needed"
    if status != "ok":
        return kept.size, nothing, nothing, nothing, nothing, nothing, share, n_whole, status
    median = float(np.median(kept))
    deviation = float(np.std(kept, ddof=1)) if kept.size > 1 else nothing
    mad = float(np.median(np.abs(kept - median)))
    return kept.size, median, float(np.mean(kept)), deviation, mad, unfiltered, share, n_whole, status


def lesion_difference(rows: RegionMeasures) -> float:
    """Return the mean of the lesions less the median of normal-appearing white matter; NaN where either has no value.

    Parameters
    ----------
    rows
        Measures with the regions `LESIONS` and `NORMAL_APPEARING`.

    References
    ----------
    Wang et al. (2022), Nat Neurosci 25:818, Methods: white matter hyperintensities.
    """
    if LESIONS not in rows.regions or NORMAL_APPEARING not in rows.regions:
        return float("nan")
    return float(rows.mean[rows.regions.index(LESIONS)] - rows.median[rows.regions.index(NORMAL_APPEARING)])


def subject_idps(
    maps: Mapping[str, Volume],
    parcellation: Parcellation,
    inside: Mask,
    *,
    participant_id: str,
    session_id: str = "",
    lesions: Mask | None = None,
    white_matter: Mask | None = None,
    settings: RegionSettings | None = None,
) -> ResultTable:
    """Return one row a map and region of one scan.

    Parameters
    ----------
    maps
        Name of the measure to its map, all on the label image's grid: ``QSM`` (ppm), ``T2star`` (s), and
        ``fieldgradient``, the rise of R2* by macroscopic field gradients (1/s), which is the confound of T2*.
    parcellation
        Label image with structures by name or number (`region_labels`).
    inside
        Mask of the susceptibility map (mask 3).
    lesions, white_matter
        White matter hyperintensities and white matter; voxels of lesions are no normal-appearing white matter. With
        both, the rows of `LESIONS` and `NORMAL_APPEARING` (not eroded) follow the regions. Without a lesion voxel
        the lesions' row has a status.

    Raises
    ------
    AlignmentError, FormatError, ValueError
        As `measure_regions`.
    """
    chosen = settings if settings is not None else RegionSettings()
    labels = region_labels(parcellation, REGIONS)
    tables = []
    for measure, volume in maps.items():
        signed = volume.unit in ("ppm", "ppb")
        found = measure_regions(volume, parcellation, inside, regions=labels, settings=chosen, signed=signed)
        tables.append(_rows(found, measure, participant_id, session_id))
        if lesions is not None and white_matter is not None:
            tissue = _lesion_labels(lesions, white_matter)
            known = {LESIONS: 1, NORMAL_APPEARING: 2}
            plain = RegionSettings("none", chosen.min_voxels, chosen.min_inside, (), ())
            found = measure_regions(volume, tissue, inside, regions=known, settings=plain)
            tables.append(_rows(found, measure, participant_id, session_id))
    return concat_results(tables)


def _lesion_labels(lesions: Mask, white_matter: Mask) -> Parcellation:
    check_same_grid(white_matter.grid, lesions.grid, what="The mask of white matter")
    labels = np.where(lesions.data, 1, np.where(white_matter.data, 2, 0)).astype(np.int8)
    return Parcellation(labels, lesions.affine, {1: LESIONS, 2: NORMAL_APPEARING})


def _rows(found: RegionMeasures, measure: str, participant_id: str, session_id: str) -> ResultTable:
    count = len(found.regions)
    columns: dict[str, Shaped[np.ndarray, " rows"]] = {
        "participant_id": np.full(count, participant_id),
        "session_id": np.full(count, session_id),
        "measure": np.full(count, measure),
        "region": np.array(found.regions, dtype=np.str_),
        "n_voxels": found.n_voxels,
        "median": found.median,
        "mean": found.mean,
        "standard_deviation": found.standard_deviation,
        "mad": found.mad,
        "median_unfiltered": found.median_unfiltered,
        "inside_fraction": found.inside_fraction,
        "volume_mm3": found.volume_mm3,
        "unit": np.full(count, found.unit),
        "status": np.array(found.status, dtype=np.str_),
    }
    return ResultTable(columns)
