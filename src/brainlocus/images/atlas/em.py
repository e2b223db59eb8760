r"""Orthogonal non-negative factorisation by expectation and maximisation (EM-ONMF).

Problem: ``min ||X - W W'X||_F^2`` over ``W >= 0`` with ``W'W = I``. Such columns have disjoint supports, so W
is a weighted hard clustering of voxels, and the optimum is a weighted spherical k-means: with unit prototypes
``h_k`` over people and ``l(j)`` the component of voxel j ::

    assign  l(j) = argmax_k x_j . h_k
    update  h_k  = leading right singular vector of the rows with label k
    loss    sum_j ||x_j||^2 - (x_j . h_l(j))^2          (never rises)
    W_jk    = x_j . h_k on its own component, else 0; columns of unit norm

Data flow::

    X --seed, restart, merge and split on a sample of voxels--> prototypes --passes over all voxels--> AtlasFit

Each pass reads X once, by voxel blocks, so X may be a memory map: one matrix product gives the assignment, and
the same visit adds ``(x_j . h) x_j`` to the component's next prototype, which is one warm-started step of the
power iteration for every component at once. Matrix products are float32; losses, norms and prototypes float64.

References
----------
Pompili, Gillis, Absil & Glineur (2014), Neurocomputing 141:15, "EM-ONMF"; Arthur & Vassilvitskii (2007),
SODA, k-means++; Ueda et al. (2000), Neural Comput. 12:2109, split and merge;
Yang & Oja (2010), IEEE Trans. Neural Netw. 21:734.
"""

from dataclasses import dataclass
from typing import Literal, no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int
from numba import njit

from brainlocus.images.atlas.blocks import block_rows, checked_norms, read_blocks, take_voxels
from brainlocus.images.atlas.fit_step import FitStep, Report, unheard
from brainlocus.images.atlas.moves import apply_moves, propose_moves
from brainlocus.images.atlas.seeding import MIN_SAMPLE, SAMPLE_PER_COMPONENT, sample_voxels, seed_rows

__all__ = ["AtlasFit", "Reason", "fit_em", "fit_em_peak_bytes", "hoyer_sparsity", "orthogonal_loss"]

Reason = Literal["tol", "max_iter"]

SAMPLE_PASSES = 40
SETTLED = 1e-4
"""On the sample EM ends, and a move counts as better, at this share of the loss."""
MONOTONE_SLACK = 1e-11
"""Rise of the loss, as a share of ||X||^2, that float64 sums over voxels can cause."""


@dataclass(frozen=True, slots=True, eq=False)
class AtlasFit:
    """A hard atlas with its weights.

    Components are numbered from 1 by falling energy ``||w_k|| ||h_k||`` (``w_k`` of unit norm).
    """

    labels: Int[np.ndarray, " voxels"]
    """Component of each voxel, 0 where the voxel is zero in every image."""
    weights: Float64[np.ndarray, " voxels"]
    """The voxel's entry in its own column of W (all its others are 0); columns have unit norm."""
    loadings: Float64[np.ndarray, "components samples"]
    """``H = W'X``."""
    losses: Float64[np.ndarray, " passes"]
    """``||X - W W'X||_F^2`` after each pass over all voxels."""
    total: float
    """``||X||_F^2``."""
    reason: Reason
    """Why the passes ended."""
    vanished: tuple[int, ...]
    """Components without a voxel; they keep their number."""
    n_empty_voxels: int
    """Voxels that are zero in every image, left out."""

    @property
    def n_components(self) -> int:
        """Number of components, vanished ones included."""
        return int(self.loadings.shape[0])

    @property
    def converged(self) -> bool:
        """Whether the loss settled before the pass limit."""
        return self.reason == "tol"

    @property
    def relative_loss(self) -> float:
        """``||X - W W'X||_F / ||X||_F``."""
        return float(np.sqrt(max(self.losses[-1], 0.0) / self.total))

    def components(self) -> Float32[np.ndarray, "voxels components"]:
        """Return W as a dense matrix."""
        dense = np.zeros((self.labels.size, self.n_components), dtype=np.float32)
        rows = np.flatnonzero(self.labels > 0)
        dense[rows, self.labels[rows] - 1] = self.weights[rows]
        return dense


def fit_em_peak_bytes(n_voxels: int, n_samples: int, n_components: int) -> int:
    """Return the most memory `fit_em` needs besides X itself (which may be a memory map).

    The sample of voxels for the restarts and its float32 products; a block of X with its products; the
    prototypes; labels, weights and norms of all voxels.
    """
    sample = min(n_voxels, max(MIN_SAMPLE, SAMPLE_PER_COMPONENT * n_components))
    block = min(n_voxels, block_rows(n_samples))
    return (
        4 * sample * (2 * n_samples + n_components)
        + 4 * block * (2 * n_samples + n_components)
        + 5 * 8 * n_components * n_samples
        + 6 * 8 * n_voxels
    )


