"""Two modalities compared: coordinates, the test of two correlations, agreement of values."""

import numpy as np
import pytest
from scipy import stats

from brainlocus.cohort.associate import (
    agreement,
    bland_altman_coordinates,
    correlation_difference,
    measure_correlation,
)


def test_angles_of_one_both_and_the_other():
    mean, difference, angle = bland_altman_coordinates(np.array([9.0, 9, 0, np.nan]), np.array([0.0, 9, 9, 1]))
    assert mean[:3].tolist() == [4.5, 9, 4.5]
    assert difference[:3].tolist() == [9, 0, -9]
    np.testing.assert_allclose(angle[:3], [np.degrees(np.arctan(2)), 0, -np.degrees(np.arctan(2))], rtol=1e-15)
    assert np.isnan(angle[3])


# r.test(n, r12, r13, r23) of R's psych (Debian's r-cran-psych): t and two-sided p.
PSYCH = (
    (103, 0.4, 0.5, 0.1, -0.891279904760541, 0.374918517491256),
    (200, 0.1, 0.3, 0.8, -4.79730536696848, 3.16888047594282e-06),
    (50, -0.2, 0.35, 0.25, -3.46259788179909, 0.00115051097893856),
)


@pytest.mark.parametrize(("n", "first", "second", "between", "t", "p"), PSYCH)
def test_williams_t_equals_psych(n, first, second, between, t, p):
    found = correlation_difference(*(np.array([v]) for v in (first, second, between, float(n))))
    assert found.t[0] == pytest.approx(t, rel=1e-12)
    assert found.degrees_of_freedom[0] == n - 3
    assert 10.0 ** -found.neg_log10_p[0] == pytest.approx(p, rel=1e-9)


def test_swapping_modalities_negates_t():
    rng = np.random.default_rng(0)
    a, b, c = rng.uniform(-0.4, 0.4, (3, 50))
    n = np.full(50, 80.0)
    here, there = correlation_difference(a, b, c, n), correlation_difference(b, a, c, n)
    np.testing.assert_allclose(here.t, -there.t, rtol=1e-12)


def test_no_test_without_a_correlation_between_or_enough_people():
    one = np.array([0.3, 0.3, 0.3])
    found = correlation_difference(one, -one, np.array([np.nan, 1.0, 0.2]), np.array([50.0, 50.0, 3.0]))
    assert np.isnan(found.t).all()
    assert np.isnan(found.neg_log10_p).all()


def test_level_of_the_test_where_both_correlations_are_equal():
    """4,000 studies of 60 people: two measures of a region with equal correlation to a phenotype."""
    rng = np.random.default_rng(1)
    n, studies = 60, 4_000
    latent, phenotype = rng.standard_normal((2, studies, n))
    phenotype += 0.6 * latent
    a, b = latent + 0.7 * rng.standard_normal((2, studies, n))

    def r(x, y):
        x, y = (v - v.mean(axis=1, keepdims=True) for v in (x, y))
        return (x * y).sum(axis=1) / np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))

    found = correlation_difference(r(a, phenotype), r(b, phenotype), r(a, b), np.full(studies, float(n)))
    share = (found.neg_log10_p > -np.log10(0.05)).mean()
    assert abs(share - 0.05) < 3 * np.sqrt(0.05 * 0.95 / studies)


def test_correlation_of_measures_is_pairwise():
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, 40, 4))
    a[rng.uniform(size=a.shape) < 0.2] = np.nan
    a[:, 2] = 1.0
    b[3:, 3] = np.nan
    a[:2, 3] = np.nan
    found = measure_correlation(a, b)
    for k in (0, 1):
        rows = np.isfinite(a[:, k])
        assert found[k] == pytest.approx(stats.pearsonr(a[rows, k], b[rows, k])[0], abs=1e-14)
    assert np.isnan(found[2:]).all()


def test_agreement_equals_one_measure_at_a_time():
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    truth = rng.uniform(1, 5, (60, 3))
    first, second = truth + rng.normal(0, 0.2, truth.shape), 1.1 * truth + rng.normal(0, 0.2, truth.shape)
    first[:7, 1] = np.nan
    found = agreement(first, second)
    for k in range(3):
        rows = np.isfinite(first[:, k])
        d, m = (first - second)[rows, k], (first + second)[rows, k] / 2
        n, sd = rows.sum(), d.std(ddof=1)
        interval = stats.t.interval(0.95, n - 1, loc=d.mean(), scale=sd / np.sqrt(n))
        assert (found.bias_lower[k], found.bias_upper[k]) == pytest.approx(interval, rel=1e-12)
        assert found.limit_lower[k] == pytest.approx(d.mean() - stats.norm.ppf(0.975) * sd, rel=1e-12)
        error = stats.t.ppf(0.975, n - 1) * sd * np.sqrt(1 / n + stats.norm.ppf(0.975) ** 2 / (2 * (n - 1)))
        assert found.limit_error[k] == pytest.approx(error, rel=1e-12)
        model = sm.OLS(d, sm.add_constant(m)).fit()
        assert found.slope[k] == pytest.approx(model.params[1], rel=1e-9)
        assert found.slope_neg_log10_p[k] == pytest.approx(-np.log10(model.pvalues[1]), rel=1e-8)
        assert found.slope[k] < -0.05


def test_measures_without_agreement_have_a_status():
    first = np.column_stack([np.arange(5.0), np.arange(5.0), np.full(5, 2.0), [1, 2, np.nan, np.nan, np.nan]])
    second = first.copy()
    second[:, 1] = np.nan
    found = agreement(first, second)
    assert found.status.tolist() == ["no difference", "fewer than 3 people", "no variance", "fewer than 3 people"]
    assert found.bias[0] == 0
    assert np.isnan(found.bias[1:]).all()
    with pytest.raises(ValueError, match="Expected 3 people or more"):
        agreement(first, second, min_people=2)
