"""Plots computed once when a store is built: Manhattan cells and QQ points."""

import struct
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt32
from scipy import stats

__all__ = [
    "MANHATTAN_CUTOFF",
    "Manhattan",
    "QqPoints",
    "genomic_inflation",
    "manhattan_of",
    "pack_manhattan",
    "qq_of",
    "unpack_manhattan",
]

MANHATTAN_CUTOFF = 4.0
"""Associations below this -log10 p are drawn as cells, those above one by one."""
N_X, N_Y = 1_600, 100
_HEADER = struct.Struct("<4sHHHII")
_MAGIC = b"IGMH"
_VERSION = 1
_MEDIAN_CHI2 = float(stats.chi2.ppf(0.5, 1))


@dataclass(frozen=True, slots=True)
class Manhattan:
    """A Manhattan plot reduced to what can be seen."""

    n_x: int
    n_y: int
    cells: UInt32[np.ndarray, " cells"]
    """Occupied cells ``x * n_y + y`` for -log10 p below 4, ascending."""
    vid: Int[np.ndarray, " points"]
    neg_log10_p: Float[np.ndarray, " points"]
    """At least 4."""
    coordinate: UInt32[np.ndarray, " points"]
    """Place on the genome laid end to end, in bp: chromosome offset + position."""


@dataclass(frozen=True, slots=True)
class QqPoints:
    """A thinned QQ plot: every extreme point, fewer and fewer towards the middle."""

    expected: Float[np.ndarray, " points"]
    observed: Float[np.ndarray, " points"]
    lower: Float[np.ndarray, " points"]
    """2.5 % bound of the order statistic under the null."""
    upper: Float[np.ndarray, " points"]
    n_tests: int


def manhattan_of(
    coordinate: Int[np.ndarray, " variants"],
    neg_log10_p: Float[np.ndarray, " variants"],
    vid: Int[np.ndarray, " variants"],
    *,
    genome_length: int,
) -> Manhattan:
    """Return the cells and points of a Manhattan plot.

    Parameters
    ----------
    coordinate
        Chromosome offset plus position, in [0, `genome_length`].
    """
    low = neg_log10_p < MANHATTAN_CUTOFF
    x = np.minimum((coordinate[low] * N_X) // max(genome_length, 1), N_X - 1)
    y = np.clip((neg_log10_p[low] / MANHATTAN_CUTOFF * N_Y).astype(np.int64), 0, N_Y - 1)
    return Manhattan(
        N_X,
        N_Y,
        np.unique(x * N_Y + y).astype(np.uint32),
        vid[~low].astype(np.int32),
        neg_log10_p[~low].astype(np.float32),
        coordinate[~low].astype(np.uint32),
    )


def pack_manhattan(plot: Manhattan) -> bytes:
    """Return the little-endian file: header, cells (u32), vid (i32), -log10 p (f32), coordinate (u32)."""
    header = _HEADER.pack(_MAGIC, _VERSION, plot.n_x, plot.n_y, plot.cells.size, plot.vid.size)
    arrays = (
        plot.cells.astype("<u4"),
        plot.vid.astype("<i4"),
        plot.neg_log10_p.astype("<f4"),
        plot.coordinate.astype("<u4"),
    )
    return header + b"".join(array.tobytes() for array in arrays)


def unpack_manhattan(data: bytes) -> Manhattan:
    """Return the plot in a file.

    Raises
    ------
    ValueError
        Another magic or version, or a truncated file.
    """
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise ValueError(f"A Manhattan file begins with {_MAGIC!r}, found {data[:4]!r}.")
    _, version, n_x, n_y, n_cells, n_points = _HEADER.unpack_from(data)
    expected = _HEADER.size + 4 * (n_cells + 3 * n_points)
    if version != _VERSION or len(data) != expected:
        raise ValueError(f"Expected version {_VERSION} and {expected} bytes, found version {version}, {len(data)}.")
    at = _HEADER.size
    parts = []
    for kind, count in (("<u4", n_cells), ("<i4", n_points), ("<f4", n_points), ("<u4", n_points)):
        parts.append(np.frombuffer(data, dtype=kind, count=count, offset=at))
        at += 4 * count
    return Manhattan(n_x, n_y, *parts)


def genomic_inflation(beta: Float[np.ndarray, " rows"], standard_error: Float[np.ndarray, " rows"]) -> float:
    """Return lambda_GC: the median squared z over the median of chi-square with one degree of freedom.

    References
    ----------
    Devlin & Roeder (1999), Biometrics 55:997.
    """
    if not beta.size:
        return float("nan")
    return float(np.median((beta / standard_error) ** 2) / _MEDIAN_CHI2)


def qq_of(neg_log10_p: Float[np.ndarray, " rows"], *, max_points: int = 500) -> QqPoints:
    """Return at most `max_points` points of the QQ plot.

    The k-th smallest p of m is expected at ``k / (m + 1)`` and follows Beta(k, m + 1 - k) under the null
    (Casella & Berger, Statistical Inference, 5.4.4), from which the 95 % band comes.
    """
    m = int(neg_log10_p.size)
    ordered = np.sort(neg_log10_p)[::-1].astype(np.float64)
    ranks = np.arange(1, m + 1)
    if m > max_points:
        every = max_points // 4
        spread = np.geomspace(every + 1, m, max_points - every)
        ranks = np.unique(np.concatenate([np.arange(1, every + 1), spread.round().astype(np.int64)]))
    lower, upper = (stats.beta.ppf(q, ranks, m + 1 - ranks) for q in (0.975, 0.025))
    return QqPoints(
        -np.log10(ranks / (m + 1)), ordered[ranks - 1], -np.log10(lower), -np.log10(np.maximum(upper, 1e-300)), m
    )
