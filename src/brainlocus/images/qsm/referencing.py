"""Referencing: what counts as zero susceptibility.

A field map tells susceptibility up to a constant (D(0) = 0), so that maps of two people can be compared only after the
mean of a common region is subtracted::

    chi_ref = mean of chi over region and valid voxels,    chi <- chi - chi_ref

The region is cerebrospinal fluid of the lateral ventricles, given as a mask or found from R2* (`find_csf`), or the
whole brain, or white matter.

References
----------
QSM Consensus (2024), Magn Reson Med 91:1834, section on referencing; Liu Z et al. (2018), Magn Reson Med 79:2795
(cerebrospinal fluid found by R2*); Wang et al. (2022), Nat Neurosci 25:818 (lateral ventricles).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.ndimage import binary_erosion, distance_transform_edt, label, median_filter

from brainlocus.numerics.orientation import slice_axis

__all__ = ["Reference", "clean_csf", "find_csf", "in_plane", "reference"]

MIN_VOXELS = 50
MIN_VOLUME_MM3 = 300.0
"""A region smaller than either has no mean worth subtracting (methods/qsm.md section 11)."""
SLOWEST_TISSUE_PER_S = 1 / 0.060
"""R2* above which a voxel of a given ventricle mask is taken for vessel, plexus or tissue."""
CSF_R2STAR_PER_S = 8.0
"""R2* below which the automatic rule takes a voxel for fluid: grey and white matter have 15-20 at 3 T, fluid 2-5."""
CENTRE_DISTANCE_MM = 40.0
"""How far from the brain's centre the automatic rule looks: ventricles, not the fluid around the brain."""
DEPTH_MM = 15.0
"""How deep inside the mask a voxel must lie for the automatic rule."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A susceptibility map relative to a region."""

    chi_ppm: Float32[np.ndarray, "x y z"]
    """Referenced; NaN throughout the mask where the region was too small, 0 outside the mask."""
    value_ppm: float
    """What was subtracted; NaN where the region was too small."""
    standard_deviation_ppm: float
    """Over the region's voxels."""
    n_voxels: int
    status: Literal["ok", "region too small"]


def reference(
    chi_ppm: Float32[np.ndarray, "x y z"],
    region: Bool[np.ndarray, "x y z"],
    valid: Bool[np.ndarray, "x y z"],
    *,
    voxel_volume_mm3: float,
    statistic: Literal["mean", "median"] = "mean",
    min_voxels: int = MIN_VOXELS,
    min_volume_mm3: float = MIN_VOLUME_MM3,
) -> Reference:
    """Subtract the mean or median of a region from the valid voxels of a map.

    Parameters
    ----------
    region
        Where susceptibility shall be zero; only its valid voxels count.
    valid
        Voxels with a susceptibility; all others are 0 in the result.

    Examples
    --------
    >>> chi = np.full((4, 4, 4), 0.5, dtype=np.float32)
    >>> everywhere = np.ones((4, 4, 4), dtype=bool)
    >>> reference(chi, everywhere, everywhere, voxel_volume_mm3=8.0).value_ppm
    0.5
    """
    values = chi_ppm[region & valid].astype(np.float64)
    if values.size < min_voxels or values.size * voxel_volume_mm3 < min_volume_mm3:
        empty = np.where(valid, np.float32(np.nan), np.float32(0))
        return Reference(empty, float("nan"), float("nan"), int(values.size), "region too small")
    value = float(values.mean() if statistic == "mean" else np.median(values))
    referenced = np.where(valid, chi_ppm - np.float32(value), np.float32(0))
    return Reference(referenced, value, float(values.std()), int(values.size), "ok")


def in_plane(voxel_size_mm: tuple[float, float, float]) -> Bool[np.ndarray, "3 3 3"]:
    """Return the 3 x 3 square in the plane of the slices (`slice_axis`), with which regions are eroded.

    Examples
    --------
    >>> in_plane((0.8, 0.8, 3.0))[:, :, 1].sum(), in_plane((0.8, 0.8, 3.0)).sum()
    (np.int64(9), np.int64(9))
    """
    square = np.zeros((3, 3, 3), dtype=bool)
    middle = [slice(None)] * 3
    middle[slice_axis(voxel_size_mm)] = slice(1, 2)
    square[tuple(middle)] = True
    return square


def clean_csf(
    ventricles: Bool[np.ndarray, "x y z"],
    voxel_size_mm: tuple[float, float, float],
    r2star_per_s: Float[np.ndarray, "x y z"] | None = None,
    choroid_plexus: Bool[np.ndarray, "x y z"] | None = None,
) -> Bool[np.ndarray, "x y z"]:
    """Return the voxels of a ventricle mask that are fluid: eroded in-plane, without plexus and fast R2*.

    Parameters
    ----------
    r2star_per_s
        Voxels above 1/(60 ms) are left out; NaN counts as unknown and is left out.
    """
    fluid = binary_erosion(ventricles, structure=in_plane(voxel_size_mm))
    if choroid_plexus is not None:
        fluid &= ~choroid_plexus
    if r2star_per_s is not None:
        fluid &= r2star_per_s <= SLOWEST_TISSUE_PER_S
    return np.asarray(fluid, dtype=bool)


def find_csf(
    r2star_per_s: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    voxel_size_mm: tuple[float, float, float],
    *,
    slowest_per_s: float = CSF_R2STAR_PER_S,
) -> Bool[np.ndarray, "x y z"]:
    """Return fluid near the brain's centre by its slow R2*, where no ventricle mask is at hand.

    R2* is smoothed by a median of 3 x 3 voxels in-plane. Voxels below `slowest_per_s`, deep inside the mask and near
    its centre, are joined to components; those with at least a tenth of the largest one's size are kept and eroded
    in-plane. Approximate: the result belongs in the quality report.

    Returns
    -------
    array
        All False where nothing qualifies.

    Examples
    --------
    >>> x, y, z = np.ogrid[-12:13, -12:13, -12:13]
    >>> brain = x**2 + y**2 + z**2 <= 12**2
    >>> r2star = np.where(x**2 + y**2 + z**2 <= 4**2, 3.0, 18.0)
    >>> fluid = find_csf(r2star, brain, (3.0, 3.0, 3.0))
    >>> bool(fluid.any()), float(r2star[fluid].max())
    (True, 3.0)
    """
    smooth = median_filter(np.where(np.isfinite(r2star_per_s), r2star_per_s, np.inf), footprint=in_plane(voxel_size_mm))
    if not mask.any():
        return np.zeros(mask.shape, dtype=bool)
    depth = distance_transform_edt(mask, sampling=voxel_size_mm)
    centre = np.argwhere(mask).mean(axis=0)
    squared = np.zeros(mask.shape, dtype=np.float32)
    for axis, (middle, size) in enumerate(zip(centre, voxel_size_mm, strict=True)):
        along = ((np.arange(mask.shape[axis]) - middle) * size) ** 2
        squared += along.reshape([-1 if a == axis else 1 for a in range(3)]).astype(np.float32)
    candidates = (smooth < slowest_per_s) & (depth >= DEPTH_MM) & (squared <= CENTRE_DISTANCE_MM**2)
    components, n = label(candidates)
    if n == 0:
        return np.zeros(mask.shape, dtype=bool)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    kept = np.isin(components, np.flatnonzero(sizes >= max(sizes.max() / 10, 1)))
    return np.asarray(binary_erosion(kept, structure=in_plane(voxel_size_mm)), dtype=bool)
