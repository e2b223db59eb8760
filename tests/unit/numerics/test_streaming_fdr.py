"""Rates over tests that come in blocks equal those of all tests in memory, to the last bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlocus.numerics import benjamini_hochberg_q, benjamini_yekutieli_q, neg_log10_p_from_z
from brainlocus.numerics.streaming_fdr import TestBlock, fdr_curves


def in_blocks(z, row_group, column_group, step):
    return lambda: (
        TestBlock(z[start : start + step], row_group[start : start + step], column_group)
        for start in range(0, z.shape[0], step)
    )


@given(seed=st.integers(0, 10_000), rounded=st.booleans(), cut=st.sampled_from([0.0, 0.3, 1.0, 1.96, 3.5]))
@settings(max_examples=60)
def test_equals_in_memory(seed, rounded, cut):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(int(rng.integers(1, 60)), int(rng.integers(1, 30)))) * rng.choice([0.4, 1.0, 1.3, 2.5])
    z = z.round(1) if rounded else z
    z = z.astype(rng.choice([np.float32, np.float64]))
    z[rng.random(z.shape) < 0.1] = np.nan
    z[rng.random(z.shape) < 0.01] = np.inf
    rows, columns = 3 * rng.integers(0, 2, z.shape[0]), rng.integers(0, 3, z.shape[1])
    curves = fdr_curves(
        in_blocks(z, rows, columns, int(rng.integers(1, 20))), 6, smallest=cut, to_neg_log10_p=neg_log10_p_from_z
    )
    group = rows[:, None] + columns[None, :]
    for number, curve in enumerate(curves):
        mine = z[group == number].astype(np.float64)
        expected = benjamini_hochberg_q(neg_log10_p_from_z(mine))
        assert curve.n_tests == int((~np.isnan(mine)).sum())
        wanted = np.abs(mine) >= cut
        np.testing.assert_array_equal(curve.of(z[group == number])[wanted], expected[wanted])
        assert np.isnan(curve.of(z[group == number])[~wanted]).all()


def test_a_weaker_test_lowers_the_rate_of_the_wanted_ones():
    """Many p just above the cut: their m p / j is below that of the wanted test."""
    neg_log10_p = np.r_[1.4, np.full(99, 1.29)][:, None]
    curve = fdr_curves(in_blocks(neg_log10_p, np.zeros(100, dtype=int), np.zeros(1, dtype=int), 7), 1, smallest=1.301)[
        0
    ]
    assert curve.q.tolist() == benjamini_hochberg_q(neg_log10_p[:, 0])[:1].tolist()
    assert curve.q[0] == pytest.approx(10**-1.29)


def test_yekutieli():
    z = np.random.default_rng(0).normal(size=(200, 1)) * 2
    curve = fdr_curves(
        in_blocks(z, np.zeros(200, dtype=int), np.zeros(1, dtype=int), 50),
        1,
        smallest=0.0,
        to_neg_log10_p=neg_log10_p_from_z,
        method="by",
    )[0]
    np.testing.assert_allclose(curve.of(z[:, 0]), benjamini_yekutieli_q(neg_log10_p_from_z(z[:, 0])), rtol=1e-12)


def test_no_tests_at_all():
    z = np.full((4, 2), np.nan)
    curve = fdr_curves(in_blocks(z, np.zeros(4, dtype=int), np.zeros(2, dtype=int), 3), 1, smallest=0.0)[0]
    assert curve.n_tests == 0
    assert np.isnan(curve.of(z)).all()
