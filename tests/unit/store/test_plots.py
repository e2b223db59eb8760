"""Manhattan cells and QQ points against the formulas read literally."""

import math

import numpy as np
import pytest
from scipy import stats

from brainlocus.store.plots import (
    genomic_inflation,
    manhattan_of,
    pack_manhattan,
    qq_of,
    unpack_manhattan,
)


def naive_cells(coordinate, neg_log10_p, length):
    occupied = set()
    for x, y in zip(coordinate, neg_log10_p, strict=True):
        if y < 4:
            column = min(x * 1600 // length, 1599)
            occupied.add(column * 100 + min(math.floor(y / 4 * 100), 99))
    return sorted(occupied)


def test_manhattan_cells_points_and_round_trip():
    rng = np.random.default_rng(3)
    coordinate = np.sort(rng.integers(1, 1_000_001, 5_000))
    p = rng.exponential(1.2, 5_000)
    plot = manhattan_of(coordinate, p, np.arange(5_000), genome_length=1_000_000)
    assert plot.cells.tolist() == naive_cells(coordinate.tolist(), p.tolist(), 1_000_000)
    high = np.flatnonzero(p >= 4)
    assert high.size > 20
    np.testing.assert_array_equal(plot.vid, high)
    np.testing.assert_array_equal(plot.coordinate, coordinate[high])
    data = pack_manhattan(plot)
    assert data[:4] == b"IGMH"
    back = unpack_manhattan(data)
    for name in ("cells", "vid", "neg_log10_p", "coordinate"):
        np.testing.assert_array_equal(getattr(back, name), getattr(plot, name))
    with pytest.raises(ValueError, match="bytes"):
        unpack_manhattan(data[:-1])
    with pytest.raises(ValueError, match="begins with"):
        unpack_manhattan(b"PK\x03\x04" + data[4:])


def test_empty_manhattan():
    plot = manhattan_of(np.zeros(0, int), np.zeros(0), np.zeros(0, int), genome_length=1)
    assert unpack_manhattan(pack_manhattan(plot)).cells.size == 0


def test_qq_points_are_ranks_of_all_tests():
    rng = np.random.default_rng(1)
    p = rng.uniform(size=20_000)
    points = qq_of(-np.log10(p))
    assert points.expected.size <= 500
    assert points.n_tests == 20_000
    ordered = np.sort(p)
    for k in (0, 1, 50, points.expected.size - 1):
        rank = round(10 ** -points.expected[k] * 20_001)
        assert points.observed[k] == pytest.approx(-np.log10(ordered[rank - 1]))
        assert 10 ** -points.lower[k] == pytest.approx(stats.beta.ppf(0.975, rank, 20_001 - rank))
    inside = (points.observed >= points.lower) & (points.observed <= points.upper)
    assert inside[50:].mean() > 0.8


def test_inflation_of_null_and_scaled_statistics():
    z = np.random.default_rng(2).standard_normal(200_000)
    ones = np.ones_like(z)
    assert genomic_inflation(z, ones) == pytest.approx(1.0, abs=0.02)  # 4 standard errors of the median
    assert genomic_inflation(1.5 * z, ones) == pytest.approx(2.25 * genomic_inflation(z, ones))
    assert np.isnan(genomic_inflation(z[:0], ones[:0]))
