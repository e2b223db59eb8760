"""Image-derived phenotypes: one number a parcel and person.

Data flow::

    parcellation --prepare_extraction--> ParcelIndex     (once)
    ParcelIndex + image --extract_idps--> ParcelValues   (per image or block of images)
    components  --prepare_loadings--> LoadingIndex + image --extract_loadings--> ParcelValues

A sum is the tissue volume of the parcel in mm3: the map's values (tissue fraction, modulated so that volume is
preserved) times the voxel volume, divided by the factor the map was stored with (RAVENS: 1000). Mean and
median are in the map's own unit, divided by the same factor. A loading is the mean weighted by the component,
``w_k'x / sum(w_k)``, in that unit, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Float64, Int

from brainlocus.core import AlignmentError, Grid, Mask, Parcellation, Volume, check_same_grid

__all__ = [
    "LoadingIndex",
    "ParcelIndex",
    "ParcelValues",
    "Statistic",
    "extract_idps",
    "extract_loadings",
    "extract_volume",
    "prepare_extraction",
    "prepare_loadings",
]

Statistic = Literal["sum", "mean", "median"]

_BLOCK_BYTES = 32 << 20
_NEGLIGIBLE = 1e-12
"""Share of a component's largest weight below which a weight is what multiplicative updates leave of 0."""


@dataclass(frozen=True, slots=True, eq=False)
class ParcelIndex:
    """Which voxels belong to which parcel."""

    voxels: Int[np.ndarray, " labelled"]
    """Flat (C-order) indices of labelled voxels, grouped by parcel."""
    voxels_fortran: Int[np.ndarray, " labelled"]
    """The same voxels as indices of an array in Fortran order, as images are read: no copy is needed to turn it."""
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
class LoadingIndex:
    """Which voxels a component weighs, and how much."""

    voxels: Int[np.ndarray, " voxels"]
    """Flat (C-order) indices of the mask's voxels."""
    voxels_fortran: Int[np.ndarray, " voxels"]
    weights: Any
    """Components that have a weight x voxels, sparse (``scipy.sparse.csr_array``); each component's add up to 1."""
    names: tuple[str, ...]
    vanished: tuple[str, ...]
    """Components without a weight."""
    grid: Grid

    @property
    def n_parcels(self) -> int:
        """Components with a weight."""
        return len(self.names)


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
        voxels_fortran=_fortran(voxels[order], parcellation.labels.shape),
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
    return extract_idps(index, _values(index, volume)[None], statistic=statistic, scale=scale)


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
        return ParcelValues(_medians(index, labelled) / scale, n_missing)
    numbers = labelled.astype(np.float64)
    values = _sums(index, np.where(missing, 0.0, numbers) if n_missing.any() else numbers)
    if statistic == "sum":
        return ParcelValues(values * (index.grid.voxel_volume_mm3 / scale), n_missing)
    counts = np.broadcast_to(np.diff(index.starts).astype(np.float64), values.shape)
    if n_missing.any():
        counts = counts - _sums(index, missing.astype(np.float64))
    means = np.divide(values, counts, out=np.full(values.shape, np.nan), where=counts > 0)
    return ParcelValues(means / scale, n_missing)


def _fortran(voxels: Int[np.ndarray, " voxels"], shape: tuple[int, ...]) -> Int[np.ndarray, " voxels"]:
    return np.ravel_multi_index(np.unravel_index(voxels, shape), shape, order="F").astype(np.int64)


def _values(index: ParcelIndex | LoadingIndex, volume: Volume) -> Float[np.ndarray, " voxels"]:
    """Return the index's voxels of an image, whichever way its array lies in memory."""
    if volume.data.flags.f_contiguous and not volume.data.flags.c_contiguous:
        return np.take(volume.data.ravel(order="F"), index.voxels_fortran)
    return np.take(volume.data, index.voxels)


def _sums(index: ParcelIndex, values: Float64[np.ndarray, "images labelled"]) -> Float64[np.ndarray, "images parcels"]:
    # Voxels stand parcel by parcel, so that a parcel's sum is that of a run of them, in float64.
    return np.add.reduceat(values, index.starts[:-1], axis=1)


