r"""Orthogonal projective non-negative factorisation by batches of images (sopNMF).

Each epoch takes the images in random order, in batches (the last may be smaller, none is left out), and applies the
multiplicative update of `multiplicative` to each batch. Batches disagree, so the ratio is damped by the exponent 1/2.

Data flow::

    images (one row a person), W --epoch: every batch updates W--> W --loss, W fixed--> EpochState --best W--> SoftFit

The epochs end when the loss has not fallen by more than `delta` of the best for `patience` epochs; the W with the
lowest loss is returned, not the last. An `EpochState` has all that an interrupted fit needs to go on as if nothing
had happened.

References
----------
Wen et al. (2023), PNAS 120:e2300842120 (sopNMF); Yang & Oja (2010), IEEE Trans. Neural Netw. 21:734.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float64

from brainlocus.images.atlas.fit_step import FitStep, Report, unheard
from brainlocus.images.atlas.iterations import LARGEST_COSINE
from brainlocus.images.atlas.passes import Blocks, gram_matrix, project, update_pass
from brainlocus.images.atlas.soft import Reason, SoftFit, finish_soft, mean_cosine, sums_loss
from brainlocus.numerics.devices import HOST, Device

__all__ = ["BatchOptions", "EpochState", "fit_batches", "fit_batches_peak_bytes"]


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Settings of the fit by batches."""

    batch_size: int
    """Images a batch; the number of images or more: all at once."""
    max_epochs: int = 1_000
    patience: int = 20
    """Epochs without improvement before the fit ends."""
    delta: float = 1e-5
    """Fall of the root of the loss, relative to the best, that counts as an improvement."""
    exponent: float = 0.5
    """Power of the ratio; with 1 the updates of single batches follow their noise."""
    epoch_loss: Literal["exact", "running"] = "exact"
    """``exact``: of W at the end of the epoch, which takes one more pass; ``running``: sum over batches of the loss of
    W before each, which costs less and lags behind."""


@dataclass(frozen=True, slots=True, eq=False)
class EpochState:
    """A fit after some epochs: everything that the next one depends on."""

    weights: Float[np.ndarray, "voxels components"]
    best: Float[np.ndarray, "voxels components"]
    """Weights with the lowest loss."""
    best_loss: float
    epoch: int
    waited: int
    """Epochs since the last improvement."""
    losses: tuple[float, ...]
    changes: tuple[float, ...]
    generator: dict[str, Any]
    """State of the random generator."""


def fit_batches_peak_bytes(n_voxels: int, n_samples: int, n_components: int, batch_size: int) -> int:
    """Return the most memory `fit_batches` needs besides the images (a memory map) and the weights it is given.

    W, its best and one copy while either changes; a batch; Gram matrices and projections.
    """
    batch = min(batch_size, n_samples)
    return (
        4 * 4 * n_voxels * n_components
        + 4 * batch * n_voxels
        + 6 * 8 * n_components * (n_components + n_samples)
        + (64 << 20)
    )


def fit_batches(
    images: Float[np.ndarray, "samples voxels"],
    voxel_norms: Float64[np.ndarray, " voxels"],
    start: Float[np.ndarray, "voxels components"],
    *,
    options: BatchOptions,
    generator: np.random.Generator,
    state: EpochState | None = None,
    voxel_major: Float[np.ndarray, "voxels samples"] | None = None,
    checkpoint: Callable[[EpochState], None] | None = None,
    device: Device = HOST,
    progress: Report = unheard,
) -> SoftFit:
    """Fit a soft atlas by batches of images.

    Parameters
    ----------
    images
        Non-negative and checked, one row a person (image-major, unlike for the other solvers: a batch is then read
        in one piece); may be a memory map.
    voxel_norms
        ``||x_j||^2`` of every voxel over all images.
    start
        Weights to start from; not changed.
    generator
        Draws the order of the images; the same generator gives the same fit.
    state
        Of an interrupted fit: it goes on from there, and `start` is not used.
    voxel_major
        The same images, one row a voxel, where there is such a copy: the final measures read it instead.
    checkpoint
        Called after every epoch with what `state` would have to be.
    progress
        Called with every epoch before it.

    Raises
    ------
    ValueError
        A batch of less than one image.
    """
    if options.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {options.batch_size}.")
    total = float(voxel_norms.sum())
    if state is None:
        weights = start.astype(images.dtype)
        weights[voxel_norms == 0] = 0
        weights = _rescaled(device, device.put(weights))
        first = _fixed_loss(images, weights, total, options.batch_size, device)
        given = device.get(weights).copy()
        drawn = dict(generator.bit_generator.state)
        state = EpochState(given, given, first, 0, 0, (first,), (), drawn)
    generator.bit_generator.state = state.generator
    reason: Reason = "max_iter"
    while state.epoch < options.max_epochs:
        if state.waited >= options.patience:
            reason = "early_stop"
            break
        progress(FitStep("epoch", state.epoch + 1, options.max_epochs, state.losses[-1], total))
        state = _epoch(images, state, total, options, generator, device)
        if checkpoint is not None:
            checkpoint(state)
    return _finished(images.T if voxel_major is None else voxel_major, voxel_norms, state, options, reason)


