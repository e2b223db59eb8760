"""Which voxel axis runs along which axis of the world or across the slices, and images turned to the world's axes."""

from itertools import permutations

import numpy as np
from jaxtyping import Float, Shaped

__all__ = ["ras_axes", "slice_axis", "to_ras"]

EQUAL_EDGES = 1e-3
"""Voxel edges that differ by less, relative to the longest, count as equal: headers hold them in single precision."""


def ras_axes(affine: Float[np.ndarray, "4 4"]) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Return, for right, anterior and superior, the voxel axis nearest to it and whether that axis runs against it.

    Of all one-to-one pairings that with the largest sum of cosines is taken, so that oblique images have one too.

    Examples
    --------
    >>> ras_axes(np.diag([-2.0, 2.0, 3.0, 1.0]))
    ((0, 1, 2), (True, False, False))
    """
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    first, second, third = max(permutations(range(3)), key=lambda o: sum(abs(cosines[w, a]) for w, a in enumerate(o)))
    order = (first, second, third)
    right, anterior, superior = (bool(cosines[world, axis] < 0) for world, axis in enumerate(order))
    return order, (right, anterior, superior)


def slice_axis(voxel_size_mm: tuple[float, float, float]) -> int:
    """Return the axis across the slices: that of the longest voxel edge, the last one among equals.

    Examples
    --------
    >>> slice_axis((0.8, 0.8, 3.0)), slice_axis((3.0, 0.8, 0.8)), slice_axis((1.0, 1.0, 1.0))
    (2, 0, 2)
    """
    longest = max(voxel_size_mm)
    return max(axis for axis, edge in enumerate(voxel_size_mm) if edge >= longest * (1 - EQUAL_EDGES))


def to_ras(
    data: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]
) -> tuple[Shaped[np.ndarray, "right anterior superior"], Float[np.ndarray, "4 4"]]:
    """Return a view of an image whose axes run right, anterior and superior (as nearly as its grid allows).

    No voxel is resampled: axes are only swapped and flipped, and the affine with them.
    """
    order, flips = ras_axes(affine)
    turned = np.transpose(data, order)
    change = np.zeros((4, 4))
    change[3, 3] = 1.0
    for world, (axis, flip) in enumerate(zip(order, flips, strict=True)):
        change[axis, world] = -1.0 if flip else 1.0
        if flip:
            turned = np.flip(turned, axis=world)
            change[axis, 3] = data.shape[axis] - 1
    return turned, affine @ change
