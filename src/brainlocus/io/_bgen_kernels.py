"""Bits of BGEN genotype blocks to dosages and probabilities, one variant a call.

Kernels return the index of the first person whose probabilities are impossible (sum above 1), or ``OK``.
"""

from typing import no_type_check

import numpy as np
from numba import njit

__all__ = [
    "OK",
    "blank",
    "decode_8bit",
    "decode_8bit_probabilities",
    "decode_bits",
    "decode_layout1",
    "diploids",
    "encode_dosages",
    "encode_probabilities",
]

OK = -1


@njit(cache=True, nogil=True)
@no_type_check
def decode_8bit(stored, phased, flip, dosage):  # noqa: ANN001, ANN202
    """Fill dosages of diploids: (510 - 2a - b) / 255 of genotypes, (510 - a - b) / 255 of haplotypes.

    Without branches, so that it is done many people at a time. False where some probabilities sum to more than 1;
    missing calls are as they happen to be stored.
    """
    full = np.float32(255)
    worst = np.int32(0)
    for i in range(dosage.size):
        a = np.int32(stored[2 * i])
        b = np.int32(stored[2 * i + 1])
        first = a + b
        if not phased:
            worst = max(worst, first)
            first += a
        dosage[i] = np.float32(first if flip else 510 - first) / full
    return worst <= 255


@njit(cache=True, nogil=True)
@no_type_check
def decode_8bit_probabilities(stored, flip, one, two):  # noqa: ANN001, ANN202
    """Fill probabilities of unphased diploids, as `decode_8bit` does dosages."""
    full = np.float32(255)
    worst = np.int32(0)
    for i in range(one.size):
        a = np.int32(stored[2 * i])
        b = np.int32(stored[2 * i + 1])
        worst = max(worst, a + b)
        one[i] = np.float32(b) / full
        two[i] = np.float32(a if flip else 255 - a - b) / full
    return worst <= 255


@njit(cache=True, nogil=True)
@no_type_check
def diploids(ploidy):  # noqa: ANN001, ANN202
    """Return whether all are diploid, and whether some call is missing."""
    either = np.uint8(0)
    every = np.uint8(255)
    for i in range(ploidy.size):
        either |= ploidy[i]
        every &= ploidy[i]
    return (either & 0x7F) == 2 and (every & 0x7F) == 2, (either & 0x80) != 0


@njit(cache=True, nogil=True)
@no_type_check
def blank(ploidy, values):  # noqa: ANN001, ANN202
    """Make values of missing calls NaN."""
    for i in range(ploidy.size):
        if ploidy[i] & 0x80:
            values[i] = np.float32(np.nan)


@njit(cache=True, nogil=True)
@no_type_check
def decode_bits(ploidy, stored, bits, phased, flip, dosage, one, two):  # noqa: ANN001, ANN202
    """Fill dosage, or the probabilities of one and two copies (where `one` is not empty), of haploids and diploids.

    A haploid's allele counts twice: 0 or 2 copies. Values are `bits` wide, low bits first.
    """
    n = ploidy.size
    full = (np.int64(1) << bits) - 1
    scale = np.float64(full)
    at = np.int64(0)
    wanted = one.size > 0
    for i in range(n):
        copies = ploidy[i] & 0x3F
        a = _value(stored, at, bits)
        b = np.int64(0)
        at += bits
        if copies == 2:
            b = _value(stored, at, bits)
            at += bits
        if ploidy[i] & 0x80:
            if wanted:
                one[i] = np.nan
                two[i] = np.nan
            else:
                dosage[i] = np.nan
            continue
        x = np.float64(a) / scale
        y = np.float64(b) / scale
        if copies == 1:
            none, both, single = x, 1.0 - x, 0.0
        elif phased:
            none, both = x * y, (1.0 - x) * (1.0 - y)
            single = 1.0 - none - both
        else:
            if a + b > full:
                return i
            none, single = x, y
            both = np.float64(full - a - b) / scale
        if not wanted:
            # Sums of whole numbers: exact where probabilities are 0 and 1.
            if copies == 1:
                first = 2 * a
            elif phased:
                first = a + b
            else:
                first = 2 * a + b
            counted = first if flip else 2 * full - first
            dosage[i] = np.float64(counted) / scale
        else:
            one[i] = single
            two[i] = none if flip else both
    return OK


