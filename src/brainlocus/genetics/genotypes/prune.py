"""Variants in little linkage disequilibrium with one another, by windows.

Calls are ``x = +1, 0, -1`` (two effect alleles, one, none). Over the n people called in both variants::

    cov = n sum(x y) - sum(x) sum(y)      var_x = n sum(x^2) - sum(x)^2      r2 = cov^2 / (var_x var_y)

all sums being population counts of bit planes. A pair of a window with r2 above the threshold loses the variant of
lower minor allele frequency, the later one of equals. Pairs are met in the order of PLINK 1.9: every variant in turn
gives way to, or takes away, its first such partner; passes over the window are repeated until none is left.

Most pairs need two counts a word: with sum(x y) known exactly, the other sums differ from those over all calls by no
more than the partner's missing calls, which bounds r2. The other counts are made only when the bound does not decide.

References
----------
Purcell et al. (2007), 10.1086/519795; Chang et al. (2015), 10.1186/s13742-015-0047-8 (``--indep-pairwise``).
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Int64
from numba import njit

from brainlocus.core.errors import ResourceError, SchemaError
from brainlocus.core.genotypes import GenotypeSource
from brainlocus.core.variants import VariantTable
from brainlocus.genetics.genotypes.bits import calls_of, variant_planes
from brainlocus.numerics.bits import popcount

__all__ = ["PruneSettings", "prune_variants"]

_EPSILON = 2.0**-44
"""Relative difference below which PLINK takes two numbers for equal."""
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class PruneSettings:
    """Windows and threshold.

    Raises
    ------
    ValueError
        A window, step or threshold out of range.
    """

    window: int = 200
    """Variants, or kilobases with `kb`."""
    step: int = 50
    """Variants by which the window moves on."""
    r2: float = 0.2
    kb: bool = False

    def __post_init__(self) -> None:
        if self.window < (1 if self.kb else 2) or self.step < 1:
            raise ValueError(f"A window of {self.window} moved by {self.step} compares nothing; give at least 2 and 1.")
        if not 0.0 <= self.r2 < 1.0:
            raise ValueError(f"r2 lies in [0, 1), found {self.r2}.")


def prune_variants(
    source: GenotypeSource, settings: PruneSettings | None = None, *, memory_bytes: int = 1 << 28
) -> Bool[np.ndarray, " variants"]:
    """Return which variants stay.

    Variants without variance among the source's people leave. Dosages count as the nearest call.

    Raises
    ------
    SchemaError
        The variants of a chromosome are not together, or (windows in kilobases) not in order of position.
    ResourceError
        A window does not fit in `memory_bytes`; the message has the memory needed.
    """
    rules = settings or PruneSettings()
    windows = window_bounds(source.variants, rules)
    removed = np.zeros(len(source.variants), dtype=bool)
    unchecked = np.arange(1, len(source.variants) + 1)
    limit = _rows_that_fit(len(source.samples), int((windows[:, 1] - windows[:, 0]).max(initial=0)), memory_bytes)
    threshold, first = rules.r2 * (1.0 + _EPSILON), 0
    while first < windows.shape[0]:
        start = int(windows[first, 0])
        last = max(int(np.searchsorted(windows[:, 1], start + limit, side="right")), first + 1)
        stop = int(windows[last - 1, 1])
        planes, sums = _planes(source, start, stop)
        _prune(planes, sums, len(source.samples), start, windows[first:last], threshold, removed, unchecked)
        first = last
    return ~removed


def window_bounds(variants: VariantTable, settings: PruneSettings) -> Int64[np.ndarray, "windows 2"]:
    """Return the first row of every window and the row after its last; windows end with their chromosome."""
    chromosome = variants.chromosome
    edges = np.concatenate([[0], np.flatnonzero(chromosome[1:] != chromosome[:-1]) + 1, [chromosome.size]])
    names = chromosome[edges[:-1]] if chromosome.size else chromosome
    if np.unique(names).size < names.size:
        raise SchemaError(
            f"Pruning needs the variants of a chromosome together, found the order {names[:8].tolist()}. Sort the "
            "genotypes, for example with plink2 --make-pgen --sort-vars."
        )
    bounds = [np.empty((0, 2), dtype=np.int64)]
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        starts = np.arange(begin, end, settings.step)
        if settings.kb:
            position = variants.position[begin:end]
            if (np.diff(position) < 0).any():
                raise SchemaError(
                    f"Windows in kilobases need positions in order; those of chromosome {chromosome[begin]} are not. "
                    "Sort the genotypes, for example with plink2 --make-pgen --sort-vars."
                )
            reach = position[starts - begin] + 1000 * settings.window
            stops = begin + np.searchsorted(position, reach, side="right")
        else:
            stops = np.minimum(starts + settings.window, end)
        # The windows after the first that reaches the end of the chromosome have no pair of their own.
        needed = int(np.argmax(stops == end)) + 1
        bounds.append(np.stack([starts, stops], axis=1)[:needed])
    return np.concatenate(bounds).astype(np.int64)


def _rows_that_fit(n_samples: int, widest: int, memory_bytes: int) -> int:
    per_variant = 3 * 8 * (n_samples // 64 + 1) + 32
    overhead = _BLOCK * (n_samples // 2 + 64)
    rows = (memory_bytes - overhead) // per_variant
    if rows < widest:
        raise ResourceError(
            f"A window of {widest} variants x {n_samples} people needs "
            f"{(widest * per_variant + overhead) / 2**20:.0f} MiB, {memory_bytes / 2**20:.0f} MiB are left. "
            "Raise --memory or take smaller windows."
        )
    return int(min(rows, max(16 * widest, 4 * _BLOCK)))


def _planes(source: GenotypeSource, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Return bit planes of some variants and, for each, calls, sum of x and sum of x^2."""
    n_samples = len(source.samples)
    parts = [
        variant_planes(calls_of(source, row, min(row + _BLOCK, stop)), n_samples) for row in range(start, stop, _BLOCK)
    ]
    planes = np.concatenate(parts) if len(parts) > 1 else parts[0]
    sums = np.empty((planes.shape[0], 3), dtype=np.int64)
    _sums(planes, sums)
    return planes, sums


