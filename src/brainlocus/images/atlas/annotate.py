"""What a conventional atlas calls the parcels of another, and on which side of the head they lie.

With P the voxels of a parcel and B those of a region of the conventional atlas on the same grid::

    fraction_in = |P and B| / |P|      coverage = |P and B| / |B|      Dice = 2 |P and B| / (|P| + |B|)

Sides are those of the world: x below 0 is left, whatever way the voxels run.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int, Int64

from brainlocus.core import AlignmentError, Parcellation, check_same_grid
from brainlocus.numerics.partitions import joint_counts

__all__ = ["BILATERAL", "MIN_FRACTION", "Annotation", "Laterality", "annotate_parcels", "annotate_parcels_peak_bytes"]

Laterality = Literal["L", "R", "bilateral"]

MIN_FRACTION = 0.05
"""Regions with less of a parcel are borders and errors of registration rather than what the parcel is."""
BILATERAL = 0.25
"""Share of the minor side from which a parcel counts as bilateral."""


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """Parcels and the regions that have a part of them; one row a pair, parcels ascending, the largest part first."""

    parcels: Int64[np.ndarray, " parcels"]
    """Labels of the parcels with voxels, ascending."""
    sizes: Int64[np.ndarray, " parcels"]
    """Voxels of each."""
    left: Float64[np.ndarray, " parcels"]
    """Share of each parcel that is on the left; voxels on the midline count half."""
    pair_parcel: Int64[np.ndarray, " pairs"]
    """Position in `parcels`."""
    pair_region: Int64[np.ndarray, " pairs"]
    """Label of the conventional atlas."""
    fraction_in: Float64[np.ndarray, " pairs"]
    coverage: Float64[np.ndarray, " pairs"]
    dice: Float64[np.ndarray, " pairs"]

    def laterality(self, at: int) -> Laterality:
        """Return the side of a parcel by its position in `parcels`."""
        left = float(self.left[at])
        if min(left, 1.0 - left) >= BILATERAL:
            return "bilateral"
        return "L" if left > 0.5 else "R"


def annotate_parcels_peak_bytes(n_grid: int, n_parcels: int, n_regions: int) -> int:
    """Return the memory of `annotate_parcels`: both label images as positions, world x, and the joint counts."""
    return 6 * 8 * n_grid + 4 * 8 * (n_parcels + 1) * (n_regions + 1)


def annotate_parcels(
    parcellation: Parcellation, atlas: Parcellation, *, min_fraction: float = MIN_FRACTION
) -> Annotation:
    """Return which regions of a conventional atlas every parcel lies in, and its side.

    Parameters
    ----------
    atlas
        On the grid of the parcels (`brainlocus.numerics.resample_labels` brings it there).
    min_fraction
        Regions with a smaller share of the parcel are left out.

    Raises
    ------
    AlignmentError
        Another grid, or no labelled voxel of the atlas is in any parcel.

    Examples
    --------
    >>> affine = np.diag([2.0, 2.0, 2.0, 1.0])
    >>> parcels = Parcellation(np.array([[[1]], [[1]], [[2]], [[2]]]), affine)
    >>> atlas = Parcellation(np.array([[[7]], [[7]], [[7]], [[0]]]), affine)
    >>> found = annotate_parcels(parcels, atlas)
    >>> found.pair_region.tolist(), found.fraction_in.tolist(), found.coverage.round(2).tolist()
    ([7, 7], [1.0, 0.5], [0.67, 0.33])
    """
    check_same_grid(atlas.grid, parcellation.grid, what="The atlas")
    regions, region_at = np.unique(atlas.labels, return_inverse=True)
    parcels, parcel_at = np.unique(parcellation.labels, return_inverse=True)
    counts = joint_counts(parcel_at.ravel(), region_at.ravel(), parcels.size, regions.size)
    region_sizes = counts.sum(axis=0)
    is_parcel, is_region = parcels > 0, regions > 0
    sizes = counts.sum(axis=1)[is_parcel]
    left = _left_share(parcellation, parcel_at, parcels.size)[is_parcel] / sizes
    both, sizes_b = counts[np.ix_(is_parcel, is_region)], region_sizes[is_region]
    if not both.any():
        raise AlignmentError(
            "The atlas and the parcels share no labelled voxel: expected both in one space. Check their affines."
        )
    share = both / sizes[:, None]
    rows, columns = np.nonzero((share >= min_fraction) & (both > 0))
    # Within a parcel the largest part first, then the larger region, then the lower label.
    order = np.lexsort((columns, -sizes_b[columns], -both[rows, columns], rows))
    rows, columns = rows[order].astype(np.int64), columns[order]
    part = both[rows, columns]
    return Annotation(
        parcels=parcels[is_parcel].astype(np.int64),
        sizes=sizes,
        left=left,
        pair_parcel=rows,
        pair_region=regions[is_region][columns].astype(np.int64),
        fraction_in=share[rows, columns],
        coverage=part / sizes_b[columns],
        dice=2.0 * part / (sizes[rows] + sizes_b[columns]),
    )


def _left_share(
    parcellation: Parcellation, parcel_at: Int[np.ndarray, "..."], n_parcels: int
) -> Float64[np.ndarray, " parcels"]:
    """Return the voxels of each parcel left of the midline, those on it counted half."""
    i, j, k = (np.arange(n) for n in parcellation.labels.shape)
    to_x = parcellation.affine[0]
    x = to_x[0] * i[:, None, None] + to_x[1] * j[:, None] + to_x[2] * k + to_x[3]
    on_midline = 1e-3 * np.linalg.norm(to_x[:3])
    side = np.where(np.abs(x) <= on_midline, 0.5, (x < 0).astype(np.float64))
    return np.bincount(parcel_at.ravel(), side.ravel(), minlength=n_parcels)