def _medians(index: ParcelIndex, values: Float[np.ndarray, "images labelled"]) -> Float64[np.ndarray, "images parcels"]:
    """Return medians from one sort of all voxels by parcel and value, instead of one call a parcel."""
    result = np.full((values.shape[0], index.n_parcels), np.nan)
    parcel = np.repeat(np.arange(index.n_parcels, dtype=np.int32), np.diff(index.starts))
    for row, image in zip(result, values, strict=True):
        # By value first, then stably by parcel; NaN is last in its parcel and is not counted.
        by_value = np.argsort(image)
        ordered = image[by_value[np.argsort(parcel[by_value], kind="stable")]].astype(np.float64)
        counts = np.add.reduceat(~np.isnan(image), index.starts[:-1], dtype=np.int64)
        some = counts > 0
        start, count = index.starts[:-1][some], counts[some]
        row[some] = (ordered[start + (count - 1) // 2] + ordered[start + count // 2]) / 2.0
    return result


def prepare_loadings(
    weights: Float[np.ndarray, "voxels components"],
    mask: Mask,
    names: Sequence[str],
    *,
    alive: Bool[np.ndarray, " components"] | None = None,
) -> LoadingIndex:
    """Keep the weights of every component that has any, as shares of their sum.

    Weights below 1e-12 of a component's largest count as 0: multiplicative updates leave 1e-16 instead of 0 everywhere.

    Parameters
    ----------
    weights
        W of the atlas, from 0 up, one row a voxel of the mask; may be a memory map, read by blocks.
    names
        One a component.
    alive
        Which components are to be kept, such as those that win a voxel of the hard atlas; by default all with a weight.

    Raises
    ------
    AlignmentError
        The mask has another number of voxels.
    ValueError
        No component has a weight, or another number of names.

    Examples
    --------
    >>> mask = Mask(np.ones((2, 1, 1), dtype=bool), np.eye(4))
    >>> index = prepare_loadings(np.array([[3.0, 0.0], [1.0, 0.0]]), mask, ("a", "b"))
    >>> image = Volume(np.array([[[4.0]], [[8.0]]]), np.eye(4), "")
    >>> extract_loadings(index, image, what="image").values.tolist(), index.vanished
    ([[5.0]], ('b',))
    """
    n_voxels, n_components = weights.shape
    if int(mask.data.sum()) != n_voxels:
        raise AlignmentError(
            f"The mask has {int(mask.data.sum())} voxels, the components {n_voxels}; use the mask of the fit."
        )
    if len(names) != n_components:
        raise ValueError(f"Expected a name for each of {n_components} components, found {len(names)}.")
    step = max(1, _BLOCK_BYTES // (8 * max(n_components, 1)))
    starts = range(0, n_voxels, step)
    largest = np.max([weights[k : k + step].max(axis=0) for k in starts], axis=0, initial=0.0)
    blocks = []
    for start in starts:
        part = np.asarray(weights[start : start + step], dtype=np.float64)
        blocks.append(scipy.sparse.csr_array(np.where(part > _NEGLIGIBLE * largest, part, 0.0)))
    whole = scipy.sparse.vstack(blocks, format="csc")
    totals = np.asarray(whole.sum(axis=0)).ravel()
    kept = totals > 0 if alive is None else (totals > 0) & alive
    if not kept.any():
        raise ValueError("No component has a weight; expected the components of a fitted atlas.")
    shares = scipy.sparse.csr_array((whole[:, kept] / totals[kept]).T)
    voxels = np.flatnonzero(mask.data.ravel())
    return LoadingIndex(
        voxels=voxels,
        voxels_fortran=_fortran(voxels, mask.data.shape),
        weights=shares,
        names=tuple(name for name, there in zip(names, kept, strict=True) if there),
        vanished=tuple(name for name, there in zip(names, kept, strict=True) if not there),
        grid=mask.grid,
    )


def extract_loadings(index: LoadingIndex, volume: Volume, *, what: str, scale: float = 1.0) -> ParcelValues:
    """Return the mean of an image weighted by each component, ``w_k'x / sum(w_k)``, in the image's unit.

    A missing voxel (NaN) is left out of both sums; a component of missing voxels only is NaN.

    Parameters
    ----------
    what
        Name of the image for the message.
    scale
        What the map was multiplied by when it was stored.

    Raises
    ------
    AlignmentError
        Another grid.
    """
    check_same_grid(volume.grid, index.grid, what=what)
    values = _values(index, volume).astype(np.float64)
    missing = np.isnan(values)
    if not missing.any():
        return ParcelValues((index.weights @ values)[None] / scale, np.zeros(1, dtype=np.int64))
    sums = index.weights @ np.where(missing, 0.0, values)
    present = index.weights @ (~missing).astype(np.float64)
    found = np.divide(sums, present, out=np.full(sums.shape, np.nan), where=present > 0)
    used = np.asarray(index.weights.sum(axis=0)).ravel() > 0
    return ParcelValues(found[None] / scale, np.array([int((missing & used).sum())]))
