"""Genetic relationship matrix by streaming matrix products.

With x the standardised dosage, ``A_ij = sum_v x_vi x_vj / m_ij``.

* ``scale="expected"`` (GCTA): ``x = (g - 2p) / sqrt(2 p (1 - p))``; ``"observed"``: by the standard deviation
  of the column as used.
* ``missing="pairwise"`` (GCTA): missing calls leave their pairs, ``m_ij`` counts the variants called in both;
  ``"mean"`` (GEMMA): missing calls take the mean, ``m`` is the number of variants.

References
----------
Yang et al. (2010), 10.1038/ng.608, eq. 5; Zhou & Stephens (2012), 10.1038/ng.2310.
"""

from typing import Literal, no_type_check

import numpy as np
from jaxtyping import Float64
from numba import njit

from brainlocus.core.errors import ResourceError
from brainlocus.core.genotypes import GenotypeSource
from brainlocus.core.grm import Grm
from brainlocus.genetics.genotypes.standard import standard_blocks

__all__ = ["genetic_relationships", "grm_peak_bytes"]

_BLOCK = 1024
_BLOCKS_IN_FLOAT32 = 32
"""Sums of so many blocks keep 7 digits in float32."""


def grm_peak_bytes(n_samples: int, block_size: int = _BLOCK) -> int:
    """Return an upper estimate of the bytes held by `genetic_relationships`.

    Products and counts in float64, sums of some blocks in float32, and five copies of a block.
    """
    return n_samples * n_samples * (8 + 8 + 4) + 4 * n_samples * block_size * 5


def genetic_relationships(
    source: GenotypeSource,
    *,
    scale: Literal["expected", "observed"] = "expected",
    missing: Literal["pairwise", "mean"] = "pairwise",
    memory_bytes: int | None = None,
) -> Grm:
    """Return the genetic relationship matrix of all people over all variants that vary.

    Raises
    ------
    ResourceError
        The matrix does not fit in `memory_bytes`; the message has the memory needed.
    ValueError
        No variant varies.
    """
    n_samples = len(source.samples)
    needed = grm_peak_bytes(n_samples)
    if memory_bytes is not None and needed > memory_bytes:
        raise ResourceError(
            f"The GRM of {n_samples} people needs {needed / 2**20:.0f} MiB, {max(memory_bytes, 0) / 2**20:.0f} MiB are "
            "given besides the variants. Raise --memory or take fewer people."
        )
    upper = np.zeros((n_samples, n_samples))
    both_missing = np.zeros((n_samples, n_samples)) if missing == "pairwise" else np.zeros((0, 0))
    missing_of = np.zeros(n_samples)
    n_variants = _add_products(source, scale, upper, both_missing, missing_of)
    if not n_variants:
        raise ValueError("No variant varies among these people; a GRM needs variants.")
    if not missing_of.any():
        _divide_by_number(upper, float(n_variants))
        return Grm(source.samples, upper, float(n_variants))
    _divide_by_counts(upper, both_missing, missing_of, float(n_variants))
    return Grm(source.samples, upper, both_missing)


def _add_products(
    source: GenotypeSource,
    scale: Literal["expected", "observed"],
    upper: Float64[np.ndarray, "samples samples"],
    both_missing: Float64[np.ndarray, "rows columns"],
    missing_of: Float64[np.ndarray, " samples"],
) -> int:
    """Add x x' of every variant to the upper triangle, and missing calls to their counts; return how many variants.

    Products of a few blocks are summed in float32 (half the work of a full product), those sums in float64.
    """
    from scipy.linalg import blas

    n_samples = len(source.samples)
    partial = np.zeros((n_samples, n_samples), dtype=np.float32, order="F")
    n_variants = waiting = 0
    for block in standard_blocks(source, _BLOCK, scale=scale):
        used = ~np.isnan(block.moments.scale)
        n_variants += int(used.sum())
        blas.ssyrk(1.0, block.values.T, beta=1.0, c=partial, overwrite_c=1, lower=1)
        if both_missing.size and block.codes is not None:
            _count_both(np.ascontiguousarray(block.codes[used]), missing_of, both_missing)
        waiting += 1
        if waiting == _BLOCKS_IN_FLOAT32:
            _add_and_clear(partial.T, upper)
            waiting = 0
    _add_and_clear(partial.T, upper)
    return n_variants


@njit(cache=True, nogil=True)
@no_type_check
def _add_and_clear(partial, upper):  # noqa: ANN001, ANN202 - numba
    for i in range(upper.shape[0]):
        for k in range(i, upper.shape[0]):
            upper[i, k] += partial[i, k]
            partial[i, k] = np.float32(0.0)


@njit(cache=True, nogil=True)
@no_type_check
def _divide_by_number(upper, number):  # noqa: ANN001, ANN202 - numba
    """Divide the upper triangle and mirror it, in place."""
    for i in range(upper.shape[0]):
        for k in range(i, upper.shape[0]):
            upper[i, k] /= number
            upper[k, i] = upper[i, k]


@njit(cache=True, nogil=True)
@no_type_check
def _divide_by_counts(upper, both, missing_of, n_variants):  # noqa: ANN001, ANN202 - numba
    """Turn counts missing in both into counts called in both, divide by them, and mirror both, in place."""
    for i in range(upper.shape[0]):
        for k in range(i, upper.shape[0]):
            count = n_variants - missing_of[i] - missing_of[k] + both[i, k]
            both[i, k] = count
            both[k, i] = count
            upper[i, k] = upper[i, k] / count if count > 0.0 else np.nan
            upper[k, i] = upper[i, k]


@njit(cache=True, nogil=True)
@no_type_check
def _count_both(codes, missing_of, both):  # noqa: ANN001, ANN202 - numba
    """Add, for every person and pair (upper triangle), the variants that are missing in them."""
    n_samples = missing_of.size
    people = np.empty(n_samples, dtype=np.int64)
    for j in range(codes.shape[0]):
        found = 0
        for byte in range(codes.shape[1]):
            code = codes[j, byte]
            absent = code & ~(code >> 1) & 0x55
            if absent:
                for k in range(4):
                    if (absent >> (2 * k)) & 1:
                        people[found] = 4 * byte + k
                        found += 1
        for a in range(found):
            missing_of[people[a]] += 1.0
            for b in range(a, found):
                both[people[a], people[b]] += 1.0
