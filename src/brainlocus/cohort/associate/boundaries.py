"""Signs that an association follows the edges of tissue rather than tissue, and how alike the two sides of a map are.

Where a structure shrinks or grows with the target, its edges move: voxels beside an edge change in proportion to the
gradient of the template there, up on one side of a fold and down on the other. A map of that kind says that the anatomy
differs, not that the tissue does. Three numbers measure it; all are near 0 for an effect inside of tissue::

    gradient_r      correlation of |t| and |grad template|
    ageing_r        correlation of t and a map of change with age, whose edges move, too
    boundary_share  share of voxels beyond a threshold that touch another tissue, with one of the other sign near
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

__all__ = ["boundary_share", "correlation", "gradient_magnitude", "mirror_places", "symmetry_r"]

REACH_MM = 6.0
"""How far the other edge of a fold is: cortex of up to 4.5 mm, and a voxel."""
_FEWEST = 10
"""Voxels that a correlation needs."""


def correlation(first: Float[np.ndarray, " voxels"], second: Float[np.ndarray, " voxels"]) -> float:
    """Return Pearson's correlation over voxels that both have; NaN for fewer than ten or a constant map."""
    both = np.isfinite(first) & np.isfinite(second)
    if int(both.sum()) < _FEWEST:
        return np.nan
    x, y = (values[both].astype(np.float64) for values in (first, second))
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else np.nan


def gradient_magnitude(
    template: Float[np.ndarray, "x y z"], affine: Float64[np.ndarray, "4 4"]
) -> Float64[np.ndarray, "x y z"]:
    """Return the length of the template's gradient per mm (central differences); NaN beside NaN.

    Examples
    --------
    >>> ramp = np.tile(np.arange(4.0)[:, None, None], (1, 3, 3))
    >>> float(gradient_magnitude(ramp, np.diag([2.0, 2, 2, 1]))[1, 1, 1])
    0.5
    """
    values = np.asarray(template, dtype=np.float64)
    steps = np.stack([_slope(values, axis) for axis in range(3)])
    # Slopes per voxel turned to slopes per mm: the affine's inverse, transposed.
    world = np.einsum("ij,i...->j...", np.linalg.inv(affine[:3, :3]), steps)
    return np.asarray(np.sqrt((world**2).sum(axis=0)))


def _slope(values: Float64[np.ndarray, "x y z"], axis: int) -> Float64[np.ndarray, "x y z"]:
    return np.asarray(np.gradient(values, axis=axis)) if values.shape[axis] > 1 else np.zeros(values.shape)


def boundary_share(
    t: Float[np.ndarray, "x y z"],
    strong: Bool[np.ndarray, "x y z"],
    tissue: Int[np.ndarray, "x y z"],
    *,
    voxel_mm: float,
) -> float:
    """Return the share of strong voxels on a boundary of tissues that alternates in sign; NaN without a strong voxel.

    A voxel lies on a boundary when a voxel that shares a face with it has another label. The sign alternates when a
    strong boundary voxel of the other sign is within 6 mm (along every axis).

    Parameters
    ----------
    tissue
        Labels, such as 1 grey, 2 white matter and 0 all else.
    voxel_mm
        Edge of a voxel.
    """
    from scipy import ndimage

    if not strong.any():
        return np.nan
    edge = np.zeros(tissue.shape, dtype=bool)
    for axis in range(3):
        low, high = (np.moveaxis(edge, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        turned = np.moveaxis(tissue, axis, 0)
        other = turned[1:] != turned[:-1]
        low |= other
        high |= other
    near = strong & edge
    width = 2 * max(int(np.ceil(REACH_MM / voxel_mm)), 1) + 1
    up, down = near & (t > 0), near & (t < 0)
    beside_up, beside_down = (
        ndimage.maximum_filter(part.astype(np.uint8), size=width, mode="constant") > 0 for part in (up, down)
    )
    return float(((up & beside_down) | (down & beside_up)).sum() / strong.sum())


def mirror_places(
    voxels: Int[np.ndarray, " voxels"], shape: tuple[int, int, int], affine: Float64[np.ndarray, "4 4"]
) -> Int[np.ndarray, " voxels"]:
    """Return the voxel nearest to each one's image on the other side of the world's x = 0, -1 where there is none.

    Parameters
    ----------
    voxels
        Flat (C-order) indices of a mask, ascending; the result counts within them. A voxel that is its own image has
        none.
    """
    index = np.stack([*np.unravel_index(voxels, shape), np.ones(voxels.size)]).astype(np.float64)
    turned = np.linalg.inv(affine) @ np.diag([-1.0, 1.0, 1.0, 1.0]) @ affine
    image = np.rint((turned @ index)[:3]).astype(np.int64)
    inside = ((image >= 0) & (image < np.array(shape)[:, None])).all(axis=0)
    flat = np.ravel_multi_index(tuple(np.where(inside, image, 0)), shape)
    place = np.clip(np.searchsorted(voxels, flat), 0, max(voxels.size - 1, 0))
    known = inside & (voxels[place] == flat) & (place != np.arange(voxels.size))
    return np.where(known, place, -1)


def symmetry_r(values: Float[np.ndarray, " voxels"], places: Int[np.ndarray, " voxels"]) -> float:
    """Return the correlation of a map and its mirror image; NaN where fewer than ten voxels have an image.

    Parameters
    ----------
    places
        From `mirror_places`.

    Examples
    --------
    >>> places = np.arange(20)[::-1]
    >>> symmetry_r(np.abs(np.arange(20) - 9.5), places), symmetry_r(np.arange(20) - 9.5, places)
    (1.0, -1.0)
    """
    return correlation(values, np.where(places >= 0, values[places], np.nan))
