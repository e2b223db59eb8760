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

from dataclasses import dataclass
from typing import Literal, no_type_check

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64
from numba import njit

from brainlocus.core.errors import ResourceError
from brainlocus.core.genotypes import GenotypeSource, iter_blocks
from brainlocus.core.grm import Grm

__all__ = ["Standardised", "genetic_relationships", "grm_peak_bytes", "standardise"]

_BLOCK = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Standardised:
    """A block of centred and scaled dosages; variants whose divisor is 0 are left out."""

    values: Float32[np.ndarray, "kept samples"]
    """Mean 0; missing calls are 0."""
    kept: Bool[np.ndarray, " variants"]
    """Which variants of the block are used."""
    mean: Float64[np.ndarray, " kept"]
    scale: Float64[np.ndarray, " kept"]


def standardise(
    dosage: Float32[np.ndarray, "variants samples"], *, scale: Literal["expected", "observed"] = "expected"
) -> Standardised:
    """Return ``(g - mean) / scale`` with missing calls at 0.

    Parameters
    ----------
    scale
        ``expected``: sqrt(2 p (1 - p)); ``observed``: standard deviation (divisor n) with missing calls at
        the mean.
    """
    known = ~np.isnan(dosage)
    n_called = known.sum(axis=1)
    values = np.where(known, dosage, np.float32(0))
    mean = values.sum(axis=1, dtype=np.float64) / np.maximum(n_called, 1)
    values -= mean[:, None].astype(np.float32)
    values[~known] = 0.0
    p = mean / 2.0
    expected = np.sqrt(np.maximum(2.0 * p * (1.0 - p), 0.0))
    spread = np.sqrt(np.einsum("vi,vi->v", values, values, dtype=np.float64) / max(dosage.shape[1], 1))
    divisor = expected if scale == "expected" else spread
    kept = divisor > 1e-6
    chosen = divisor[kept]
    return Standardised(values[kept] / chosen[:, None].astype(np.float32), kept, mean[kept], chosen)


def grm_peak_bytes(n_samples: int, block_size: int = _BLOCK) -> int:
    """Return an upper estimate of the bytes held by `genetic_relationships`.

    Products and counts in float64, one product in float32 with its float64 sum, and five copies of a block.
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
            f"The GRM of {n_samples} people needs {needed / 2**30:.1f} GiB, {memory_bytes / 2**30:.1f} GiB are given. "
            "Raise --memory or take fewer people."
        )
    lower = np.zeros((n_samples, n_samples))
    both_missing = np.zeros((n_samples, n_samples)) if missing == "pairwise" else np.zeros((0, 0))
    missing_of = np.zeros(n_samples)
    n_variants = 0
    for block in iter_blocks(source, _BLOCK):
        part = standardise(block.dosage, scale=scale)
        n_variants += int(part.values.shape[0])
        if not part.values.shape[0]:
            continue
        lower += _gram(part.values)
        if missing == "pairwise":
            absent = np.isnan(block.dosage[part.kept])
            if absent.any():
                missing_of += absent.sum(axis=0)
                _count_both(absent, both_missing)
    if not n_variants:
        raise ValueError("No variant varies among these people; a GRM needs variants.")
    if not missing_of.any():
        _divide_by_number(lower, float(n_variants))
        return Grm(source.samples, lower, float(n_variants))
    _divide_by_counts(lower, both_missing, missing_of, float(n_variants))
    return Grm(source.samples, lower, both_missing)


def _gram(values: Float32[np.ndarray, "variants samples"]) -> Float[np.ndarray, "samples samples"]:
    """Return the lower triangle of X'X: half the work of a full product."""
    from scipy.linalg import blas

    return np.asarray(blas.ssyrk(1.0, values.T, lower=True))


@njit(cache=True, nogil=True)
@no_type_check
def _divide_by_number(lower, number):  # noqa: ANN001, ANN202 - numba
    """Divide the lower triangle and mirror it, in place."""
    for i in range(lower.shape[0]):
        for k in range(i + 1):
            lower[i, k] /= number
            lower[k, i] = lower[i, k]


@njit(cache=True, nogil=True)
@no_type_check
def _divide_by_counts(lower, both, missing_of, n_variants):  # noqa: ANN001, ANN202 - numba
    """Turn counts missing in both into counts called in both, divide by them, and mirror both, in place."""
    for i in range(lower.shape[0]):
        for k in range(i + 1):
            count = n_variants - missing_of[i] - missing_of[k] + both[i, k]
            both[i, k] = count
            both[k, i] = count
            lower[i, k] = lower[i, k] / count if count > 0.0 else np.nan
            lower[k, i] = lower[i, k]


@njit(cache=True, nogil=True)
@no_type_check
def _count_both(absent, both):  # noqa: ANN001, ANN202 - numba
    """Add, for every pair, the variants that are missing in both (lower triangle)."""
    people = np.empty(absent.shape[1], dtype=np.int64)
    for j in range(absent.shape[0]):
        found = 0
        for i in range(absent.shape[1]):
            if absent[j, i]:
                people[found] = i
                found += 1
        for a in range(found):
            for b in range(a + 1):
                both[people[a], people[b]] += 1.0
