"""The part of an image that a mask takes up."""

import numpy as np
from jaxtyping import Bool

__all__ = ["bounding_box"]


def bounding_box(
    mask: Bool[np.ndarray, "x y z"], margin: tuple[int, int, int] = (0, 0, 0)
) -> tuple[slice, slice, slice]:
    """Return the smallest box around a mask, and `margin` voxels on either side of each axis as far as the image goes.

    Raises
    ------
    ValueError
        The mask is empty.

    Examples
    --------
    >>> mask = np.zeros((5, 6, 7), dtype=bool)
    >>> mask[1:3, 2, 4:7] = True
    >>> bounding_box(mask, (1, 0, 1))
    (slice(0, 4, None), slice(2, 3, None), slice(3, 7, None))
    """
    if not mask.any():
        raise ValueError("The mask is empty and has no bounding box; expected at least one voxel.")
    box = []
    for axis, (n, more) in enumerate(zip(mask.shape, margin, strict=True)):
        inside = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(0, int(inside[0]) - more), min(n, int(inside[-1]) + 1 + more)))
    return box[0], box[1], box[2]
