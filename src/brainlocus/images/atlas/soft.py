r"""A factorisation with soft weights, what it is judged by, and its hard labels.

``W >= 0`` is only approximately orthogonal, so losses take the exact identity ::

    ||X - W W'X||^2 = ||X||^2 - 2 ||H||^2 + <W'W, HH'>,    H = W'X

whose terms are small matrices, here from float64 products. Columns are given unit norm when a fit ends; the
norms that the iterations left are kept beside them, since the loss they reached belongs to these.

References
----------
Sotiras et al. (2015), NeuroImage 108:1; Hoyer (2004), J. Mach. Learn. Res. 5:1457, section 3.1.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Int

from brainlocus.images.atlas.blocks import read_blocks, voxel_blocks
from brainlocus.images.atlas.em import AtlasFit, hoyer_sparsity
from brainlocus.images.atlas.passes import FLOOR, UPDATE_BYTES, Blocks, exact_sums
from brainlocus.numerics.devices import HOST

__all__ = ["Quality", "Reason", "SoftFit", "finish_soft", "hard_quality", "mean_cosine", "relative", "sums_loss"]

Reason = Literal["tol", "max_iter", "time", "early_stop"]


@dataclass(frozen=True, slots=True)
class Quality:
    """What a factorisation is judged by, besides its loss."""

    mean_cosine: float
    """Mean cosine of two different columns of W; 0 when they share no voxel."""
    orthogonality_error: float
    """``||C - I||_F`` with C the cosines of the columns."""
    hoyer_sparsity: float
    """Of all entries of W: 0 when they are equal, 1 when one is not 0."""
    explained: float
    """``1 - L / ||X||^2``; high by construction, since mean anatomy dominates."""
    explained_centred: float
    """The same of images from which each voxel's mean over people is taken."""


@dataclass(frozen=True, slots=True, eq=False)
class SoftFit:
    """A factorisation with soft weights.

    Components are numbered from 1 by falling energy ``||w_k|| ||h_k||`` (``w_k`` of unit norm).
    """

    weights: Float[np.ndarray, "voxels components"]
    """W, columns of unit norm; 0 where the voxel is zero in every image."""
    norms: Float64[np.ndarray, " components"]
    """What the columns' norms were: ``weights * norms`` has the loss `losses` ends with."""
    loadings: Float64[np.ndarray, "components samples"]
    """``H = W'X`` of the unit-norm columns."""
    labels: Int[np.ndarray, " voxels"]
    """Component with the largest weight (ties: the lowest), 0 where all weights are at the floor."""
    losses: Float64[np.ndarray, " checks"]
    """``||X - W W'X||_F^2`` of the start, every so many iterations (`iterations.CHECK_EVERY`) and last of the
    result, all from float64 products."""
    at: Int[np.ndarray, " checks"]
    """Iterations (epochs, steps) before each loss."""
    changes: Float64[np.ndarray, " iterations"]
    """``||W_t - W_(t-1)||_F / ||W_(t-1)||_F``."""
    total: float
    """``||X||_F^2``."""
    reason: Reason
    """Why the iterations ended."""
    converged: bool
    warnings: tuple[str, ...]
    """Why the fit should not be trusted, in words; empty when it converged."""
    quality: Quality
    unit_loss: float
    """``||X - W W'X||_F^2`` of the unit-norm columns."""
    vanished: tuple[int, ...]
    """Components that are largest in no voxel; they keep their number."""
    n_empty_voxels: int
    """Voxels that are zero in every image, left out."""
    loss_kind: Literal["exact", "running"] = "exact"
    """``running``: the losses before the last are sums over batches while W changed."""

    @property
    def n_components(self) -> int:
        """Number of components, vanished ones included."""
        return int(self.norms.size)

    @property
    def relative_loss(self) -> float:
        """``||X - W W'X||_F / ||X||_F``."""
        return relative(float(self.losses[-1]), self.total)


def relative(loss: float, total: float) -> float:
    """Return the relative loss ``||X - W W'X||_F / ||X||_F`` from its square."""
    return float(np.sqrt(max(loss, 0.0) / total))


def sums_loss(
    total: float,
    hh: Float64[np.ndarray, "components components"],
    gram: Float64[np.ndarray, "components components"],
    scale: float = 1.0,
) -> float:
    """Return the loss of ``W = scale * R`` from ``hh = (R'X)(R'X)'`` and ``gram = R'R``."""
    square = scale * scale
    return float(total - 2.0 * square * np.trace(hh) + square * square * (gram * hh).sum())


def mean_cosine(gram: Float64[np.ndarray, "components components"]) -> float:
    """Return the mean cosine of two different columns from ``W'W``; empty columns have cosine 0."""
    cosines = _cosines(gram)
    r = cosines.shape[0]
    return float((cosines.sum() - np.trace(cosines)) / (r * (r - 1))) if r > 1 else 0.0


def _cosines(gram: Float64[np.ndarray, "components components"]) -> Float64[np.ndarray, "components components"]:
    lengths = np.sqrt(np.diag(gram))
    safe = np.where(lengths > 0, lengths, 1.0)
    cosines: Float64[np.ndarray, "components components"] = gram / np.outer(safe, safe)
    return cosines


