"""Total variation by the alternating direction method of multipliers: the engine of the tv, nltv and rts inversions.

::

    minimise over chi    fidelity(chi) + lambda sum e |grad chi| + tau/2 sum_outside chi^2

with the gradient per mm, so that lambda (ppm mm) acts alike on voxels of any shape, and e = 1, or 0 where the
gradient is free. Three copies are split off, each with its scaled dual::

    z = grad chi (dual u),    v = D chi (dual s),    p = chi (dual q)

    chi = F^-1 [ (mu D F(v - s) + rho F grad^T(z - u) + sigma F(p - q)) / (mu D^2 + rho E^2 + sigma) ]
    z   = shrink(grad chi + u, e lambda / rho);   v = argmin fidelity(v) + mu/2 |v - D chi - s|^2
    p   = chi + q inside the mask, (chi + q) sigma / (sigma + tau) outside

E^2 is the symbol of grad^T grad. Because D chi has a copy of its own, the fidelity is a sum over voxels: it can be
weighted, cut off at the mask's edge (the field outside is not zero, it is not known) and nonlinear in the phase.
Where the fidelity is quadratic in k (tv without a mask, rts), v is not needed. Only the sums z, u -> t = z + u and w
= z - u are stored, likewise v and p.

Cost: four transforms of 2.5 N log2 N operations and three passes over the box an iteration (two transforms without v);
docs/stages/qsm/inversion.md has the floor and the measured time.

References
----------
Bilgic et al. (2014), Magn Reson Med 72:1444. Milovic et al. (2018), Magn Reson Med 80:814, appendix, for the split of
the fidelity. Eckstein & Bertsekas (1992), Math Program 55:293, for the over-relaxation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from brainlocus.images.qsm import _admm_host as host
from brainlocus.images.qsm.dipole_problem import DipoleProblem, Solution

__all__ = ["AdmmPlan", "KnownSpectrum", "VoxelFidelity", "edge_weights", "minimise_total_variation"]


@dataclass(frozen=True, slots=True)
class AdmmPlan:
    """Numbers of a run; see the module's formulas."""

    regularisation: float
    """lambda, ppm mm."""
    rho: float
    mu: float
    sigma: float
    """0: no copy p, and nothing is asked of chi outside the mask."""
    outside: float
    """tau, the weight of squared susceptibility outside the mask; infinite: none is allowed there."""
    relaxation: float
    """1 to 1.9; 1: none."""
    isotropic: bool
    """|grad chi| is the length of the gradient, otherwise the sum of its parts."""
    fit_offset: bool
    """Subtract a constant from the field, found along the way."""
    tolerance: float
    """Stop where chi changes by less, relative to its size."""
    max_iterations: int


