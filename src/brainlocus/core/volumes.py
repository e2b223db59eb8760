"""Images with their place in the world: volumes, masks, parcellations."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from brainlocus.core.errors import AlignmentError

__all__ = ["AFFINE_TOLERANCE_MM", "Grid", "Mask", "Parcellation", "Volume", "check_same_grid", "same_grid"]

AFFINE_TOLERANCE_MM = 1e-3
"""Largest difference between two affines' entries that still counts as the same grid."""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Shape of an image and where its voxels lie."""

    shape: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]
    """Voxel indices to world millimetres (RAS+)."""

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A three-dimensional image of one quantity."""

    data: Float[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    quantity: str
    """What a voxel holds: ``grey_matter``, ``susceptibility``, ``beta`` ..."""
    unit: str = ""

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        return Grid(self.data.shape, self.affine)


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Voxels that count."""

    data: Bool[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        return Grid(self.data.shape, self.affine)


@dataclass(frozen=True, slots=True, eq=False)
class Parcellation:
    """Hard labels: 0 is background, 1 and up are parcels."""

    labels: Int[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    names: dict[int, str] = field(default_factory=dict)
    """Label to name, for every label that may occur, vanished parcels included."""

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        return Grid(self.labels.shape, self.affine)


def same_grid(first: Grid, second: Grid) -> bool:
    """Return whether two images have the same shape and, to `AFFINE_TOLERANCE_MM`, the same affine.

    Examples
    --------
    >>> same_grid(Grid((2, 2, 2), np.eye(4)), Grid((2, 2, 2), np.eye(4) + 1e-5))
    True
    """
    if first.shape != second.shape:
        return False
    return float(np.abs(first.affine - second.affine).max()) <= AFFINE_TOLERANCE_MM


def check_same_grid(found: Grid, expected: Grid, *, what: str) -> None:
    """Check that an image lies on the expected grid.

    Raises
    ------
    AlignmentError
        Another shape, or affines that differ by more than `AFFINE_TOLERANCE_MM`; both are shown.
    """
    if found.shape != expected.shape:
        raise AlignmentError(
            f"{what} has shape {found.shape}, expected {expected.shape}. Resample it to the common grid first."
        )
    difference = float(np.abs(found.affine - expected.affine).max())
    if not difference <= AFFINE_TOLERANCE_MM:
        raise AlignmentError(
            f"{what} has the right shape but another affine (largest difference {difference:g} mm):\n"
            f"found\n{found.affine}\nexpected\n{expected.affine}\nResample it to the common grid first."
        )
