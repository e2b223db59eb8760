r"""Multiplicative updates of the few components that matter in each voxel.

Once components are told apart, W has a few large entries a voxel and a background left by the start, which whole
iterations take thousands to bring down: each lowers it by a ratio just below 1. Here a voxel keeps its largest entries
(4 to 8), all others are 0, and the products of an iteration are sparse: their cost does not grow with the number of
components, and W is kept in this form. Every 25th iteration is a whole one: entries at 0 whose ratio
``N / (W A)`` is above that of the voxel's largest entry would grow, so the best of them come back, at 1e-3 of the
largest, in place of smaller ones::

    whole iterations --until leaving out costs nothing--> choose --> 1 whole iteration, 24 active ones --> ...
    hard atlas ----------------------------------------> ActiveSet --^

"Costs nothing" is measured: the loss of W without the entries left out is not above that of W (1e-5), both with columns
brought to one length. The exponent of the ratio is 1/2: columns that share no voxel would go from length c to 1/c and
back with exponent 1.

References
----------
methods/structural.md 1.5 d; Yang & Oja (2010), IEEE Trans. Neural Netw. 21:734.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float64, Int, Int32
from numba import njit

from brainlocus.images.atlas.blocks import BLOCK_BYTES, read_blocks, voxel_blocks
from brainlocus.images.atlas.em import AtlasFit
from brainlocus.images.atlas.fit_step import FitStep, Report, unheard
from brainlocus.images.atlas.iterations import CHECK_EVERY, MuOptions, Trace, inverse_norm, iterate
from brainlocus.images.atlas.passes import FLOOR, TINY, UPDATE_BYTES, Blocks, Sums, exact_sums
from brainlocus.images.atlas.soft import mean_cosine, sums_loss

__all__ = [
    "ACTIVE_EXPONENT", "ActiveSet", "active_iterations", "active_sums", "active_update", "choose_active",
    "costs_nothing", "hard_active", "iterate_active", "leave_out", "renew", "settle_active",
]  # fmt: skip

ACTIVE_EXPONENT = 0.5
LEFT_OUT = 1e-5
"""Rise of the loss, as a share of it, that leaving entries out may cost."""
RETURN = 1e-3
"""Entries come back at this share of the voxel's largest one, and where their ratio is above its ratio by this share:
differences below are those of noise, and of float32 products."""
GONE = 1e-6
"""Entries below this share of the voxel's largest one give their place free."""
SUM_VOXELS = 4_096
"""Most voxels whose products are added in the precision of the images before they go to float64 sums."""


@dataclass(frozen=True, slots=True, eq=False)
class ActiveSet:
    """A sparse W: some entries of each voxel, in no order."""

    components: Int32[np.ndarray, "voxels kept"]
    """Of each entry, from 0; any number where the entry is 0, which is a free place."""
    weights: Float[np.ndarray, "voxels kept"]
    families: Int32[np.ndarray, " components"]
    """Components that may come back are of the family of the voxel's largest entry: one for all, or the components of a
    coarser atlas that these are parts of."""

    @property
    def n_components(self) -> int:
        """Number of components, vanished ones included."""
        return int(self.families.size)

    def copy(self) -> "ActiveSet":
        """Return one with entries of its own."""
        return ActiveSet(self.components.copy(), self.weights.copy(), self.families)

    def astype(self, dtype: np.dtype, *, copy: bool = True) -> "ActiveSet":
        """Return one with weights of a precision, its own where `copy` says so or they change."""
        return ActiveSet(self.components, self.weights.astype(dtype, copy=copy), self.families)

    def part(self, rows: slice) -> "ActiveSet":
        """Return the entries of some voxels, not copied."""
        return ActiveSet(self.components[rows], self.weights[rows], self.families)

    def dense(self) -> Float[np.ndarray, "voxels components"]:
        """Return W as a matrix."""
        whole = np.zeros((self.weights.shape[0], self.n_components), dtype=self.weights.dtype)
        for rows in voxel_blocks(*whole.shape, block_bytes=UPDATE_BYTES):
            _scatter(self.components[rows], self.weights[rows], whole[rows])
        return whole


