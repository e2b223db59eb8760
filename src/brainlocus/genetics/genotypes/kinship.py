"""KING-robust kinship of all pairs of people.

With N_i the heterozygous calls of i among the variants called in both, h the smaller of N_i and N_j::

    phi = (N_hethet - 2 N_ibs0) / (2 h) + 1/2 - (N_i + N_j) / (4 h) = 1/2 - sum (g_i - g_j)^2 / (4 h)

The second form needs two population counts a word: the variants that differ, and those with opposite homozygotes
(difference 2). As h is at most the smaller count over all calls, a pair whose phi with that h is below the threshold
is below it; h is counted exactly for the other pairs, in a second pass. Variants are streamed and people are taken in
bands, so memory holds one band of pairs. Threads share a band: each counts the pairs of its own tiles in whole numbers,
so that their number changes nothing but the time.

References
----------
Manichaikul et al. (2010), 10.1093/bioinformatics/btq559, eq. 11 (between families); PLINK 2 ``--make-king``.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int32, Int64
from numba import njit

from brainlocus.core.errors import ResourceError
from brainlocus.core.genotypes import GenotypeSource
from brainlocus.genetics.genotypes.bits import calls_of, people_planes
from brainlocus.numerics.bits import popcount

__all__ = ["DEGREES", "KinshipPairs", "degree_of", "kinship_pairs", "kinship_peak_bytes"]

DEGREES = (0.354, 0.177, 0.0884, 0.0442)
"""Smallest kinship of duplicates or monozygotic twins, of first, second and third degree (2^-1.5, 2^-2.5, ...)."""
MIN_HETEROZYGOUS = 100
"""With fewer heterozygous calls in common the kinship is NaN."""
_CHUNK = 4096
"""Variants a pass over the pairs takes at once: 1.5 kB a person."""
_TILE = 64
"""People a tile: two tiles of a chunk lie in the second-level cache."""
_PAIRS_AT_ONCE = 1 << 18
_WORDS_A_PAIR = 28
"""Numbers held of each of them: found, counted, yielded, while those before are written."""
_PAIRS_A_TASK = 1 << 12
"""Pairs counted by a thread at once."""


@dataclass(frozen=True, slots=True, eq=False)
class KinshipPairs:
    """Pairs of people, by row of the source, in its order."""

    first: Int64[np.ndarray, " pairs"]
    second: Int64[np.ndarray, " pairs"]
    """Always above `first`."""
    kinship: Float64[np.ndarray, " pairs"]
    """NaN where either has fewer than 100 heterozygous calls in common with the other."""
    n_variants: Int64[np.ndarray, " pairs"]
    """Variants called in both."""
    ibs0: Float64[np.ndarray, " pairs"]
    """Share of them with opposite homozygotes: near 0 for parent and child, not for siblings."""


def degree_of(kinship: Float64[np.ndarray, " pairs"]) -> Int64[np.ndarray, " pairs"]:
    """Return the degree of relatedness: 0 duplicates or twins, 1, 2, 3; 4 for any farther; -1 for NaN.

    Examples
    --------
    >>> degree_of(np.array([0.5, 0.25, 0.125, 0.06, 0.0, np.nan])).tolist()
    [0, 1, 2, 3, 4, -1]
    """
    degree = (np.asarray(kinship)[:, None] <= np.array(DEGREES)).sum(axis=1)
    return np.where(np.isnan(kinship), -1, degree).astype(np.int64)


def kinship_peak_bytes(n_samples: int, n_rows: int | None = None) -> int:
    """Return an upper estimate of the bytes held while a band of `n_rows` people meets all others (None: the least)."""
    rows = min(_TILE, n_samples) if n_rows is None else n_rows
    # Planes of a chunk and of the one before, packed calls read, padded and selected, and pairs with their counts.
    chunk = 2 * n_samples * (3 * _CHUNK // 8 + 16) + _CHUNK * (n_samples + 64) + 8 * _WORDS_A_PAIR * _PAIRS_AT_ONCE
    return 4 * rows * n_samples + chunk


def kinship_pairs(
    source: GenotypeSource, *, threshold: float | None = 0.0221, memory_bytes: int = 1 << 30, threads: int = 1
) -> Iterator[KinshipPairs]:
    """Yield the pairs with kinship of at least `threshold`, in order, in parts that fit in memory.

    Parameters
    ----------
    source
        Autosomal variants; dosages count as the nearest call.
    threshold
        None: all pairs, those of NaN included.
    threads
        How many count pairs at once; the result and the memory are those of one.

    Raises
    ------
    ResourceError
        Not even a band of 64 people fits in `memory_bytes`; the message has the memory needed.
    """
    n_samples = len(source.samples)
    least = kinship_peak_bytes(n_samples)
    if least > memory_bytes:
        raise ResourceError(
            f"Kinship of {n_samples} people needs {least / 2**20:.0f} MiB, {memory_bytes / 2**20:.0f} MiB are given. "
            "Raise --memory."
        )
    rows = (memory_bytes - kinship_peak_bytes(n_samples, 0)) // (4 * max(n_samples, 1))
    rows = max(rows // _TILE * _TILE, _TILE)
    space = np.empty((min(rows, n_samples), n_samples), dtype=np.int32)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for start in range(0, n_samples, rows):
            distance = space[: min(rows, n_samples - start)]
            het = _distances(source, start, distance, pool)
            for pairs in _candidates(distance, het, start, threshold):
                yield _counted(source, pairs, distance, start, threshold, pool)


def _in_parts(pool: ThreadPoolExecutor, count: Callable[[int, int], None], size: int, step: int) -> None:
    """Call `count` for consecutive ranges of `step`."""
    deque(pool.map(lambda first: count(first, min(first + step, size)), range(0, size, step)), maxlen=0)


def _chunks(source: GenotypeSource) -> Iterator[np.ndarray]:
    for start in range(0, len(source.variants), _CHUNK):
        codes = calls_of(source, start, min(start + _CHUNK, len(source.variants)))
        yield people_planes(codes, len(source.samples))


def _distances(
    source: GenotypeSource, start: int, distance: Int32[np.ndarray, "rows samples"], pool: ThreadPoolExecutor
) -> np.ndarray:
    """Fill in sum (g_i - g_j)^2 of a band of people with all; return everyone's heterozygous calls."""
    distance[:] = 0
    het = np.zeros(len(source.samples), dtype=np.int64)
    for planes in _chunks(source):

        def add(first: int, last: int, planes: np.ndarray = planes) -> None:
            _add_distances(planes, start + first, distance[first:last])

        _in_parts(pool, add, distance.shape[0], _TILE)
        _add_heterozygous(planes, het)
    return het