def fit_em(
    images: Float32[np.ndarray, "voxels samples"],
    n_components: int,
    *,
    generator: np.random.Generator,
    restarts: int = 5,
    tolerance: float = 1e-6,
    max_passes: int = 200,
    prototypes: Float64[np.ndarray, "components samples"] | None = None,
    progress: Report = unheard,
) -> AtlasFit:
    """Fit a hard atlas by EM-ONMF.

    Parameters
    ----------
    images
        Non-negative, one row a voxel, one column a person; may be a memory map. Rows that are zero
        throughout are left out and counted.
    n_components
        Number of components, at most the number of non-zero voxels.
    generator
        Random numbers for the sample of voxels and for seeding; the same generator gives the same fit.
    restarts
        Seedings tried on a sample of voxels; merge-and-split moves improve the one with the lowest loss, which
        goes on to all voxels.
    tolerance
        The passes end when the loss falls by less than this share of itself.
    max_passes
        Limit of passes over all voxels; reached, the fit is marked as not converged.
    prototypes
        Where the passes start, rows of unit norm or 0, instead of seeding on a sample; not changed.
    progress
        Called with what begins: each seed, each pass on the sample, each pass over all voxels.

    Raises
    ------
    ValueError
        A negative, NaN or infinite value (with voxel and image), or more components than non-zero voxels.

    Examples
    --------
    >>> people = np.random.default_rng(0).uniform(1, 2, size=(2, 20))
    >>> images = np.repeat(people, 50, axis=0).astype(np.float32)
    >>> fit = fit_em(images, 2, generator=np.random.default_rng(0))
    >>> sorted(np.bincount(fit.labels)[1:].tolist()), round(fit.relative_loss, 6)
    ([50, 50], 0.0)
    """
    if n_components < 1:
        raise ValueError(f"n_components must be at least 1, got {n_components}.")
    norms = checked_norms(images)
    present = norms > 0
    n_present = int(present.sum())
    if n_components > n_present:
        raise ValueError(f"{n_components} components were asked of {n_present} non-zero voxels; ask for fewer.")
    if prototypes is None:
        start = _start(images, norms, n_components, generator=generator, restarts=restarts, progress=progress)
    else:
        start = prototypes.copy()
    state = _State(np.full(norms.size, -1, dtype=np.int64), np.zeros(norms.size), start)
    losses: list[float] = []
    reason: Reason = "max_iter"
    total = float(norms.sum())
    rounding = total * np.finfo(np.float64).eps * images.shape[1]
    for number in range(1, max_passes + 1):
        progress(FitStep("pass", number, max_passes, losses[-1] if losses else np.nan, total))
        _record(losses, _pass(images, norms, state), total)
        if len(losses) > 1 and losses[-2] - losses[-1] <= max(tolerance * losses[-2], rounding):
            reason = "tol"
            break
    # The loss of each pass belongs to the prototypes before it; the labels' own optimum is W W'X with W from
    # the products, at least as good: one more visit gives H and the loss of exactly what is returned.
    progress(FitStep("measuring the fit", loss=losses[-1], total=total))
    return _finish(images, norms, state, losses, reason, n_components)


def orthogonal_loss(
    total: float,
    loadings: Float64[np.ndarray, "components samples"],
    gram: Float64[np.ndarray, "components components"],
) -> float:
    """Return ``||X - W W'X||^2 = ||X||^2 - 2 ||H||^2 + <W'W, HH'>`` without forming the residual.

    Parameters
    ----------
    total
        ``||X||_F^2``.
    loadings
        ``H = W'X``.
    gram
        ``W'W``.
    """
    return float(total - 2.0 * (loadings**2).sum() + (gram * (loadings @ loadings.T)).sum())


def hoyer_sparsity(
    labels: Int[np.ndarray, " voxels"], weights: Float64[np.ndarray, " voxels"], components: int
) -> float:
    """Return Hoyer's sparsity of the whole W: 0 when all entries are equal, 1 when one entry is not 0.

    ``(sqrt(N) - sum|W| / ||W||_F) / (sqrt(N) - 1)`` with N = voxels x components.

    References
    ----------
    Hoyer (2004), J. Mach. Learn. Res. 5:1457, section 3.1.
    """
    if labels.size * components == 1:
        return 1.0  # one entry, and it is not 0
    root = np.sqrt(float(labels.size) * components)
    norm = float(np.sqrt((weights**2).sum()))
    return float((root - np.abs(weights).sum() / norm) / (root - 1.0))


