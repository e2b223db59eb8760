r"""False discovery rates over more tests than fit in memory, exactly.

Data flow::

    blocks of tests, twice or more --fdr_curves--> one curve a group: strength -> q

Method: Benjamini-Hochberg's q of the i-th strongest of m tests is ``min_{j >= i} p_(j) m / j``. A first pass counts the
tests of every group in bins of their strength (upper bits of a float32, whose order is that of the numbers). A second
pass takes the tests that are wanted, ``strength >= smallest``, and sorts them; their ranks need no others. The minimum
over the weaker tests is bounded bin by bin, from the bin's strongest p and its last rank; only bins whose bound could
lower a wanted q are sorted too, those with the best bound first. So the answer is that of sorting everything.

References
----------
Benjamini & Hochberg (1995), J. R. Stat. Soc. B 57:289; Benjamini & Yekutieli (2001), Annals of Statistics 29:1165.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int
from numba import njit

__all__ = ["FdrCurve", "TestBlock", "fdr_curves"]

_SHIFT = 13
_BINS = 1 << (31 - _SHIFT)
"""Bins of positive float32: 8 bits of exponent and 10 of mantissa, a tenth of a per cent wide; 2 MiB a group."""
_SLACK = 1e-6
"""Relative; a float64 may round up to a float32 just above its bin's upper edge."""
_SORTED_AT_ONCE = 1 << 24
"""Tests below the wanted ones that are taken in one pass."""


@dataclass(frozen=True, slots=True, eq=False)
class TestBlock:
    """Some tests: a matrix, and the group of every row and column; the group of a test is their sum."""

    __test__ = False

    strength: Float[np.ndarray, "rows columns"]
    """Grows as p falls: |z| or -log10 p (the sign is ignored). NaN: no test."""
    row_group: Int[np.ndarray, " rows"]
    column_group: Int[np.ndarray, " columns"]


@dataclass(frozen=True, slots=True, eq=False)
class FdrCurve:
    """q as a function of strength, for the tests of one group."""

    n_tests: int
    strength: Float[np.ndarray, " wanted"]
    """Ascending, each once; only those at or above the smallest wanted."""
    q: Float[np.ndarray, " wanted"]

    def of(self, strength: Float[np.ndarray, "*tests"]) -> Float[np.ndarray, "*tests"]:
        """Return q of tests of the group; NaN where there is no test or it is below the wanted ones."""
        size = np.abs(strength).astype(self.strength.dtype)
        if not self.strength.size:
            return np.full(size.shape, np.nan)
        at = np.minimum(np.searchsorted(self.strength, size), self.strength.size - 1)
        return np.where(self.strength[at] == size, self.q[at], np.nan)


def fdr_curves(
    blocks: Callable[[], Iterable[TestBlock]],
    n_groups: int,
    *,
    smallest: float,
    to_neg_log10_p: Callable[[Float[np.ndarray, " tests"]], Float[np.ndarray, " tests"]] | None = None,
    method: Literal["bh", "by"] = "bh",
) -> list[FdrCurve]:
    """Return the curve of every group.

    Memory: 2 MiB a group, and about 24 bytes a wanted test.

    Parameters
    ----------
    blocks
        Called for every pass; gives the same tests each time.
    smallest
        Only tests of at least this strength have a q.
    to_neg_log10_p
        Turns strength into -log10 p; by default it is one.
    method
        ``by`` multiplies by the harmonic number of the tests, which any dependence allows.
    """
    convert = to_neg_log10_p or (lambda values: values)
    counts = np.zeros((n_groups, _BINS), dtype=np.int64)
    dtype = np.dtype(np.float32)
    for block in blocks():
        dtype = np.promote_types(dtype, block.strength.dtype)
        _count(_bits(block.strength), block.row_group, block.column_group, counts)
    first = _bin_of(smallest)
    wanted = np.zeros((n_groups, _BINS), dtype=bool)
    wanted[:, max(first - 1, 0) :] = True
    taken = _take(blocks, wanted, counts, dtype)
    curves = []
    weak: list[Float[np.ndarray, " _wanted"]] = []
    logs = []
    for group in range(n_groups):
        values = np.sort(taken[group])
        values = values[values >= smallest]
        logs.append(_log_q(convert(values.astype(np.float64)), int(counts[group].sum()), 0))
        weak.append(values)
    tails = _tails(blocks, counts, [v.size for v in weak], logs, convert, dtype, smallest)
    for group in range(n_groups):
        n_tests = int(counts[group].sum())
        log_q = np.maximum.accumulate(np.maximum(logs[group], tails[group])) if logs[group].size else logs[group]
        last = np.r_[weak[group][1:] != weak[group][:-1], True] if weak[group].size else np.zeros(0, dtype=bool)
        factor = np.sum(1.0 / np.arange(1, n_tests + 1)) if method == "by" and n_tests else 1.0
        q = np.minimum(factor * 10.0 ** -log_q[last], 1.0)
        curves.append(FdrCurve(n_tests, weak[group][last], q))
    return curves


def _log_q(neg_log10_p: Float[np.ndarray, " tests"], n_tests: int, n_stronger: int) -> Float[np.ndarray, " tests"]:
    """Return ``-log10(p m / j)`` of tests in ascending order of strength, of which `n_stronger` are stronger still."""
    rank = n_stronger + np.arange(neg_log10_p.size, 0, -1)
    return np.asarray(neg_log10_p - np.log10(n_tests / rank)) if neg_log10_p.size else neg_log10_p


