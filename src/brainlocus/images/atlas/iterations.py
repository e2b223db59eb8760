r"""The iterations of the multiplicative updates: settings, trace, and when they have converged.

A small change of W alone does not mean that a fit has ended: on plateaus the change is small for thousands of
iterations while components are still alike. Converged means that W changes by less than the tolerance, that the loss
has fallen by less than 1e-5 of itself in 50 iterations, and that the mean cosine of two components is below 0.1.

References
----------
Yang & Oja (2010), IEEE Trans. Neural Netw. 21:734; methods/structural.md 1.2.
"""

import time
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from brainlocus.images.atlas.fit_step import FitStep, Report, unheard
from brainlocus.images.atlas.passes import Blocks, exact_sums, first_pass, update_pass
from brainlocus.images.atlas.soft import Reason, mean_cosine, sums_loss
from brainlocus.images.atlas.starts import Fill

__all__ = ["CHECK_EVERY", "LARGEST_COSINE", "MuOptions", "Start", "Trace", "inverse_norm", "iterate"]

Start = Literal["nndsvd", "seeds"]
CHECK_EVERY = 25
"""Iterations between losses from float64 products, which cost about one iteration each. Sums of float32 products would
come for nothing, but are wrong by 1e-6 of the total: a thousandth of the loss, more than what tells a stall."""
STALL_ITERATIONS = 50
STALL_FALL = 1e-5
"""The loss has stalled when it fell by less than this share over that many iterations."""
PERFECT = 1e-9
"""Falls by less than this share of ||X||^2 count as a stall too: images of low rank are fitted ever more perfectly."""
LARGEST_COSINE = 0.1
"""Components are told apart when the mean cosine of two of them is below."""
LANCZOS = 256
"""Above this many components the largest eigenvalue comes from Lanczos steps instead of a whole decomposition."""
PLATEAU_ITERATIONS = 2_000
"""Stalled with components alike for this long, the fit is given up."""


@dataclass(frozen=True, slots=True)
class MuOptions:
    """Settings of the multiplicative updates."""

    start: Start = "nndsvd"
    fill: Fill = "column"
    """What replaces zeros of the NNDSVD; see `nndsvd_start`."""
    tolerance: float = 1e-5
    """Change of W, relative, below which it may have converged."""
    max_iterations: int = 50_000
    max_seconds: float | None = None
    """Limit by the clock; fits that it ends cannot be repeated exactly."""
    exponent: float = 1.0
    """Power of the ratio."""
    active: int | None = None
    """Update only this many components of each voxel in 24 of 25 iterations; None: all, always."""
    compress: bool = False
    """Iterate on the leading singular vectors of the images instead of on the images."""
    resident: bool = True
    """Keep all blocks of X on an accelerator; False: put each there when it is visited."""


@dataclass(slots=True)
class Trace:
    """How the iterations went."""

    total: float
    """``||X||_F^2``."""
    losses: list[float] = field(default_factory=list)
    """Of the start and after every 25 iterations, from float64 products."""
    changes: list[float] = field(default_factory=list)
    reason: Reason = "max_iter"
    converged: bool = False
    cosine: float = 0.0
    """Mean cosine of two components, last."""

    def at(self) -> list[int]:
        """Return the iterations before each loss, and in all."""
        return [*range(0, CHECK_EVERY * len(self.losses), CHECK_EVERY), len(self.changes)]

    def stalled(self, iterations: int = STALL_ITERATIONS) -> bool:
        """Return whether the loss fell by less than 1e-5 of itself over the last iterations."""
        back = iterations // CHECK_EVERY
        if len(self.losses) <= back:
            return False
        before, now = self.losses[-1 - back], self.losses[-1]
        return before - now < max(STALL_FALL * abs(before), PERFECT * self.total)

    def settled(self, tolerance: float) -> bool:
        """Return whether the iterations have nothing more to do, and set `reason` and `converged` if so.

        Asked when a loss has just been added to `losses`.
        """
        if self.changes[-1] >= tolerance or not self.stalled():
            return False
        if self.cosine < LARGEST_COSINE:
            self.reason, self.converged = "tol", True
            return True
        if self.stalled(PLATEAU_ITERATIONS):
            self.reason = "early_stop"
            return True
        return False

    def warnings(self) -> tuple[str, ...]:
        """Return why the fit is not converged, in words."""
        if self.converged:
            return ()
        why = {
            "max_iter": "the limit of iterations was reached",
            "time": "the limit of time was reached",
            "early_stop": "the loss no longer falls, or too slowly",
            "tol": "the change of W is below the tolerance",
        }[self.reason]
        alike = f"; components are still alike (mean cosine {self.cosine:.2f}, expected below {LARGEST_COSINE})"
        return (f"Not converged: {why}{alike if self.cosine >= LARGEST_COSINE else ''}.",)


def iterate(
    blocks: Blocks,
    weights: Any,
    total: float,
    *,
    options: MuOptions,
    progress: Report = unheard,
) -> tuple[Any, Trace]:
    """Update weights on the device until they settle; return them with spectral norm 1, and how it went.

    Parameters
    ----------
    weights
        On the device; changed in place.
    total
        ``||X||_F^2``.
    progress
        Called with every iteration before it.
    """
    trace = Trace(total)
    kind = blocks.images.dtype.type  # W is weights * scale in this precision, and so must be the scale of its loss
    sums = first_pass(blocks, weights)
    scale = float(kind(inverse_norm(sums.gram)))
    began = time.monotonic()
    trace.losses.append(exact_loss(blocks, weights, scale, total))
    for iteration in range(1, options.max_iterations + 1):
        progress(FitStep("iteration", iteration, options.max_iterations, trace.losses[-1], total))
        earlier = sums.squares * scale * scale
        sums = update_pass(blocks, weights, scale * sums.q, scale=scale, exponent=options.exponent)
        scale = float(kind(inverse_norm(sums.gram)))
        moved = scale * scale * sums.squares - 2.0 * scale * sums.inner + earlier
        trace.changes.append(float(np.sqrt(max(moved, 0.0) / earlier)))
        if iteration % CHECK_EVERY == 0:
            trace.losses.append(exact_loss(blocks, weights, scale, total))
            trace.cosine = mean_cosine(sums.gram)
            if trace.settled(options.tolerance):
                break
        if options.max_seconds is not None and time.monotonic() - began > options.max_seconds:
            trace.reason = "time"
            break
    trace.cosine = mean_cosine(sums.gram)
    return weights * scale, trace


def exact_loss(blocks: Blocks, weights: Any, scale: float, total: float) -> float:
    """Return the loss of ``W = scale * weights`` from float64 products."""
    sums = exact_sums(blocks, weights)
    return sums_loss(total, sums.q.T @ sums.q, sums.gram, scale)


def inverse_norm(gram: Float64[np.ndarray, "components components"]) -> float:
    """Return ``1 / ||R||_2`` from ``R'R``."""
    r = gram.shape[0]
    if r > LANCZOS:
        try:
            # A start that is not random, and overlaps with the leading vector of any matrix of entries above 0.
            found = eigsh(gram, k=1, v0=np.ones(r), tol=1e-12, return_eigenvectors=False)
            return float(1.0 / np.sqrt(found[0]))
        except ArpackNoConvergence:
            pass
    return float(1.0 / np.sqrt(np.linalg.eigvalsh(gram)[-1]))
