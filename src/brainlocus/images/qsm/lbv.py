"""Background removal as a Laplacian boundary-value problem (LBV).

The background is harmonic in the mask. With the local field neglected on the mask's outermost voxels, the background is
the solution of Laplace's equation with the total field on them as boundary data; equivalently, for the local field::

    L l = L f  in the interior,   l = 0  on the boundary

with L the 7-point Laplacian of the voxel sizes. The interior are the voxels whose six neighbours lie in the mask.
Solved by conjugate gradients on -L, which is symmetric and positive definite there.

Noise and errors on the boundary enter the background as they are: peel noisy voxels first (`peel`), and follow with a
method that takes away what is left of the background (V-SHARP).

References
----------
Zhou et al. (2014), NMR Biomed 27:312 (10.1002/nbm.3064).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from brainlocus.images.qsm.local_field import LocalField, check_field, crop_to_mask, interior, peel
from brainlocus.numerics.conjugate_gradient import conjugate_gradient

__all__ = ["LbvSettings", "negative_laplacian", "remove_lbv"]


@dataclass(frozen=True, slots=True)
class LbvSettings:
    """Choices of LBV."""

    peel: int = 1
    """Layers of voxels (six-neighbour erosion) taken off the mask first."""
    tolerance: float = 1e-3
    """Of the Laplacian's residual."""
    max_iterations: int = 500


def remove_lbv(
    field_ppm: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    voxel_size_mm: tuple[float, float, float],
    settings: LbvSettings,
) -> LocalField:
    """Return the local field that vanishes on the peeled mask's boundary, in its interior.

    Parameters
    ----------
    field_ppm
        Total field; read inside the mask only.
    mask
        Where the field is known.
    voxel_size_mm
        Edges of a voxel.
    settings
        Peeling and when to stop.

    Raises
    ------
    ValueError
        An empty mask, a field that is not finite in it, a negative `peel`, or a mask without interior.

    References
    ----------
    Zhou et al. (2014), NMR Biomed 27:312.
    """
    check_field(field_ppm, mask)
    cropped = crop_to_mask(field_ppm, mask)
    inside = interior(peel(cropped.mask, settings.peel))
    operator = negative_laplacian(voxel_size_mm)
    source = np.where(inside, operator(cropped.field_ppm), np.float32(0))
    solution = conjugate_gradient(
        lambda image: np.where(inside, operator(image), np.float32(0)),
        source,
        tolerance=settings.tolerance,
        max_iterations=settings.max_iterations,
    )
    return cropped.restore(solution.x, inside, solution.n_iterations, solution.converged)


def negative_laplacian(
    voxel_size_mm: tuple[float, float, float],
) -> Callable[[Float32[np.ndarray, "x y z"]], Float32[np.ndarray, "x y z"]]:
    """Return -L, the 7-point stencil times the smallest squared voxel edge (no unit), with 0 beyond the image."""
    smallest = min(voxel_size_mm) ** 2
    weights = [np.float32(smallest / h**2) for h in voxel_size_mm]
    centre = np.float32(2 * sum(float(w) for w in weights))

    def apply(image: Float32[np.ndarray, "x y z"]) -> Float32[np.ndarray, "x y z"]:
        result = centre * image
        for axis, weight in enumerate(weights):
            lower = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
            upper = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
            scaled = weight * image
            result[lower] -= scaled[upper]
            result[upper] -= scaled[lower]
        return result

    return apply
