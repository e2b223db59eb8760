"""Genotypes made ready for the scan: counted in the rarer allele, missing calls at their mean.

Hard calls go from two bits straight to float32 (a table of 256 x 4 values, 16 bytes written per byte read) with their
sums from bit counts; dosages take one pass of their own. Buffers are reused from block to block: a `CallBlock` is
valid until the next one is read into the same buffer.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float32, Int, UInt64
from numba import njit

from brainlocus.core.genotypes import GenotypeSource, PackedBlock
from brainlocus.genetics.gwas.method import CallBlock
from brainlocus.numerics.packed import count_packed, read_packed

__all__ = ["calls_buffer", "calls_of_dosage", "counts_of_rows", "read_calls"]


def calls_buffer(block_size: int, n_samples: int) -> Float32[np.ndarray, "variants padded"]:
    """Return room for the counts of a block; rows are padded to whole bytes of packed calls."""
    return np.empty((block_size, 4 * ((n_samples + 3) // 4)), dtype=np.float32)


def read_calls(
    source: GenotypeSource, start: int, stop: int, buffer: Float32[np.ndarray, "variants padded"] | None
) -> CallBlock:
    """Return variants `start` up to but not including `stop` of the source.

    Parameters
    ----------
    buffer
        Where the counts of packed calls will lie; None leaves them packed, for an accelerator to decode.
    """
    packed = read_packed(source, start, stop)
    if packed is None:
        return calls_of_dosage(source.read(start, stop).dosage, start)
    return _calls_of_packed(packed, buffer)


def counts_of_rows(block: CallBlock, rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "rows samples"]:
    """Return the counts of some rows in float64, missing calls at the mean in full precision."""
    if block.packed is None or block.counts.shape[1]:
        counts = block.counts[rows].astype(np.float64)
    else:
        buffer = calls_buffer(rows.size, block.packed.n_samples)
        chosen = PackedBlock(0, block.packed.codes[rows], block.packed.n_samples)
        counts = _calls_of_packed(chosen, buffer).counts.astype(np.float64)
    mean = block.mean
    for r in np.flatnonzero(np.diff(block.missing_start)[rows]):
        j = rows[r]
        counts[r, block.missing_people[block.missing_start[j] : block.missing_start[j + 1]]] = mean[j]
    return np.asarray(counts)


def calls_of_dosage(dosage: Float[np.ndarray, "variants samples"], start: int = 0) -> CallBlock:
    """Return dosages (NaN = missing) as a block; float64 stays float64."""
    n_variants = dosage.shape[0]
    sign, n_missing = np.empty(n_variants), np.zeros(n_variants, dtype=np.int64)
    _survey(dosage, sign, n_missing)
    first = np.concatenate([[0], np.cumsum(n_missing)])
    people = np.empty(int(first[-1]), dtype=np.int64)
    total, squares = np.empty(n_variants), np.empty(n_variants)
    counts = np.empty(dosage.shape, dtype=dosage.dtype)
    _recode(dosage, sign, first, people, counts, total, squares)
    return CallBlock(start, counts, sign, dosage.shape[1] - n_missing, total, squares, first, people)


def _calls_of_packed(packed: PackedBlock, buffer: Float32[np.ndarray, "variants padded"] | None) -> CallBlock:
    numbers = count_packed(packed.codes, packed.n_samples)
    called = packed.n_samples - numbers[:, 3]
    flip = 2 * numbers[:, 0] + numbers[:, 1] > called
    two = np.where(flip, numbers[:, 2], numbers[:, 0])
    total, squares = (2 * two + numbers[:, 1]).astype(np.float64), (4 * two + numbers[:, 1]).astype(np.float64)
    first: Int[np.ndarray, " variants_plus_one"] = np.concatenate([[0], np.cumsum(numbers[:, 3])])
    people = np.empty(int(first[-1]), dtype=np.int64)
    sign = np.where(flip, -1.0, 1.0)
    if buffer is None:
        _find_missing(packed.codes, first, people)
        counts = np.empty((packed.codes.shape[0], 0), dtype=np.float32)
    else:
        room = buffer[: packed.codes.shape[0]]
        _fill(packed.codes, _TABLE, flip, total / np.maximum(called, 1), first, people, room.view(np.uint64), room)
        counts = room[:, : packed.n_samples]
    return CallBlock(packed.start, counts, sign, called, total, squares, first, people, packed)


def _decode_pairs() -> UInt64[np.ndarray, "512 2"]:
    """Return the counts of every byte, two float32 to a word; second half with the alleles swapped."""
    codes = (np.arange(256)[:, None] >> (2 * np.arange(4))) & 3
    plain = np.array([2.0, 0.0, 1.0, 0.0], dtype=np.float32)[codes]
    swapped = np.array([0.0, 0.0, 1.0, 2.0], dtype=np.float32)[codes]
    return np.concatenate([plain, swapped]).view(np.uint64)


_TABLE = _decode_pairs()


@njit(cache=True, nogil=True)
@no_type_check
def _fill(codes, table, flip, mean, first, people, pairs, counts):  # noqa: ANN001, ANN202
    """Fill the counts of each row, two at a time, then put the mean at missing calls (code 01)."""
    for j in range(codes.shape[0]):
        half = 256 if flip[j] else 0
        for b in range(codes.shape[1]):
            code = np.intp(codes[j, b]) + half
            pairs[j, 2 * b] = table[code, 0]
            pairs[j, 2 * b + 1] = table[code, 1]
        at = first[j]
        if first[j + 1] == at:
            continue
        value = np.float32(mean[j])
        for b in range(codes.shape[1]):
            code = codes[j, b]
            hole = code & ~(code >> np.uint8(1)) & np.uint8(0x55)
            if hole:
                for k in range(4):
                    if (hole >> np.uint8(2 * k)) & np.uint8(1):
                        people[at] = 4 * b + k
                        counts[j, 4 * b + k] = value
                        at += 1


@njit(cache=True, nogil=True)
@no_type_check
def _find_missing(codes, first, people):  # noqa: ANN001, ANN202
    """Fill the people of missing calls (code 01) of each row."""
    for j in range(codes.shape[0]):
        at = first[j]
        if first[j + 1] == at:
            continue
        for b in range(codes.shape[1]):
            code = codes[j, b]
            hole = code & ~(code >> np.uint8(1)) & np.uint8(0x55)
            if hole:
                for k in range(4):
                    if (hole >> np.uint8(2 * k)) & np.uint8(1):
                        people[at] = 4 * b + k
                        at += 1


@njit(cache=True, nogil=True)
@no_type_check
def _survey(dosage, sign, n_missing):  # noqa: ANN001, ANN202
    """Fill the sign (-1 where the mean dosage is above 1) and the number of missing calls of each row."""
    for j in range(dosage.shape[0]):
        total = 0.0
        called = 0
        for i in range(dosage.shape[1]):
            value = dosage[j, i]
            if value == value:
                total += value
                called += 1
        n_missing[j] = dosage.shape[1] - called
        sign[j] = -1.0 if total > called else 1.0


@njit(cache=True, nogil=True)
@no_type_check
def _recode(dosage, sign, first, people, counts, total, squares):  # noqa: ANN001, ANN202
    """Fill counts, their sums and the missing people of each row."""
    two = counts.dtype.type(2)
    for j in range(dosage.shape[0]):
        at = first[j]
        flip = sign[j] < 0
        sum_j = 0.0
        squares_j = 0.0
        for i in range(dosage.shape[1]):
            value = dosage[j, i]
            if value != value:
                people[at] = i
                at += 1
                continue
            if flip:
                value = two - value
            counts[j, i] = value
            wide = np.float64(value)
            sum_j += wide
            squares_j += wide * wide
        total[j] = sum_j
        squares[j] = squares_j
        called = dosage.shape[1] - (at - first[j])
        mean = sum_j / called if called > 0 else 0.0
        for a in range(first[j], at):
            counts[j, people[a]] = mean
