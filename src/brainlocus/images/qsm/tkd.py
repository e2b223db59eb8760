"""Truncated k-space division: the dipole equation divided by D where D is not small.

::

    chi = m F^-1 [ F f / D_t ],      1 / D_t = 1 / D where |D| > t, sign(D) / t elsewhere

What lies near the cone D = 0 comes out too small. The point-spread function has the spectrum D / D_t <= 1; its value
at the origin is the mean of that spectrum, by which the map is divided on request (Schweser 2013).

References
----------
Shmueli et al. (2009), Magn Reson Med 62:1510. Schweser et al. (2013), Magn Reson Med 69:1581.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from brainlocus.images.qsm.dipole_problem import DipoleProblem, Solution

__all__ = ["TkdSettings", "divide_truncated", "invert_tkd"]


@dataclass(frozen=True, slots=True)
class TkdSettings:
    """Choices of truncated k-space division."""

    threshold: float = 0.15
    """Smallest |D| that is divided by; between 0 and 1/3. 2/3 of 0.1 to 0.2 are in use as well."""
    scale_by_psf: bool = False
    """Divide by the mean of D / D_t over k, which takes back the average underestimation."""
    padding_mm: float = 20.0
    """Least distance between the mask and its periodic copies."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1 / 3:
            raise ValueError(f"threshold: expected a value of |D| between 0 and 1/3, found {self.threshold}.")


def invert_tkd(problem: DipoleProblem, settings: TkdSettings) -> Solution:
    """Return the truncated division of the field; weights are not used."""
    spectrum = divide_truncated(problem, problem.box.forward(problem.field_ppm), settings.threshold)
    chi = problem.get(problem.box.backward_padded(spectrum))
    if settings.scale_by_psf:
        chi = chi / np.float32(mean_psf(problem, settings.threshold))
    return Solution(chi, 0, True, 0.0)


def divide_truncated(problem: DipoleProblem, spectrum: Any, threshold: float) -> Any:
    """Return a half spectrum times 1 / D where |D| > threshold, times sign(D) / threshold elsewhere."""
    return spectrum * _inverse(problem, threshold)


def mean_psf(problem: DipoleProblem, threshold: float) -> float:
    """Return the mean of D / D_t over the whole of k-space: how much of a single voxel the division leaves."""
    xp = problem.namespace or np
    share = problem.kernel * _inverse(problem, threshold)
    last = problem.box.padded[2]
    # A half spectrum holds its inner planes once, the whole one twice.
    planes = xp.sum(share, axis=(0, 1))
    total = 2 * xp.sum(planes) - planes[0] - (planes[-1] if last % 2 == 0 else 0)
    return float(total) / float(np.prod(problem.box.padded))


def _inverse(problem: DipoleProblem, threshold: float) -> Any:
    xp, kernel = problem.namespace or np, problem.kernel
    large = xp.abs(kernel) > threshold
    return xp.where(large, 1 / xp.where(large, kernel, xp.ones_like(kernel)), xp.sign(kernel) / threshold)
