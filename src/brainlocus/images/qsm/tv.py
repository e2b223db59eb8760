"""Total-variation inversion with a fidelity that is masked and weighted.

::

    minimise over chi    1/2 sum_mask W^2 (D chi - f)^2 + lambda sum e |grad chi| + tau/2 sum_outside chi^2

The published form (Bilgic 2014) sums the fidelity over the whole box with f = 0 outside the mask, and the absolute
gradient over the axes: `published_tv_settings`. What differs here, with the error of the simulated head in
docs/stages/qsm/inversion.md:

* The field outside the mask is not zero but unknown, so it is left out of the fidelity.
* Background fields that their removal left behind have sources outside the mask. The map may have some there, at a
  price: tau = (noise of the field / susceptibility to expect outside)^2. With chi = 0 outside (tau infinite) a
  perfect local field is inverted a little better, and one with 4 ppb of background fields twice as badly.
* The step of chi at the mask's edge is free (e = 0): brain against nothing is no feature of the brain.
* The gradient's length, not the sum of its parts, so that surfaces oblique to the axes cost no more.

How large lambda is: for noise of variance s^2 and a gradient whose length is distributed as exp(-|g| / b), the most
probable map has lambda = s^2 / b. Brain maps have b of about 0.01 ppm/mm; noise of 1.15 to 1.4 ppb then gives 1.3e-4
to 2e-4.

References
----------
Bilgic et al. (2014), Magn Reson Med 72:1444. Milovic et al. (2018), Magn Reson Med 80:814. Rudin, Osher & Fatemi
(1992), Physica D 60:259.
"""

from dataclasses import dataclass

from brainlocus.images.qsm.admm import AdmmPlan, KnownSpectrum, VoxelFidelity, edge_weights, minimise_total_variation
from brainlocus.images.qsm.dipole_problem import DipoleProblem, Solution

__all__ = ["TvSettings", "invert_tv", "plan_of", "published_tv_settings"]


@dataclass(frozen=True, slots=True)
class TvSettings:
    """Choices of the total-variation inversion."""

    regularisation: float = 2e-4
    """lambda, in ppm mm."""
    rho_factor: float = 100.0
    """rho / lambda: the weight of the gradient's split. Changes the speed, not the solution."""
    mu: float = 1.0
    """Weight of the field's split. Changes the speed, not the solution."""
    support_factor: float = 0.1
    """sigma / rho, in 1/mm²: the weight of the support's split. Changes the speed, not the solution."""
    relaxation: float = 1.6
    """Over-relaxation, 1 to 1.9; 1: none. Changes the speed, not the solution."""
    isotropic: bool = True
    """Length of the gradient; False: the sum of its absolute parts, which favours edges along the axes."""
    masked_fidelity: bool = True
    """Leave the field outside the mask out (and use weights, if given); False: it counts as 0."""
    outside: float = 3e-4
    """tau. 0: sources outside the mask are free; infinite: there are none."""
    free_boundary: bool = True
    """Do not penalise the step of chi at the mask's edge."""
    fit_offset: bool = False
    """Let the field be off by a constant, which is found along the way. A constant of 0.5 ppb is a fifth of the error
    of the simulated head when it is not fitted; fitting it costs as much when there is none."""
    edge_share: float = 0.0
    """Share of the voxels, with the strongest gradient of the magnitude, whose variation is not penalised."""
    tolerance: float = 2e-3
    """Stop where chi inside the mask changes by less in an iteration, relative to its size."""
    max_iterations: int = 250
    padding_mm: float = 20.0
    """Least distance between the mask and its periodic copies."""

    def __post_init__(self) -> None:
        for name in ("regularisation", "rho_factor", "mu", "support_factor", "tolerance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a number above 0, found {getattr(self, name)}.")
        if not 1 <= self.relaxation < 2:
            raise ValueError(f"relaxation: expected a number from 1 to below 2, found {self.relaxation}.")
        if not self.outside >= 0:
            raise ValueError(f"outside: expected 0 or more, found {self.outside}.")


def published_tv_settings(regularisation: float = 2e-4) -> TvSettings:
    """Return the inversion as published: Bilgic et al. (2014) with rho = 100 lambda."""
    return TvSettings(
        regularisation=regularisation,
        relaxation=1.0,
        isotropic=False,
        masked_fidelity=False,
        outside=0.0,
        free_boundary=False,
        tolerance=1e-3,
    )


def invert_tv(problem: DipoleProblem, settings: TvSettings) -> Solution:
    """Return the map of least total variation that agrees with the field."""
    if settings.masked_fidelity:
        fidelity: VoxelFidelity | KnownSpectrum = VoxelFidelity(None)
    else:
        kernel = problem.kernel
        fidelity = KnownSpectrum(kernel * kernel, problem.box.forward(problem.field_ppm) * kernel)
    edges = edge_weights(problem, settings.edge_share, settings.free_boundary)
    return minimise_total_variation(problem, plan_of(settings), fidelity, edges)


def plan_of(settings: TvSettings) -> AdmmPlan:
    """Return the engine's numbers."""
    rho = settings.rho_factor * settings.regularisation
    return AdmmPlan(
        regularisation=settings.regularisation,
        rho=rho,
        mu=settings.mu,
        sigma=settings.support_factor * rho if settings.outside > 0 else 0.0,
        outside=settings.outside,
        relaxation=settings.relaxation,
        isotropic=settings.isotropic,
        fit_offset=settings.fit_offset,
        tolerance=settings.tolerance,
        max_iterations=settings.max_iterations,
    )