def choose_active(weights: Float[np.ndarray, "voxels components"], kept: int) -> ActiveSet:
    """Return the `kept` largest entries of each voxel."""
    n_voxels, r = weights.shape
    kept = min(kept, r)
    components = np.empty((n_voxels, kept), dtype=np.int32)
    values = np.empty((n_voxels, kept), dtype=weights.dtype)
    for start in range(0, n_voxels, SUM_VOXELS):
        rows = slice(start, start + SUM_VOXELS)
        block = weights[rows]
        best = np.argpartition(block, r - kept, axis=1)[:, r - kept :]
        components[rows] = best
        values[rows] = np.take_along_axis(block, best, axis=1)
    return ActiveSet(components, values, np.zeros(r, dtype=np.int32))


def hard_active(
    hard: AtlasFit,
    kept: int,
    dtype: type[np.floating],
    *,
    families: Int[np.ndarray, " components"] | None = None,
) -> ActiveSet:
    """Return W of a hard atlas, with `kept` places a voxel of which one is taken."""
    kept = min(kept, hard.n_components)
    components = np.zeros((hard.labels.size, kept), dtype=np.int32)
    weights = np.zeros((hard.labels.size, kept), dtype=dtype)
    inside = hard.labels > 0
    components[inside, 0] = hard.labels[inside] - 1
    weights[inside, 0] = hard.weights[inside]
    if families is None:
        families = np.zeros(hard.n_components, dtype=np.int32)
    return ActiveSet(components, weights, families.astype(np.int32))


def iterate_active(
    blocks: Blocks,
    weights: Float[np.ndarray, "voxels components"] | ActiveSet,
    total: float,
    *,
    options: MuOptions,
    progress: Report = unheard,
) -> tuple[Float[np.ndarray, "voxels components"], Trace]:
    """Update weights until they settle, as `iterations.iterate` does, with active sets.

    Parameters
    ----------
    weights
        Changed in place; sparse already, or turned so as soon as that costs nothing.
    total
        ``||X||_F^2``.
    options
        With `active`, the entries a voxel keeps. The exponent is 1/2, whatever they say.
    progress
        Called with every whole iteration and every 25 active ones before them.
    """
    began = time.monotonic()
    trace = Trace(total)
    if not isinstance(weights, ActiveSet):
        weights = _whole_until_sparse(blocks, weights, trace, options, progress)
    if not isinstance(weights, ActiveSet):
        return weights, trace
    settle_active(
        blocks,
        weights,
        trace,
        tolerance=options.tolerance,
        max_iterations=options.max_iterations,
        max_seconds=_left(options.max_seconds, began),
        progress=progress,
    )
    return weights.dense(), trace


def _whole_until_sparse(
    blocks: Blocks,
    weights: Float[np.ndarray, "voxels components"],
    trace: Trace,
    options: MuOptions,
    progress: Report,
) -> Float[np.ndarray, "voxels components"] | ActiveSet:
    """Do whole iterations until leaving out costs nothing; return what is left, or all of W where they end before."""
    began = time.monotonic()
    while (active := leave_out(blocks, weights, trace.total, options.active or 1)) is None:
        done = len(trace.changes)
        if done >= options.max_iterations or trace.reason == "time" or (done and trace.settled(options.tolerance)):
            return weights
        more = replace(
            options,
            max_iterations=min(CHECK_EVERY, options.max_iterations - done),
            exponent=ACTIVE_EXPONENT,
            max_seconds=_left(options.max_seconds, began),
        )
        weights, part = iterate(
            blocks, weights, trace.total, options=more, progress=_counted_from(done, options, progress)
        )
        trace.changes += part.changes
        trace.losses += part.losses[1:] if trace.losses else part.losses
        trace.cosine, trace.reason = part.cosine, part.reason
    return active


def _left(seconds: float | None, began: float) -> float | None:
    return None if seconds is None else max(seconds - (time.monotonic() - began), 0.0)


def _counted_from(done: int, options: MuOptions, progress: Report) -> Report:
    """Return what counts the iterations of a part among those of the whole fit."""
    return lambda step: progress(replace(step, number=done + step.number, most=options.max_iterations))


def leave_out(
    blocks: Blocks, weights: Float[np.ndarray, "voxels components"], total: float, kept: int
) -> ActiveSet | None:
    """Return the largest entries of each voxel, None where the loss rises if the others are left out."""
    whole = exact_sums(blocks, weights)
    active = choose_active(weights, kept)
    left = active_sums(blocks, active)
    return active if costs_nothing(total, (whole.q.T @ whole.q, whole.gram), (left.q.T @ left.q, left.gram)) else None