@dataclass(slots=True)
class _State:
    """What changes from pass to pass."""

    labels: Int[np.ndarray, " voxels"]
    """From 0; -1 before the first pass and for empty voxels."""
    projections: Float64[np.ndarray, " voxels"]
    """``x_j . h_l(j)``."""
    prototypes: Float64[np.ndarray, "components samples"]


@njit(cache=True, fastmath={"reassoc", "contract"})
@no_type_check
def _dot(row: np.ndarray, prototype: np.ndarray) -> float:
    total = 0.0
    for i in range(row.size):
        total += np.float64(row[i]) * prototype[i]
    return total


@njit(cache=True, fastmath={"reassoc", "contract"})
@no_type_check
def _visit(
    block: np.ndarray,
    norms: np.ndarray,
    best: np.ndarray,
    prototypes: np.ndarray,
    labels: np.ndarray,
    projections: np.ndarray,
    sums: np.ndarray,
) -> float:
    """Settle the labels of a block, add ``(x . h) x`` to each component's sum, return the block's loss.

    A label changes only where the new product is larger in float64, so that rounding of the float32 products
    cannot raise the loss.
    """
    loss = 0.0
    for j in range(block.shape[0]):
        if norms[j] == 0.0:
            continue
        row = block[j]
        k = best[j]
        s = _dot(row, prototypes[k])
        old = labels[j]
        if old >= 0 and old != k:
            s_old = _dot(row, prototypes[old])
            if s_old >= s:
                k = old
                s = s_old
        labels[j] = k
        projections[j] = s
        loss += norms[j] - s * s
        for i in range(row.size):
            sums[k, i] += s * row[i]
    return loss


def _pass(images: Float32[np.ndarray, "voxels samples"], norms: Float64[np.ndarray, " voxels"], state: _State) -> float:
    """Assign every voxel, step every prototype, return the loss of the assignment."""
    sums = np.zeros_like(state.prototypes)
    transposed = np.ascontiguousarray(state.prototypes.T.astype(np.float32))
    loss = 0.0
    for rows, block in read_blocks(images):
        best = (block @ transposed).argmax(axis=1)
        loss += _visit(block, norms[rows], best, state.prototypes, state.labels[rows], state.projections[rows], sums)
    _step_prototypes(images, norms, state, sums)
    return loss


def _step_prototypes(
    images: Float32[np.ndarray, "voxels samples"],
    norms: Float64[np.ndarray, " voxels"],
    state: _State,
    sums: Float64[np.ndarray, "components samples"],
) -> None:
    """Make the sums the next unit prototypes; a component without voxels takes the worst-fitted voxel."""
    lengths = np.sqrt((sums**2).sum(axis=1))
    alive = lengths > 0
    state.prototypes[alive] = sums[alive] / lengths[alive, None]
    empty = np.flatnonzero(~alive)
    if not empty.size:
        return
    residuals = norms - state.projections**2
    # Rounding leaves about 1e-15 of a perfectly fitted voxel; such a voxel cannot found a component.
    worst = np.argsort(-residuals, kind="stable")[: empty.size]
    for component, voxel in zip(empty, worst, strict=True):
        if residuals[voxel] > 1e-12 * norms[voxel]:
            state.prototypes[component] = images[voxel].astype(np.float64) / np.sqrt(norms[voxel])
        else:
            # Nothing is left to explain: the component stays vanished, and must not attract by ties.
            state.prototypes[component] = 0.0


def _start(
    images: Float32[np.ndarray, "voxels samples"],
    norms: Float64[np.ndarray, " voxels"],
    n_components: int,
    *,
    generator: np.random.Generator,
    restarts: int,
    progress: Report = unheard,
) -> Float64[np.ndarray, "components samples"]:
    """Return the prototypes of the best of several seedings, each run to its end on a sample of voxels."""
    chosen = sample_voxels(norms, n_components, generator)
    sample = take_voxels(images, chosen)
    sample_norms = norms[chosen]
    best_loss, best = np.inf, _State(np.empty(0, dtype=np.int64), np.empty(0), np.empty((0, 0)))
    for restart in range(1, max(restarts, 1) + 1):
        what = f"seeding restart {restart} of {max(restarts, 1)}"
        seeds = seed_rows(sample, sample_norms, n_components, generator, what=f"{what}, seed", progress=progress)
        prototypes = sample[seeds].astype(np.float64) / np.sqrt(sample_norms[seeds])[:, None]
        state, loss = _settle(sample, sample_norms, prototypes, f"{what}, pass", progress)
        if loss < best_loss:
            best_loss, best = loss, state
    return _leave_local_optima(sample, sample_norms, best, best_loss, progress)


