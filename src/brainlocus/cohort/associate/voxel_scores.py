"""Values of voxels without outliers, as normal scores: what rank mode tests instead of the values.

Data flow::

    values of some voxels, all people --score_voxels--> VoxelScores     (per range of voxels)

Of every voxel, over the people who have it: values farther than K unscaled MADs from the median are removed (Alfaro-
Almagro et al. 2021), and the others become normal scores, average ranks for ties (Blom 1958), with mean 0 and variance
1, as ``cohort prepare`` makes them of a column::

    z_i = Phi^-1((r_i - 3/8) / (N + 1/4))

A voxel with a MAD of 0 (more than half of its values are equal) has no scores. Values are sorted once: ranks, median
and MAD come from the order.

References
----------
Blom (1958), Statistical Estimates and Transformed Beta-Variables; Alfaro-Almagro et al. (2021), NeuroImage 224:117002.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int
from numba import njit

__all__ = ["VoxelScores", "score_voxels", "score_voxels_bytes"]

BLOM = 3.0 / 8.0
MIN_DISTINCT = 10
"""Voxels with no more distinct values are standardised only, as in ``cohort prepare``."""


@dataclass(frozen=True, slots=True, eq=False)
class VoxelScores:
    """Scores of some voxels."""

    values: Float64[np.ndarray, "voxels people"]
    """NaN where a value is missing or was removed."""
    n_outliers: Int[np.ndarray, " voxels"]
    zero_mad: Bool[np.ndarray, " voxels"]
    """More than half of the values are equal: all are NaN."""


def score_voxels_bytes(n_voxels: int, n_people: int) -> int:
    """Return the memory of `score_voxels`, its argument not counted."""
    return n_voxels * n_people * (8 + 4 + 9) + 64 * n_people + 32 * n_voxels


def score_voxels(
    values: Float32[np.ndarray, "voxels people"], *, mads: float | None = 6.0, rank: bool = True
) -> VoxelScores:
    """Remove outliers and make normal scores, voxel by voxel.

    Parameters
    ----------
    values
        NaN is missing.
    mads
        Distance from the median, in unscaled MADs, beyond which a value is removed; None removes none.
    rank
        Normal scores; False leaves the values as they are.

    Examples
    --------
    >>> values = np.array([[1.0, 2.0, 3.0, 4.0, 50.0]], dtype=np.float32)
    >>> score_voxels(values, rank=False).values.tolist()
    [[1.0, 2.0, 3.0, 4.0, nan]]
    """
    twice = np.zeros(values.shape, dtype=np.int32)
    kept, removed, distinct = (np.zeros(values.shape[0], dtype=np.int64) for _ in range(3))
    zero_mad = np.zeros(values.shape[0], dtype=np.bool_)
    _rank(np.ascontiguousarray(values), np.inf if mads is None else mads, twice, kept, removed, distinct, zero_mad)
    found = np.full(values.shape, np.nan)
    few = (distinct <= MIN_DISTINCT) | zero_mad if rank else np.ones(values.shape[0], dtype=bool)
    for n in np.unique(kept[~few]):
        _look_up(twice, np.flatnonzero((kept == n) & ~few), _table(int(n)), found)
    plain = np.flatnonzero(few & ~zero_mad)
    found[plain] = np.where(twice[plain] > 0, values[plain], np.nan)
    if rank and plain.size:
        found[plain] = _standard(found[plain], kept[plain])
    return VoxelScores(found, removed, zero_mad)


def _table(n: int) -> Float64[np.ndarray, " halves"]:
    """Return the normal scores of the ranks 0, 1/2, 1 ... n among n values."""
    from scipy.special import ndtri

    scores: Float64[np.ndarray, " halves"] = ndtri((np.arange(2, 2 * n + 1) / 2.0 - BLOM) / (n + 1.0 - 2.0 * BLOM))
    return np.concatenate([[np.nan, np.nan], scores])


def _standard(
    values: Float64[np.ndarray, "voxels people"], kept: Int[np.ndarray, " voxels"]
) -> Float64[np.ndarray, "voxels people"]:
    """Return values centred and divided by their standard deviation; equal ones become 0."""
    n = np.maximum(kept, 1)[:, None]
    centred = values - np.nansum(values, axis=1, keepdims=True) / n
    spread = np.sqrt(np.nansum(centred**2, axis=1, keepdims=True) / np.maximum(n - 1, 1))
    return np.asarray(centred / np.where(spread > 0, spread, 1.0))


@njit(cache=True, nogil=True)
@no_type_check
def _look_up(
    twice: Int[np.ndarray, "voxels people"],
    voxels: Int[np.ndarray, " some"],
    table: Float64[np.ndarray, " halves"],
    found: Float64[np.ndarray, "voxels people"],
) -> None:
    """Fill in the scores of voxels with equally many values, centred and scaled."""
    n = table.size // 2
    for v in voxels:
        total, squares = 0.0, 0.0
        for i in range(twice.shape[1]):
            if twice[v, i] > 0:
                score = table[twice[v, i]]
                total += score
                squares += score * score
                found[v, i] = score
        mean = total / n
        scale = 1.0 / np.sqrt((squares - n * mean * mean) / (n - 1))
        for i in range(twice.shape[1]):
            found[v, i] = (found[v, i] - mean) * scale


@njit(cache=True, nogil=True)
@no_type_check
def _rank(
    values: Float32[np.ndarray, "voxels people"],
    mads: float,
    twice: Int[np.ndarray, "voxels people"],
    kept: Int[np.ndarray, " voxels"],
    removed: Int[np.ndarray, " voxels"],
    distinct: Int[np.ndarray, " voxels"],
    zero_mad: Bool[np.ndarray, " voxels"],
) -> None:
    """Fill in twice the average rank of every value that stays, 0 for others, and what is known of every voxel."""
    n = values.shape[1]
    ordered = np.empty(n, dtype=np.float64)
    people, keys, others = np.empty(n, np.int32), np.empty(n, np.uint32), np.empty(n, np.uint32)
    first, second = np.empty(n, np.int32), np.empty(n, np.int32)
    counts = np.empty((3, 2048), dtype=np.int32)
    for v in range(values.shape[0]):
        m = 0
        for i in range(n):
            if values[v, i] - values[v, i] == 0.0:
                people[m] = i
                # Adding 0 makes -0 a 0, whose bits are others.
                ordered[m] = values[v, i] + 0.0
                m += 1
        if m == 0:
            continue
        _sort(ordered, m, keys, others, first, second, counts)
        median = 0.5 * (ordered[(m - 1) // 2] + ordered[m // 2])
        mad = _mad(ordered, m, median)
        start, stop = 0, m
        if mad == 0.0:
            zero_mad[v] = m > 1
        elif mads < np.inf:
            while median - ordered[start] > mads * mad:
                start += 1
            while ordered[stop - 1] - median > mads * mad:
                stop -= 1
        kept[v] = stop - start
        removed[v] = m - kept[v]
        at = start
        while at < stop:
            end = at + 1
            while end < stop and ordered[end] == ordered[at]:
                end += 1
            for k in range(at, end):
                twice[v, people[first[k]]] = (at - start + 1) + (end - start)
            distinct[v] += 1
            at = end


@njit(cache=True, nogil=True)
@no_type_check
def _mad(ordered: Float64[np.ndarray, " people"], m: int, median: float) -> float:
    """Return the median distance from the median, walking outwards from it."""
    right = m // 2
    left = right - 1
    before, distance = 0.0, 0.0
    for _ in range(m // 2 + 1):
        before = distance
        if left >= 0 and (right == m or median - ordered[left] <= ordered[right] - median):
            distance = median - ordered[left]
            left -= 1
        else:
            distance = ordered[right] - median
            right += 1
    return distance if m % 2 else 0.5 * (before + distance)


@njit(cache=True, nogil=True)
@no_type_check
def _sort(
    values: Float64[np.ndarray, " people"],
    m: int,
    keys: Int[np.ndarray, " people"],
    others: Int[np.ndarray, " people"],
    order: Int[np.ndarray, " people"],
    spare: Int[np.ndarray, " people"],
    counts: Int[np.ndarray, "3 2048"],
) -> None:
    """Sort the first m values, which are of single precision, by radix (11 bits a pass); `order` is where each was."""
    counts[:] = 0
    single = np.empty(1, dtype=np.float32)
    bits = single.view(np.uint32)
    for i in range(m):
        single[0] = values[i]
        key = bits[0]
        # Negative numbers in reverse, below positive ones.
        key = ~key if key >> np.uint32(31) else key | np.uint32(0x80000000)
        keys[i] = key
        counts[0, key & np.uint32(2047)] += 1
        counts[1, (key >> np.uint32(11)) & np.uint32(2047)] += 1
        counts[2, key >> np.uint32(22)] += 1
    for digit in range(3):
        total = 0
        for j in range(2048):
            here = counts[digit, j]
            counts[digit, j] = total
            total += here
    for i in range(m):
        place = counts[0, keys[i] & np.uint32(2047)]
        counts[0, keys[i] & np.uint32(2047)] += 1
        others[place], spare[place] = keys[i], i
    for i in range(m):
        digit = (others[i] >> np.uint32(11)) & np.uint32(2047)
        place = counts[1, digit]
        counts[1, digit] += 1
        keys[place], order[place] = others[i], spare[i]
    for i in range(m):
        digit = keys[i] >> np.uint32(22)
        place = counts[2, digit]
        counts[2, digit] += 1
        others[place], spare[place] = keys[i], order[i]
    for i in range(m):
        order[i] = spare[i]
        key = others[i]
        bits[0] = key ^ np.uint32(0x80000000) if key >> np.uint32(31) else ~key
        values[i] = single[0]