def costs_nothing(total: float, whole: tuple[np.ndarray, np.ndarray], left: tuple[np.ndarray, np.ndarray]) -> bool:
    """Return whether the loss does not rise when entries are left out, given ``W'X X'W`` and ``W'W`` of both."""
    return _balanced_loss(total, *left) <= _balanced_loss(total, *whole) * (1.0 + LEFT_OUT)


def _balanced_loss(
    total: float,
    hh: Float64[np.ndarray, "components components"],
    gram: Float64[np.ndarray, "components components"],
) -> float:
    """Return the loss of W with columns brought to one length, and then to spectral norm 1."""
    lengths = np.sqrt(np.diag(gram))
    pairs = np.outer(lengths, lengths)
    safe = np.where(pairs > 0, pairs, 1.0)
    return sums_loss(total, hh / safe, gram / safe, inverse_norm(gram / safe))


def settle_active(
    blocks: Blocks,
    active: ActiveSet,
    trace: Trace,
    *,
    tolerance: float,
    max_iterations: int,
    max_seconds: float | None = None,
    progress: Report = unheard,
) -> None:
    """Update a sparse W in place until it settles; it ends with spectral norm 1.

    Parameters
    ----------
    trace
        How it went so far; continued.
    progress
        Called with every 25 iterations before them.
    """
    began = time.monotonic()
    trace.reason = "max_iter"
    if not trace.losses:
        trace.losses.append(_rescale(active, active_sums(blocks, active), trace))
    while len(trace.changes) + CHECK_EVERY <= max_iterations:
        progress(FitStep("iteration", len(trace.changes) + 1, max_iterations, trace.losses[-1], trace.total))
        # First the whole iteration, in which entries come back; what tells convergence is the change of the last.
        trace.changes.append(renew(blocks, active))
        trace.changes += active_iterations(blocks, active, CHECK_EVERY - 1)
        trace.losses.append(_rescale(active, active_sums(blocks, active), trace))
        if trace.settled(tolerance):
            return
        if max_seconds is not None and time.monotonic() - began > max_seconds:
            trace.reason = "time"
            return
    left = max_iterations - len(trace.changes)
    if left > 0:
        trace.changes.append(renew(blocks, active))
        trace.changes += active_iterations(blocks, active, left - 1)
        _rescale(active, active_sums(blocks, active), trace)


def _rescale(active: ActiveSet, sums: Sums, trace: Trace) -> float:
    """Bring W to spectral norm 1, note the mean cosine, return the loss."""
    scale = float(active.weights.dtype.type(inverse_norm(sums.gram)))
    active.weights[:] *= scale
    trace.cosine = mean_cosine(sums.gram)
    return sums_loss(trace.total, sums.q.T @ sums.q, sums.gram, scale)


def active_sums(blocks: Blocks, active: ActiveSet) -> Sums:
    """Return the sums of a sparse W from float64 products."""
    return _visit_all(blocks, active, np.float64)


def active_iterations(blocks: Blocks, active: ActiveSet, iterations: int) -> list[float]:
    """Update the entries in place; return the relative changes of the direction of W.

    The scale of W is that of a bound of its spectral norm: the direction of the update does not depend on it.
    """
    changes = []
    sums = _visit_all(blocks, active, active.weights.dtype)
    for _ in range(iterations):
        sums, change = _step(blocks, active, sums)
        changes.append(change)
    return changes


def active_update(blocks: Blocks, active: ActiveSet, *, exponent: float = ACTIVE_EXPONENT) -> float:
    """Update the entries in place from one batch of images; return the change of the direction of W.

    Voxels that are zero in all these images stay as they are.
    """
    sums = _visit_all(blocks, active, active.weights.dtype)
    return _step(blocks, active, sums, exponent=exponent, keep_unseen=True, collect=False)[1]


def _step(
    blocks: Blocks,
    active: ActiveSet,
    sums: Sums,
    *,
    exponent: float = ACTIVE_EXPONENT,
    keep_unseen: bool = False,
    collect: bool = True,
) -> tuple[Sums, float]:
    """Do one iteration, given the sums of W; return those of the new W (zeros unless `collect`) and the change."""
    scale, q, a = _scaled(sums, blocks.images.dtype)
    found = np.zeros((active.n_components, blocks.images.shape[1]))
    gram = np.zeros((active.n_components, active.n_components))
    part = np.empty(found.shape, dtype=blocks.images.dtype)
    squares = np.zeros(3)
    for rows, block in _read(blocks):
        part[:] = 0
        weights = active.weights[rows]
        squares += _update(block, active.components[rows], weights, q, a, scale, exponent, keep_unseen)
        if collect:
            _collect(block, active.components[rows], weights, part, gram)
            found += part
    return Sums(found.T, gram, float(squares[1])), _turn(squares)


