"""Bit planes of hard calls: 64 people, or 64 variants, to a word, counted by population count.

A packed call has a low and a high bit (PLINK 1 coding, `brainlocus.numerics.packed`): 00 two effect alleles, 01
missing, 10 one, 11 none. So ``high`` says that the other allele is there, and ``~low`` that the effect allele is;
a missing call has neither.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float32, UInt8, UInt64
from numba import njit

from brainlocus.core.genotypes import GenotypeSource
from brainlocus.numerics.packed import read_packed

__all__ = [
    "EVEN",
    "call_words",
    "calls_of",
    "pack_calls",
    "people_bits",
    "people_planes",
    "variant_planes",
]

EVEN = np.uint64(0x5555555555555555)
"""The low bits of 32 packed calls."""
_WORD = 64


def calls_of(source: GenotypeSource, start: int, stop: int) -> UInt8[np.ndarray, "variants bytes"]:
    """Return packed calls of variants `start` up to but not including `stop`; dosages count as the nearest call."""
    block = read_packed(source, start, stop)
    if block is not None:
        return block.codes
    return pack_calls(source.read(start, stop).dosage)


def pack_calls(dosage: Float32[np.ndarray, "variants samples"]) -> UInt8[np.ndarray, "variants bytes"]:
    """Return dosages as packed hard calls: the nearest whole number, NaN as missing."""
    codes = np.zeros((dosage.shape[0], (dosage.shape[1] + 3) // 4), dtype=np.uint8)
    _pack(np.ascontiguousarray(dosage), codes)
    return codes


def variant_planes(
    codes: UInt8[np.ndarray, "variants bytes"], n_samples: int
) -> UInt64[np.ndarray, "variants 3 words"]:
    """Return, for every variant, who is homozygous, who is so for the other allele, and who has a call.

    Bits follow one order of people in all variants (which is not that of the samples); those past the last person
    are 0, as a missing call is.
    """
    planes = np.empty((codes.shape[0], 3, (n_samples + _WORD - 1) // _WORD), dtype=np.uint64)
    _variant_planes(call_words(codes, n_samples), people_bits(np.ones(n_samples, dtype=bool)), planes)
    return planes


def people_planes(codes: UInt8[np.ndarray, "variants bytes"], n_samples: int) -> UInt64[np.ndarray, "samples 3 words"]:
    """Return, for every person, the variants with the effect allele, with the other allele, and with both."""
    n_words = (codes.shape[0] + _WORD - 1) // _WORD
    planes = np.empty((n_samples, 3, n_words), dtype=np.uint64)
    _people_planes(call_words(codes, n_samples), n_samples, planes)
    return planes


def call_words(codes: UInt8[np.ndarray, "variants bytes"], n_samples: int) -> UInt64[np.ndarray, "variants words"]:
    """Return the codes as whole pairs of 64-bit words, 64 people a pair."""
    size = 2 * ((n_samples + _WORD - 1) // _WORD) * 8
    if codes.shape[1] == size and codes.flags.c_contiguous:
        return codes.view("<u8")
    padded = np.zeros((codes.shape[0], size), dtype=np.uint8)
    padded[:, : codes.shape[1]] = codes
    return padded.view("<u8")


def people_bits(people: Bool[np.ndarray, " samples"]) -> UInt64[np.ndarray, " words"]:
    """Return the bits of a variant's plane that stand for some people.

    Even bits are the first 32 of a word's 64 people, odd bits the others: so two packed words make a plane at once.
    """
    n_words = (people.size + _WORD - 1) // _WORD
    padded = np.zeros(n_words * _WORD, dtype=bool)
    padded[: people.size] = people
    bit = np.uint64(1) << (2 * np.arange(32, dtype=np.uint64) + np.arange(2, dtype=np.uint64)[:, None])
    return np.asarray((padded.reshape(n_words, 2, 32) * bit).sum(axis=(1, 2), dtype=np.uint64))


@njit(cache=True, nogil=True)
@no_type_check
def _pack(dosage, codes):  # noqa: ANN001, ANN202 - numba
    for row in range(dosage.shape[0]):
        for i in range(dosage.shape[1]):
            value = dosage[row, i]
            if value != value:
                call = 1
            else:
                copies = int(value + 0.5)
                call = 0 if copies >= 2 else (2 if copies == 1 else 3)
            codes[row, i >> 2] |= np.uint8(call << (2 * (i & 3)))


@njit(cache=True, nogil=True)
@no_type_check
def _variant_planes(words, valid, planes):  # noqa: ANN001, ANN202 - numba
    one = np.uint64(1)
    for row in range(words.shape[0]):
        for w in range(valid.size):
            a, b = words[row, 2 * w], words[row, 2 * w + 1]
            low = (a & EVEN) | ((b & EVEN) << one)
            high = ((a >> one) & EVEN) | (b & ~EVEN)
            planes[row, 0, w] = ~(low ^ high) & valid[w]
            planes[row, 1, w] = low & high
            planes[row, 2, w] = (~low | high) & valid[w]


@njit(cache=True, nogil=True)
@no_type_check
def _people_planes(words, n_samples, planes):  # noqa: ANN001, ANN202 - numba
    """Transpose blocks of 64 variants x 64 people."""
    one = np.uint64(1)
    n_variants = words.shape[0]
    low, high = np.empty(64, dtype=np.uint64), np.empty(64, dtype=np.uint64)
    for v in range(planes.shape[2]):
        for w in range((n_samples + 63) // 64):
            for k in range(64):
                row = 64 * v + k
                if row < n_variants:
                    a, b = words[row, 2 * w], words[row, 2 * w + 1]
                    low[k] = ~((a & EVEN) | ((b & EVEN) << one))
                    high[k] = ((a >> one) & EVEN) | (b & ~EVEN)
                else:
                    low[k] = np.uint64(0)
                    high[k] = np.uint64(0)
            _transpose(low)
            _transpose(high)
            for bit in range(64):
                person = 64 * w + (bit >> 1) + 32 * (bit & 1)
                if person < n_samples:
                    planes[person, 0, v] = low[bit]
                    planes[person, 1, v] = high[bit]
                    planes[person, 2, v] = low[bit] & high[bit]


@njit(cache=True, nogil=True)
@no_type_check
def _transpose(block):  # noqa: ANN001, ANN202 - numba
    """Transpose 64 x 64 bits in place: bit c of row r becomes bit r of row c (Warren 2013, section 7-3)."""
    width = 32
    mask = np.uint64(0x00000000FFFFFFFF)
    while width > 0:
        shift = np.uint64(width)
        for start in range(0, 64, 2 * width):
            for k in range(start, start + width):
                swap = ((block[k] >> shift) ^ block[k + width]) & mask
                block[k] ^= swap << shift
                block[k + width] ^= swap
        width >>= 1
        mask ^= mask << np.uint64(width)