def _settle(
    sample: Float32[np.ndarray, "voxels samples"],
    norms: Float64[np.ndarray, " voxels"],
    prototypes: Float64[np.ndarray, "components samples"],
    what: str,
    progress: Report,
) -> tuple[_State, float]:
    """Return where EM ends from these prototypes, on a sample of voxels, and its loss."""
    state = _State(np.full(norms.size, -1, dtype=np.int64), np.zeros(norms.size), prototypes)
    losses: list[float] = []
    total = float(norms.sum())
    for number in range(1, SAMPLE_PASSES + 1):
        progress(FitStep(what, number, SAMPLE_PASSES, losses[-1] if losses else np.nan, total))
        losses.append(_pass(sample, norms, state))
        if len(losses) > 1 and losses[-2] - losses[-1] <= SETTLED * losses[-2]:
            break
    return state, losses[-1]


def _leave_local_optima(
    sample: Float32[np.ndarray, "voxels samples"],
    norms: Float64[np.ndarray, " voxels"],
    state: _State,
    loss: float,
    progress: Report,
) -> Float64[np.ndarray, "components samples"]:
    """Return the prototypes after merge-and-split moves, each kept only if the loss is lower once EM has settled."""
    n_components, total = state.prototypes.shape[0], float(norms.sum())
    for number in range(1, n_components + 1):
        progress(FitStep("merging and splitting on a sample, round", number, n_components, loss, total))
        for moves in propose_moves(sample, state.labels, state.prototypes):
            what = f"merging and splitting on a sample, round {number}, moves made together {len(moves)}, pass"
            moved, moved_loss = _settle(sample, norms, apply_moves(state.prototypes, moves), what, progress)
            if moved_loss < loss * (1 - SETTLED):
                state, loss = moved, moved_loss
                break
        else:
            break
    return state.prototypes


def _finish(
    images: Float32[np.ndarray, "voxels samples"],
    norms: Float64[np.ndarray, " voxels"],
    state: _State,
    losses: list[float],
    reason: Reason,
    n_components: int,
) -> AtlasFit:
    """Return the fit of the final labels, components numbered by energy."""
    present = norms > 0
    labels = np.where(present, state.labels, -1)
    own = np.where(present, labels, 0)
    squares = np.bincount(own, weights=np.where(present, state.projections**2, 0.0), minlength=n_components)
    lengths = np.sqrt(squares)
    safe = np.where(lengths > 0, lengths, 1.0)
    weights = np.where(present, state.projections / safe[own], 0.0)
    loadings = np.zeros((n_components, images.shape[1]))
    for rows, block in read_blocks(images):
        _add_loadings(block, labels[rows], weights[rows], loadings)
    total = float(norms.sum())
    _record(losses, orthogonal_loss(total, loadings, np.diag((lengths > 0).astype(np.float64))), total)
    order = np.argsort(-np.sqrt((loadings**2).sum(axis=1)), kind="stable")
    number = np.empty(n_components, dtype=np.int64)
    number[order] = np.arange(1, n_components + 1)
    counts = np.bincount(own[present], minlength=n_components)
    return AtlasFit(
        labels=np.where(present, number[own], 0).astype(np.int32),
        weights=weights,
        loadings=loadings[order],
        losses=np.array(losses),
        total=total,
        reason=reason,
        vanished=tuple(int(number[k]) for k in order if counts[k] == 0),
        n_empty_voxels=int((~present).sum()),
    )


@njit(cache=True, fastmath={"reassoc", "contract"})
@no_type_check
def _add_loadings(block: np.ndarray, labels: np.ndarray, weights: np.ndarray, loadings: np.ndarray) -> None:
    for j in range(block.shape[0]):
        k = labels[j]
        if k >= 0:
            for i in range(block.shape[1]):
                loadings[k, i] += weights[j] * block[j, i]


def _record(losses: list[float], loss: float, total: float) -> None:
    """Append a loss that by the algorithm cannot be above the last; rounding of the sums may make it so by 1e-13."""
    if losses:
        rise = loss - losses[-1]
        assert rise <= MONOTONE_SLACK * total, f"EM loss rose by {rise:g} of {total:g}: a defect, please report"  # noqa: S101
        loss = min(loss, losses[-1])
    losses.append(loss)