def _scaled(sums: Sums, dtype: np.dtype) -> tuple[float, np.ndarray, np.ndarray]:
    """Return a scale that brings W near spectral norm 1, and then ``W'X`` and ``W'X X'W``."""
    # Gershgorin: the largest row sum of W'W bounds its largest eigenvalue.
    scale = float(dtype.type(1.0 / np.sqrt(sums.gram.sum(axis=1).max())))
    q = scale * sums.q.T
    return scale, np.ascontiguousarray(q, dtype=dtype), (q @ q.T).astype(dtype)


def _turn(squares: Float64[np.ndarray, "3"]) -> float:
    """Return the change between directions, from both squares and the inner product."""
    before, after, inner = squares
    return float(np.sqrt(max(2.0 - 2.0 * inner / np.sqrt(before * after), 0.0))) if before and after else 0.0


def _visit_all(blocks: Blocks, active: ActiveSet, dtype: np.dtype | type[np.floating]) -> Sums:
    """Return the sums of W, with products in a precision."""
    found = np.zeros((active.n_components, blocks.images.shape[1]))
    gram = np.zeros((active.n_components, active.n_components))
    part = np.empty(found.shape, dtype=dtype)
    squares = 0.0
    for rows, block in _read(blocks):
        part[:] = 0
        weights = active.weights[rows].astype(dtype, copy=False)
        _collect(block.astype(dtype, copy=False), active.components[rows], weights, part, gram)
        found += part
        squares += float(np.einsum("ij,ij->", weights, weights, dtype=np.float64))
    return Sums(found.T, gram, squares)


def _read(blocks: Blocks) -> Iterator[tuple[slice, Float[np.ndarray, "_ samples"]]]:
    return read_blocks(blocks.images, block_bytes=min(BLOCK_BYTES, SUM_VOXELS * 4 * blocks.images.shape[1]))


def renew(blocks: Blocks, active: ActiveSet, *, exponent: float = ACTIVE_EXPONENT, keep_unseen: bool = False) -> float:
    """Do a whole iteration in place: entries that would grow come back; return the change of the direction of W."""
    scale, q, a = _scaled(_visit_all(blocks, active, active.weights.dtype), blocks.images.dtype)
    turned = np.ascontiguousarray(q.T)
    squares = np.zeros(3)
    for rows, block in blocks.visits():
        squares += _renew(
            block @ turned, active.components[rows], active.weights[rows], active.families, a,
            scale, exponent, keep_unseen,
        )  # fmt: skip
    return _turn(squares)


