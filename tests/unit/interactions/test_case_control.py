"""Fast scans of cases and controls beside the literal formulas and logistic regression."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from brainlocus.core import SampleIndex, SchemaError
from brainlocus.genetics.interactions import (
    AlignedTraits,
    PairRules,
    check_cases,
    confirm_pairs,
    prepare_cases,
    prepare_epistasis,
    scan_cases,
)

N, M = 800, 9
RNG = np.random.default_rng(12)
CALLS = RNG.binomial(2, RNG.uniform(0.4, 0.6, M)[:, None], (M, N)).astype(np.float32)
CALLS[4, :11] = np.nan
COVARIATE = RNG.normal(size=(N, 1))
ETA = 0.8 * (np.nan_to_num(CALLS[2]) - 1) * (CALLS[5] - 1)
STATUS = (RNG.random(N) < 1 / (1 + np.exp(-ETA))).astype(float)
OTHER = (RNG.random(N) < 0.3).astype(float)
PLACES = np.column_stack([np.zeros(M, dtype=np.int64), np.arange(M)])


def group(columns=0):
    traits = np.column_stack([STATUS, OTHER])
    data = AlignedTraits(
        SampleIndex.of(range(N)), ("a", "b"), traits, COVARIATE[:, :columns], tuple(f"c{k}" for k in range(columns))
    )
    return prepare_epistasis(data).groups[0]


def scan(method, report_p=1.0, size=M):
    found = np.full((2, M, M), np.nan)
    own = group()
    for a in range(0, M, size):
        for b in range(a, M, size):
            index = [np.arange(k, min(k + size, M)) for k in (a, b)]
            rows, columns = (prepare_cases(own, CALLS[k], k, method) for k in index)
            inside = np.ones(index[1].size, dtype=bool)
            r = scan_cases(own, rows, columns, PLACES, PairRules(report_p, 0), method, in_rows=inside)
            found[r.trait, r.row, r.column] = r.neg_log10_p
    return found


def genotypic(i, j, status):
    """Likelihood ratio of all nine genotypes over the genotypes of each variant, by statsmodels."""
    both = ~np.isnan(CALLS[i]) & ~np.isnan(CALLS[j])
    sides = [np.column_stack([CALLS[k][both] == 1, CALLS[k][both] == 2]).astype(float) for k in (i, j)]
    mains = sm.add_constant(np.hstack(sides))
    products = np.column_stack([sides[0][:, a] * sides[1][:, b] for a in range(2) for b in range(2)])
    y = status[both]
    fits = [sm.Logit(y, x).fit(disp=0, tol=1e-12).llf for x in (mains, np.hstack([mains, products]))]
    return 2 * (fits[1] - fits[0])


def test_difference_of_correlations():
    found = scan("correlation")
    for k, status in enumerate((STATUS, OTHER)):
        for i in range(M):
            for j in range(i + 1, M):
                if 4 in (i, j):
                    continue
                r = [np.corrcoef(CALLS[i][status == s], CALLS[j][status == s])[0, 1] for s in (1, 0)]
                n = [(status == s).sum() for s in (1, 0)]
                z = (np.arctanh(r[0]) - np.arctanh(r[1])) / np.sqrt(1 / (n[0] - 3) + 1 / (n[1] - 3))
                # float32 correlations: 1e-7 of 1, times sqrt(n).
                expected = -(stats.norm.logsf(abs(z)) + np.log(2)) / np.log(10)
                assert found[k, i, j] == pytest.approx(expected, abs=2e-5)
    assert np.isnan(found[:, *np.tril_indices(M)]).all()
    np.testing.assert_allclose(scan("correlation", size=4), found, rtol=3e-6, atol=1e-5)  # order of float32 sums


def test_boost_is_the_genotypic_likelihood_ratio():
    """At p = 1 nothing is screened away, and every pair is fitted exactly."""
    found = scan("boost")
    for k, status in enumerate((STATUS, OTHER)):
        for i, j in ((0, 1), (2, 5), (4, 6), (7, 8)):
            lr = genotypic(i, j, status)
            assert found[k, i, j] == pytest.approx(-stats.chi2.logsf(lr, 4) / np.log(10), rel=1e-6)
    np.testing.assert_allclose(scan("boost", size=4), found, rtol=1e-12)


def test_the_screen_loses_no_pair():
    everything, kept = scan("boost"), scan("boost", report_p=0.05)
    strong = everything >= -np.log10(0.05)
    assert strong.sum() > 1
    assert np.array_equal(strong, np.isfinite(kept))
    np.testing.assert_allclose(kept[strong], everything[strong], rtol=1e-12)


def test_pairs_are_confirmed_by_logistic_regression_with_covariates():
    own = group(1)
    fit = confirm_pairs(own, 0, CALLS[2:3], CALLS[4:5], "correlation")[0]
    both = ~np.isnan(CALLS[4])
    a, b = CALLS[2][both].astype(float), CALLS[4][both].astype(float)
    mains = sm.add_constant(np.column_stack([COVARIATE[both], a, b]))
    full = sm.Logit(STATUS[both], np.column_stack([mains, a * b])).fit(disp=0, tol=1e-12)
    null = sm.Logit(STATUS[both], mains).fit(disp=0, tol=1e-12)
    assert (fit.n, fit.status) == (N - 11, "ok")
    assert fit.beta == pytest.approx(full.params[-1], rel=1e-6)
    assert fit.standard_error == pytest.approx(full.bse[-1], rel=1e-6)
    assert fit.neg_log10_p == pytest.approx(-stats.chi2.logsf(2 * (full.llf - null.llf), 1) / np.log(10), rel=1e-6)
    four = confirm_pairs(group(), 0, CALLS[2:3], CALLS[5:6], "boost")[0]
    assert four.degrees_of_freedom == 4
    assert four.neg_log10_p == pytest.approx(-stats.chi2.logsf(genotypic(2, 5, STATUS), 4) / np.log(10), rel=1e-6)
    same = confirm_pairs(group(), 0, CALLS[2:3], CALLS[2:3], "boost")[0]
    assert same.status == "collinear"
    assert np.isnan(same.neg_log10_p)


def test_traits_that_are_no_status():
    data = AlignedTraits(SampleIndex.of(range(N)), ("y",), ETA[:, None], COVARIATE, ("c",))
    with pytest.raises(SchemaError, match=r"expected 0 .control. and 1 .case."):
        check_cases(prepare_epistasis(data).groups[0])
    few = AlignedTraits(SampleIndex.of(range(N)), ("y",), (np.arange(N) < 5.0)[:, None] * 1.0, COVARIATE, ("c",))
    with pytest.raises(SchemaError, match="has 5 cases and 795 controls"):
        check_cases(prepare_epistasis(few).groups[0])


def test_a_genotype_that_nobody_has_takes_degrees_of_freedom():
    calls = CALLS.copy()
    calls[0] = np.minimum(calls[0], 1)
    own = group()
    block = prepare_cases(own, calls, np.arange(M), "boost")
    inside = np.ones(M, dtype=bool)
    r = scan_cases(own, block, block, PLACES, PairRules(1.0, 0), "boost", in_rows=inside)
    found = r.neg_log10_p[(r.trait == 0) & (r.row == 0) & (r.column == 1)][0]
    fit = confirm_pairs(own, 0, calls[:1], calls[1:2], "boost")[0]
    assert fit.degrees_of_freedom == 2
    assert found == pytest.approx(fit.neg_log10_p, rel=1e-6)
