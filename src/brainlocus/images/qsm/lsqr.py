"""Least squares stopped early: the weighted start of iLSQR, on its own the `lsqr` inversion.

::

    minimise over X    sum W |F^-1 D X - f|^2,      normal equations  D F W F^-1 D X = D F W f,      chi1 = m F^-1 X

by conjugate gradients on the normal equations (LSQR in exact arithmetic). W falls where the Laplacian of the field is
large, near vessels and errors of the phase. The small values of D are fitted last, so that the number of iterations
is the regularisation.

References
----------
Li et al. (2015), NeuroImage 108:111; Paige & Saunders (1982), ACM Trans Math Softw 8:43.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from brainlocus.images.qsm.dipole_problem import DipoleProblem, Solution
from brainlocus.numerics.conjugate_gradient import LinearSolution, conjugate_gradient, inner

__all__ = [
    "HalfSpectrumProduct",
    "LsqrSettings",
    "falling_weight",
    "invert_lsqr",
    "laplacian_weight",
    "weighted_least_squares",
]


@dataclass(frozen=True, slots=True)
class LsqrSettings:
    """Choices of the least-squares inversion."""

    max_iterations: int = 50
    tolerance: float = 0.01
    """Stop where the residual of the normal equations is below this share of its start."""
    full_percentile: float = 60.0
    """Voxels with a field Laplacian below this percentile have weight 1."""
    zero_percentile: float = 99.9
    """Voxels above this percentile have weight 0; linear between."""
    padding_mm: float = 20.0
    """Least distance between the mask and its periodic copies."""

    def __post_init__(self) -> None:
        if not 0 <= self.full_percentile < self.zero_percentile <= 100:
            raise ValueError(
                "Expected 0 <= full_percentile < zero_percentile <= 100, found "
                f"{self.full_percentile} and {self.zero_percentile}."
            )


@dataclass(frozen=True, slots=True, eq=False)
class HalfSpectrumProduct:
    """The inner product of two real images from their half spectra, times the number of voxels (Parseval)."""

    problem: DipoleProblem

    def __call__(self, left: Any, right: Any) -> float:
        """Return Re sum conj(left) right over the whole spectrum: inner planes of the half count twice."""
        xp = self.problem.namespace or np
        if self.problem.namespace is None:
            whole = inner(left, right)
            edges = inner(left[:, :, 0], right[:, :, 0])
            if self.problem.box.padded[2] % 2 == 0:
                edges += inner(left[:, :, -1], right[:, :, -1])
            return 2 * whole - edges
        planes = xp.sum(xp.real(xp.conj(left) * right), axis=(0, 1))
        total = 2 * xp.sum(planes) - planes[0]
        if self.problem.box.padded[2] % 2 == 0:
            total = total - planes[-1]
        return float(total)


def invert_lsqr(problem: DipoleProblem, settings: LsqrSettings) -> Solution:
    """Return the weighted least-squares map of a limited number of iterations."""
    found = weighted_least_squares(problem, settings)
    chi = problem.get(problem.box.backward_padded(found.x))
    return Solution(chi, found.n_iterations, found.converged, found.relative_residual)


def weighted_least_squares(problem: DipoleProblem, settings: LsqrSettings) -> LinearSolution:
    """Return the half spectrum X of the weighted least-squares map."""
    box, kernel = problem.box, problem.kernel
    weight = problem.put_image(laplacian_weight(problem, settings)) * problem.weight

    def normal(spectrum: Any) -> Any:
        return kernel * box.forward(weight * box.backward_padded(kernel * spectrum))

    right = kernel * box.forward(weight * problem.field_ppm)
    return conjugate_gradient(
        normal,
        right,
        tolerance=settings.tolerance,
        max_iterations=settings.max_iterations,
        product=HalfSpectrumProduct(problem),
    )


def laplacian_weight(problem: DipoleProblem, settings: LsqrSettings) -> Float32[np.ndarray, "x y z"]:
    """Return W: 1 where the magnitude of the field's Laplacian is small, 0 where it is large; 0 outside the mask."""
    field = problem.get_image(problem.field_ppm)
    laplacian = np.zeros_like(field)
    for axis, size in enumerate(problem.box.voxel_size_mm):
        laplacian += ndimage.correlate1d(field, [1.0, -2.0, 1.0], axis=axis, mode="constant") / np.float32(size**2)
    return falling_weight(laplacian, problem.mask, settings.full_percentile, settings.zero_percentile)


def falling_weight(
    values: Float32[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], full: float, zero: float
) -> Float32[np.ndarray, "x y z"]:
    """Return weights that fall from 1 to 0 between two percentiles of the *magnitude* of values inside the mask.

    Signed values would give the weight 1 to half of all strong edges, the negative ones; the streaks of iLSQR are then
    made worse, not better.
    """
    size = np.abs(values)
    low, high = np.percentile(size[mask], [full, zero])
    if not high > low:
        return np.asarray(mask, dtype=np.float32)
    weight = np.clip((np.float32(high) - size) / np.float32(high - low), 0, 1)
    return np.asarray(np.where(mask, weight, 0), dtype=np.float32)
