"""Images on another grid: interpolated for maps, nearest voxel for labels, through chains of transforms.

Maps have voxels without a value (NaN, or outside their mask). Interpolation weighs only voxels with one::

    value = sum_v w_v m_v x_v / sum_v w_v m_v,    m_v = 1 where voxel v has a value,

and a point where those weigh less than half has none. So a map's rim is neither mixed with zeros nor eaten by NaN.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Shaped
from scipy.ndimage import map_coordinates, spline_filter

from brainlocus.core.transforms import AffineTransform, DisplacementField, Transform
from brainlocus.core.volumes import Grid, Mask, Parcellation, Volume, check_same_grid

__all__ = ["map_points", "resample_labels", "resample_map", "resample_mask"]

_POINTS_AT_ONCE = 1 << 20
"""Points held at a time: three float64 coordinates each, and as much again on the way."""
_WHOLE = 1.0 - 1e-6


def map_points(
    points_mm: Float64[np.ndarray, "3 points"], transforms: Sequence[Transform]
) -> Float64[np.ndarray, "3 points"]:
    """Return where points of the target lie in the source, in world mm; NaN where a field says nothing.

    Examples
    --------
    >>> shift = AffineTransform(np.array([[1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    >>> map_points(np.zeros((3, 1)), (shift, shift)).ravel().tolist()
    [10.0, 0.0, 0.0]
    """
    for transform in transforms:
        if isinstance(transform, AffineTransform):
            points_mm = _affine(transform.matrix, points_mm)
        else:
            points_mm = points_mm + _displacement(transform, points_mm)
    return points_mm


def resample_map(
    volume: Volume,
    grid: Grid,
    transforms: Sequence[Transform] = (),
    *,
    order: int = 1,
    fill: float = float("nan"),
    inside: Mask | None = None,
) -> Volume:
    """Return a map on another grid.

    Parameters
    ----------
    volume
        NaN voxels have no value.
    transforms
        From the grid's world to the map's, applied in order.
    order
        0 nearest, 1 linear, 3 cubic spline (linear where a neighbour has no value).
    fill
        Where the result has no value.
    inside
        Voxels of the map that have a value.

    Raises
    ------
    ValueError
        Another order.
    AlignmentError
        The mask is not on the map's grid.
    """
    if order not in (0, 1, 3):
        raise ValueError(f"order must be 0 (nearest), 1 (linear) or 3 (cubic), got {order}.")
    valid = np.isfinite(volume.data)
    if inside is not None:
        check_same_grid(inside.grid, volume.grid, what="The mask of the map")
        valid &= inside.data
    values = np.where(valid, volume.data, 0).astype(np.float32)
    weights = valid.astype(np.float32)
    smooth = spline_filter(values, order=3, output=np.float32) if order == 3 else None
    kind = volume.data.dtype.type
    base: Literal[0, 1] = 0 if order == 0 else 1
    result = np.empty(grid.shape, dtype=kind)
    for planes, voxels in _slabs(grid, volume.affine, transforms):
        weight = _sample(weights, voxels, order=base)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = _sample(values, voxels, order=base) / weight
        if smooth is not None:
            cubic = map_coordinates(smooth, voxels, order=3, mode="mirror", prefilter=False, output=np.float32)
            found = np.where(weight > _WHOLE, cubic, found)
        result[planes] = np.where(weight >= 0.5, found, fill).reshape(result[planes].shape)
    return Volume(result, grid.affine, volume.quantity, volume.unit)


def resample_labels(parcellation: Parcellation, grid: Grid, transforms: Sequence[Transform] = ()) -> Parcellation:
    """Return the label of the nearest voxel on another grid; 0 beyond the image. Labels are never interpolated."""
    labels = _nearest(parcellation.labels, parcellation.affine, grid, transforms)
    return Parcellation(labels, grid.affine, parcellation.names)


def resample_mask(mask: Mask, grid: Grid, transforms: Sequence[Transform] = ()) -> Mask:
    """Return a mask on another grid, by the nearest voxel."""
    return Mask(_nearest(mask.data.view(np.int8), mask.affine, grid, transforms).astype(bool), grid.affine)


def _nearest(
    data: Shaped[np.ndarray, "x y z"],
    affine: Float64[np.ndarray, "4 4"],
    grid: Grid,
    transforms: Sequence[Transform],
) -> Shaped[np.ndarray, "u v w"]:
    result = np.zeros(grid.shape, dtype=data.dtype)
    shape = np.array(data.shape)[:, None]
    for planes, voxels in _slabs(grid, affine, transforms):
        index = np.floor(np.nan_to_num(voxels, nan=-9.0) + 0.5).astype(np.int64)
        known = ((index >= 0) & (index < shape)).all(axis=0)
        part = np.zeros(index.shape[1], dtype=data.dtype)
        part[known] = data[tuple(index[:, known])]
        result[planes] = part.reshape(result[planes].shape)
    return result


def _slabs(
    grid: Grid, source_affine: Float64[np.ndarray, "4 4"], transforms: Sequence[Transform]
) -> Iterator[tuple[slice, Float64[np.ndarray, "3 points"]]]:
    """Yield ranges of the grid's first axis and where their voxels lie, in voxels of the source."""
    chain = _folded((AffineTransform(grid.affine), *transforms, AffineTransform(np.linalg.inv(source_affine))))
    rows = max(1, _POINTS_AT_ONCE // max(1, grid.shape[1] * grid.shape[2]))
    plane = np.indices(grid.shape[1:], dtype=np.float64).reshape(2, -1)
    for start in range(0, grid.shape[0], rows):
        stop = min(start + rows, grid.shape[0])
        first = np.repeat(np.arange(start, stop, dtype=np.float64), plane.shape[1])
        yield slice(start, stop), map_points(np.vstack([first, np.tile(plane, stop - start)]), chain)


def _folded(transforms: Sequence[Transform]) -> tuple[Transform, ...]:
    """Return the chain with neighbouring affine transforms multiplied into one."""
    chain: list[Transform] = []
    for transform in transforms:
        last = chain[-1] if chain else None
        if isinstance(transform, AffineTransform) and isinstance(last, AffineTransform):
            chain[-1] = AffineTransform(transform.matrix @ last.matrix)
        else:
            chain.append(transform)
    return tuple(chain)


def _affine(
    matrix: Float[np.ndarray, "4 4"], points: Float64[np.ndarray, "3 points"]
) -> Float64[np.ndarray, "3 points"]:
    return np.asarray(matrix[:3, :3] @ points + matrix[:3, 3:], dtype=np.float64)


def _displacement(
    field: DisplacementField, points_mm: Float64[np.ndarray, "3 points"]
) -> Float64[np.ndarray, "3 points"]:
    voxels = _affine(np.linalg.inv(field.affine), points_mm)
    last = np.array(field.displacement_mm.shape[:3])[:, None] - 1.0
    # Beyond the middle of the last voxel, but not by more than rounding or half a voxel, the last voxel holds.
    beyond = ~((voxels >= -0.5) & (voxels <= last + 0.5)).all(axis=0)
    clipped = np.clip(np.nan_to_num(voxels, nan=0.0), 0.0, last)
    moved = np.stack(
        [
            map_coordinates(field.displacement_mm[..., k], clipped, order=1, mode="nearest", output=np.float64)
            for k in range(3)
        ]
    )
    moved[:, beyond] = np.nan if field.outside == "missing" else 0.0
    return moved


def _sample(
    data: Float[np.ndarray, "x y z"], voxels: Float64[np.ndarray, "3 points"], *, order: Literal[0, 1]
) -> Float[np.ndarray, " points"]:
    """Return linear interpolation (or the nearest voxel) with zeros beyond the image; 0 at NaN coordinates."""
    at = np.nan_to_num(voxels, nan=-9.0)
    return np.asarray(map_coordinates(data, at, order=order, mode="grid-constant", cval=0.0, output=np.float32))
