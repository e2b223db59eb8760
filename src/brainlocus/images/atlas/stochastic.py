r"""Orthogonal projective non-negative factorisation by batches of images (sopNMF).

Each epoch takes the images in random order, in batches (the last may be smaller, none is left out), and applies the
multiplicative update of `multiplicative` to each batch. Batches disagree, so the ratio is damped by the exponent 1/2.

Data flow::

    images (one row a person), W --epoch: every batch updates W--> W --loss, W fixed--> EpochState --best W--> SoftFit

With active sets (`active`) W turns sparse as soon as leaving out its small entries costs nothing, which is asked before
the first epoch and after each; from then on 24 of 25 batches update the entries that are left, and one lets others come
back.

The epochs end when the loss has not fallen by more than `delta` of the best for `patience` epochs; the W with the
lowest loss is returned, not the last. An `EpochState` has all that an interrupted fit needs to go on as if nothing
had happened.

References
----------
Wen et al. (2023), PNAS 120:e2300842120 (sopNMF); Yang & Oja (2010), IEEE Trans. Neural Netw. 21:734.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float64, Int

from brainlocus.images.atlas.active import (
    ActiveSet,
    active_sums,
    active_update,
    choose_active,
    costs_nothing,
    renew,
)
from brainlocus.images.atlas.fit_step import FitStep, Report, unheard
from brainlocus.images.atlas.iterations import LARGEST_COSINE, inverse_norm
from brainlocus.images.atlas.passes import Blocks, gram_matrix, project, update_pass
from brainlocus.images.atlas.soft import Reason, SoftFit, finish_soft, mean_cosine, sums_loss
from brainlocus.numerics.devices import HOST, Device
from brainlocus.numerics.memory_maps import give_back_pages

__all__ = ["BatchOptions", "EpochState", "Weights", "fit_batches", "fit_batches_peak_bytes"]


RENEW_EVERY = 25
"""Of so many batches, one lets entries come back to a sparse W."""
CHANGE_VOXELS = 1 << 16

Weights = Float[np.ndarray, "voxels components"] | ActiveSet


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
    active: int | None = None
    """Update only this many components of each voxel; None: all, always."""
    epoch_loss: Literal["exact", "running"] = "exact"
    """``exact``: of W at the end of the epoch, which takes one more pass; ``running``: sum over batches of the loss of
    W before each, which costs less and lags behind."""


@dataclass(frozen=True, slots=True, eq=False)
class EpochState:
    """A fit after some epochs: everything that the next one depends on."""

    weights: Weights
    best: Weights
    """Weights with the lowest loss."""
    best_loss: float
    epoch: int
    waited: int
    """Epochs since the last improvement."""
    losses: tuple[float, ...]
    changes: tuple[float, ...]
    generator: dict[str, Any]
    """State of the random generator."""
    missed: int = 0
    """Batches since entries could come back to a sparse W."""


def fit_batches_peak_bytes(
    n_voxels: int, n_samples: int, n_components: int, batch_size: int, *, sparse: int | None = None
) -> int:
    """Return the most memory `fit_batches` needs besides the images (a memory map) and the weights it is given.

    W, its best and one copy while either changes; a batch; Gram matrices and projections. A start that is an
    `ActiveSet` of `sparse` entries a voxel stays one, and only the result is a whole matrix.
    """
    batch = min(batch_size, n_samples)
    weights = 4 * 4 * n_components if sparse is None else 4 * 8 * sparse + 4 * n_components
    return weights * n_voxels + 4 * batch * n_voxels + 6 * 8 * n_components * (n_components + n_samples) + (64 << 20)


def fit_batches(
    images: Float[np.ndarray, "samples voxels"],
    voxel_norms: Float64[np.ndarray, " voxels"],
    start: Weights,
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
        A batch of less than one image, or active sets on an accelerator or with the running loss.
    """
    if options.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {options.batch_size}.")
    if options.active is not None and not device.is_host:
        raise ValueError("Active sets run on the processor only; leave them out, or use the device cpu.")
    if options.active is not None and options.epoch_loss == "running":
        raise ValueError("With active sets the exact loss costs little, and what turns W sparse; leave out running.")
    fit = _Fit(images, float(voxel_norms.sum()), options, device)
    if state is None:
        state = fit.first(start, voxel_norms, generator)
    generator.bit_generator.state = state.generator
    reason: Reason = "max_iter"
    while state.epoch < options.max_epochs:
        if state.waited >= options.patience:
            reason = "early_stop"
            break
        progress(FitStep("epoch", state.epoch + 1, options.max_epochs, state.losses[-1], fit.total))
        state = fit.epoch(state, generator)
        if checkpoint is not None:
            checkpoint(state)
    progress(FitStep("measuring the fit", loss=state.best_loss, total=fit.total))
    return _finished(images.T if voxel_major is None else voxel_major, voxel_norms, state, options, reason)


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """What all epochs share."""

    images: Float[np.ndarray, "samples voxels"]
    total: float
    options: BatchOptions
    device: Device

    def first(
        self, start: Weights, voxel_norms: Float64[np.ndarray, " voxels"], generator: np.random.Generator
    ) -> EpochState:
        """Return the state before the first epoch: W with spectral norm 1."""
        drawn = dict(generator.bit_generator.state)
        if isinstance(start, ActiveSet):
            given: Any = start.copy()
        else:
            whole = start.astype(self.images.dtype)
            whole[voxel_norms == 0] = 0
            given = self.device.put(whole)
        weights, loss = self.measured(given)
        return EpochState(weights, weights, loss, 0, 0, (loss,), (), drawn, RENEW_EVERY)

    def epoch(self, state: EpochState, generator: np.random.Generator) -> EpochState:
        """Return the state after one more epoch."""
        weights, running, missed = self.batches(state, generator)
        new, loss = self.measured(weights, running if self.options.epoch_loss == "running" else None)
        # On the root, as the published tool does.
        better = np.sqrt(max(loss, 0.0)) < np.sqrt(max(state.best_loss, 0.0)) * (1.0 - self.options.delta)
        lower = loss < state.best_loss
        return EpochState(
            weights=new,
            best=new if lower else state.best,
            best_loss=min(loss, state.best_loss),
            epoch=state.epoch + 1,
            waited=0 if better else state.waited + 1,
            losses=(*state.losses, loss),
            changes=(*state.changes, _change(new, state.weights)),
            generator=dict(generator.bit_generator.state),
            missed=missed,
        )

    def batches(self, state: EpochState, generator: np.random.Generator) -> tuple[Any, float, int]:
        """Return W after every batch has updated it, the running loss if asked for, and the batches missed."""
        options = self.options
        weights: Any = state.weights.copy()
        if not isinstance(weights, ActiveSet):
            weights = self.device.put(weights)
        running, missed = 0.0, state.missed
        for blocks in self.read(generator.permutation(self.images.shape[0])):
            if not isinstance(weights, ActiveSet):
                weights, loss = self.update(blocks, weights)
                running += loss
            elif missed >= RENEW_EVERY - 1:
                renew(blocks, weights, exponent=options.exponent, keep_unseen=True)
                missed = 0
            else:
                active_update(blocks, weights, exponent=options.exponent)
                missed += 1
        return weights, running, missed

    def read(self, order: Int[np.ndarray, " samples"]) -> Iterator[Blocks]:
        """Yield the images in batches; each is valid until the next is asked for."""
        images, size = self.images, self.options.batch_size
        # One buffer for all batches: fresh memory of this size costs more than the products. Blocks turn it bit by bit.
        buffer = np.empty((min(size, images.shape[0]), images.shape[1]), dtype=images.dtype)
        for start in range(0, order.size, size):
            # Rows in the order of the file: read in one sweep. Their order within a batch does not matter.
            batch = np.sort(order[start : start + size])
            rows = np.take(images, batch, axis=0, out=buffer[: batch.size], mode="clip")
            give_back_pages(images)
            yield Blocks(rows.T, self.device)

    def update(self, blocks: Blocks, weights: Any) -> tuple[Any, float]:
        """Return W after a batch, and its loss in the batch before, if asked for."""
        loss = 0.0
        q = project(blocks, weights)
        if self.options.epoch_loss == "running":
            share = float(np.einsum("ij,ij->", blocks.images, blocks.images, dtype=np.float64))
            loss = sums_loss(share, q.T @ q, gram_matrix(self.device, weights))
        update_pass(blocks, weights, q, scale=1.0, exponent=self.options.exponent, keep_unseen=True)
        if self.options.exponent != 0.5:
            # W (N / W A)^(1/2) does not depend on the scale of W: then once an epoch is enough.
            weights = weights * inverse_norm(gram_matrix(self.device, weights))
        return weights, loss

    def measured(self, weights: Any, running: float | None = None) -> tuple[Weights, float]:
        """Return W with spectral norm 1, sparse where that costs nothing, and its loss: `running`, or of all images."""
        if running is not None:
            return self.device.get(weights * self.scale(gram_matrix(self.device, weights))), running
        hh, gram = self.sums(weights)
        scale = self.scale(gram)
        loss = sums_loss(self.total, hh, gram, scale)
        if isinstance(weights, ActiveSet):
            weights.weights[:] *= scale
            return weights, loss
        whole: np.ndarray = self.device.get(weights * scale)
        if self.options.active is None:
            return whole, loss
        left = choose_active(whole, self.options.active)
        if not costs_nothing(self.total, (hh, gram), self.sums(left)):
            return whole, loss
        return self.measured(left)

    def sums(
        self, weights: Any
    ) -> tuple[Float64[np.ndarray, "components components"], Float64[np.ndarray, "components components"]]:
        """Return ``W'X X'W`` over all images and ``W'W``, from float64 products."""
        hh: Any = 0.0
        gram: Any = None
        for part in self.read(np.arange(self.images.shape[0])):
            if isinstance(weights, ActiveSet):
                found = active_sums(part, weights)
                q, gram = found.q, found.gram
            else:
                q = project(part, weights, exact=True)
            hh = hh + q.T @ q
        return hh, gram_matrix(self.device, weights) if gram is None else gram

    def scale(self, gram: Float64[np.ndarray, "components components"]) -> float:
        """Return what brings W to spectral norm 1, in the precision of W."""
        return float(self.images.dtype.type(inverse_norm(gram)))


