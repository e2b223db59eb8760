"""Spearman correlation of phenotypes over genes, with missing cells.

Data flow::

    genes x phenotypes --rank_levels--> RankLevels       (once: the sort)
    RankLevels --spearman--> phenotypes x phenotypes     (per pair of patterns of missing cells: count, matrix product)

Method: rho of a pair is the Pearson correlation of ranks, ties at their average, over the genes that both phenotypes
have. Phenotypes with the same missing genes form a pattern; a pair of patterns shares one set of genes, within which
each phenotype is ranked again, so that all of the pair's correlations are one matrix product. Without missing cells
there is one pattern: each phenotype is ranked once, and the product is symmetric.

Ranks are held as d = 2 rank - (n + 1), whole numbers whose sum is 0. Products of whole numbers are exact in float64
while n^3 / 3 < 2^53 (n below 300,000 genes), so that neither the size of blocks nor the order of the sums nor the
number of threads changes a bit of the result.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float64, Int, Int32, Shaped
from numba import njit

__all__ = ["RankLevels", "rank_levels", "spearman", "spearman_peak_bytes", "undefined_correlations"]

_MAX_GENES = 300_000
"""Beyond, sums of squares of doubled ranks, n^3 / 3, are not exact in float64."""
_FEWEST_PAIRS = 3
"""With two genes every rho is 1, -1 or undefined."""
_SORT_BYTES = 40
"""Bytes a cell that is being sorted takes: value, order, sorted value, steps, level."""


@dataclass(frozen=True, slots=True, eq=False)
class RankLevels:
    """Phenotypes reduced to the order of their genes."""

    levels: Int32[np.ndarray, "phenotypes genes"]
    """Place of the gene's value among the distinct values of the phenotype, from 0; -1 where it is missing."""
    pattern: Int[np.ndarray, " phenotypes"]
    """Number of the pattern of missing genes."""
    patterns: Shaped[np.ndarray, "patterns genes"]
    """Which genes a pattern has."""


def rank_levels(
    values: Float[np.ndarray, "genes all_phenotypes"],
    *,
    phenotypes: Int[np.ndarray, " phenotypes"] | None = None,
    block_bytes: int = 1 << 28,
) -> RankLevels:
    """Sort the genes of every phenotype.

    Parameters
    ----------
    values
        z of every gene and phenotype; not finite: missing. May lie in a memory map, of which a block of columns is
        read at a time.
    phenotypes
        Columns to take, by number; all by default.
    block_bytes
        Memory for the sort.

    Raises
    ------
    ValueError
        More genes than can be ranked exactly.
    """
    n_genes = values.shape[0]
    columns = np.arange(values.shape[1]) if phenotypes is None else phenotypes
    n_phenotypes = int(columns.size)
    if n_genes > _MAX_GENES:
        raise ValueError(f"Spearman: expected at most {_MAX_GENES} genes, found {n_genes}.")
    levels = np.empty((n_phenotypes, n_genes), dtype=np.int32)
    size = _sort_columns(n_genes, n_phenotypes, block_bytes)
    for start in range(0, n_phenotypes, size):
        block = np.array(values[:, columns[start : start + size]].T, dtype=np.float64, order="C")
        levels[start : start + size] = _levels_of(block)
    present = levels >= 0
    if present.all():
        return RankLevels(levels, np.zeros(n_phenotypes, dtype=np.int64), np.ones((1, n_genes), dtype=bool))
    packed = np.packbits(present, axis=1)
    keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, pattern = np.unique(keys, return_index=True, return_inverse=True)
    return RankLevels(levels, pattern.astype(np.int64), present[first])


