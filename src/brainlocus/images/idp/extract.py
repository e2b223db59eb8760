"""Image-derived phenotypes: one number a parcel and person.

Data flow::

    parcellation --prepare_extraction--> ParcelIndex     (once)
    ParcelIndex + image --extract_idps--> ParcelValues   (per image or block of images)

A sum is the tissue volume of the parcel in mm3: the map's values (tissue fraction, modulated so that volume is
preserved) times the voxel volume, divided by the factor the map was stored with (RAVENS: 1000). Mean and
median are in the map's own unit, divided by the same factor.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse
from jaxtyping import Float, Float64, Int

from brainlocus.core import Grid, Parcellation, Volume, check_same_grid

__all__ = ["ParcelIndex", "ParcelValues", "Statistic", "extract_idps", "extract_volume", "prepare_extraction"]

Statistic = Literal["sum", "mean", "median"]


@dataclass(frozen=True, slots=True, eq=False)
class ParcelIndex:
    """Which voxels belong to which parcel."""

    voxels: Int[np.ndarray, " labelled"]
    """Flat (C-order) indices of labelled voxels, grouped by parcel."""
    starts: Int[np.ndarray, " bounds"]
    """Where each parcel begins in `voxels`; one more entry for the end."""
    labels: Int[np.ndarray, " parcels"]
    """Label of each parcel, ascending; parcels without voxels are absent."""
    names: tuple[str, ...]
    vanished: tuple[str, ...]
    """Named parcels without a voxel."""
    grid: Grid

    @property
    def n_parcels(self) -> int:
        """Parcels with at least one voxel."""
        return int(self.labels.size)


@dataclass(frozen=True, slots=True, eq=False)
class ParcelValues:
    """Extracted numbers."""

    values: Float64[np.ndarray, "images parcels"]
    n_missing: Int[np.ndarray, " images"]
    """Labelled voxels that were NaN and counted as 0 (sum) or left out (mean, median)."""


def prepare_extraction(parcellation: Parcellation) -> ParcelIndex:
    """Group the voxels of a parcellation.

    Parcels are called by the parcellation's names, else ``C{scale}_{label}`` with the largest label as scale.

    Raises
    ------
    ValueError
        There is no labelled voxel.
    """
    flat = parcellation.labels.ravel()
    voxels = np.flatnonzero(flat > 0)
    if not voxels.size:
        raise ValueError("The parcellation has no labelled voxel; labels must be 1 and up.")
    order = np.argsort(flat[voxels], kind="stable")
    labels, starts = np.unique(flat[voxels][order], return_index=True)
    scale = max(int(labels[-1]), max(parcellation.names, default=0))
    named = {k: parcellation.names.get(k, f"C{scale}_{k}") for k in range(1, scale + 1)}
    present = {int(k) for k in labels}
    return ParcelIndex(
        voxels=voxels[order],
        starts=np.append(starts, voxels.size).astype(np.int64),
        labels=labels.astype(np.int64),
        names=tuple(named[int(k)] for k in labels),
        vanished=tuple(name for k, name in named.items() if k not in present),
        grid=parcellation.grid,
    )


def extract_volume(
    index: ParcelIndex, volume: Volume, *, what: str, statistic: Statistic = "sum", scale: float = 1.0
) -> ParcelValues:
    """Extract from one image on the parcellation's grid.

    Parameters
    ----------
    what
        Name of the image for the message.

    Raises
    ------
    AlignmentError
        Another grid.
    """
    check_same_grid(volume.grid, index.grid, what=what)
    return extract_idps(index, volume.data.reshape(1, -1)[:, index.voxels], statistic=statistic, scale=scale)


def extract_idps(
    index: ParcelIndex,
    labelled: Float[np.ndarray, "images labelled"],
    *,
    statistic: Statistic = "sum",
    scale: float = 1.0,
) -> ParcelValues:
    """Extract from many images at once.

    Parameters
    ----------
    labelled
        The voxels of `ParcelIndex.voxels`, in that order.
    statistic
        ``sum`` in mm3, ``mean`` or ``median`` in the map's unit.
    scale
        What the map was multiplied by when it was stored.

    Returns
    -------
    ParcelValues
        A parcel whose voxels are all NaN has sum 0, mean and median NaN.
    """
    missing = np.isnan(labelled)
    n_missing = missing.sum(axis=1).astype(np.int64)
    if statistic == "median":
        values = _medians(index, labelled)
    else:
        filled = np.where(missing, 0.0, labelled.astype(np.float64))
        values = _sums(index, filled)
        if statistic == "mean":
            counts = _sums(index, (~missing).astype(np.float64))
            values = np.divide(values, counts, out=np.full(values.shape, np.nan), where=counts > 0)
        else:
            values = values * index.grid.voxel_volume_mm3
    return ParcelValues(values / scale, n_missing)


def _sums(index: ParcelIndex, values: Float64[np.ndarray, "images labelled"]) -> Float64[np.ndarray, "images parcels"]:
    # A 0/1 matrix of compressed rows: its row pointers are the parcels' starts, and its products add in float64.
    membership = scipy.sparse.csr_array(
        (np.ones(index.voxels.size), np.arange(index.voxels.size), index.starts),
        shape=(index.n_parcels, index.voxels.size),
    )
    return np.ascontiguousarray((membership @ values.T).T)


def _medians(index: ParcelIndex, values: Float[np.ndarray, "images labelled"]) -> Float64[np.ndarray, "images parcels"]:
    result = np.full((values.shape[0], index.n_parcels), np.nan)
    for parcel in range(index.n_parcels):
        part = values[:, index.starts[parcel] : index.starts[parcel + 1]].astype(np.float64)
        some = ~np.isnan(part).all(axis=1)
        result[some, parcel] = np.nanmedian(part[some], axis=1)
    return result
