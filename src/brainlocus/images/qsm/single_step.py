"""Susceptibility from the total field in one step: background removal and inversion in one least-squares problem.

::

    minimise over chi    1/2 sum_r sum_{M_r} W^2 (H_r D chi - H_r f)^2 + lambda sum |grad chi|,    chi = 0 outside

f is the *total* field, H_r = delta - S_r the spherical-mean filter of radius r, and M_r the voxels whose ball of radius
r lies in the mask but whose ball of the next larger radius does not. The mean value property makes H_r f free of every
source outside the mask, so that the same filter is applied to data and model and nothing has to be deconvolved.

Why in one step. SHARP-like methods return the local field without its own harmonic part: sources near the mask's edge,
and the mean of the brain against its surroundings, make fields that are harmonic inside, which no method can tell from
background. The true local field has that part and the filtered one has not, and an inversion that takes the filtered
field at its word puts the difference into the map as a slow shading. On the simulated head that shading is most of the
error of regional values after referencing to the ventricles (docs/stages/qsm/accuracy.md). Here the model is filtered
like the data, so that the harmonic part is asked of neither.

The solver is that of `admm.py` with a copy v_r = H_r D chi for every radius: 2 (radii + 1) transforms an iteration.

References
----------
Chatnuntawech et al. (2017), NMR Biomed 30:e3570 (single-step total variation with V-SHARP filters). Milovic et al.
(2019), Magn Reson Med 81:1399, on the harmonic rest of local fields. Schweser et al. (2011), NeuroImage 54:2789.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from brainlocus.images.qsm import _admm_host as host
from brainlocus.images.qsm import _single_step_host as passes
from brainlocus.images.qsm.dipole_problem import DipoleProblem, Solution
from brainlocus.images.qsm.spheres import ball_spectrum
from brainlocus.images.qsm.vsharp import ball_shells

__all__ = ["SingleStep", "SingleStepSettings", "invert_single_step"]

RELAXATION_END = 2.0
"""Over-relaxation converges below it (Eckstein & Bertsekas 1992)."""


@dataclass(frozen=True, slots=True)
class SingleStepSettings:
    """Choices of the one-step inversion."""

    radii_mm: tuple[float, ...] = (25.0, 16.0, 9.0, 5.0, 3.0)
    """Of the spheres, largest first; below the largest voxel edge that edge, and none that fits nowhere."""
    remove_parabola: bool = True
    """Take c |x|^2 out of the total field first (`parabola`): it is not harmonic, and no sphere averages it away."""
    harmonic_degree: int = 2
    """Of the harmonic polynomials that the weights of a ball's voxels average exactly; see `spheres.ball_weights`."""
    regularisation: float = 2e-4
    """lambda, in ppm mm."""
    rho_factor: float = 100.0
    """rho / lambda: the weight of the gradient's split. Changes the speed, not the solution."""
    mu: float = 1.0
    """Weight of the field's split. Changes the speed, not the solution."""
    support_factor: float = 3.0
    """sigma / rho, in 1/mm²: the weight of the support's split. Changes the speed, not the solution."""
    relaxation: float = 1.6
    """Over-relaxation, 1 to 1.9; 1: none. Changes the speed, not the solution."""
    tolerance: float = 2e-3
    """Stop where chi changes by less in an iteration, relative to its size."""
    max_iterations: int = 150
    padding_mm: float = 20.0
    """Least distance between the mask and its periodic copies."""

    def __post_init__(self) -> None:
        if (
            not self.radii_mm
            or any(r <= 0 for r in self.radii_mm)
            or sorted(self.radii_mm, reverse=True) != list(self.radii_mm)
        ):
            raise ValueError(f"radii_mm: expected radii above 0, largest first, found {list(self.radii_mm)}.")
        for name in ("regularisation", "rho_factor", "mu", "support_factor", "tolerance", "max_iterations"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a number above 0, found {getattr(self, name)}.")
        if not 1 <= self.relaxation < RELAXATION_END:
            raise ValueError(f"relaxation: expected a number from 1 to below 2, found {self.relaxation}.")
        if not self.padding_mm >= 0 or self.harmonic_degree < 0:
            raise ValueError(
                "padding_mm and harmonic_degree: expected numbers from 0 up, found "
                f"{self.padding_mm} and {self.harmonic_degree}."
            )


@dataclass(frozen=True, slots=True, eq=False)
class SingleStep:
    """A susceptibility map, not yet referenced, on the whole grid."""

    chi_ppm: Float32[np.ndarray, "x y z"]
    """0 outside the mask given."""
    mask: Bool[np.ndarray, "x y z"]
    """Union of M_r: where the map was constrained by a field."""
    residual_ppm: Float32[np.ndarray, "x y z"]
    """H_r (f - D chi), 0 outside `mask`."""
    n_iterations: int
    converged: bool
    change: float
    """Of chi in the last iteration, relative to its size."""


@dataclass(frozen=True, slots=True, eq=False)
class _Shell:
    """One radius: its operator and what is known there."""

    operator: Float32[np.ndarray, "x y k"]
    """H_r D on the half spectrum."""
    field_ppm: Float32[np.ndarray, "x y z"]
    """H_r f, 0 outside M_r."""
    weight: Float32[np.ndarray, "x y z"]
    """Squared weights, 0 outside M_r."""


def invert_single_step(problem: DipoleProblem, settings: SingleStepSettings) -> SingleStep:
    """Return the map of least total variation that agrees with the filtered total field, and where it was constrained.

    Parameters
    ----------
    problem
        Holds the *total* field, on the host.

    Raises
    ------
    ValueError
        No ball fits into the mask, or the problem lives in another namespace than NumPy.
    """
    if problem.namespace is not None:
        raise ValueError("The one-step inversion runs on the processor; expected a problem without a namespace.")
    shells = _shells(problem, settings)
    solution, residual = _iterate(problem, settings, shells)
    known = np.zeros(problem.box.padded, dtype=bool)
    for shell in shells:
        known |= shell.weight > 0
    mask = np.zeros(problem.grid_shape, dtype=bool)
    mask[problem.region] = problem.box.crop(known)
    return SingleStep(
        problem.restore(solution.chi_ppm),
        mask,
        problem.restore(problem.get_image(residual)),
        solution.n_iterations,
        solution.converged,
        solution.change,
    )


def _shells(problem: DipoleProblem, settings: SingleStepSettings) -> list[_Shell]:
    box = problem.box
    thickest = max(box.voxel_size_mm)
    radii = tuple(dict.fromkeys(max(radius, thickest) for radius in settings.radii_mm))
    spectrum = box.forward(problem.field_ppm)
    shells = []
    for radius, where in ball_shells(problem.mask, box, radii).items():
        filtered = np.float32(1) - ball_spectrum(box, radius, settings.harmonic_degree)
        inside = box.pad(where)
        field = np.where(inside, box.backward_padded(spectrum * filtered), np.float32(0))
        shells.append(_Shell(filtered * problem.kernel, field, np.where(inside, problem.weight, np.float32(0))))
    return shells


def _iterate(
    problem: DipoleProblem, settings: SingleStepSettings, shells: list[_Shell]
) -> tuple[Solution, Float32[np.ndarray, "x y z"]]:
    """Return the map, and what it leaves of the filtered field in the box."""
    box, shape = problem.box, problem.box.padded
    rho = np.float32(settings.rho_factor * settings.regularisation)
    sigma = np.float32(settings.support_factor) * rho
    mu, relaxation = np.float32(settings.mu), np.float32(settings.relaxation)
    inverse = _inverse_denominator(problem, shells, float(rho), float(sigma), settings.mu)
    threshold = np.full(shape, settings.regularisation / rho, dtype=np.float32)
    per_mm = tuple(np.float32(1 / size) for size in box.voxel_size_mm)
    t, w = np.zeros((3, *shape), dtype=np.float32), np.zeros((3, *shape), dtype=np.float32)
    held, gathered = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    copies = [shell.field_ppm.copy() for shell in shells]
    duals = [np.zeros(shape, dtype=np.float32) for _ in shells]
    targets = [shell.field_ppm.copy() for shell in shells]
    chi, work = np.zeros(shape, dtype=np.float32), np.empty(box.spectrum_shape(), dtype=np.complex64)
    change, iteration = np.inf, 0
    while iteration < settings.max_iterations and not change < settings.tolerance:
        spectrum = box.forward(gathered)
        for shell, target in zip(shells, targets, strict=True):
            passes.add_model(spectrum.ravel(), box.forward(target).ravel(), shell.operator.ravel(), mu)
        passes.scale(spectrum.ravel(), inverse.ravel())
        old, chi = chi, box.backward_padded(spectrum)
        host.shrink_gradient(chi, t, w, threshold, per_mm, relaxation, True)
        host.gather(chi, w, problem.inside, held, gathered, rho, sigma, per_mm, relaxation)
        for shell, copy, dual, target in zip(shells, copies, duals, targets, strict=True):
            passes.product(spectrum.ravel(), shell.operator.ravel(), work.ravel())
            model = box.backward_padded(work)
            parts = (copy.ravel(), dual.ravel(), target.ravel(), shell.field_ppm.ravel())
            host.relax_model(model.ravel(), *parts, shell.weight.ravel(), mu, relaxation, np.float32(0))
            host.fit_linear(*parts, np.float32(0), shell.weight.ravel(), mu)
        iteration += 1
        difference, size = host.change_and_size(chi.ravel(), old.ravel(), problem.inside.ravel())
        change = float(np.sqrt(difference / size)) if size > 0 else 0.0
    residual = np.zeros(shape, dtype=np.float32)
    spectrum = box.forward(chi)
    for shell in shells:
        model = box.backward_padded(spectrum * shell.operator)
        residual += np.where(shell.weight > 0, shell.field_ppm - model, np.float32(0))
    return Solution(problem.get_image(chi), iteration, bool(change < settings.tolerance), float(change)), residual


def _inverse_denominator(
    problem: DipoleProblem, shells: list[_Shell], rho: float, sigma: float, mu: float
) -> Float32[np.ndarray, "x y k"]:
    """Return 1 / (mu sum_r (H_r D)^2 + rho E^2 + sigma) on the half spectrum."""
    total = rho * problem.box.gradient_energy() + sigma
    for shell in shells:
        total += mu * shell.operator.astype(np.float64) ** 2
    return (1.0 / total).astype(np.float32)
