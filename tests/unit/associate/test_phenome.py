"""The phenome scan against one loop a pair, statsmodels, and its own symmetries."""

import numpy as np
import pytest

from brainlocus.cohort.associate import (
    phenome_results,
    prepare_phenome,
    scan_phenome,
    scan_phenome_peak_bytes,
)
from tests.real_data import real_data
from tests.reference.naive_phenome import naive_pair


def simulated(seed=0, n=120, q=3, p=9, missing=0.25):
    rng = np.random.default_rng(seed)
    covariates = np.column_stack([rng.normal(50, 10, n), rng.integers(0, 2, n), rng.standard_normal(n)])
    covariates = np.column_stack([covariates, covariates[:, 0] ** 2])
    traits = rng.standard_normal((n, q)) + 0.05 * covariates[:, :1]
    phenotypes = rng.standard_normal((n, p)) + 0.04 * covariates[:, :1] + 0.5 * traits[:, :1]
    phenotypes[:, 3] = phenotypes[:, 3] > 2
    traits[rng.uniform(size=traits.shape) < missing / 3] = np.nan
    phenotypes[rng.uniform(size=phenotypes.shape) < missing] = np.nan
    return traits, phenotypes, covariates


def scan(traits, phenotypes, covariates=None, **options):
    return scan_phenome(prepare_phenome(traits, covariates=covariates, **options), phenotypes)


@pytest.mark.parametrize("mode", ["per_variable", "exact"])
def test_equals_a_loop_over_pairs(mode):
    traits, phenotypes, covariates = simulated()
    found = scan(traits, phenotypes, covariates, mode=mode)
    assert (found.status == "ok").all()
    for i in range(phenotypes.shape[1]):
        for j in range(traits.shape[1]):
            n, r, t, beta, se, df, p = naive_pair(traits[:, j], phenotypes[:, i], covariates, exact=mode == "exact")
            assert (found.n[i, j], found.degrees_of_freedom[i, j]) == (n, df)
            assert found.r[i, j] == pytest.approx(r, abs=1e-12)
            assert found.t[i, j] == pytest.approx(t, abs=1e-11)
            assert found.beta[i, j] == pytest.approx(beta, abs=1e-12)
            assert found.standard_error[i, j] == pytest.approx(se, rel=1e-10)
            assert found.neg_log10_p[i, j] == pytest.approx(-np.log10(p), rel=1e-9)


def test_columns_whose_people_make_covariates_collinear():
    """Many patterns are solved together; where only one sex has a value, sex must be dropped for that column."""
    traits, phenotypes, covariates = simulated(n=200)
    phenotypes[covariates[:, 1] == 0, 6] = np.nan
    phenotypes[:, 7] = 1e9 + np.random.default_rng(9).standard_normal(200)
    phenotypes[:, 8] = 1e9 + 0.1 * covariates[:, 0]
    found = scan(traits, phenotypes, covariates)
    for i in (5, 6, 7):
        # The naive regression loses the digits of a large offset; take it away there first.
        centred = phenotypes[:, i] - np.nanmean(phenotypes[:, i])
        n, r, t, *_ = naive_pair(traits[:, 0], centred, covariates, exact=False)
        assert found.n[i, 0] == n
        assert found.r[i, 0] == pytest.approx(r, abs=1e-7 if i == 7 else 1e-12)
        assert found.t[i, 0] == pytest.approx(t, abs=1e-6 if i == 7 else 1e-11)
    assert (found.status[8] == "phenotype has no variance").all()