def finish_soft(
    images: Float[np.ndarray, "voxels samples"],
    voxel_norms: Float64[np.ndarray, " voxels"],
    weights: Float[np.ndarray, "voxels components"],
    *,
    losses: list[float],
    at: list[int],
    changes: list[float],
    reason: Reason,
    converged: bool,
    warnings: tuple[str, ...] = (),
    loss_kind: Literal["exact", "running"] = "exact",
) -> SoftFit:
    """Return the fit of given weights: columns to unit norm and in order of energy, in place.

    Parameters
    ----------
    voxel_norms
        ``||x_j||^2``; their sum is the total.
    losses, at
        Losses on the way; that of the result is added. `at` has one number more, the iterations in all.
    weights
        In the scale that the iterations left; changed in place.
    """
    total = float(voxel_norms.sum())
    sums = exact_sums(Blocks(images, HOST), weights)
    loss = sums_loss(total, sums.q.T @ sums.q, sums.gram)
    lengths = np.sqrt(np.diag(sums.gram))
    safe = np.where(lengths > 0, lengths, 1.0)
    loadings = (sums.q / safe).T
    order = np.argsort(-np.sqrt((loadings**2).sum(axis=1)), kind="stable")
    loadings, gram = loadings[order], (sums.gram / np.outer(safe, safe))[np.ix_(order, order)]
    labels = np.empty(weights.shape[0], dtype=np.int32)
    entries = 0.0
    for rows in voxel_blocks(*weights.shape, block_bytes=UPDATE_BYTES):
        block = (weights[rows].astype(np.float64) / safe)[:, order]
        weights[rows] = block
        best = block.argmax(axis=1)
        at_floor = block[np.arange(best.size), best] <= 10.0 * FLOOR / safe[order][best]
        labels[rows] = np.where(at_floor, 0, best + 1)
        entries += float(block.sum())
    unit_loss = sums_loss(total, loadings @ loadings.T, gram)
    return SoftFit(
        weights=weights,
        norms=lengths[order],
        loadings=loadings,
        labels=labels,
        losses=np.array([*losses, loss]),
        at=np.array(at, dtype=np.int64),
        changes=np.array(changes),
        total=total,
        reason=reason,
        converged=converged,
        warnings=warnings,
        quality=_quality(images, sums.q, sums.gram, loss, total, gram, entries, weights.size),
        unit_loss=unit_loss,
        vanished=tuple(int(k) for k in range(1, order.size + 1) if not (labels == k).any()),
        n_empty_voxels=int((voxel_norms == 0).sum()),
        loss_kind=loss_kind,
    )


def _quality(
    images: Float[np.ndarray, "voxels samples"],
    q: Float64[np.ndarray, "samples components"],
    raw_gram: Float64[np.ndarray, "components components"],
    loss: float,
    total: float,
    gram: Float64[np.ndarray, "components components"],
    entries: float,
    n_entries: int,
) -> Quality:
    centred = q - q.mean(axis=0)
    centred_total = _centred_total(images, total)
    centred_loss = sums_loss(centred_total, centred.T @ centred, raw_gram)
    root, norm = np.sqrt(float(n_entries)), np.sqrt(float(np.trace(gram)))
    alone = n_entries == 1 or norm == 0
    alive = np.diag(gram) > 0
    return Quality(
        mean_cosine=mean_cosine(gram),
        orthogonality_error=float(np.sqrt(((_cosines(gram) - np.diag(alive.astype(np.float64))) ** 2).sum())),
        hoyer_sparsity=1.0 if alone else float((root - entries / norm) / (root - 1.0)),
        explained=1.0 - loss / total,
        explained_centred=_share(centred_loss, centred_total, total),
    )


def hard_quality(images: Float[np.ndarray, "voxels samples"], fit: AtlasFit) -> Quality:
    """Return the quality of a hard atlas, whose columns share no voxel."""
    alive = np.ones(fit.n_components)
    alive[np.array(fit.vanished, dtype=np.int64) - 1] = 0.0
    centred_total = _centred_total(images, fit.total)
    centred = (fit.loadings - fit.loadings.mean(axis=1, keepdims=True)).T
    centred_loss = sums_loss(centred_total, centred.T @ centred, np.diag(alive))
    return Quality(
        mean_cosine=0.0,
        orthogonality_error=0.0,
        hoyer_sparsity=hoyer_sparsity(fit.labels, fit.weights, fit.n_components),
        explained=1.0 - float(fit.losses[-1]) / fit.total,
        explained_centred=_share(centred_loss, centred_total, fit.total),
    )


def _centred_total(images: Float[np.ndarray, "voxels samples"], total: float) -> float:
    """Return the sum of squares of the images after each voxel's mean is taken from it."""
    means = 0.0
    for _, block in read_blocks(images, block_bytes=UPDATE_BYTES):
        means += float((block.mean(axis=1, dtype=np.float64) ** 2).sum())
    return float(total - images.shape[1] * means)


def _share(centred_loss: float, centred_total: float, total: float) -> float:
    """Return the share explained; NaN for identical images, which have no variation to explain."""
    return float(1.0 - centred_loss / centred_total) if centred_total > 1e-12 * total else float("nan")
