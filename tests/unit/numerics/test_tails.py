"""-log10 p against sixty-digit arithmetic."""

import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from brainlocus.numerics import (
    neg_log10_p_from_chi2,
    neg_log10_p_from_t,
    neg_log10_p_from_z,
    z_from_neg_log10_p,
)


def exact_neg_log10_p(t: float, df: float) -> float:
    """Two-sided tail of Student's t at 40 digits or more: the incomplete beta function, or quadrature for large df."""
    with mpmath.workdps(60 if df < 1e5 else 40):
        t, df = mpmath.mpf(t), mpmath.mpf(df)
        if df < 1e5:
            tail = mpmath.betainc(df / 2, mpmath.mpf(1) / 2, 0, df / (df + t**2), regularized=True)
            return float(-mpmath.log10(tail))
        ln_density_at_t = (
            mpmath.loggamma((df + 1) / 2)
            - mpmath.loggamma(df / 2)
            - mpmath.log(df * mpmath.pi) / 2
            - (df + 1) / 2 * mpmath.log1p(t**2 / df)
        )
        scale = min(mpmath.mpf(1), (df + t**2) / ((df + 1) * t))
        edges = [t + scale * k for k in (0, 1, 2, 4, 7, 11, 16, 24, 40, 70, 120)]
        ratio = mpmath.quad(lambda u: mpmath.exp(-(df + 1) / 2 * mpmath.log((df + u**2) / (df + t**2))), edges)
        return float(-(mpmath.log(2 * ratio) + ln_density_at_t) / mpmath.log(10))


@pytest.mark.parametrize("df", [1, 2, 3, 10, 37, 39, 40, 41, 390, 5_000, 123_456, 1e6, 1e7])
def test_t_tail_to_1e10(df):
    ts = [1e-3, 0.1, 0.5, 1.0, 1.4, 1.7, 1.75, 2.0, 3.0, 5.0, 8.0, 20.0, 38.5, 100.0, 1e3, 1e4]
    exact = np.array([exact_neg_log10_p(t, df) for t in ts])
    ours = neg_log10_p_from_t(np.array(ts), float(df))
    np.testing.assert_allclose(ours, exact, rtol=1e-10)


def test_t_tail_is_continuous_where_the_formula_changes():
    for df in (3.0, 50.0, 1e4):
        edge = math.sqrt(3 * df / (df + 3))
        below, above = neg_log10_p_from_t(np.array([edge * (1 - 1e-12), edge * (1 + 1e-12)]), df)
        assert above == pytest.approx(below, rel=1e-10)
        assert above >= below * (1 - 1e-10)


def test_t_tail_shapes_signs_and_nan():
    t = np.array([[1.0, -1.0], [np.nan, np.inf]])
    p = neg_log10_p_from_t(t, 10.0)
    assert p.shape == t.shape
    assert p[0, 0] == p[0, 1]
    assert np.isnan(p[1, 0])
    assert np.isposinf(p[1, 1])
    assert np.isnan(neg_log10_p_from_t(np.array([2.0]), 0.0)).all()
    assert neg_log10_p_from_t(np.array(0.0), 5.0).item() == 0.0


def test_normal_would_be_wrong_here():
    """methods/gwas.md 2.5: df = 390, t = 8 has -log10 p 13.84 where the normal gives 14.91."""
    assert neg_log10_p_from_t(np.array([8.0]), 390.0)[0] == pytest.approx(13.84, abs=5e-3)
    assert neg_log10_p_from_z(np.array([8.0]))[0] == pytest.approx(14.91, abs=5e-3)


def test_normal_and_chi2_tails_against_scipy():
    z = np.array([0.0, 0.3, 1.96, 5.0, 30.0])
    np.testing.assert_allclose(neg_log10_p_from_z(z), -(stats.norm.logsf(z) + np.log(2)) / np.log(10), atol=1e-14)
    np.testing.assert_allclose(neg_log10_p_from_chi2(z**2), neg_log10_p_from_z(z), rtol=1e-12)
    np.testing.assert_allclose(neg_log10_p_from_chi2(z**2, 3.0), -np.log10(stats.chi2.sf(z**2, 3)), rtol=1e-10)


@pytest.mark.parametrize("df", [1, 2, 3, 7, 44, 300])
@pytest.mark.parametrize("chi2", [0.5, 30.0, 900.0, 1500.0, 2000.0, 40_000.0, 3e6])
def test_chi_square_far_beyond_doubles(df, chi2):
    with mpmath.workdps(50):
        tail = mpmath.gammainc(mpmath.mpf(df) / 2, mpmath.mpf(chi2) / 2, mpmath.inf, regularized=True)
        expected = float(-mpmath.log10(tail))
    # Where p is near 1 its logarithm is near 0, and has the digits of p.
    assert float(neg_log10_p_from_chi2(np.array(chi2), float(df))) == pytest.approx(expected, rel=1e-11, abs=1e-15)


@pytest.mark.parametrize("m", [1e-8, 0.01, 0.3, 0.49, 0.51, 1.0, 1.30103, 7.3, 300.0, 324.0, 5_000.0, 300_000.0])
def test_z_from_p_to_1e12(m):
    found = float(z_from_neg_log10_p(m))
    with mpmath.workdps(60):
        # The root by mpmath, started from ours: it would leave it were it not the root.
        target = -mpmath.mpf(m) * mpmath.log(10)
        exact = mpmath.findroot(lambda z: mpmath.log(mpmath.erfc(z / mpmath.sqrt(2))) - target, found)
        assert abs(found / exact - 1) < 1e-12
    assert float(neg_log10_p_from_z(found)) == pytest.approx(m, rel=1e-11, abs=1e-15)


def test_z_from_p_at_the_ends():
    np.testing.assert_array_equal(
        z_from_neg_log10_p(np.array([0.0, np.inf, np.nan, -1.0])), [0, np.inf, np.nan, np.nan]
    )