@dataclass(frozen=True, slots=True, eq=False)
class VoxelFidelity:
    """1/2 sum W^2 (v - f)^2, or sum W^2 (1 - cos c (v - f)) / c^2, which is the same for small differences."""

    radians_per_ppm: float | None
    """c; None: the linear fidelity."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownSpectrum:
    """1/2 |Q^(1/2) F chi - Q^(-1/2) G|^2 in k-space, with Q >= 0 and the half spectra of Q and G."""

    density: Any
    """Q, float32."""
    target: Any
    """G, complex64."""


def minimise_total_variation(
    problem: DipoleProblem, plan: AdmmPlan, fidelity: VoxelFidelity | KnownSpectrum, edges: Any
) -> Solution:
    """Return the map of least total variation that agrees with the field.

    Parameters
    ----------
    edges
        e, padded; see `edge_weights`.
    """
    state = _HostState if problem.namespace is None else _NamespaceState
    return _iterate(problem, plan, state(problem, plan, fidelity, edges))


def edge_weights(problem: DipoleProblem, edge_share: float, free_boundary: bool) -> Any:
    """Return the weights e of the total variation, padded: 1, and 0 where the gradient is free.

    Parameters
    ----------
    edge_share
        Share of the mask's voxels, those with the largest gradient of the magnitude, where the gradient is free (MEDI:
        0.3). 0: none, and no magnitude is needed.
    free_boundary
        Leave the step between the mask and what lies outside free.

    Raises
    ------
    ValueError
        A share above 0 without a magnitude image.
    """
    inside = problem.get(problem.inside) > 0
    weights = np.ones(problem.box.padded, dtype=np.float32)
    if free_boundary:
        for axis in range(3):
            weights[inside != np.roll(inside, -1, axis=axis)] = 0
    if edge_share > 0:
        if problem.magnitude is None:
            raise ValueError("edge_share is above 0, which needs a magnitude image; give one or set edge_share to 0.")
        squared = np.zeros(problem.box.shape, dtype=np.float32)
        for axis, size in enumerate(problem.box.voxel_size_mm):
            squared += (np.diff(problem.magnitude, axis=axis, append=0) / np.float32(size)) ** 2
        limit = np.quantile(squared[problem.mask], 1 - edge_share)
        x, y, z = problem.box.shape
        weights[:x, :y, :z][problem.mask & (squared > limit)] = 0
    return problem.put(weights)


def _iterate(problem: DipoleProblem, plan: AdmmPlan, state: "_HostState | _NamespaceState") -> Solution:
    box = problem.box
    chi = state.start()
    change, iteration = np.inf, 0
    while iteration < plan.max_iterations and not change < plan.tolerance:
        spectrum, field_spectrum = state.solve()
        old, chi = chi, box.backward_padded(spectrum)
        state.split(chi, None if field_spectrum is None else box.backward_padded(field_spectrum))
        iteration += 1
        difference, size = state.change(chi, old)
        change = float(np.sqrt(difference / size)) if size > 0 else 0.0
    return Solution(problem.get(chi), iteration, bool(change < plan.tolerance), float(change))


class _HostState:
    """Splits and duals as NumPy arrays, updated in place."""

    def __init__(
        self, problem: DipoleProblem, plan: AdmmPlan, fidelity: VoxelFidelity | KnownSpectrum, edges: Any
    ) -> None:
        self.problem, self.plan, self.fidelity = problem, plan, fidelity
        shape = problem.box.padded
        self.per_mm = tuple(np.float32(1 / size) for size in problem.box.voxel_size_mm)
        self.threshold = edges * np.float32(plan.regularisation / plan.rho)
        self.t, self.w = np.zeros((3, *shape), dtype=np.float32), np.zeros((3, *shape), dtype=np.float32)
        self.held = np.zeros(shape, dtype=np.float32)
        self.keep = kept_outside(problem, plan)
        self.gathered = np.zeros(shape, dtype=np.float32)
        self.inverse = _inverse_denominator(problem, plan, fidelity)
        if isinstance(fidelity, VoxelFidelity):
            self.v = problem.field_ppm.copy()
            self.s = np.zeros(shape, dtype=np.float32)
            self.fitted = problem.field_ppm.copy()

    def start(self) -> Float32[np.ndarray, "x y z"]:
        """Return the map to start from."""
        return np.zeros(self.problem.box.padded, dtype=np.float32)

    def solve(self) -> tuple[Any, Any]:
        """Return the spectra of chi and D chi."""
        box = self.problem.box
        spectrum = box.forward(self.gathered)
        if isinstance(self.fidelity, KnownSpectrum):
            host.solve_known_spectrum(spectrum.ravel(), self.fidelity.target.ravel(), self.inverse.ravel())
            return spectrum, None
        fitted = box.forward(self.fitted)
        host.solve_spectrum(
            spectrum.ravel(), fitted.ravel(), self.problem.kernel.ravel(), self.inverse.ravel(),
            np.float32(self.plan.mu),
        )  # fmt: skip
        return spectrum, fitted

    def split(self, chi: Any, model: Any) -> None:
        """Update the splits and duals for a new map and its field."""
        plan = self.plan
        relaxation = np.float32(plan.relaxation)
        host.shrink_gradient(chi, self.t, self.w, self.threshold, self.per_mm, relaxation, plan.isotropic)
        host.gather(
            chi, self.w, self.keep, self.held, self.gathered, np.float32(plan.rho), np.float32(plan.sigma),
            self.per_mm, relaxation,
        )  # fmt: skip
        if not isinstance(self.fidelity, VoxelFidelity):
            return
        self._fit(model, np.float32(plan.mu), relaxation)

    def _fit(self, model: Any, mu: np.float32, relaxation: np.float32) -> None:
        assert isinstance(self.fidelity, VoxelFidelity)  # noqa: S101 - the caller looked
        v, s, fitted, field, weight = (
            a.ravel() for a in (self.v, self.s, self.fitted, self.problem.field_ppm, self.problem.weight)
        )
        radians = np.float32(self.fidelity.radians_per_ppm or 0)
        total, weights = host.relax_model(model.ravel(), v, s, fitted, field, weight, mu, relaxation, radians)
        offset = np.float32(total / weights if self.plan.fit_offset else 0)
        if self.fidelity.radians_per_ppm is None:
            host.fit_linear(v, s, fitted, field, offset, weight, mu)
        else:
            host.fit_nonlinear(v, s, fitted, field, offset, weight, mu, radians)

    def change(self, new: Any, old: Any) -> tuple[float, float]:
        """Return the sums of squares of new - old and of new inside the mask."""
        change, size = host.change_and_size(new.ravel(), old.ravel(), self.problem.inside.ravel())
        return float(change), float(size)


class _NamespaceState:
    """The same in an array-API namespace: nothing is updated in place."""

    def __init__(
        self, problem: DipoleProblem, plan: AdmmPlan, fidelity: VoxelFidelity | KnownSpectrum, edges: Any
    ) -> None:
        self.problem, self.plan, self.fidelity, self.xp = problem, plan, fidelity, problem.namespace
        self.threshold = edges * (plan.regularisation / plan.rho)
        zero = self.xp.zeros_like(problem.field_ppm)
        self.t, self.w = [zero] * 3, [zero] * 3
        self.held, self.gathered, self.s = zero, zero, zero
        self.keep = kept_outside(problem, plan)
        self.v, self.fitted = problem.field_ppm, problem.field_ppm
        self.inverse = problem.put(_inverse_denominator(problem, plan, fidelity))

    def start(self) -> Any:
        """Return the map to start from."""
        return self.xp.zeros_like(self.problem.field_ppm)

    def solve(self) -> tuple[Any, Any]:
        """Return the spectra of chi and D chi."""
        box, kernel = self.problem.box, self.problem.kernel
        spectrum = box.forward(self.gathered)
        if isinstance(self.fidelity, KnownSpectrum):
            return (spectrum + self.fidelity.target) * self.inverse, None
        spectrum = (spectrum + box.forward(self.fitted) * (kernel * self.plan.mu)) * self.inverse
        return spectrum, spectrum * kernel

    def split(self, chi: Any, model: Any) -> None:
        """Update the splits and duals for a new map and its field."""
        xp, plan = self.xp, self.plan
        sizes = self.problem.box.voxel_size_mm
        gradient = [(xp.roll(chi, -1, axis=a) - chi) / sizes[a] for a in range(3)]
        self.t = [t + plan.relaxation * (g - (t + w) / 2) for g, t, w in zip(gradient, self.t, self.w, strict=True)]
        self.w = [(2 * share - 1) * t for share, t in zip(self._kept(), self.t, strict=True)]
        divergence = [(xp.roll(w, 1, axis=a) - w) / sizes[a] for a, w in enumerate(self.w)]
        self.held = self.held + plan.relaxation * (chi - self.keep * self.held)
        self.gathered = (divergence[0] + divergence[1] + divergence[2]) * plan.rho
        self.gathered = self.gathered + (2 * self.keep - 1) * self.held * plan.sigma
        if isinstance(self.fidelity, VoxelFidelity):
            t = plan.relaxation * model + (1 - plan.relaxation) * self.v + self.s
            self.v = self._fit(t, self._offset(t, self.fidelity.radians_per_ppm), self.fidelity.radians_per_ppm)
            self.s, self.fitted = t - self.v, 2 * self.v - t

    def _kept(self) -> list[Any]:
        """Return the share of each part of the gradient that shrinking leaves."""
        xp = self.xp
        tiny = xp.full_like(self.threshold, host.TINY)
        if self.plan.isotropic:
            sizes = [xp.sqrt(self.t[0] ** 2 + self.t[1] ** 2 + self.t[2] ** 2)] * 3
        else:
            sizes = [xp.abs(t) for t in self.t]
        zero = xp.zeros_like(self.threshold)
        return [xp.maximum(1 - self.threshold / xp.maximum(size, tiny), zero) for size in sizes]

    def _offset(self, t: Any, radians: float | None) -> Any:
        if not self.plan.fit_offset:
            return 0.0
        xp, weight = self.xp, self.problem.weight
        difference = self.problem.field_ppm - t
        if radians is not None:
            difference = xp.sin(difference * radians) / radians
        share = weight / (weight + self.plan.mu)
        return xp.sum(share * difference) / xp.sum(share)

    def _fit(self, t: Any, offset: Any, radians: float | None) -> Any:
        xp, weight, mu = self.xp, self.problem.weight, self.plan.mu
        field = self.problem.field_ppm - offset
        if radians is None:
            return (weight * field + mu * t) / (weight + mu)
        fitted = xp.where(weight > 0, self.v, t)
        zero = xp.zeros_like(fitted)
        for _ in range(host.NEWTON_STEPS):
            angle = (fitted - field) * radians
            slope = weight * xp.sin(angle) / radians + (fitted - t) * mu
            fitted = fitted - slope / (weight * xp.maximum(xp.cos(angle), zero) + mu)
        return fitted

    def change(self, new: Any, old: Any) -> tuple[float, float]:
        """Return the sums of squares of new - old and of new inside the mask."""
        inside = self.problem.inside
        return float(self.xp.sum(inside * (new - old) ** 2)), float(self.xp.sum(inside * new**2))


def kept_outside(problem: DipoleProblem, plan: AdmmPlan) -> Any:
    """Return the share of p that its proximal step keeps: 1 inside the mask, sigma / (sigma + tau) outside."""
    share = plan.sigma / (plan.sigma + plan.outside) if plan.sigma > 0 else 1.0
    return problem.inside + (1 - problem.inside) * share


def _inverse_denominator(
    problem: DipoleProblem, plan: AdmmPlan, fidelity: VoxelFidelity | KnownSpectrum
) -> Float32[np.ndarray, "x y z"]:
    """Return 1 / (Q + rho E^2 + sigma), 0 where nothing determines chi."""
    total = plan.rho * problem.box.gradient_energy() + plan.sigma
    if isinstance(fidelity, KnownSpectrum):
        total = total + problem.get(fidelity.density)
    else:
        total = total + plan.mu * problem.get(problem.kernel).astype(np.float64) ** 2
    return np.divide(1.0, total, out=np.zeros_like(total), where=total > 0).astype(np.float32)