@njit(cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
@no_type_check
def _scatter(components: np.ndarray, weights: np.ndarray, whole: np.ndarray) -> None:
    for j in range(weights.shape[0]):
        for i in range(weights.shape[1]):
            if weights[j, i] > 0:
                whole[j, components[j, i]] = weights[j, i]


@njit(cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
@no_type_check
def _collect(
    block: np.ndarray, components: np.ndarray, weights: np.ndarray, sums: np.ndarray, gram: np.ndarray
) -> None:
    """Add ``W'X`` and ``W'W``."""
    kept = components.shape[1]
    for j in range(block.shape[0]):
        row = block[j]
        for i in range(kept):
            w = weights[j, i]
            if w == 0:
                continue
            k = components[j, i]
            target = sums[k]
            for t in range(row.size):
                target[t] += w * row[t]
            for m in range(kept):
                if weights[j, m] != 0:
                    gram[k, components[j, m]] += np.float64(w) * np.float64(weights[j, m])


@njit(cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
@no_type_check
def _update(
    block: np.ndarray,
    components: np.ndarray,
    weights: np.ndarray,
    q: np.ndarray,
    a: np.ndarray,
    scale: float,
    exponent: float,
    keep_unseen: bool,
) -> np.ndarray:
    """Update the entries in place; return ``||W||^2`` before and after, and the inner product."""
    kind = weights.dtype.type
    factor, floor, tiny, zero, power = kind(scale), kind(FLOOR), kind(TINY), kind(0.0), kind(exponent)
    kept = components.shape[1]
    old = np.empty(kept, dtype=weights.dtype)
    squares = np.zeros(3)
    for j in range(block.shape[0]):
        row = block[j]
        for i in range(kept):
            old[i] = weights[j, i] * factor
        for i in range(kept):
            if old[i] <= zero:
                continue
            k = components[j, i]
            numerator = zero
            other = q[k]
            for t in range(row.size):
                numerator += row[t] * other[t]
            if keep_unseen and numerator <= zero:
                weights[j, i] = old[i]
            else:
                denominator = tiny
                for m in range(kept):
                    if old[m] > zero:
                        denominator += old[m] * a[components[j, m], k]
                ratio = max(numerator, zero) / denominator
                weights[j, i] = max(old[i] * (np.sqrt(ratio) if power == kind(0.5) else ratio**power), floor)
            squares[0] += np.float64(old[i]) * np.float64(old[i])
            squares[1] += np.float64(weights[j, i]) * np.float64(weights[j, i])
            squares[2] += np.float64(old[i]) * np.float64(weights[j, i])
    return squares


@njit(cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
@no_type_check
def _renew(
    numerator: np.ndarray,
    components: np.ndarray,
    weights: np.ndarray,
    families: np.ndarray,
    a: np.ndarray,
    scale: float,
    exponent: float,
    keep_unseen: bool,
) -> np.ndarray:
    """Update the entries of a block and let others come back; return the squares as `_update` does."""
    kind = weights.dtype.type
    factor, tiny, zero, power = kind(scale), kind(TINY), kind(0.0), kind(exponent)
    n_voxels, r = numerator.shape
    kept = components.shape[1]
    denominator = np.empty(r, dtype=weights.dtype)
    shut = np.zeros(r, dtype=np.bool_)
    squares = np.zeros(3)
    for j in range(n_voxels):
        denominator[:] = tiny
        largest = 0
        for i in range(kept):
            weights[j, i] *= factor
            w = weights[j, i]
            squares[0] += np.float64(w) * np.float64(w)
            if w > zero:
                for m in range(r):
                    denominator[m] += w * a[components[j, i], m]
                if w > weights[j, largest]:
                    largest = i
        lead = components[j, largest]
        usual = max(numerator[j, lead], zero) / denominator[lead]
        if weights[j, largest] > zero and (usual > zero or not keep_unseen):
            top = zero
            for i in range(kept):
                w = weights[j, i]
                if w > zero:
                    k = components[j, i]
                    weights[j, i] = w * (max(numerator[j, k], zero) / denominator[k]) ** power
                    squares[2] += np.float64(w) * np.float64(weights[j, i])
                    top = max(top, weights[j, i])
            limit = usual * kind(1.0 + RETURN)
            family = families[lead]
            for k in range(r):
                shut[k] = families[k] != family
            for i in range(kept):
                if weights[j, i] > zero:
                    shut[components[j, i]] = True
            _let_return(numerator[j], denominator, limit, shut, components[j], weights[j], top)
        else:
            for i in range(kept):
                squares[2] += np.float64(weights[j, i]) * np.float64(weights[j, i])
        for i in range(kept):
            squares[1] += np.float64(weights[j, i]) * np.float64(weights[j, i])
    return squares


@njit(cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
@no_type_check
def _let_return(
    numerator: np.ndarray,
    denominator: np.ndarray,
    limit: float,
    shut: np.ndarray,
    components: np.ndarray,
    weights: np.ndarray,
    top: float,
) -> None:
    """Give the free places of a voxel, and those of entries that are smaller, to what has the largest ratios."""
    value = weights.dtype.type(RETURN) * top
    kept = weights.size
    best = np.empty(kept, dtype=np.int64)
    places = 0
    for i in range(kept):
        if weights[i] < weights.dtype.type(GONE) * top:
            weights[i] = 0
        if weights[i] < value:
            places += 1
    found = 0
    for k in range(numerator.size):
        if shut[k] or numerator[k] <= limit * denominator[k]:
            continue
        # Sorted by falling ratio, as far as there are places.
        at = found
        while at > 0 and numerator[k] * denominator[best[at - 1]] > numerator[best[at - 1]] * denominator[k]:
            at -= 1
        if at >= places:
            continue
        found = min(found + 1, places)
        for i in range(found - 1, at, -1):
            best[i] = best[i - 1]
        best[at] = k
    for n in range(found):
        smallest = 0
        for i in range(kept):
            if weights[i] < weights[smallest]:
                smallest = i
        components[smallest] = best[n]
        weights[smallest] = value
