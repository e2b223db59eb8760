"""iLSQR: least squares, then the streaks that the undetermined cone of k-space leaves are estimated and subtracted.

::

    1. chi1    weighted least squares, stopped early (lsqr.py)
    2. chi2    fast estimate whose edges are right: X = sign(D) F f, smoothed where |D| is small, scaled to a truncated
               division with threshold 1/8
    3. s       supported on the cone C = {|D| < 0.1}, minimises sum_a |W_a d_a (chi1 - s)|^2 with W_a = 1 where chi2 is
               smooth along a and 0 at its edges
    4. chi     m (chi1 - s)

The percentiles that set the weights are those of magnitudes (`lsqr.falling_weight`). C stands inside the operator and
its adjoint, so that the normal matrix C F d^T W^2 d F^-1 C is symmetric and s has no part off the cone.

Cost: two transforms and a few passes an iteration of steps 1 and 3.

References
----------
Li et al. (2011), NeuroImage 55:1645; Li et al. (2015), NeuroImage 108:111.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32

from brainlocus.images.qsm import _ilsqr_host as host
from brainlocus.images.qsm.dipole_problem import DipoleProblem, Solution
from brainlocus.images.qsm.lsqr import (
    HalfSpectrumProduct,
    LsqrSettings,
    falling_weight,
    weighted_least_squares,
)
from brainlocus.images.qsm.tkd import divide_truncated
from brainlocus.numerics.conjugate_gradient import LinearSolution, conjugate_gradient

__all__ = ["IlsqrSettings", "IlsqrSteps", "estimate_streaks", "fast_estimate", "ilsqr_steps", "invert_ilsqr"]

POWER = 0.001
"""Exponent of |D| in the weight of the fast estimate (Li 2015): nearly flat, so that the percentiles decide."""
FAST_PERCENTILES = (1.0, 30.0)
"""Percentiles of |D|^0.001 over k that become weights 0 and 1."""
FAST_RADIUS_MM = 3.0
"""Radius of the ball that smooths the fast estimate where |D| is small."""
FAST_PASSES = 2
FAST_THRESHOLD = 1 / 8
"""Threshold of the truncated division that the fast estimate is scaled to."""


@dataclass(frozen=True, slots=True)
class IlsqrSettings:
    """Choices of iLSQR."""

    start: LsqrSettings = field(default_factory=LsqrSettings)
    """Step 1. Its number of iterations regularises."""
    cone: float = 0.1
    """|D| below which k-space counts as undetermined."""
    smooth_percentile: float = 50.0
    """Gradients of the fast estimate below this percentile have weight 1."""
    edge_percentile: float = 70.0
    """Gradients above this percentile have weight 0; linear between."""
    max_iterations: int = 50
    """Of step 3."""
    tolerance: float = 0.01
    """Of step 3: residual of the normal equations relative to its start."""

    @property
    def padding_mm(self) -> float:
        """Least distance between the mask and its periodic copies: that of `start`."""
        return self.start.padding_mm

    def __post_init__(self) -> None:
        if not 0 < self.cone < 1 / 3:
            raise ValueError(f"cone: expected a value of |D| between 0 and 1/3, found {self.cone}.")
        if not 0 <= self.smooth_percentile < self.edge_percentile <= 100:
            raise ValueError(
                "Expected 0 <= smooth_percentile < edge_percentile <= 100, found "
                f"{self.smooth_percentile} and {self.edge_percentile}."
            )


@dataclass(frozen=True, slots=True, eq=False)
class IlsqrSteps:
    """Every step's map, padded, where the problem's arrays live."""

    start: LinearSolution
    """Step 1; `x` is a half spectrum."""
    start_map: Any
    """chi1, 0 outside the mask."""
    fast_map: Any
    """chi2."""
    streaks: LinearSolution
    """Step 3; `x` is a half spectrum, 0 off the cone."""


def invert_ilsqr(problem: DipoleProblem, settings: IlsqrSettings) -> Solution:
    """Return the map of the four steps."""
    steps = ilsqr_steps(problem, settings)
    streaks = problem.box.backward_padded(steps.streaks.x)
    chi = problem.get((steps.start_map - streaks) * problem.inside)
    return Solution(chi, steps.streaks.n_iterations, steps.streaks.converged, steps.streaks.relative_residual)


def ilsqr_steps(problem: DipoleProblem, settings: IlsqrSettings) -> IlsqrSteps:
    """Return what the steps find, for looking at one by one."""
    start = weighted_least_squares(problem, settings.start)
    start_map = problem.box.backward_padded(start.x) * problem.inside
    fast = fast_estimate(problem)
    weights = smoothness_weights(problem, fast, settings)
    return IlsqrSteps(start, start_map, fast, estimate_streaks(problem, start_map, weights, settings))


def fast_estimate(problem: DipoleProblem) -> Any:
    """Return chi2, padded: sign(D) applied to the field, smoothed near the cone, scaled to a truncated division."""
    xp, box = problem.namespace or np, problem.box
    size = np.abs(problem.get(problem.kernel)) ** np.float32(POWER)
    low, high = _spectrum_percentiles(size, box.padded[2])
    keep = np.clip((size - low) / (high - low), 0, 1).astype(np.float32)
    transfer = problem.put(keep + (1 - keep) * _ball_transfer(problem, FAST_RADIUS_MM))
    field_spectrum = box.forward(problem.field_ppm)
    image = box.backward_padded(xp.sign(problem.kernel) * field_spectrum)
    for _ in range(FAST_PASSES):
        image = box.backward_padded(transfer * box.forward(image)) * problem.inside
    truncated = problem.get_image(box.backward_padded(divide_truncated(problem, field_spectrum, FAST_THRESHOLD)))
    slope, intercept = _line(problem.get_image(image)[problem.mask], truncated[problem.mask])
    return (image * slope + intercept) * problem.inside


def smoothness_weights(problem: DipoleProblem, chi: Any, settings: IlsqrSettings) -> list[Any]:
    """Return W_a^2 for each axis, padded: 1 where the map is smooth along the axis, 0 at its edges and outside."""
    image = problem.get(chi)
    inside = problem.get(problem.inside) > 0
    weights = []
    for axis in range(3):
        gradient = np.roll(image, -1, axis=axis) - image
        weight = falling_weight(gradient, inside, settings.smooth_percentile, settings.edge_percentile)
        # The step at the mask's edge is none of the map's: both ends must lie inside.
        weight *= np.roll(inside, -1, axis=axis)
        weights.append(problem.put(weight * weight))
    return weights


def estimate_streaks(
    problem: DipoleProblem, chi: Any, squared_weights: list[Any], settings: IlsqrSettings
) -> LinearSolution:
    """Return the half spectrum of the streaks s on the cone that minimise sum_a |W_a d_a (chi - s)|^2."""
    xp, box = problem.namespace or np, problem.box
    cone = xp.where(xp.abs(problem.kernel) < settings.cone, xp.ones_like(problem.kernel), 0 * problem.kernel)
    smoothness = weighted_laplacian(problem, squared_weights)

    def normal(spectrum: Any) -> Any:
        return cone * box.forward(smoothness(box.backward_padded(cone * spectrum)))

    return conjugate_gradient(
        normal,
        cone * box.forward(smoothness(chi)),
        tolerance=settings.tolerance,
        max_iterations=settings.max_iterations,
        product=HalfSpectrumProduct(problem),
    )


def weighted_laplacian(problem: DipoleProblem, squared_weights: list[Any]) -> Any:
    """Return the function image -> sum_a d_a^T W_a^2 d_a image, with periodic forward differences per mm."""
    xp, sizes = problem.namespace, problem.box.voxel_size_mm
    if xp is None:
        factors = tuple(np.float32(1 / size**2) for size in sizes)
        out = np.empty(problem.box.padded, dtype=np.float32)

        def on_host(image: Float32[np.ndarray, "x y z"]) -> Float32[np.ndarray, "x y z"]:
            host.weighted_laplacian(image, *squared_weights, out, factors)
            return out

        return on_host

    def in_namespace(image: Any) -> Any:
        total = xp.zeros_like(image)
        for axis, size in enumerate(sizes):
            flow = squared_weights[axis] * (xp.roll(image, -1, axis=axis) - image) / size**2
            total = total + xp.roll(flow, 1, axis=axis) - flow
        return total

    return in_namespace


def _line(x: Float32[np.ndarray, " voxels"], y: Float32[np.ndarray, " voxels"]) -> tuple[float, float]:
    """Return slope and intercept of the regression of y on x; slope 0 where x is constant."""
    mean_x, mean_y = x.mean(dtype=np.float64), y.mean(dtype=np.float64)
    centred = x - mean_x
    variance = float(centred @ centred)
    slope = float(centred @ (y - mean_y)) / variance if variance > 0 else 0.0
    return slope, float(mean_y - slope * mean_x)


def _spectrum_percentiles(values: Float32[np.ndarray, "x y z"], last: int) -> tuple[np.float32, np.float32]:
    """Return percentiles over the whole of k-space of a quantity given on its half."""
    mirrored = values[:, :, 1 : (last + 1) // 2]
    low, high = np.percentile(np.concatenate([values.ravel(), mirrored.ravel()]), FAST_PERCENTILES)
    return np.float32(low), np.float32(high)


def _ball_transfer(problem: DipoleProblem, radius_mm: float) -> Float32[np.ndarray, "x y z"]:
    """Return the spectrum of the mean over a ball: 3 (sin x - x cos x) / x^3 with x = 2 pi r |k|."""
    kx, ky, kz = problem.box.frequencies()
    x = 2 * np.pi * radius_mm * np.sqrt(kx**2 + ky**2 + kz**2)
    x[0, 0, 0] = 1.0
    transfer = 3 * (np.sin(x) - x * np.cos(x)) / x**3
    transfer[0, 0, 0] = 1.0
    return np.asarray(transfer, dtype=np.float32)
