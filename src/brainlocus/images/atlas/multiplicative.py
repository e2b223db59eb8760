r"""Orthogonal projective non-negative factorisation by multiplicative updates (opNMF), all images at once.

Problem: ``min ||X - W W'X||_F^2`` over ``W >= 0`` with ``W'W = I``. An iteration ::

    Q = X'W;  N = X Q;  A = Q'Q
    W <- max(W * N / (W A), 1e-16);   W <- W / ||W||_2

Data flow::

    X --NNDSVD or seeds--> W --update_pass, X read once an iteration--> W --finish_soft--> SoftFit

The loss is not guaranteed to fall in every iteration. A small change of W alone does not mean that the fit
has ended: on plateaus the change is small for thousands of iterations while components are still alike. A fit counts as
converged when W changes by less than the tolerance, the loss has fallen by less than 1e-5 of itself in 50
iterations, and the mean cosine of two components is below 0.1.

References
----------
Yang & Oja (2010), IEEE Trans. Neural Netw. 21:734; Sotiras, Resnick & Davatzikos (2015), NeuroImage 108:1.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float64
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from brainlocus.images.atlas.blocks import checked_norms
from brainlocus.images.atlas.passes import UPDATE_BYTES, Blocks, Sums, exact_sums, first_pass, update_pass
from brainlocus.images.atlas.soft import Reason, SoftFit, finish_soft, mean_cosine, sums_loss
from brainlocus.images.atlas.starts import EXACT_SVD, Fill, nndsvd_start, seeded_start
from brainlocus.numerics.devices import HOST, Device

__all__ = ["MuOptions", "Start", "Trace", "fit_mu", "fit_mu_peak_bytes", "initial_weights", "iterate"]

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
    resident: bool = True
    """Keep all blocks of X on an accelerator; False: put each there when it is visited."""


def fit_mu_peak_bytes(n_voxels: int, n_samples: int, n_components: int) -> int:
    """Return the most memory `fit_mu` needs besides X itself (which may be a memory map).

    W; the Gram matrix of the start with its eigenvectors, or the sample of voxels for seeds; the sums; a block with
    its products in float64.
    """
    smaller = min(n_voxels, n_samples)
    gram = 3 * 8 * smaller**2 if smaller <= EXACT_SVD else 4 * 8 * n_samples * (n_components + 20)
    wide = 2 * 8 * n_voxels * n_samples if n_voxels < n_samples <= EXACT_SVD else 0
    rows = min(n_voxels, max(256, (16 << 20) // (4 * n_samples)))
    small = min(n_voxels, max(256, UPDATE_BYTES // (4 * n_components)))
    return (
        4 * n_voxels * n_components
        + gram
        + wide
        + 6 * 8 * (n_samples + n_components) * n_components
        + 8 * rows * (3 * n_samples + 4 * n_components)
        + 8 * small * (n_samples + 4 * n_components)
        + 3 * 8 * n_voxels
    )


def fit_mu(
    images: Float[np.ndarray, "voxels samples"],
    n_components: int,
    *,
    generator: np.random.Generator,
    options: MuOptions | None = None,
    start: Float[np.ndarray, "voxels components"] | None = None,
    device: Device = HOST,
    progress: Callable[[int], None] | None = None,
) -> SoftFit:
    """Fit a soft atlas by opNMF.

    Parameters
    ----------
    images
        Non-negative, one row a voxel, one column a person; may be a memory map. float32, or float64 for small
        tables. Rows that are zero throughout are left out and counted.
    n_components
        Number of components: at most the number of non-zero voxels, and for the start by singular vectors fewer than
        voxels and images.
    generator
        Random numbers of the start; the same generator gives the same fit.
    start
        Weights to start from, instead of what `options` say; not changed. Zeros stay zeros.
    device
        Where the matrix products run.
    progress
        Called with 1 after each iteration.

    Raises
    ------
    ValueError
        A negative, NaN or infinite value (with voxel and image), or too many components.

    Examples
    --------
    >>> people = np.random.default_rng(0).uniform(1, 2, size=(2, 20))
    >>> images = np.repeat(people, 50, axis=0)
    >>> fit = fit_mu(images, 2, generator=np.random.default_rng(0), options=MuOptions(start="seeds"))
    >>> fit.converged, sorted(np.bincount(fit.labels)[1:].tolist()), round(fit.relative_loss, 3)
    (True, [50, 50], 0.0)
    """
    options = options or MuOptions()
    norms = checked_norms(images)
    n_present = int((norms > 0).sum())
    if n_components < 1:
        raise ValueError(f"n_components must be at least 1, got {n_components}.")
    if n_components > n_present:
        raise ValueError(f"{n_components} components were asked of {n_present} non-zero voxels; ask for fewer.")
    if start is None:
        weights = initial_weights(images, n_components, norms, generator=generator, options=options)
    else:
        weights = start.astype(images.dtype)
    weights[norms == 0] = 0
    blocks = Blocks.of(images, device, signed=False, resident=options.resident)
    on_device, trace = iterate(blocks, device.put(weights), float(norms.sum()), options=options, progress=progress)
    final = device.get(on_device)
    return finish_soft(
        images,
        norms,
        final,
        losses=trace.losses,
        at=trace.at(),
        changes=trace.changes,
        reason=trace.reason,
        converged=trace.converged,
        warnings=trace.warnings(),
    )


def initial_weights(
    images: Float[np.ndarray, "voxels samples"],
    n_components: int,
    norms: Float64[np.ndarray, " voxels"],
    *,
    generator: np.random.Generator,
    options: MuOptions,
) -> Float[np.ndarray, "voxels components"]:
    """Return the weights that the options start from.

    Raises
    ------
    ValueError
        Too many components for the start.
    """
    if options.start == "seeds":
        return seeded_start(images, n_components, norms, generator=generator)
    return nndsvd_start(images, n_components, generator=generator, fill=options.fill)


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
    give_up: Callable[["Trace"], bool] | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Any, Trace]:
    """Update weights on the device until they settle; return them with spectral norm 1, and how it went.

    Parameters
    ----------
    weights
        On the device; changed in place.
    total
        ``||X||_F^2``.
    give_up
        Ends the iterations as an early stop where it returns True.
    """
    trace = Trace(total)
    kind = blocks.images.dtype.type  # W is weights * scale in this precision, and so must be the scale of its loss
    sums = first_pass(blocks, weights)
    scale = float(kind(_inverse_norm(sums)))
    began = time.monotonic()
    trace.losses.append(exact_loss(blocks, weights, scale, total))
    for iteration in range(1, options.max_iterations + 1):
        earlier = sums.squares * scale * scale
        sums = update_pass(blocks, weights, scale * sums.q, scale=scale, exponent=options.exponent)
        scale = float(kind(_inverse_norm(sums)))
        moved = scale * scale * sums.squares - 2.0 * scale * sums.inner + earlier
        trace.changes.append(float(np.sqrt(max(moved, 0.0) / earlier)))
        if progress is not None:
            progress(1)
        if iteration % CHECK_EVERY == 0:
            trace.losses.append(exact_loss(blocks, weights, scale, total))
            trace.cosine = mean_cosine(sums.gram)
            if trace.settled(options.tolerance):
                break
            if give_up is not None and give_up(trace):
                trace.reason = "early_stop"
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


def _inverse_norm(sums: Sums) -> float:
    """Return ``1 / ||R||_2`` from ``R'R``."""
    r = sums.gram.shape[0]
    if r > LANCZOS:
        try:
            # A start that is not random, and overlaps with the leading vector of any matrix of entries above 0.
            found = eigsh(sums.gram, k=1, v0=np.ones(r), tol=1e-12, return_eigenvectors=False)
            return float(1.0 / np.sqrt(found[0]))
        except ArpackNoConvergence:
            pass
    return float(1.0 / np.sqrt(np.linalg.eigvalsh(sums.gram)[-1]))
