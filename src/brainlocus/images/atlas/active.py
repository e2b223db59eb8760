r"""Multiplicative updates of the few components that matter in each voxel.

After some tens of iterations nearly all entries of W are at the floor. An active iteration updates the largest entries
of each voxel alone (4 to 8), by sparse products whose cost does not grow with the number of components; every 25th
iteration is a whole one in which the others are brought up to date and the choice is made anew::

    50 whole iterations --> choose --> 24 active iterations --> 1 whole iteration --> choose --> ...

An entry left out changes by its present ratio to the power of the iterations it missed, up to the smallest active entry
of its voxel, and may then be chosen. Active iterations are put off while the entries left out hold more than 1e-4
of ``||W||^2``.

References
----------
methods/structural.md 1.5 d; Yang & Oja (2010), IEEE Trans. Neural Netw. 21:734.
"""

import time
from dataclasses import dataclass, replace
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float64, Int32
from numba import njit

from brainlocus.images.atlas.fit_step import FitStep, Report, unheard
from brainlocus.images.atlas.iterations import CHECK_EVERY, MuOptions, Trace, inverse_norm, iterate
from brainlocus.images.atlas.passes import FLOOR, TINY, Blocks, exact_sums, project
from brainlocus.images.atlas.soft import mean_cosine, sums_loss

__all__ = ["ActiveSet", "active_iterations", "choose_active", "iterate_active", "refresh"]

DENSE_FIRST = 50
LEFT_OUT = 1e-4
"""Share of ||W||^2 outside the active entries above which iterations stay whole."""
SUM_VOXELS = 4_096
"""Voxels whose products are added in the precision of the images before they go to float64 sums."""


def iterate_active(
    blocks: Blocks,
    weights: Float[np.ndarray, "voxels components"],
    total: float,
    *,
    options: MuOptions,
    progress: Report = unheard,
) -> tuple[Float[np.ndarray, "voxels components"], Trace]:
    """Update weights until they settle, as `iterations.iterate` does, with active sets.

    Parameters
    ----------
    total
        ``||X||_F^2``.
    options
        With `active`, the entries a voxel keeps.
    progress
        Called with every whole iteration and every 25 active ones before them.
    """
    began = time.monotonic()
    weights, trace = iterate(
        blocks, weights, total, options=replace(options, max_iterations=min(DENSE_FIRST, options.max_iterations)),
        progress=_counted_from(0, options, progress),
    )  # fmt: skip
    while len(trace.changes) + CHECK_EVERY <= options.max_iterations and not trace.converged:
        active = choose_active(weights, options.active or 1)
        if active.left_out > LEFT_OUT:
            more = replace(options, max_iterations=CHECK_EVERY)
            weights, part = iterate(
                blocks, weights, total, options=more, progress=_counted_from(len(trace.changes), options, progress)
            )
            trace.changes += part.changes
            trace.losses.append(part.losses[-1])
            trace.cosine = part.cosine
        else:
            first = len(trace.changes) + 1
            progress(FitStep("iteration", first, options.max_iterations, trace.losses[-1], total))
            weights = _round(blocks, weights, active, total, trace, options.exponent)
        if trace.settled(options.tolerance):
            break
        if options.max_seconds is not None and time.monotonic() - began > options.max_seconds:
            trace.reason = "time"
            break
    return weights, trace


def _counted_from(done: int, options: MuOptions, progress: Report) -> Report:
    """Return what counts the iterations of a part among those of the whole fit."""
    return lambda step: progress(replace(step, number=done + step.number, most=options.max_iterations))


def _round(
    blocks: Blocks,
    weights: Float[np.ndarray, "voxels components"],
    active: "ActiveSet",
    total: float,
    trace: Trace,
    exponent: float,
) -> Float[np.ndarray, "voxels components"]:
    """Do 24 active iterations and a whole one; return W with spectral norm 1."""
    steps = active_iterations(blocks, active, weights.shape[1], CHECK_EVERY - 1, exponent=exponent)
    # First the whole iteration, whose change is that of many iterations for what was left out; what tells convergence
    # is the change of one.
    trace.changes += [refresh(blocks, weights, active, CHECK_EVERY - 1, exponent=exponent), *steps]
    sums = exact_sums(blocks, weights)
    scale = float(weights.dtype.type(inverse_norm(sums)))
    weights *= scale
    trace.losses.append(sums_loss(total, sums.q.T @ sums.q, sums.gram, scale))
    trace.cosine = mean_cosine(sums.gram)
    return weights