@njit(cache=True, nogil=True)
@no_type_check
def _value(stored, at, bits):  # noqa: ANN001, ANN202
    """Return `bits` (at most 32) bits from bit `at` on; low bits first."""
    byte = at >> 3
    shift = at & 7
    word = np.uint64(0)
    for k in range((shift + bits + 7) >> 3):
        word |= np.uint64(stored[byte + k]) << np.uint64(8 * k)
    return np.int64((word >> np.uint64(shift)) & ((np.uint64(1) << np.uint64(bits)) - np.uint64(1)))


@njit(cache=True, nogil=True)
@no_type_check
def decode_layout1(stored, flip, dosage, one, two):  # noqa: ANN001, ANN202
    """Fill from three 16-bit numbers a person, in 1/32768; three zeros are a missing call.

    The three may sum to less than 1 (a share without a call); what is stored is scaled to sum to 1.
    """
    wanted = one.size > 0
    for i in range(stored.size // 3):
        aa = np.float64(stored[3 * i])
        ab = np.float64(stored[3 * i + 1])
        bb = np.float64(stored[3 * i + 2])
        total = aa + ab + bb
        if total > 32770:
            return i
        if total == 0:
            if wanted:
                one[i] = np.nan
                two[i] = np.nan
            else:
                dosage[i] = np.nan
            continue
        both = aa if flip else bb
        if wanted:
            one[i] = ab / total
            two[i] = both / total
        else:
            dosage[i] = (ab + 2 * both) / total
    return OK


@njit(cache=True, nogil=True)
@no_type_check
def encode_dosages(dosage, full, ploidy, values):  # noqa: ANN001, ANN202
    """Fill P(no copy) and P(one copy) in 1/`full`: a dosage becomes the two genotypes around it."""
    for i in range(dosage.size):
        d = np.float64(dosage[i])
        if d != d:
            ploidy[i] = 0x82
            values[2 * i] = 0
            values[2 * i + 1] = 0
            continue
        ploidy[i] = 2
        copies = np.int64(d * full + 0.5)
        if copies <= full:
            values[2 * i] = full - copies
            values[2 * i + 1] = copies
        else:
            values[2 * i] = 0
            values[2 * i + 1] = 2 * full - copies


@njit(cache=True, nogil=True)
@no_type_check
def encode_probabilities(one, two, full, ploidy, values):  # noqa: ANN001, ANN202
    """Fill P(no copy) and P(one copy) in 1/`full`; what rounding left over goes to the largest remainders.

    Rounding down and giving the rest by remainder keeps the sum at 1, as the BGEN specification asks.
    """
    for i in range(one.size):
        if one[i] != one[i]:
            ploidy[i] = 0x82
            values[2 * i] = 0
            values[2 * i + 1] = 0
            continue
        ploidy[i] = 2
        p1 = np.float64(one[i]) * full
        p2 = np.float64(two[i]) * full
        p0 = full - p1 - p2
        if p0 < 0:
            p0 = 0.0
        k0, k1, k2 = np.int64(p0 + 1e-4), np.int64(p1 + 1e-4), np.int64(p2 + 1e-4)
        r0, r1, r2 = p0 - k0, p1 - k1, p2 - k2
        for _ in range(full - k0 - k1 - k2):
            if r0 >= r1 and r0 >= r2:
                k0 += 1
                r0 -= 2.0
            elif r1 >= r2:
                k1 += 1
                r1 -= 2.0
            else:
                k2 += 1
                r2 -= 2.0
        values[2 * i] = k0
        values[2 * i + 1] = k1