def _sort_columns(n_genes: int, n_phenotypes: int, block_bytes: int) -> int:
    return min(max(1, block_bytes // (_SORT_BYTES * max(n_genes, 1))), max(n_phenotypes, 1))


def _levels_of(block: Float64[np.ndarray, "phenotypes genes"]) -> Int32[np.ndarray, "phenotypes genes"]:
    """Return the place of each value among the distinct values of its row; -1 where it is not finite."""
    block[~np.isfinite(block)] = np.nan
    order = np.argsort(block, axis=1)  # NaN comes last
    ordered = np.take_along_axis(block, order, axis=1)
    levels = np.empty(block.shape, dtype=np.int32)
    _place_levels(order, ordered, levels)
    return levels


@njit(cache=True, nogil=True)
@no_type_check
def _place_levels(order, ordered, levels):  # noqa: ANN001, ANN202
    """Write the number of each distinct value of each sorted row."""
    for i in range(order.shape[0]):
        level = np.int32(-1)
        last = np.nan
        for k in range(order.shape[1]):
            value = ordered[i, k]
            if np.isnan(value):
                levels[i, order[i, k]] = -1
                continue
            if value != last:
                level += np.int32(1)
                last = value
            levels[i, order[i, k]] = level


@njit(cache=True, nogil=True)
@no_type_check
def _centred_ranks(levels, rows, members, out):  # noqa: ANN001, ANN202
    """Rank the members within some genes: twice the average rank less (n + 1), by counting the levels."""
    n = rows.size
    counts = np.empty(levels.shape[1], dtype=np.int64)
    for i in range(members.size):
        counts[:] = 0
        top = 0
        for k in range(n):
            level = levels[members[i], rows[k]]
            counts[level] += 1
            top = max(top, level)
        below = 0
        for level in range(top + 1):
            here = counts[level]
            # Ranks below + 1 to below + here, on average below + (here + 1) / 2.
            counts[level] = 2 * below + here - n
            below += here
        for k in range(n):
            out[i, k] = counts[levels[members[i], rows[k]]]


def spearman(ranked: RankLevels, *, block_bytes: int = 1 << 28) -> Float64[np.ndarray, "phenotypes phenotypes"]:
    """Return rho of every pair of phenotypes, over the genes that both have.

    With a and b the doubled centred ranks of the shared genes, rho = sum ab / sqrt(sum aa sum bb). NaN where fewer
    than 3 genes are shared, or a phenotype does not vary over them. The diagonal is 1.

    Parameters
    ----------
    block_bytes
        Memory for the ranks that are multiplied at a time.

    References
    ----------
    Spearman (1904), American Journal of Psychology 15:72; ties as Kendall (1945), Biometrika 33:239.

    Examples
    --------
    >>> z = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0], [4.0, np.nan]])
    >>> spearman(rank_levels(z)).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    n_phenotypes, n_genes = ranked.levels.shape
    rho = np.full((n_phenotypes, n_phenotypes), np.nan)
    groups = [np.flatnonzero(ranked.pattern == k) for k in range(ranked.patterns.shape[0])]
    size = max(1, block_bytes // (16 * max(n_genes, 1)))
    for a, first in enumerate(groups):
        for b in range(a, len(groups)):
            rows = np.flatnonzero(ranked.patterns[a] & ranked.patterns[b])
            if rows.size >= _FEWEST_PAIRS:
                _correlate(ranked.levels, rows, first, groups[b], rho, size)
    return rho


def _correlate(
    levels: Int32[np.ndarray, "phenotypes genes"],
    rows: Int[np.ndarray, " shared"],
    first: Int[np.ndarray, " first"],
    second: Int[np.ndarray, " second"],
    rho: Float64[np.ndarray, "phenotypes phenotypes"],
    size: int,
) -> None:
    """Fill in the correlations between two patterns (or within one), block by block."""
    same = first is second
    for start in range(0, first.size, size):
        members = first[start : start + size]
        left = _ranks(levels, rows, members)
        for other in range(start if same else 0, second.size, size):
            partners = second[other : other + size]
            symmetric = same and other == start
            right = left if symmetric else _ranks(levels, rows, partners)
            squares = np.outer(np.einsum("ij,ij->i", left, left), np.einsum("ij,ij->i", right, right))
            product = left @ right.T
            known = np.full(product.shape, np.nan)
            # The square root of an exact square is exact: equal ranks have a rho of exactly 1.
            np.divide(product, np.sqrt(squares), out=known, where=squares > 0)
            np.clip(known, -1.0, 1.0, out=known)
            rho[np.ix_(members, partners)] = known
            if not symmetric:
                rho[np.ix_(partners, members)] = known.T


def _ranks(
    levels: Int32[np.ndarray, "phenotypes genes"], rows: Int[np.ndarray, " shared"], members: Int[np.ndarray, " some"]
) -> Float64[np.ndarray, "some shared"]:
    ranks = np.empty((members.size, rows.size))
    _centred_ranks(levels, rows, members, ranks)
    return ranks


def spearman_peak_bytes(n_genes: int, n_phenotypes: int, *, block_bytes: int) -> int:
    """Return the memory of `rank_levels` and `spearman`, the result included, the values not.

    Patterns of missing cells are reckoned at one a phenotype, the most there can be.
    """
    held = n_phenotypes * n_genes * 5 + 8 * n_phenotypes**2
    sort = _SORT_BYTES * n_genes * _sort_columns(n_genes, n_phenotypes, block_bytes)
    patterns = 2 * n_phenotypes * n_genes
    size = min(n_phenotypes, max(1, block_bytes // (16 * max(n_genes, 1))))
    product = 16 * n_genes * size + 32 * size**2
    return held + max(sort, product) + patterns


def undefined_correlations(
    rho: Float64[np.ndarray, "phenotypes phenotypes"], names: Shaped[np.ndarray, " phenotypes"], *, shown: int = 5
) -> str:
    """Return which phenotypes have no correlation with how many others, the worst first; empty where all are known."""
    lacking = np.isnan(rho).sum(axis=1)
    bad = np.flatnonzero(lacking)
    if not bad.size:
        return ""
    worst = bad[np.argsort(-lacking[bad], kind="stable")]
    text = ", ".join(f"{names[k]} ({int(lacking[k])})" for k in worst[:shown])
    more = f" and {worst.size - shown} more" if worst.size > shown else ""
    return f"{worst.size} of {names.size} phenotypes have correlations that are undefined: {text}{more}"