@njit(cache=True, nogil=True)
@no_type_check
def _sums(planes, sums):  # noqa: ANN001, ANN202 - numba
    for row in range(planes.shape[0]):
        called = homozygous = other = np.uint64(0)
        for w in range(planes.shape[2]):
            homozygous += popcount(planes[row, 0, w])
            other += popcount(planes[row, 1, w])
            called += popcount(planes[row, 2, w])
        sums[row, 0] = np.int64(called)
        sums[row, 1] = np.int64(homozygous) - 2 * np.int64(other)
        sums[row, 2] = np.int64(homozygous)


@njit(cache=True, nogil=True)
@no_type_check
def _prune(planes, sums, n_people, base, windows, threshold, removed, unchecked):  # noqa: ANN001, ANN202 - numba
    major = np.empty(sums.shape[0])
    for k in range(sums.shape[0]):
        n, total = sums[k, 0], sums[k, 1]
        major[k] = 0.5 + 0.5 * abs(total) / n if n else 1.0
        if n * sums[k, 2] - total * total <= 0:
            removed[base + k] = True
    for window in range(windows.shape[0]):
        start, stop = windows[window, 0], windows[window, 1]
        again = True
        while again:
            again = False
            for i in range(start, stop - 1):
                if removed[i]:
                    continue
                j = max(unchecked[i], i + 1)
                while j < stop:
                    if not removed[j] and _linked(planes, sums, n_people, i - base, j - base, threshold):
                        again = True
                        if major[i - base] > major[j - base] * (1.0 + _EPSILON):
                            removed[i] = True
                        else:
                            removed[j] = True
                            unchecked[i] = j + 1
                        break
                    j += 1
                if j >= stop:
                    unchecked[i] = max(unchecked[i], stop)


@njit(cache=True, nogil=True)
@no_type_check
def _linked(planes, sums, n_people, i, j, threshold):  # noqa: ANN001, ANN202 - numba
    """Return whether r2 of two variants is above the threshold."""
    n_words = planes.shape[2]
    same = apart = np.uint64(0)
    hom_i, hom_j, other_i, other_j = planes[i, 0], planes[j, 0], planes[i, 1], planes[j, 1]
    for w in range(n_words):
        both = hom_i[w] & hom_j[w]
        same += popcount(both)
        apart += popcount(both & (other_i[w] ^ other_j[w]))
    dot = np.int64(same) - 2 * np.int64(apart)
    sum_i, square_i, sum_j, square_j = sums[i, 1], sums[i, 2], sums[j, 1], sums[j, 2]
    missing_i, missing_j = n_people - sums[i, 0], n_people - sums[j, 0]
    n_both = n_people
    if missing_i or missing_j:
        if _surely_below(dot, n_people, sum_i, square_i, missing_i, sum_j, square_j, missing_j, threshold):
            return False
        called_i, called_j = planes[i, 2], planes[j, 2]
        n = np.uint64(0)
        for w in range(n_words):
            n += popcount(called_i[w] & called_j[w])
        n_both = np.int64(n)
        sum_i, square_i = _sums_among(hom_i, other_i, called_j)
        sum_j, square_j = _sums_among(hom_j, other_j, called_i)
    cov = np.float64(n_both * dot - sum_i * sum_j)
    var_i = np.float64(n_both * square_i - sum_i * sum_i)
    var_j = np.float64(n_both * square_j - sum_j * sum_j)
    return cov * cov > threshold * var_i * var_j


@njit(cache=True, nogil=True)
@no_type_check
def _sums_among(homozygous, other, called):  # noqa: ANN001, ANN202 - numba
    """Return sum of x and of x^2 among the people called in the partner."""
    plus = minus = np.uint64(0)
    for w in range(called.size):
        plus += popcount(homozygous[w] & called[w])
        minus += popcount(other[w] & called[w])
    return np.int64(plus) - 2 * np.int64(minus), np.int64(plus)


@njit(cache=True, nogil=True)
@no_type_check
def _surely_below(dot, n_people, sum_i, square_i, missing_i, sum_j, square_j, missing_j, threshold):  # noqa: ANN001, ANN202
    """Return whether r2 is below the threshold whoever lacks a call in both: |x| <= 1 bounds what the others change."""
    fewest, most = n_people - missing_i - missing_j, n_people - max(missing_i, missing_j)
    reach = missing_j * abs(sum_j) + missing_i * abs(sum_i) + missing_i * missing_j
    product = sum_i * sum_j
    cov = max(abs(fewest * dot - product), abs(most * dot - product)) + reach
    largest_i, largest_j = abs(sum_i) + missing_j, abs(sum_j) + missing_i
    var_i = fewest * (square_i - missing_j) - largest_i * largest_i
    var_j = fewest * (square_j - missing_i) - largest_j * largest_j
    if var_i <= 0 or var_j <= 0:
        return False
    return np.float64(cov) * np.float64(cov) <= threshold * np.float64(var_i) * np.float64(var_j)
