"""What preparing, harmonising and relating measures must not depend on, on data drawn by Hypothesis."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from brainlocus.cohort.associate import prepare_phenome, scan_phenome
from brainlocus.cohort.harmonise import CombatOptions, apply_combat, fit_combat
from brainlocus.cohort.prepare import deconfound, normalise, remove_outliers
from brainlocus.numerics import benjamini_hochberg_q, bonferroni_p, neg_log10_p_from_t, rank_normal

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=20, deadline=None)
ROUNDING = 1e-9
"""Sums of a hundred float64 numbers in another order or unit."""


def sites_and_features(seed, n=90, p=8):
    rng = np.random.default_rng(seed)
    site = np.repeat(["a", "b", "c"], n // 3)
    covariates = rng.normal(size=(n, 2))
    y = rng.normal(size=(n, p)) * (1 + (site == "b"))[:, None] + 2.0 * (site == "c")[:, None]
    return rng, y + covariates @ rng.normal(size=(2, p)), site, covariates


@few
@given(seeds, st.booleans(), st.booleans())
def test_combat_does_not_depend_on_the_unit_of_a_feature(seed, eb, mean_only):
    rng, y, site, covariates = sites_and_features(seed)
    options = CombatOptions(eb=eb, mean_only=mean_only)
    factor, shift = rng.uniform(0.01, 100, y.shape[1]), rng.uniform(-50, 50, y.shape[1])
    here = fit_combat(y, site, covariates=covariates, options=options)
    there = fit_combat(factor * y + shift, site, covariates=covariates, options=options)
    one = apply_combat(here, y, site, covariates=covariates).values
    other = apply_combat(there, factor * y + shift, site, covariates=covariates).values
    np.testing.assert_allclose((other - shift) / factor, one, rtol=ROUNDING, atol=1e-8)  # shift / factor is up to 5,000


@few
@given(seeds)
def test_combat_of_a_covariate_effect_added_is_that_effect_added(seed):
    _, y, site, covariates = sites_and_features(seed)
    effect = covariates @ np.array([[2.0], [-3.0]])
    one = apply_combat(fit_combat(y, site, covariates=covariates), y, site, covariates=covariates).values
    model = fit_combat(y + effect, site, covariates=covariates)
    other = apply_combat(model, y + effect, site, covariates=covariates).values
    np.testing.assert_allclose(other - effect, one, rtol=ROUNDING, atol=ROUNDING)


@few
@given(seeds)
def test_combat_without_shrinkage_leaves_equal_means_and_spreads(seed):
    """Given the covariates: what is left of every site has the same mean, and the pooled variance."""
    _, y, site, covariates = sites_and_features(seed)
    model = fit_combat(y, site, covariates=covariates, options=CombatOptions(eb=False))
    clean = apply_combat(model, y, site, covariates=covariates).values - covariates @ model.beta
    for name in "abc":
        np.testing.assert_allclose(clean[site == name].mean(axis=0), model.alpha, rtol=ROUNDING, atol=ROUNDING)
        np.testing.assert_allclose(clean[site == name].std(axis=0, ddof=1), model.sigma, rtol=ROUNDING)


@few
@given(seeds)
def test_ranks_see_only_the_order(seed):
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(size=60), 1)
    values[rng.random(60) < 0.2] = np.nan
    np.testing.assert_array_equal(rank_normal(np.exp(values)), rank_normal(values))
    np.testing.assert_allclose(rank_normal(-values), -rank_normal(values), atol=1e-12)
    np.testing.assert_array_equal(np.isnan(normalise(values)), np.isnan(values))


@few
@given(seeds, st.floats(0.01, 100), st.floats(-1000, 1000))
def test_outliers_do_not_depend_on_the_unit(seed, factor, shift):
    values = np.random.default_rng(seed).standard_t(2, size=(80, 3))
    distance = np.abs(values - np.median(values, axis=0)) / np.median(
        np.abs(values - np.median(values, axis=0)), axis=0
    )
    assume(np.abs(distance - 6.0).min() > 1e-6)
    here, there = remove_outliers(values), remove_outliers(factor * values + shift)
    np.testing.assert_array_equal(np.isnan(here.values), np.isnan(there.values))


@few
@given(seeds, st.sampled_from([0.0, 0.15]))
def test_residuals_are_orthogonal_and_their_own_residuals(seed, lost):
    rng = np.random.default_rng(seed)
    confounds, y = rng.normal(size=(70, 3)), rng.normal(size=(70, 4))
    y[rng.random(y.shape) < lost] = np.nan
    once = deconfound(y, confounds).values
    np.testing.assert_allclose(deconfound(once, confounds).values, once, atol=1e-12)
    for k in range(4):
        rows = ~np.isnan(once[:, k])
        np.testing.assert_allclose(confounds[rows].T @ once[rows, k], 0.0, atol=1e-11)
        assert abs(once[rows, k].sum()) < 1e-11


@few
@given(seeds, st.sampled_from(["per_variable", "exact"]), st.floats(0.001, 1000))
def test_a_phenotype_in_another_unit_changes_beta_only(seed, mode, factor):
    rng = np.random.default_rng(seed)
    traits, phenotypes, covariates = rng.normal(size=(80, 3)), rng.normal(size=(80, 4)), rng.normal(size=(80, 2))
    traits[rng.random(traits.shape) < 0.1] = np.nan
    phenotypes[rng.random(phenotypes.shape) < 0.1] = np.nan
    design = prepare_phenome(traits, covariates=covariates, mode=mode)
    here, there = scan_phenome(design, phenotypes), scan_phenome(design, -factor * phenotypes)
    np.testing.assert_allclose(there.beta * -factor, here.beta, rtol=1e-7, atol=ROUNDING)
    np.testing.assert_allclose(there.r, -here.r, rtol=1e-7, atol=ROUNDING)
    np.testing.assert_allclose(there.neg_log10_p, here.neg_log10_p, rtol=1e-7, atol=ROUNDING)
    assert there.n.tolist() == here.n.tolist()


@few
@given(seeds)
def test_corrections_follow_their_tests_in_any_order(seed):
    rng = np.random.default_rng(seed)
    p = rng.exponential(1.0, 50)
    p[rng.random(50) < 0.1] = np.nan
    order = rng.permutation(50)
    q, adjusted = benjamini_hochberg_q(p), bonferroni_p(p)
    np.testing.assert_array_equal(benjamini_hochberg_q(p[order]), q[order])
    tested = ~np.isnan(p)
    assert (q[tested] >= 10.0 ** -p[tested] * (1 - 1e-12)).all()
    assert (q[tested] <= adjusted[tested] * (1 + 1e-12)).all()
    strongest = np.argsort(-p[tested])
    assert (np.diff(q[tested][strongest]) >= 0).all()


@few
@given(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(1, 1e7))
def test_a_larger_t_never_has_a_larger_p(one, other, df):
    low, high = sorted((one, other))
    p = neg_log10_p_from_t(np.array([low, high]), df)
    assert p[1] >= p[0] * (1 - 1e-10)  # the stated relative error