def _candidates(
    distance: np.ndarray, het: np.ndarray, start: int, threshold: float | None
) -> Iterator[Int64[np.ndarray, "pairs 2"]]:
    """Yield the pairs of a band that the bound does not leave out."""
    pairs = np.empty((_PAIRS_AT_ONCE, 2), dtype=np.int64)
    row, column = 0, start + 1
    while row < distance.shape[0]:
        # phi >= threshold needs d <= 4 h (1/2 - threshold).
        factor = np.float64(-1.0 if threshold is None else 2.0 - 4.0 * threshold)
        found, row, column = _find(distance, het, start, factor, row, column, pairs)
        if found:
            yield pairs[:found].copy()


def _counted(
    source: GenotypeSource,
    pairs: Int64[np.ndarray, "pairs 2"],
    distance: np.ndarray,
    start: int,
    threshold: float | None,
    pool: ThreadPoolExecutor,
) -> KinshipPairs:
    """Return the pairs at or above the threshold, with counts over the variants called in both."""
    counts = np.zeros((pairs.shape[0], 4), dtype=np.int64)
    for planes in _chunks(source):

        def add(first: int, last: int, planes: np.ndarray = planes) -> None:
            _add_counts(planes, pairs[first:last], counts[first:last])

        _in_parts(pool, add, pairs.shape[0], _PAIRS_A_TASK)
    smaller = np.minimum(counts[:, 0], counts[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        kinship = 0.5 - distance[pairs[:, 0] - start, pairs[:, 1]] / (4.0 * smaller)
    kinship = np.where(smaller < MIN_HETEROZYGOUS, np.nan, kinship)
    kept = np.ones(pairs.shape[0], dtype=bool) if threshold is None else kinship >= threshold
    called = counts[kept, 2]
    return KinshipPairs(pairs[kept, 0], pairs[kept, 1], kinship[kept], called, counts[kept, 3] / np.maximum(called, 1))


@njit(cache=True, nogil=True)
@no_type_check
def _add_distances(planes, start, distance):  # noqa: ANN001, ANN202 - numba
    n_rows, n_samples = distance.shape
    n_words = planes.shape[2]
    for top in range(0, n_rows, _TILE):
        for left in range(start + top, n_samples, _TILE):
            for row in range(top, min(top + _TILE, n_rows)):
                i = start + row
                effect_i, other_i, het_i = planes[i, 0], planes[i, 1], planes[i, 2]
                for j in range(max(left, i + 1), min(left + _TILE, n_samples)):
                    effect_j, other_j, het_j = planes[j, 0], planes[j, 1], planes[j, 2]
                    differ = opposite = np.uint64(0)
                    for w in range(n_words):
                        other = (effect_i[w] & other_j[w]) ^ (other_i[w] & effect_j[w])
                        differ += popcount(other)
                        opposite += popcount(other & ~(het_i[w] | het_j[w]))
                    distance[row, j] += np.int32(differ) + np.int32(3) * np.int32(opposite)


@njit(cache=True, nogil=True)
@no_type_check
def _add_heterozygous(planes, het):  # noqa: ANN001, ANN202 - numba
    for i in range(planes.shape[0]):
        count = np.uint64(0)
        for w in range(planes.shape[2]):
            count += popcount(planes[i, 2, w])
        het[i] += np.int64(count)


@njit(cache=True, nogil=True)
@no_type_check
def _find(distance, het, start, factor, row, column, pairs):  # noqa: ANN001, ANN202 - numba
    """Fill `pairs` from a place on, with all pairs if `factor` is below 0; return how many and where to go on."""
    found = 0
    n_rows, n_samples = distance.shape
    while row < n_rows:
        i = start + row
        while column < n_samples:
            smaller = min(het[i], het[column])
            if factor < 0.0 or distance[row, column] <= factor * smaller:
                if found == pairs.shape[0]:
                    return found, row, column
                pairs[found, 0] = i
                pairs[found, 1] = column
                found += 1
            column += 1
        row += 1
        column = start + row + 1
    return found, row, column


@njit(cache=True, nogil=True)
@no_type_check
def _add_counts(planes, pairs, counts):  # noqa: ANN001, ANN202 - numba
    """Add, where both are called: heterozygous calls of the first, of the second, all, and opposite homozygotes."""
    for k in range(pairs.shape[0]):
        i, j = pairs[k, 0], pairs[k, 1]
        effect_i, other_i, het_i = planes[i, 0], planes[i, 1], planes[i, 2]
        effect_j, other_j, het_j = planes[j, 0], planes[j, 1], planes[j, 2]
        one = two = both = opposite = np.uint64(0)
        for w in range(planes.shape[2]):
            called_i, called_j = effect_i[w] | other_i[w], effect_j[w] | other_j[w]
            one += popcount(het_i[w] & called_j)
            two += popcount(het_j[w] & called_i)
            both += popcount(called_i & called_j)
            other = (effect_i[w] & other_j[w]) ^ (other_i[w] & effect_j[w])
            opposite += popcount(other & ~(het_i[w] | het_j[w]))
        counts[k, 0] += np.int64(one)
        counts[k, 1] += np.int64(two)
        counts[k, 2] += np.int64(both)
        counts[k, 3] += np.int64(opposite)
