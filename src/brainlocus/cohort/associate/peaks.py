"""Peaks of a statistical map: local maxima that lie apart."""

import numpy as np
from jaxtyping import Float, Float64, Int

__all__ = ["find_peaks"]


def find_peaks(
    strength: Float[np.ndarray, "x y z"],
    affine: Float64[np.ndarray, "4 4"],
    *,
    least: float,
    distance_mm: float = 8.0,
    most: int = 20,
) -> Int[np.ndarray, "peaks 3"]:
    """Return the voxels that are no smaller than their 26 neighbours, strongest first, at least `distance_mm` apart.

    Parameters
    ----------
    strength
        Such as |t|; NaN is outside the map.
    affine
        Voxel indices to millimetres.
    least
        Weaker voxels are no peaks.
    most
        Peaks returned at most.

    Examples
    --------
    >>> strength = np.zeros((9, 3, 3))
    >>> strength[1, 1, 1], strength[3, 1, 1], strength[8, 1, 1] = 5.0, 4.0, 3.0
    >>> find_peaks(strength, np.diag([2.0, 2, 2, 1]), least=2.0).tolist()
    [[1, 1, 1], [8, 1, 1]]
    """
    from scipy import ndimage

    filled = np.where(np.isfinite(strength), strength, -np.inf)
    candidates = np.argwhere((filled >= least) & (filled == ndimage.maximum_filter(filled, size=3, mode="nearest")))
    order = np.argsort(-filled[tuple(candidates.T)], kind="stable")
    kept: list[int] = []
    places = candidates @ affine[:3, :3].T
    for at in order:
        if len(kept) == most:
            break
        if not kept or np.linalg.norm(places[kept] - places[at], axis=1).min() >= distance_mm:
            kept.append(int(at))
    return np.asarray(candidates[kept])