def _change(new: Weights, old: Weights) -> float:
    """Return ``||W_t - W_(t-1)||_F / ||W_(t-1)||_F``."""
    length = float(np.linalg.norm(old.weights if isinstance(old, ActiveSet) else old))
    if not length:
        return 0.0
    if not isinstance(new, ActiveSet):
        return float(np.linalg.norm(new - old)) / length
    moved = 0.0
    for start in range(0, new.components.shape[0], CHANGE_VOXELS):
        rows = slice(start, start + CHANGE_VOXELS)
        before = old.part(rows).dense() if isinstance(old, ActiveSet) else old[rows]
        moved += float(np.linalg.norm(new.part(rows).dense() - before) ** 2)
    return float(np.sqrt(moved)) / length


def _finished(
    images: Float[np.ndarray, "voxels samples"],
    voxel_norms: Float64[np.ndarray, " voxels"],
    state: EpochState,
    options: BatchOptions,
    reason: Reason,
) -> SoftFit:
    best = state.best.dense() if isinstance(state.best, ActiveSet) else state.best.copy()
    cosine = mean_cosine(gram_matrix(HOST, best))
    converged = reason == "early_stop" and cosine < LARGEST_COSINE
    warnings: tuple[str, ...] = ()
    if not converged:
        why = "the limit of epochs was reached" if reason == "max_iter" else "the loss no longer falls"
        alike = f"; components are still alike (mean cosine {cosine:.2f}, expected below {LARGEST_COSINE})"
        warnings = (f"Not converged: {why}{alike if cosine >= LARGEST_COSINE else ''}.",)
    return finish_soft(
        images,
        voxel_norms,
        best,
        losses=list(state.losses),
        at=[*range(len(state.losses)), int(np.argmin(state.losses))],
        changes=list(state.changes),
        reason=reason,
        converged=converged,
        warnings=warnings,
        loss_kind=options.epoch_loss,
    )