def test_exact_mode_equals_statsmodels_on_abide():
    """272 tests: 16 image quality measures x 17 phenotypes of ABIDE I with their true missingness."""
    import pandas as pd
    import statsmodels.api as sm

    table = pd.read_csv(real_data("cohort/phewas/abide_phenotypic_V1_0b.csv"), na_values=["-9999"], low_memory=False)
    traits = table[[c for c in table.columns if c.startswith(("anat_", "func_"))]].select_dtypes("number")
    numeric = table.select_dtypes("number").drop(columns=traits.columns)
    usable = [c for c in numeric.columns if numeric[c].notna().sum() > 300 and numeric[c].nunique() > 2]
    usable = [c for c in usable if c not in ("AGE_AT_SCAN", "SEX", "SUB_ID", "X", "subject", "Unnamed: 0")]
    phenotypes = numeric[usable[:17]].to_numpy(dtype=float)
    assert phenotypes.shape[1] * traits.shape[1] >= 200
    covariates = table[["AGE_AT_SCAN", "SEX"]].to_numpy(dtype=float)
    y = traits.to_numpy(dtype=float)
    found = scan(y, phenotypes, covariates, mode="exact")
    assert (found.status == "ok").mean() > 0.9
    for i, j in np.argwhere(found.status == "ok"):
        rows = ~np.isnan(y[:, j]) & ~np.isnan(phenotypes[:, i]) & ~np.isnan(covariates).any(axis=1)
        design = sm.add_constant(np.column_stack([phenotypes[rows, i], covariates[rows]]))
        model = sm.OLS(y[rows, j], design).fit()
        assert found.n[i, j] == model.nobs
        assert found.beta[i, j] == pytest.approx(model.params[1], rel=1e-8, abs=1e-12)
        assert found.standard_error[i, j] == pytest.approx(model.bse[1], rel=1e-8)
        assert found.t[i, j] == pytest.approx(model.tvalues[1], rel=1e-8, abs=1e-10)
        assert found.neg_log10_p[i, j] == pytest.approx(-np.log10(model.pvalues[1]), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("collinear", [False, True])
def test_robust_errors_equal_statsmodels(collinear):
    """HC3 on each pair's own people; where a phenotype's people are of one sex, by a basis of their own."""
    import statsmodels.api as sm

    traits, phenotypes, covariates = simulated(n=150)
    traits[:, 1] *= 1 + np.abs(covariates[:, 0] - 50) / 5
    if collinear:
        phenotypes[covariates[:, 1] == 0] = np.nan
    found = scan(traits, phenotypes, covariates, mode="exact", robust=True)
    plain = scan(traits, phenotypes, covariates, mode="exact")
    assert (found.status == "ok").sum() > 20
    for i, j in np.argwhere(found.status == "ok"):
        rows = ~np.isnan(traits[:, j]) & ~np.isnan(phenotypes[:, i])
        kept = [0, 2, 3] if collinear else slice(None)
        centred = covariates[rows][:, kept] - covariates[rows][:, kept].mean(axis=0)
        design = sm.add_constant(np.column_stack([phenotypes[rows, i], centred]))
        model = sm.OLS(traits[rows, j], design).fit()
        expected = model.get_robustcov_results("HC3", use_t=True)
        assert found.standard_error[i, j] == pytest.approx(expected.bse[1], rel=1e-8)
        assert found.t[i, j] == pytest.approx(expected.tvalues[1], rel=1e-8, abs=1e-10)
        assert found.neg_log10_p[i, j] == pytest.approx(-np.log10(expected.pvalues[1]), rel=1e-7, abs=1e-9)
    np.testing.assert_array_equal(found.beta, plain.beta)
    np.testing.assert_array_equal(found.cohens_d, plain.cohens_d)
    np.testing.assert_array_equal(found.r, plain.r)


def test_robust_errors_keep_the_level_where_variances_differ():
    """Errors ten times as large in a tenth of the people: the usual t rejects far too often, HC3 does not."""
    rng = np.random.default_rng(3)
    rare = rng.uniform(size=(300, 1)) < 0.1
    phenotypes = rare * np.ones((1, 5)) + 0.01 * rng.standard_normal((300, 5))
    traits = rng.standard_normal((300, 400)) * np.where(rare, 10.0, 1.0)
    rejected = [
        (scan(traits, phenotypes, mode="exact", robust=robust).neg_log10_p > -np.log10(0.05)).mean()
        for robust in (False, True)
    ]
    assert rejected[0] > 0.3
    assert 0.02 < rejected[1] < 0.09


def test_many_sets_of_people_and_trait_chunks():
    """Every trait with people of its own, and more traits than are crossed with the covariates at once."""
    traits, phenotypes, covariates = simulated(n=140, q=70, p=4, missing=0.3)
    found = scan(traits, phenotypes, covariates, mode="exact")
    for i, j in ((0, 0), (1, 63), (2, 64), (2, 69)):
        n, r, t, *_ = naive_pair(traits[:, j], phenotypes[:, i], covariates, exact=True)
        assert found.n[i, j] == n
        assert found.r[i, j] == pytest.approx(r, abs=1e-12)
        assert found.t[i, j] == pytest.approx(t, abs=1e-11)


def test_more_people_than_a_tile():
    from brainlocus.cohort.associate.phenome_moments import TILE

    traits, phenotypes, covariates = simulated(n=TILE + 57)
    covariates[:TILE, 1][::400] = np.nan
    for mode in ("per_variable", "exact"):
        found = scan(traits, phenotypes, covariates, mode=mode)
        kept = ~np.isnan(covariates).any(axis=1)
        n, r, *_ = naive_pair(traits[kept, 1], phenotypes[kept, 2], covariates[kept], exact=mode == "exact")
        assert found.n[2, 1] == n
        assert found.r[2, 1] == pytest.approx(r, abs=1e-12)


def test_oasis_dementia_and_brain_volume_equal_statsmodels():
    """Whole-brain volume against MMSE, CDR, education and status, which half of the people lack; plain and HC3."""
    import pandas as pd
    import statsmodels.api as sm

    table = pd.read_csv(real_data("structural/tabular/oasis1_cross_sectional.csv"))
    traits = table[["nWBV", "eTIV"]].to_numpy(dtype=float)
    names = ["MMSE", "CDR", "Education Level", "SES"]
    phenotypes = table[names].to_numpy(dtype=float)
    covariates = np.column_stack([table["Age"], table["Age"] ** 2, table["Sex"] == "M"]).astype(float)
    for robust in (False, True):
        found = scan(traits, phenotypes, covariates, mode="exact", robust=robust)
        assert (found.status == "ok").all()
        for i, j in np.argwhere(found.status == "ok"):
            rows = ~np.isnan(phenotypes[:, i])
            centred = covariates[rows] - covariates[rows].mean(axis=0)
            model = sm.OLS(traits[rows, j], sm.add_constant(np.column_stack([phenotypes[rows, i], centred]))).fit()
            expected = model.get_robustcov_results("HC3", use_t=True) if robust else model
            assert found.n[i, j] == rows.sum()
            assert found.beta[i, j] == pytest.approx(model.params[1], rel=1e-8)
            assert found.standard_error[i, j] == pytest.approx(expected.bse[1], rel=1e-8)
            assert found.neg_log10_p[i, j] == pytest.approx(-np.log10(expected.pvalues[1]), rel=1e-7)
    # Less brain with a worse rating of dementia.
    assert found.beta[1, 0] < 0
    assert found.neg_log10_p[1, 0] > 5


def test_without_missing_values_both_modes_agree():
    traits, phenotypes, covariates = simulated(missing=0.0)
    one, two = (scan(traits, phenotypes, covariates, mode=mode) for mode in ("per_variable", "exact"))
    np.testing.assert_allclose(one.t, two.t, rtol=1e-9)


def test_blocks_order_and_scale():
    traits, phenotypes, covariates = simulated()
    design = prepare_phenome(traits, covariates=covariates)
    whole = scan_phenome(design, phenotypes)
    blocks = [scan_phenome(design, phenotypes[:, k : k + 4]) for k in range(0, 9, 4)]
    np.testing.assert_allclose(np.vstack([b.t for b in blocks]), whole.t, rtol=1e-9)
    order = np.random.default_rng(0).permutation(traits.shape[0])
    shuffled = scan(traits[order], phenotypes[order], covariates[order])
    np.testing.assert_allclose(shuffled.t, whole.t, rtol=1e-8)
    scaled = scan(1000 * traits, -phenotypes, covariates)
    np.testing.assert_allclose(scaled.beta, -1000 * whole.beta, rtol=1e-9)
    np.testing.assert_allclose(scaled.t, -whole.t, rtol=1e-9)


def test_binary_phenotypes_have_cases_and_effect_sizes():
    traits, phenotypes, covariates = simulated()
    found = scan(traits, phenotypes, covariates)
    for j in range(traits.shape[1]):
        rows = ~np.isnan(traits[:, j]) & ~np.isnan(phenotypes[:, 3])
        cases = int(phenotypes[rows, 3].sum())
        assert found.n_cases[3, j] == cases
        expected = found.t[3, j] * np.sqrt(1 / cases + 1 / (rows.sum() - cases))
        assert found.cohens_d[3, j] == pytest.approx(expected, rel=1e-12)
        correction = 1 - 3 / (4 * found.degrees_of_freedom[3, j] - 1)
        assert found.hedges_g[3, j] == pytest.approx(expected * correction, rel=1e-12)
    assert np.isnan(np.delete(found.cohens_d, 3, axis=0)).all()
    assert np.isnan(np.delete(found.hedges_g, 3, axis=0)).all()
    assert (np.delete(found.n_cases, 3, axis=0) == 0).all()


def test_cohens_d_is_the_pooled_difference_without_covariates():
    rng = np.random.default_rng(0)
    y, x = rng.standard_normal((200, 1)), (rng.uniform(size=(200, 1)) < 0.3).astype(float)
    a, b = y[x == 1], y[x == 0]
    pooled = ((a.size - 1) * a.var(ddof=1) + (b.size - 1) * b.var(ddof=1)) / (a.size + b.size - 2)
    assert scan(y, x).cohens_d[0, 0] == pytest.approx((a.mean() - b.mean()) / np.sqrt(pooled), rel=1e-10)


def test_what_cannot_be_tested_has_a_status():
    traits, phenotypes, covariates = simulated(missing=0.0)
    phenotypes[:, 0] = 3.0
    phenotypes[39:, 1] = np.nan
    phenotypes[:, 2] = covariates[:, 0] * 2 + 1
    phenotypes[:, 3] = np.arange(120) < 9
    phenotypes[:, 4] = np.nan
    traits[:, 1] = -7.0
    for mode in ("per_variable", "exact"):
        found = scan(traits, phenotypes, covariates, mode=mode)
        assert found.status[:, 0].tolist()[:5] == [
            "phenotype has no variance",
            "fewer than 40 people",
            "phenotype has no variance",
            "fewer than 10 in a class",
            "fewer than 40 people",
        ]
        assert (found.status[5:, 1] == "trait has no variance").all()
        assert (found.status[5:, 0] == "ok").all()
        for values in (found.beta, found.t, found.r, found.neg_log10_p, found.standard_error):
            assert np.isnan(values[:5]).all()
            assert np.isnan(values[:, 1]).all()
            assert np.isfinite(values[5:, 0]).all()


def test_perfect_association_stays_finite():
    x = np.random.default_rng(0).standard_normal((100, 1))
    found = scan(2 * x, x)
    assert np.isfinite(found.neg_log10_p).all()
    assert found.neg_log10_p[0, 0] > 300
    assert found.beta[0, 0] == pytest.approx(2.0, rel=1e-12)


def test_naive_degrees_of_freedom():
    traits, phenotypes, covariates = simulated()
    found = scan(traits, phenotypes, covariates, naive_df=True)
    np.testing.assert_array_equal(found.degrees_of_freedom, found.n - 2)


def test_people_without_covariates_take_no_part():
    traits, phenotypes, covariates = simulated()
    covariates[:10, 1] = np.nan
    here = scan(traits, phenotypes, covariates)
    there = scan(traits[10:], phenotypes[10:], covariates[10:])
    np.testing.assert_allclose(here.t, there.t, rtol=1e-9)


def test_table_is_long_and_corrected_over_all_tests():
    traits, phenotypes, covariates = simulated()
    phenotypes[:, 8] = 1.0
    design = prepare_phenome(traits, covariates=covariates)
    scans = [scan_phenome(design, phenotypes[:, :5]), scan_phenome(design, phenotypes[:, 5:])]
    names = [f"p{k}" for k in range(9)]
    table = phenome_results(scans, traits=["a", "b", "c"], phenotypes=names, categories=["x"] * 9)
    assert table["trait"][:4].tolist() == ["a", "b", "c", "a"]
    assert table["phenotype"][[0, 3, -1]].tolist() == ["p0", "p1", "p8"]
    ok = table["status"] == "ok"
    assert ok.sum() == 24
    expected = np.minimum(24 * 10.0 ** -table["neg_log10_p"][ok], 1)
    np.testing.assert_allclose(table["p_bonferroni"][ok], expected, rtol=1e-10)
    assert np.isnan(table["p_bonferroni"][~ok]).all()
    assert (table["q_bh"][ok] <= table["p_bonferroni"][ok] + 1e-12).all()


def test_null_p_values_are_uniform():
    """3,000 independent pairs without effect, with covariates and missing values: KS p above 0.001."""
    from scipy import stats

    rng = np.random.default_rng(1)
    covariates = rng.standard_normal((150, 3))
    traits = rng.standard_normal((150, 3)) + covariates[:, :1]
    phenotypes = rng.standard_normal((150, 1000)) - covariates[:, :1]
    phenotypes[rng.uniform(size=phenotypes.shape) < 0.2] = np.nan
    p = 10.0 ** -scan(traits, phenotypes, covariates, mode="exact").neg_log10_p.ravel()
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_bad_input():
    traits, phenotypes, covariates = simulated()
    with pytest.raises(ValueError, match="Phenotypes have 119 people, the design 120"):
        scan(traits, phenotypes[1:], covariates)
    phenotypes[0, 2] = np.inf
    with pytest.raises(ValueError, match="Phenotype 3 has an infinite value"):
        scan(traits, phenotypes, covariates)
    with pytest.raises(ValueError, match="use the exact mode"):
        prepare_phenome(traits, covariates=covariates, robust=True)
    with pytest.raises(ValueError, match="Nobody has complete covariates"):
        prepare_phenome(traits, covariates=np.full((120, 1), np.nan))


@pytest.mark.parametrize(("mode", "robust"), [("per_variable", False), ("exact", False), ("exact", True)])
def test_peak_memory_stays_within_the_declared_bound(mode, robust):
    import tracemalloc

    traits, phenotypes, covariates = simulated(n=5000, q=20, p=100)
    scan(traits[:200], phenotypes[:200], covariates[:200])
    design = prepare_phenome(traits, covariates=covariates, mode=mode, robust=robust)
    scan_phenome(design, phenotypes[:, :2])
    tracemalloc.start()
    scan_phenome(design, phenotypes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= scan_phenome_peak_bytes(5000, 20, 100, design.rank, mode=mode)