def _bits(strength: Float[np.ndarray, "rows columns"]) -> Int[np.ndarray, "rows columns"]:
    """Return float32 numbers as integers of the same order; NaN is above all."""
    return np.abs(np.ascontiguousarray(strength, dtype=np.float32)).view(np.int32)


def _bin_of(strength: float) -> int:
    return int(np.abs(np.float32(strength)).view(np.int32)) >> _SHIFT


def _edges(bins: Int[np.ndarray, " bins"]) -> Float[np.ndarray, " bins"]:
    """Return the lower edges of bins."""
    bits = np.minimum(bins.astype(np.int64) << _SHIFT, _INFINITY_BITS).astype(np.int32)
    return np.asarray(bits.view(np.float32).astype(np.float64))


_INFINITY_BITS = 0x7F800000
"""Infinity as an integer; above it are NaN."""


@njit(cache=True, nogil=True)
@no_type_check
def _count(bits, row_group, column_group, counts):  # noqa: ANN001, ANN202
    for r in range(bits.shape[0]):
        for c in range(bits.shape[1]):
            b = bits[r, c]
            if b <= _INFINITY_BITS:
                counts[row_group[r] + column_group[c], b >> _SHIFT] += 1


@njit(cache=True, nogil=True)
@no_type_check
def _collect(bits, values, row_group, column_group, wanted, starts, filled, out):  # noqa: ANN001, ANN202
    for r in range(bits.shape[0]):
        for c in range(bits.shape[1]):
            b = bits[r, c]
            if b <= _INFINITY_BITS:
                g = row_group[r] + column_group[c]
                if wanted[g, b >> _SHIFT]:
                    out[starts[g] + filled[g]] = abs(values[r, c])
                    filled[g] += 1


def _take(
    blocks: Callable[[], Iterable[TestBlock]],
    wanted: Bool[np.ndarray, "groups bins"],
    counts: Int[np.ndarray, "groups bins"],
    dtype: np.dtype[Any],
) -> list[Float[np.ndarray, " _tests"]]:
    """Return, of every group, the strengths in the wanted bins, in one pass."""
    sizes = np.where(wanted, counts, 0).sum(axis=1)
    starts = np.r_[0, np.cumsum(sizes)].astype(np.int64)
    out = np.empty(int(starts[-1]), dtype=dtype)
    filled = np.zeros(sizes.size, dtype=np.int64)
    if out.size:
        for block in blocks():
            values = np.asarray(block.strength)
            _collect(_bits(values), values, block.row_group, block.column_group, wanted, starts, filled, out)
    return [out[starts[g] : starts[g + 1]] for g in range(sizes.size)]


def _tails(
    blocks: Callable[[], Iterable[TestBlock]],
    counts: Int[np.ndarray, "groups bins"],
    n_wanted: list[int],
    logs: list[Float[np.ndarray, " _wanted"]],
    convert: Callable[[Float[np.ndarray, " tests"]], Float[np.ndarray, " tests"]],
    dtype: np.dtype[Any],
    smallest: float,
) -> list[float]:
    """Return, of every group, the largest ``-log10(p m / j)`` among the tests below the wanted ones, if it matters."""
    best = [0.0 for _ in n_wanted]
    bins = np.arange(_BINS)
    upper = np.minimum(_edges(bins + 1) * (1.0 + _SLACK), np.nextafter(smallest, 0.0)) if smallest > 0 else bins * 0.0
    highest = convert(np.asarray(upper, dtype=np.float64))
    below = bins <= _bin_of(smallest)
    bounds = np.full(counts.shape, -np.inf)
    reached = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    for group, size in enumerate(n_wanted):
        n_tests = int(counts[group].sum())
        here = below & (counts[group] > 0)
        if not size or not n_tests or smallest <= 0:
            continue
        bounds[group, here] = highest[here] - np.log10(n_tests / reached[group, here])
        # Only what lowers some wanted q matters.
        best[group] = max(0.0, float(logs[group].min()))
    while True:
        chosen = np.zeros(counts.shape, dtype=bool)
        room = _SORTED_AT_ONCE
        for group in range(len(best)):
            order = np.argsort(-bounds[group], kind="stable")
            order = order[bounds[group, order] > best[group]]
            if not order.size:
                continue
            total = np.cumsum(counts[group, order])
            some = order[: max(1, int(np.searchsorted(total, room, side="right")))]
            chosen[group, some] = True
            room = max(0, room - int(counts[group, some].sum()))
        if not chosen.any():
            return best
        taken = _take(blocks, chosen, counts, dtype)
        for group, values in enumerate(taken):
            mine = np.flatnonzero(chosen[group])
            if not mine.size:
                continue
            values = np.sort(values)
            n_tests = int(counts[group].sum())
            ranks = _ranks(values, mine, counts[group], reached[group])
            below_wanted = values < smallest
            found = convert(values[below_wanted].astype(np.float64)) - np.log10(n_tests / ranks[below_wanted])
            best[group] = max(best[group], float(found.max())) if found.size else best[group]
        bounds[chosen] = -np.inf


def _ranks(
    values: Float[np.ndarray, " tests"],
    mine: Int[np.ndarray, " some"],
    counts: Int[np.ndarray, " bins"],
    reached: Int[np.ndarray, " bins"],
) -> Int[np.ndarray, " tests"]:
    """Return the rank from the strongest of sorted values that fill whole bins."""
    sizes = counts[mine]
    within = np.arange(values.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.asarray(np.repeat(reached[mine], sizes) - within)