@dataclass(slots=True, eq=False)
class ActiveSet:
    """The largest entries of each voxel."""

    components: Int32[np.ndarray, "voxels kept"]
    weights: Float[np.ndarray, "voxels kept"]
    left_out: float
    """Share of ||W||^2 that is not here."""


def choose_active(weights: Float[np.ndarray, "voxels components"], kept: int) -> ActiveSet:
    """Return the `kept` largest entries of each voxel."""
    n_voxels, r = weights.shape
    kept = min(kept, r)
    components = np.empty((n_voxels, kept), dtype=np.int32)
    values = np.empty((n_voxels, kept), dtype=weights.dtype)
    inside = everything = 0.0
    for start in range(0, n_voxels, SUM_VOXELS):
        rows = slice(start, start + SUM_VOXELS)
        block = weights[rows]
        best = np.sort(np.argpartition(block, r - kept, axis=1)[:, r - kept :], axis=1)
        components[rows] = best
        values[rows] = np.take_along_axis(block, best, axis=1)
        inside += float((values[rows].astype(np.float64) ** 2).sum())
        everything += float((block.astype(np.float64) ** 2).sum())
    return ActiveSet(components, values, 1.0 - inside / everything)


def active_iterations(
    blocks: Blocks, active: ActiveSet, n_components: int, iterations: int, *, exponent: float
) -> list[float]:
    """Update the active entries in place; return the relative changes of W.

    The scale of W is that of a bound of its spectral norm: the direction of the update does not depend on it.
    """
    changes = []
    q, gram, squares, _ = _visit_all(blocks, active, None, None, n_components, 1.0, exponent)
    for _ in range(iterations):
        # Gershgorin: the largest row sum of W'W bounds its largest eigenvalue.
        scale = float(blocks.images.dtype.type(1.0 / np.sqrt(gram.sum(axis=1).max())))
        a = scale * scale * (q @ q.T)
        earlier = scale * scale * squares
        q, gram, squares, inner = _visit_all(blocks, active, scale * q, a, n_components, scale, exponent)
        # Of directions: both W are brought to the same length.
        ratio = inner / np.sqrt(squares * earlier)
        changes.append(float(np.sqrt(max(2.0 - 2.0 * ratio, 0.0))))
    return changes


def _visit_all(
    blocks: Blocks,
    active: ActiveSet,
    q: Float64[np.ndarray, "components samples"] | None,
    a: Float64[np.ndarray, "components components"] | None,
    n_components: int,
    scale: float,
    exponent: float,
) -> tuple[Float64[np.ndarray, "components samples"], Float64[np.ndarray, "components components"], float, float]:
    """Update every voxel (where `q` is given); return ``W'X``, ``W'W``, ``||W||^2`` and the product with the old W."""
    images = blocks.images
    dtype = images.dtype
    update = q is not None
    empty = np.zeros((1, 1), dtype=dtype)
    q_narrow, a_narrow = (empty, empty) if q is None or a is None else (q.astype(dtype), a.astype(dtype))
    sums = np.zeros((n_components, images.shape[1]))
    gram = np.zeros((n_components, n_components))
    part = np.empty((n_components, images.shape[1]), dtype=dtype)
    squares = inner = 0.0
    for start in range(0, images.shape[0], SUM_VOXELS):
        rows = slice(start, start + SUM_VOXELS)
        part[:] = 0
        found = _visit(
            np.ascontiguousarray(images[rows]), active.components[rows], active.weights[rows], q_narrow, a_narrow, part,
            gram, scale, exponent, update,
        )  # fmt: skip
        sums += part
        squares += found[0]
        inner += found[1]
    return sums, gram, squares, inner


