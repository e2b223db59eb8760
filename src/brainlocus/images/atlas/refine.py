r"""Soft weights from a hard atlas (``em+mu``).

Data flow::

    AtlasFit --W <- max(W, 1e-3 of the column's largest)--> soft start --refinement--> the better of the two losses

The hard atlas lies next to the optimum, where multiplicative updates from singular vectors spend thousands of
iterations. The refinement is either that of `multiplicative`, at most 200 iterations, or, for tables and other small
problems, bounded quasi-Newton steps on the same loss, from the hard atlas and from singular vectors, whose gradient
is ::

    dL/dW = 2 (W A + N G - 2 N),    N = X X'W,  A = W'N,  G = W'W

Refinement starts by raising the loss, so losses are compared at its end.

References
----------
Pompili et al. (2014), Neurocomputing 141:15; Yang & Oja (2010), IEEE Trans. Neural Netw. 21:734;
Byrd, Lu, Nocedal & Zhu (1995), SIAM J. Sci. Comput. 16:1190 (L-BFGS-B).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64
from scipy.optimize import Bounds, minimize

from brainlocus.images.atlas.blocks import checked_norms
from brainlocus.images.atlas.em import AtlasFit
from brainlocus.images.atlas.iterations import CHECK_EVERY, MuOptions, Trace, iterate
from brainlocus.images.atlas.multiplicative import blocks_for_updates
from brainlocus.images.atlas.nested import NESTED_EXPONENT
from brainlocus.images.atlas.soft import SoftFit, finish_soft
from brainlocus.images.atlas.starts import fill_zeros, nndsvd_start
from brainlocus.numerics.devices import HOST, Device

__all__ = ["RefinedFit", "Refinement", "refine_soft", "soften"]

Refinement = Literal["auto", "mu", "quasi-newton"]
MAX_ITERATIONS = 200
SMALL_WEIGHTS = 200_000
SMALL_IMAGES = 20_000_000
"""Quasi-Newton steps keep twenty copies of W and one of X in float64: at most these many entries are small."""
QUASI_NEWTON_STEPS = 2_000


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


def soften(hard: AtlasFit, dtype: type[np.floating]) -> Float[np.ndarray, "voxels components"]:
    """Return W of a hard atlas with 1e-3 of the column's largest entry in place of its zeros."""
    weights = hard.components().astype(dtype)
    fill_zeros(weights, weights, "column", np.random.default_rng(0))  # this fill draws nothing
    weights[hard.labels == 0] = 0
    return weights


def refine_soft(
    images: Float[np.ndarray, "voxels samples"],
    hard: AtlasFit,
    *,
    refinement: Refinement = "auto",
    max_iterations: int = MAX_ITERATIONS,
    tolerance: float = 1e-5,
    start: Float[np.ndarray, "voxels components"] | None = None,
    device: Device = HOST,
    progress: Callable[[int], None] | None = None,
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
    max_iterations
        Limit of multiplicative iterations; quasi-Newton steps end when the loss settles, after 2,000 at the latest.
    tolerance
        Change of W below which multiplicative updates may have converged.
    start
        Weights to start from instead of the softened hard atlas, such as those of `soften_inside`; not changed. Its
        zeros stay zeros, no other start is tried, and multiplicative updates have the exponent of nested ones.

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
    frozen = start is not None
    start = soften(hard, images.dtype.type) if start is None else start.astype(images.dtype)
    small = start.size <= SMALL_WEIGHTS and images.shape[0] * min(images.shape) <= SMALL_IMAGES
    if refinement == "quasi-newton" or (refinement == "auto" and small):
        method: Literal["mu", "quasi-newton"] = "quasi-newton"
        # So cheap where it is small that a second start is tried: few components have more than one optimum.
        starts = [start]
        if not frozen and hard.n_components < min(images.shape):
            starts.append(nndsvd_start(images, hard.n_components, generator=np.random.default_rng(0)))
        found = [_quasi_newton(images, given, norms, progress, frozen=frozen) for given in starts]
        refined = min(found, key=lambda fit: float(fit.losses[-1]))
    else:
        method = "mu"
        options = MuOptions(
            tolerance=tolerance, max_iterations=max_iterations, exponent=NESTED_EXPONENT if frozen else 1.0
        )
        refined = _multiplicative(images, start, norms, hard, options, device, progress)
    weights = hard.components().astype(images.dtype)
    as_soft = finish_soft(
        images, norms, weights, losses=[], at=[0], changes=[], reason=hard.reason, converged=hard.converged
    )
    hard_loss, refined_loss = float(as_soft.losses[-1]), float(refined.losses[-1])
    if refined_loss < hard_loss:
        return RefinedFit(refined, "refined", method, hard_loss, refined_loss)
    kept = replace(
        as_soft,
        losses=np.append(refined.losses, hard_loss),
        at=np.append(refined.at, refined.at[-1]),
        changes=refined.changes,
    )
    return RefinedFit(kept, "em", method, hard_loss, refined_loss)


def _multiplicative(
    images: Float[np.ndarray, "voxels samples"],
    start: Float[np.ndarray, "voxels components"],
    norms: Float64[np.ndarray, " voxels"],
    hard: AtlasFit,
    options: MuOptions,
    device: Device,
    progress: Callable[[int], None] | None,
) -> SoftFit:
    blocks = blocks_for_updates(images, device, resident=True)
    goal = float(hard.losses[-1])

    def hopeless(trace: Trace) -> bool:
        """Whether, falling on twice as fast as last, it could not reach the hard atlas's loss within its limit."""
        if trace.losses[-1] <= goal:
            return False
        pace = 2.0 * max(trace.losses[-2] - trace.losses[-1], 0.0) / CHECK_EVERY
        return trace.losses[-1] - pace * (options.max_iterations - len(trace.changes)) > goal

    given = start.astype(blocks.images.dtype)
    weights, trace = iterate(
        blocks, device.put(given), float(norms.sum()), options=options, give_up=hopeless, progress=progress
    )
    return finish_soft(
        images,
        norms,
        device.get(weights).astype(images.dtype, copy=False),
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
    progress: Callable[[int], None] | None,
    *,
    frozen: bool,
) -> SoftFit:
    """Minimise the loss over ``W >= 0`` by L-BFGS-B, with zeros kept where `frozen`; it never ends above its start."""
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

    def note(flat: Float64[np.ndarray, " entries"]) -> None:
        losses.append(total * loss_and_gradient(flat)[0])
        if progress is not None:
            progress(1)

    given = start.astype(np.float64).ravel()
    losses.append(total * loss_and_gradient(given)[0])
    found = minimize(  # type: ignore[call-overload]  # the stubs want the options as a literal
        loss_and_gradient,
        given,
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(0.0, np.where(given > 0, np.inf, 0.0) if frozen else np.inf),
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
