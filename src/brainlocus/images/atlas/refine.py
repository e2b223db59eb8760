r"""Soft weights from a hard atlas (``em+mu``).

Data flow::

    AtlasFit --ActiveSet, 100 iterations--------------------------------------------> the better of the two losses
             --W <- max(W, 1e-3 of the column's largest), quasi-Newton steps--(tables)-^

The hard atlas lies next to the optimum, where multiplicative updates from singular vectors spend thousands of
iterations. The refinement is that of `active`: entries that would grow come to the hard atlas's, without the background
of a filled start, which raises the loss and takes as many iterations to go. For tables and other small problems it is
bounded quasi-Newton steps on the same loss, from the hard atlas and, below 8 components, from singular vectors; its
gradient is ::

    dL/dW = 2 (W A + N G - 2 N),    N = X X'W,  A = W'N,  G = W'W

References
----------
Pompili et al. (2014), Neurocomputing 141:15; Yang & Oja (2010), IEEE Trans. Neural Netw. 21:734;
Byrd, Lu, Nocedal & Zhu (1995), SIAM J. Sci. Comput. 16:1190 (L-BFGS-B).
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy.optimize import Bounds, OptimizeResult, minimize

from brainlocus.images.atlas.active import ActiveSet, hard_active, settle_active
from brainlocus.images.atlas.blocks import checked_norms
from brainlocus.images.atlas.em import AtlasFit
from brainlocus.images.atlas.fit_step import FitStep, Report, unheard
from brainlocus.images.atlas.iterations import Trace
from brainlocus.images.atlas.multiplicative import blocks_for_updates
from brainlocus.images.atlas.nested import SplitAtlas, soften_inside
from brainlocus.images.atlas.passes import Blocks
from brainlocus.images.atlas.soft import SoftFit, finish_soft
from brainlocus.images.atlas.starts import fill_zeros, nndsvd_start
from brainlocus.numerics.devices import HOST

__all__ = ["RefinedFit", "Refinement", "refine_soft", "soften"]

Refinement = Literal["auto", "mu", "quasi-newton"]
MAX_ITERATIONS = 100
"""Nearly all of the fall comes in the first 25."""
KEPT = 8
"""Entries of a voxel that may be above 0."""
SMALL_WEIGHTS = 200_000
SMALL_IMAGES = 20_000_000
"""Quasi-Newton steps keep twenty copies of W and one of X in float64: at most these many entries are small."""
QUASI_NEWTON_STEPS = 2_000
SECOND_START = 8
"""Below so many components singular vectors are a start besides the hard atlas; with more they were never better."""


@dataclass(frozen=True, slots=True, eq=False)
class RefinedFit:
    """The better of a hard atlas and its soft refinement."""

    fit: SoftFit
    """With the losses and changes of the refinement."""
    kept: Literal["em", "refined"]
    """Which of the two has the lower loss and is `fit`."""
    method: Literal["mu", "quasi-newton"]
    hard_loss: float
    """Loss of the hard atlas."""
    refined_loss: float
    """Loss of the refinement."""


def soften(
    hard: AtlasFit, dtype: type[np.floating], parents: Int[np.ndarray, " components"] | None = None
) -> Float[np.ndarray, "voxels components"]:
    """Return W of a hard atlas with 1e-3 of the column's largest entry in place of its zeros.

    Parameters
    ----------
    parents
        Component of a coarser atlas that each lies in: zeros stay outside it.
    """
    if parents is not None:
        around = np.where(hard.labels > 0, parents[np.maximum(hard.labels, 1) - 1], 0)
        return soften_inside(SplitAtlas(hard, parents), around, dtype)
    weights = hard.components().astype(dtype)
    fill_zeros(weights, weights, "column", np.random.default_rng(0))  # this fill draws nothing
    weights[hard.labels == 0] = 0
    return weights


def refine_soft(
    images: Float[np.ndarray, "voxels samples"],
    hard: AtlasFit,
    *,
    refinement: Refinement = "auto",
    kept: int = KEPT,
    parents: Int[np.ndarray, " components"] | None = None,
    max_iterations: int = MAX_ITERATIONS,
    tolerance: float = 1e-5,
    progress: Report = unheard,
) -> RefinedFit:
    """Refine a hard atlas to soft weights and return the better of the two.

    Parameters
    ----------
    images
        As they were given to `fit_em`.
    hard
        The hard atlas of them.
    refinement
        ``mu``; ``quasi-newton``; ``auto``: the latter where W has at most 200,000 entries and X 20 million.
    kept
        Entries of a voxel that multiplicative updates may raise above 0.
    parents
        Component of a coarser atlas that each component lies in: its weights stay 0 outside, and the refined atlas is
        nested, too.
    max_iterations
        Limit of multiplicative iterations; quasi-Newton steps end when the loss settles, after 2,000 at the latest.
    tolerance
        Change of W below which multiplicative updates may have converged.
    progress
        Called with every iteration or step before it.

    Examples
    --------
    >>> from brainlocus.images.atlas import fit_em
    >>> people = np.random.default_rng(0).uniform(1, 2, size=(2, 20))
    >>> images = np.repeat(people, 50, axis=0).astype(np.float32)
    >>> hard = fit_em(images, 2, generator=np.random.default_rng(0))
    >>> found = refine_soft(images, hard)
    >>> found.method, found.fit.converged, sorted(np.bincount(found.fit.labels)[1:].tolist())
    ('quasi-newton', True, [50, 50])
    """
    norms = checked_norms(images)
    n_weights = images.shape[0] * hard.n_components
    small = n_weights <= SMALL_WEIGHTS and images.shape[0] * min(images.shape) <= SMALL_IMAGES
    if refinement == "quasi-newton" or (refinement == "auto" and small):
        method: Literal["mu", "quasi-newton"] = "quasi-newton"
        # Few components have more than one optimum: a second start is tried.
        starts = {"the hard atlas": soften(hard, images.dtype.type, parents)}
        if parents is None and hard.n_components < min(SECOND_START, *images.shape):
            starts["singular vectors"] = nndsvd_start(images, hard.n_components, generator=np.random.default_rng(0))
        found = [
            _quasi_newton(images, given, norms, f"quasi-Newton from {name}, step", progress)
            for name, given in starts.items()
        ]
        refined = min(found, key=lambda fit: float(fit.losses[-1]))
    else:
        method = "mu"
        blocks = blocks_for_updates(images, HOST, resident=False)
        active = hard_active(hard, kept, blocks.images.dtype.type, families=parents)
        refined = _multiplicative(images, blocks, active, norms, max_iterations, tolerance, progress)
    weights = hard.components().astype(images.dtype)
    as_soft = finish_soft(
        images, norms, weights, losses=[], at=[0], changes=[], reason=hard.reason, converged=hard.converged
    )
    hard_loss, refined_loss = float(as_soft.losses[-1]), float(refined.losses[-1])
    if refined_loss < hard_loss:
        return RefinedFit(refined, "refined", method, hard_loss, refined_loss)
    hard_soft = replace(
        as_soft,
        losses=np.append(refined.losses, hard_loss),
        at=np.append(refined.at, refined.at[-1]),
        changes=refined.changes,
    )
    return RefinedFit(hard_soft, "em", method, hard_loss, refined_loss)


def _multiplicative(
    images: Float[np.ndarray, "voxels samples"],
    blocks: Blocks,
    active: ActiveSet,
    norms: Float64[np.ndarray, " voxels"],
    max_iterations: int,
    tolerance: float,
    progress: Report,
) -> SoftFit:
    trace = Trace(float(norms.sum()))
    settle_active(blocks, active, trace, tolerance=tolerance, max_iterations=max_iterations, progress=progress)
    return finish_soft(
        images,
        norms,
        active.dense().astype(images.dtype, copy=False),
        losses=trace.losses,
        at=trace.at(),
        changes=trace.changes,
        reason=trace.reason,
        converged=trace.converged,
        warnings=trace.warnings(),
    )


def _quasi_newton(
    images: Float[np.ndarray, "voxels samples"],
    start: Float[np.ndarray, "voxels components"],
    norms: Float64[np.ndarray, " voxels"],
    what: str,
    progress: Report,
) -> SoftFit:
    """Minimise the loss over ``W >= 0`` by L-BFGS-B, zeros of the start kept; it never ends above where it starts."""
    total = float(norms.sum())
    shape = start.shape
    # Scaled to total 1: then the loss, its gradient and the stopping rules have one scale for all data.
    x = images.astype(np.float64) / np.sqrt(total)
    wide = x.shape[0] < x.shape[1]
    gram_x = x @ x.T if wide else np.empty((0, 0))
    losses: list[float] = []

    def loss_and_gradient(flat: Float64[np.ndarray, " entries"]) -> tuple[float, Float64[np.ndarray, " entries"]]:
        w = flat.reshape(shape)
        n = gram_x @ w if wide else x @ (x.T @ w)
        a, g = w.T @ n, w.T @ w
        return float(1.0 - 2.0 * np.trace(a) + (g * a).sum()), (2.0 * (w @ a + n @ g - 2.0 * n)).ravel()

    def note(intermediate_result: OptimizeResult) -> None:
        losses.append(total * float(intermediate_result.fun))
        progress(FitStep(what, len(losses), QUASI_NEWTON_STEPS, losses[-1], total))

    # Spectral norm 1: from another scale the first steps go to a far and worse optimum.
    given = (start.astype(np.float64) / np.linalg.norm(start.astype(np.float64), 2)).ravel()
    losses.append(total * loss_and_gradient(given)[0])
    progress(FitStep(what, 1, QUASI_NEWTON_STEPS, losses[0], total))
    found = minimize(
        loss_and_gradient,
        given,
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(0.0, np.where(given > 0, np.inf, 0.0)),
        callback=note,
        options={"maxiter": QUASI_NEWTON_STEPS, "maxfun": 2 * QUASI_NEWTON_STEPS, "ftol": 1e-13, "gtol": 1e-10},
    )
    settled = bool(found.success)
    weights = found.x.reshape(shape).astype(images.dtype)
    weights[norms == 0] = 0
    warnings = () if settled else (f"Not converged: {QUASI_NEWTON_STEPS} quasi-Newton steps were not enough.",)
    return finish_soft(
        images,
        norms,
        weights,
        losses=losses,
        at=[*range(len(losses)), len(losses) - 1],
        changes=[],
        reason="tol" if settled else "max_iter",
        converged=settled,
        warnings=warnings,
    )
