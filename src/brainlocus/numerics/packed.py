"""Two-bit genotypes as files hold them: read, select people, count and decode without a detour over floats.

Coding of PLINK 1: four calls a byte, low bits first; 00 two copies of the effect allele, 01 missing, 10 one copy,
11 none. Bits past the last person are 0. A call costs a quarter of a byte instead of the four of a float32.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int, UInt8
from numba import njit

from brainlocus.core.genotypes import GenotypeSource, PackedBlock, PackedSource, SelectedGenotypes, runs
from brainlocus.numerics.bits import popcount

__all__ = ["count_packed", "decode_packed", "read_packed", "select_people"]


_SPARSE = 4
"""Rows are read with all that lies between them where they are at least one in so many."""


def read_packed(source: GenotypeSource, start: int, stop: int) -> PackedBlock | None:
    """Return variants `start` up to but not including `stop` in two bits a call.

    Returns
    -------
    PackedBlock or None
        None when the source holds no packed hard calls (dosages, formats with other codings); use `read` then.
    """
    if isinstance(source, PackedSource):
        return source.read_packed(start, stop)
    if not isinstance(source, SelectedGenotypes) or not isinstance(source.source, PackedSource):
        return None
    whole = _read_rows(source.source, source.variant_indices[start:stop], len(source.source.samples))
    if whole is None:
        return None
    everyone = source.sample_indices.size == len(source.source.samples)
    if not (everyone and bool((np.diff(source.sample_indices) == 1).all())):
        whole = select_people(whole, source.sample_indices)
    return PackedBlock(start, whole, int(source.sample_indices.size))


def _read_rows(
    source: PackedSource, rows: Int[np.ndarray, " rows"], n_samples: int
) -> UInt8[np.ndarray, "rows bytes"] | None:
    """Return the packed calls of some rows; rows that lie close together come out of one piece of the file."""
    if rows.size and bool((np.diff(rows) > 0).all()) and rows[-1] - rows[0] < _SPARSE * rows.size:
        block = source.read_packed(int(rows[0]), int(rows[-1]) + 1)
        if block is None:
            return None
        whole = rows[-1] - rows[0] + 1 == rows.size
        return block.codes if whole else np.asarray(block.codes[rows - rows[0]])
    pieces = [np.empty((0, (n_samples + 3) // 4), dtype=np.uint8)]
    for first, last in runs(rows):
        piece = source.read_packed(first, last)
        if piece is None:
            return None
        pieces.append(piece.codes)
    return np.concatenate(pieces)


def select_people(
    codes: UInt8[np.ndarray, "variants bytes"], people: Int[np.ndarray, " selected"]
) -> UInt8[np.ndarray, "variants selected_bytes"]:
    """Return the calls of some people, in the given order, packed again."""
    out = np.zeros((codes.shape[0], (people.size + 3) // 4), dtype=np.uint8)
    _select(codes, people.astype(np.int64), out)
    return out


def decode_packed(
    codes: UInt8[np.ndarray, "variants bytes"], n_samples: int
) -> Float32[np.ndarray, "variants samples"]:
    """Return copies of the effect allele; NaN marks a missing call."""
    dosage = np.empty((codes.shape[0], n_samples), dtype=np.float32)
    _decode(codes, _DECODE, dosage)
    return dosage


def count_packed(codes: UInt8[np.ndarray, "variants bytes"], n_samples: int) -> Int[np.ndarray, "variants 4"]:
    """Return how many people have 2, 1 and 0 copies of the effect allele, and how many no call."""
    counts = np.empty((codes.shape[0], 4), dtype=np.int64)
    words = codes.shape[1] // 8
    head = np.ascontiguousarray(codes[:, : 8 * words]).view(np.uint64)
    _count(head, np.ascontiguousarray(codes[:, 8 * words :]), n_samples, counts)
    return counts


_DECODE = np.array([2.0, np.nan, 1.0, 0.0], dtype=np.float32)[(np.arange(256)[:, None] >> (2 * np.arange(4))) & 3]


@njit(cache=True, nogil=True)
@no_type_check
def _decode(packed, table, dosage):  # noqa: ANN001, ANN202
    n_variants, n_samples = dosage.shape
    whole = n_samples // 4
    for row in range(n_variants):
        for byte in range(whole):
            code = np.intp(packed[row, byte])
            at = 4 * byte
            dosage[row, at] = table[code, 0]
            dosage[row, at + 1] = table[code, 1]
            dosage[row, at + 2] = table[code, 2]
            dosage[row, at + 3] = table[code, 3]
        for k in range(4 * whole, n_samples):
            dosage[row, k] = table[packed[row, whole], k - 4 * whole]


@njit(cache=True, nogil=True)
@no_type_check
def _select(codes, people, out):  # noqa: ANN001, ANN202
    for row in range(codes.shape[0]):
        for k in range(people.size):
            i = people[k]
            call = (codes[row, i >> 2] >> (2 * (i & 3))) & 3
            out[row, k >> 2] |= np.uint8(call << (2 * (k & 3)))


@njit(cache=True, nogil=True)
@no_type_check
def _count(words, tail, n_samples, counts):  # noqa: ANN001, ANN202
    """Fill counts of codes 00, 10, 11, 01: with L and H the low and high bits, 11 is L & H, 01 L & ~H, 10 H & ~L."""
    low_bits = np.uint64(0x5555555555555555)
    for row in range(words.shape[0]):
        both = low = high = np.int64(0)
        for w in range(words.shape[1]):
            word = words[row, w]
            lows = word & low_bits
            highs = (word >> np.uint64(1)) & low_bits
            both += popcount(lows & highs)
            low += popcount(lows)
            high += popcount(highs)
        for b in range(tail.shape[1]):
            for k in range(4):
                call = (tail[row, b] >> (2 * k)) & 3
                both += call == 3
                low += call & 1
                high += call >> 1
        counts[row, 1] = high - both
        counts[row, 2] = both
        counts[row, 3] = low - both
        counts[row, 0] = n_samples - high - low + both