@njit(cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
@no_type_check
def _visit(
    block: np.ndarray,
    components: np.ndarray,
    weights: np.ndarray,
    q: np.ndarray,
    a: np.ndarray,
    sums: np.ndarray,
    gram: np.ndarray,
    scale: float,
    exponent: float,
    update: bool,
) -> tuple[float, float]:
    kind = weights.dtype.type
    factor, floor, tiny, zero, power = kind(scale), kind(FLOOR), kind(TINY), kind(0.0), kind(exponent)
    kept = components.shape[1]
    old = np.empty(kept, dtype=weights.dtype)
    squares = 0.0
    inner = 0.0
    for j in range(block.shape[0]):
        row = block[j]
        if update:
            for i in range(kept):
                old[i] = weights[j, i] * factor
            for i in range(kept):
                if old[i] <= zero:
                    weights[j, i] = zero
                    continue
                k = components[j, i]
                numerator = zero
                other = q[k]
                for t in range(row.size):
                    numerator += row[t] * other[t]
                denominator = tiny
                for m in range(kept):
                    denominator += old[m] * a[components[j, m], k]
                ratio = max(numerator, zero) / denominator
                if power != kind(1.0):
                    ratio = ratio**power
                weights[j, i] = max(old[i] * ratio, floor)
                inner += np.float64(old[i]) * np.float64(weights[j, i])
        for i in range(kept):
            w = weights[j, i]
            squares += np.float64(w) * np.float64(w)
            k = components[j, i]
            target = sums[k]
            for t in range(row.size):
                target[t] += w * row[t]
            for m in range(kept):
                gram[k, components[j, m]] += np.float64(w) * np.float64(weights[j, m])
    return squares, inner


def refresh(
    blocks: Blocks,
    weights: Float[np.ndarray, "voxels components"],
    active: ActiveSet,
    missed: int,
    *,
    exponent: float,
) -> float:
    """Put the active entries into W, update all of it in place, and return the change of its direction.

    Entries that were left out shrink or grow for the iterations they missed too, by their ratio relative to that of the
    voxel's largest entry (the ratios themselves depend on the scale of W), but not beyond the smallest active entry:
    then they are chosen next.
    """
    np.put_along_axis(weights, active.components.astype(np.int64), active.weights, axis=1)
    q = project(blocks, weights)
    dtype = weights.dtype
    q_narrow, a_narrow = q.astype(dtype), (q.T @ q).astype(dtype)
    sums = np.zeros(3)
    for number, rows in enumerate(blocks.rows()):
        old = weights[rows]
        numerator, denominator = blocks.block(number, rows) @ q_narrow, old @ a_narrow
        sums += _catch_up(old, numerator, denominator, active.components[rows], exponent, missed)
    before, after, inner = sums
    return float(np.sqrt(max(2.0 - 2.0 * inner / np.sqrt(before * after), 0.0)))


@njit(cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
@no_type_check
def _catch_up(
    weights: np.ndarray,
    numerator: np.ndarray,
    denominator: np.ndarray,
    components: np.ndarray,
    exponent: float,
    missed: int,
) -> np.ndarray:
    kind = weights.dtype.type
    floor, tiny, zero = kind(FLOOR), kind(TINY), kind(0.0)
    whole, power = kind(exponent), kind(exponent * missed)
    sums = np.zeros(3)
    for j in range(weights.shape[0]):
        largest = components[j, 0]
        for k in components[j]:
            if weights[j, k] > weights[j, largest]:
                largest = k
        usual = max(numerator[j, largest], zero) / (denominator[j, largest] + tiny)
        ceiling = weights[j, largest]
        for k in components[j]:
            ceiling = min(ceiling, weights[j, k])
        at = 0
        for k in range(weights.shape[1]):
            # The chosen components of a voxel are in order.
            chosen = at < components.shape[1] and components[j, at] == k
            if chosen:
                at += 1
            given = weights[j, k]
            if given <= zero:
                continue
            ratio = max(numerator[j, k], zero) / (denominator[j, k] + tiny)
            new = given * ratio**whole
            if not chosen and new > floor:
                new = min(new * (ratio / usual) ** power, max(new, ceiling))
            new = max(new, floor)
            weights[j, k] = new
            sums[0] += np.float64(given) * np.float64(given)
            sums[1] += np.float64(new) * np.float64(new)
            sums[2] += np.float64(given) * np.float64(new)
    return sums
