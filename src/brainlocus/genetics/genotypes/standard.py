"""Standardised genotypes, block by block: ``(g - mean) / scale``, missing calls 0.

Packed calls are looked up in a table of four numbers a variant, without a detour over dosages.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from numba import njit

from brainlocus.core.genotypes import GenotypeSource
from brainlocus.genetics.genotypes.bits import pack_calls
from brainlocus.numerics.packed import count_packed, read_packed

__all__ = ["Moments", "StandardBlock", "add_missing", "standard_blocks"]

_SMALLEST_SCALE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """What variants are centred and scaled by."""

    mean: Float64[np.ndarray, " variants"]
    scale: Float64[np.ndarray, " variants"]
    """NaN for variants that do not vary: they are left out."""


@dataclass(frozen=True, slots=True, eq=False)
class StandardBlock:
    """Consecutive variants. `values` is only valid until the next block is asked for."""

    start: int
    values: Float32[np.ndarray, "variants samples"]
    """0 for missing calls, and for all calls of variants that are left out."""
    codes: UInt8[np.ndarray, "variants bytes"] | None
    """Packed calls whose missing ones are those of the block; None when no call is missing."""
    moments: Moments

    @property
    def stop(self) -> int:
        """Row after the last variant."""
        return self.start + int(self.values.shape[0])


def standard_blocks(
    source: GenotypeSource,
    size: int,
    *,
    scale: Literal["expected", "observed"] = "expected",
    moments: Moments | None = None,
) -> Iterator[StandardBlock]:
    """Yield the source's variants in order, `size` at a time.

    Parameters
    ----------
    scale
        ``expected``: sqrt(2 p (1 - p)); ``observed``: standard deviation (divisor n) with missing calls at the mean.
    moments
        Mean and scale of each variant, of other people; None: of the source's own.
    """
    n_variants, n_samples = len(source.variants), len(source.samples)
    buffer = np.empty((min(size, n_variants), n_samples), dtype=np.float32)
    for start in range(0, n_variants, size):
        stop = min(start + size, n_variants)
        given = None if moments is None else Moments(moments.mean[start:stop], moments.scale[start:stop])
        packed = read_packed(source, start, stop)
        values = buffer[: stop - start]
        if packed is None:
            yield _of_dosages(source, start, stop, scale, given)
            continue
        counts = count_packed(packed.codes, n_samples)
        here = given or _moments_of_counts(counts, n_samples, scale)
        table = np.zeros((stop - start, 4), dtype=np.float32)
        used = ~np.isnan(here.scale)
        copies = np.array([2.0, np.nan, 1.0, 0.0])
        table[used] = (copies - here.mean[used, None]) / here.scale[used, None]
        table[:, 1] = 0.0
        _look_up(packed.codes, table, values)
        codes = packed.codes if counts[:, 3].any() else None
        yield StandardBlock(start, values, codes, here)


def add_missing(codes: UInt8[np.ndarray, "variants bytes"], missing: Int64[np.ndarray, " samples"]) -> None:
    """Add every person's missing calls, in place."""
    _add_missing(np.ascontiguousarray(codes), missing)


def _moments_of_counts(counts: np.ndarray, n_samples: int, scale: str) -> Moments:
    called = np.maximum(counts[:, :3].sum(axis=1), 1)
    mean = (2.0 * counts[:, 0] + counts[:, 1]) / called
    if scale == "expected":
        squared = mean * (1.0 - mean / 2.0)
    else:
        squared = np.maximum(4.0 * counts[:, 0] + counts[:, 1] - called * mean**2, 0.0) / max(n_samples, 1)
    return Moments(mean, _usable(squared))


def _usable(squared: Float64[np.ndarray, " variants"]) -> Float64[np.ndarray, " variants"]:
    divisor = np.sqrt(np.maximum(squared, 0.0))
    return np.where(divisor > _SMALLEST_SCALE, divisor, np.nan)


def _of_dosages(source: GenotypeSource, start: int, stop: int, scale: str, given: Moments | None) -> StandardBlock:
    dosage = source.read(start, stop).dosage
    known = ~np.isnan(dosage)
    values = np.where(known, dosage, np.float32(0))
    if given is None:
        mean = values.sum(axis=1, dtype=np.float64) / np.maximum(known.sum(axis=1), 1)
        centred = np.where(known, values - mean[:, None].astype(np.float32), np.float32(0))
        spread = np.einsum("vi,vi->v", centred, centred, dtype=np.float64) / max(dosage.shape[1], 1)
        given = Moments(mean, _usable(mean * (1.0 - mean / 2.0) if scale == "expected" else spread))
    else:
        centred = np.where(known, values - given.mean[:, None].astype(np.float32), np.float32(0))
    used = ~np.isnan(given.scale)
    centred[used] /= given.scale[used, None].astype(np.float32)
    centred[~used] = 0.0
    return StandardBlock(start, centred, None if known.all() else pack_calls(dosage), given)


@njit(cache=True, nogil=True)
@no_type_check
def _look_up(codes, table, values):  # noqa: ANN001, ANN202 - numba
    n_samples = values.shape[1]
    whole = n_samples // 4
    quads = np.empty((256, 4), dtype=np.float32)
    for row in range(values.shape[0]):
        for byte in range(256):
            for k in range(4):
                quads[byte, k] = table[row, (byte >> (2 * k)) & 3]
        for byte in range(whole):
            code = codes[row, byte]
            for k in range(4):
                values[row, 4 * byte + k] = quads[code, k]
        for i in range(4 * whole, n_samples):
            values[row, i] = quads[codes[row, whole], i - 4 * whole]


@njit(cache=True, nogil=True)
@no_type_check
def _add_missing(codes, missing):  # noqa: ANN001, ANN202 - numba
    for row in range(codes.shape[0]):
        for byte in range(codes.shape[1]):
            code = codes[row, byte]
            absent = code & ~(code >> 1) & 0x55
            if absent:
                for k in range(4):
                    if (absent >> (2 * k)) & 1:
                        missing[4 * byte + k] += 1
