"""Where the points of one image lie in another: affine transforms and displacement fields between worlds.

Every transform maps points of the *target* (the grid that is to be filled) to points of the *source* (the image that is
read), both in world millimetres, RAS+. That is the direction resampling needs, the direction in which ITK stores its
transforms, and the inverse of a FLIRT matrix. A chain is a tuple; its first transform is applied to the target's points
first: ``(T1 from MNI, swMRI from T1)`` fills an MNI grid from a swMRI image.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from brainlocus.core.errors import FormatError

__all__ = ["AffineTransform", "DisplacementField", "Transform", "inverted"]


@dataclass(frozen=True, slots=True, eq=False)
class AffineTransform:
    """``source = matrix @ target`` in homogeneous world coordinates.

    Raises
    ------
    FormatError
        The matrix is singular, not finite, or its last row is not 0 0 0 1.
    """

    matrix: Float[np.ndarray, "4 4"]

    def __post_init__(self) -> None:
        whole = np.isfinite(self.matrix).all() and np.allclose(self.matrix[3], (0.0, 0.0, 0.0, 1.0), atol=1e-6)
        if not whole or abs(np.linalg.det(self.matrix[:3, :3])) < 1e-9:
            raise FormatError(
                f"Expected an invertible 4 x 4 matrix with the last row 0 0 0 1, found\n{self.matrix}\n"
                "Is the file a transform?"
            )


@dataclass(frozen=True, slots=True, eq=False)
class DisplacementField:
    """``source = target + displacement(target)``, the displacement interpolated linearly between the field's voxels."""

    displacement_mm: Float[np.ndarray, "x y z 3"]
    """Along right, anterior and superior."""
    affine: Float[np.ndarray, "4 4"]
    """Voxels of the field to the target's world."""
    outside: Literal["still", "missing"] = "still"
    """Points beyond the field: not displaced (ITK), or without a source (FSL: its fields hold the affine part too)."""


Transform = AffineTransform | DisplacementField


def inverted(transform: Transform) -> AffineTransform:
    """Return the transform from source to target.

    Raises
    ------
    FormatError
        It is a displacement field, which has its inverse in a file of its own.
    """
    if isinstance(transform, DisplacementField):
        raise FormatError(
            "A displacement field cannot be inverted here; give the field of the other direction (ANTs writes "
            "*InverseWarp.nii.gz beside *Warp.nii.gz; FSL has invwarp)."
        )
    return AffineTransform(np.linalg.inv(transform.matrix))