def _epoch(
    images: Float[np.ndarray, "samples voxels"],
    state: EpochState,
    total: float,
    options: BatchOptions,
    generator: np.random.Generator,
    device: Device,
) -> EpochState:
    """Return the state after one more epoch."""
    weights = device.put(state.weights.copy())
    running = 0.0
    # One buffer for all batches: fresh memory of this size costs more than the products. Blocks turn it, bit by bit.
    buffer = np.empty((min(options.batch_size, images.shape[0]), images.shape[1]), dtype=images.dtype)
    for batch in _batches(generator.permutation(images.shape[0]), options.batch_size):
        # Rows in the order of the file: read in one sweep. Their order within a batch does not matter.
        rows = np.take(images, np.sort(batch), axis=0, out=buffer[: batch.size], mode="clip")
        blocks = Blocks(rows.T, device)
        q = project(blocks, weights)
        if options.epoch_loss == "running":
            share = float(np.einsum("ij,ij->", rows, rows, dtype=np.float64))
            running += sums_loss(share, q.T @ q, gram_matrix(device, weights))
        update_pass(blocks, weights, q, scale=1.0, exponent=options.exponent, keep_unseen=True)
        if options.exponent != 0.5:
            # W (N / W A)^(1/2) does not depend on the scale of W: then once an epoch is enough.
            weights = _rescaled(device, weights)
    weights = _rescaled(device, weights)
    exact = options.epoch_loss == "exact"
    loss = _fixed_loss(images, weights, total, options.batch_size, device) if exact else running
    new = device.get(weights)
    before = float(np.linalg.norm(state.weights))
    change = float(np.linalg.norm(new - state.weights)) / before if before else 0.0
    # On the root, as the published tool does.
    better = np.sqrt(max(loss, 0.0)) < np.sqrt(max(state.best_loss, 0.0)) * (1.0 - options.delta)
    lower = loss < state.best_loss
    return EpochState(
        weights=new,
        best=new if lower else state.best,
        best_loss=min(loss, state.best_loss),
        epoch=state.epoch + 1,
        waited=0 if better else state.waited + 1,
        losses=(*state.losses, loss),
        changes=(*state.changes, change),
        generator=dict(generator.bit_generator.state),
    )


def _batches(order: np.ndarray, size: int) -> list[np.ndarray]:
    return [order[i : i + size] for i in range(0, order.size, size)]


def _rescaled(device: Device, weights: Any) -> Any:
    """Return the weights with spectral norm 1."""
    return weights * float(1.0 / np.sqrt(np.linalg.eigvalsh(gram_matrix(device, weights))[-1]))


def _fixed_loss(
    images: Float[np.ndarray, "samples voxels"], weights: Any, total: float, batch_size: int, device: Device
) -> float:
    """Return the loss over all images with the weights fixed, from float64 products."""
    r = weights.shape[1]
    hh = np.zeros((r, r))
    for rows in _batches(np.arange(images.shape[0]), batch_size):
        part = images[rows[0] : rows[-1] + 1]
        q = project(Blocks(part.T, device), weights, exact=True)
        hh += q.T @ q
    return sums_loss(total, hh, gram_matrix(device, weights))


def _finished(
    images: Float[np.ndarray, "voxels samples"],
    voxel_norms: Float64[np.ndarray, " voxels"],
    state: EpochState,
    options: BatchOptions,
    reason: Reason,
) -> SoftFit:
    cosine = mean_cosine(gram_matrix(HOST, state.best))
    converged = reason == "early_stop" and cosine < LARGEST_COSINE
    warnings: tuple[str, ...] = ()
    if not converged:
        why = "the limit of epochs was reached" if reason == "max_iter" else "the loss no longer falls"
        alike = f"; components are still alike (mean cosine {cosine:.2f}, expected below {LARGEST_COSINE})"
        warnings = (f"Not converged: {why}{alike if cosine >= LARGEST_COSINE else ''}.",)
    return finish_soft(
        images,
        voxel_norms,
        state.best.copy(),
        losses=list(state.losses),
        at=[*range(len(state.losses)), int(np.argmin(state.losses))],
        changes=list(state.changes),
        reason=reason,
        converged=converged,
        warnings=warnings,
        loss_kind=options.epoch_loss,
    )
