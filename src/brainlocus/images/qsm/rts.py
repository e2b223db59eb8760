"""Rapid two-step inversion: what k-space determines is taken from least squares, the rest from total variation.

::

    1. x1     a few iterations of weighted least squares (lsqr.py)
    2. chi    minimises lambda sum e |grad chi| + mu/2 sum_{|D| > t} |F (chi - x1)|^2 + tau/2 sum_outside chi^2

The second step trusts k-space where |D| > t and fills in the cone. As both terms are point-wise in their own domain,
an iteration needs two transforms. Only mu / lambda matters.

References
----------
Kames et al. (2018), NeuroImage 167:276.
"""

from dataclasses import dataclass, field

import numpy as np

from brainlocus.images.qsm.admm import KnownSpectrum, edge_weights, minimise_total_variation
from brainlocus.images.qsm.dipole_problem import DipoleProblem, Solution
from brainlocus.images.qsm.lsqr import LsqrSettings, weighted_least_squares
from brainlocus.images.qsm.tv import TvSettings, plan_of

__all__ = ["RtsSettings", "invert_rts"]


@dataclass(frozen=True, slots=True)
class RtsSettings:
    """Choices of the rapid two-step inversion."""

    start: LsqrSettings = field(default_factory=lambda: LsqrSettings(max_iterations=20))
    """Step 1. The published 4 iterations leave half of chi where |D| is just above the threshold."""
    threshold: float = 0.15
    """t: |D| above which k-space counts as determined."""
    fidelity: float = 0.05
    """mu, next to `variation`'s lambda. A determined frequency has the noise of the field over |D|, hence mean D^2."""
    variation: TvSettings = field(default_factory=TvSettings)
    """Step 2: regularisation, stopping rule and what lies outside the mask."""

    @property
    def padding_mm(self) -> float:
        """Least distance between the mask and its periodic copies: that of `variation`."""
        return self.variation.padding_mm

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 2 / 3:
            raise ValueError(f"threshold: expected a value of |D| between 0 and 2/3, found {self.threshold}.")
        if not self.fidelity > 0:
            raise ValueError(f"fidelity: expected a number above 0, found {self.fidelity}.")


def invert_rts(problem: DipoleProblem, settings: RtsSettings) -> Solution:
    """Return the map of both steps."""
    xp = problem.namespace or np
    start = weighted_least_squares(problem, settings.start)
    kernel = problem.kernel
    one = xp.ones_like(kernel)
    density = xp.where(xp.abs(kernel) > settings.threshold, one, 0 * one) * settings.fidelity
    fidelity = KnownSpectrum(density, start.x * density)
    edges = edge_weights(problem, settings.variation.edge_share, settings.variation.free_boundary)
    return minimise_total_variation(problem, plan_of(settings.variation), fidelity, edges)
