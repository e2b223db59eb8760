"""The case-control scan against one literal regression per variant and trait."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from tests.reference.logistic import naive_approximate_firth, naive_score, naive_test

from brainlocus.core import AlignmentError, SampleIndex, quantitative_table
from brainlocus.genetics.gwas import (
    LogisticMethod,
    LogisticSettings,
    ScanDesign,
    ScanSettings,
    prepare_logistic,
    prepare_scan,
)
from brainlocus.genetics.gwas.calls import calls_of_dosage
from brainlocus.genetics.gwas.tallies import empty_tallies

ALL = ScanSettings(hits=1.0, min_mac=1.0)
SEARCH = 2e-5
"""scipy's search without derivatives stops within 1e-5 of the maximum; its likelihoods agree to 1e-9."""


def make_data(rng, *, n=400, m=8, q=3, c=2, missing_calls=0.0, dosages=False):
    dosage = rng.binomial(2, rng.uniform(0.1, 0.9, m)[:, None], (m, n)).astype(np.float32)
    if dosages:
        dosage = np.clip(dosage + rng.normal(0, 0.1, dosage.shape), 0, 2).astype(np.float32)
    covariates = rng.normal(size=(n, c)) + np.arange(c)
    risk = rng.uniform(-2, 0, q) + 0.4 * covariates[:, :1]
    risk[:, 0] += 0.8 * dosage[min(3, m - 1)]
    cases = (rng.random((n, q)) < 1 / (1 + np.exp(-risk))).astype(float)
    if missing_calls:
        dosage[rng.random(dosage.shape) < missing_calls] = np.nan
    return dosage, cases, covariates


def results_of(design, dosage, settings=ALL):
    """Return the kept tests by (variant, trait name), and the block's result."""
    tallies = empty_tallies(len(design.names))
    result = LogisticMethod(design).scan_block(calls_of_dosage(dosage), settings, tallies)
    table = {
        (int(j), design.names[k]): {name: column[i] for name, column in result.hit_values.items()}
        for i, (j, k) in enumerate(zip(result.hit_variant, result.hit_trait, strict=True))
    }
    return table, result, tallies


def scan(dosage, cases, covariates, *, settings=ALL, offset=None, names=None, **options):
    design = prepare_logistic(
        cases, covariates, names=names, offset=offset, settings=LogisticSettings(**{"screen": 1.0} | options)
    )
    return results_of(design, dosage, settings)[0]


def mean_filled(g):
    wide = g.astype(float)
    return np.where(np.isnan(wide), np.nanmean(wide), wide)


@pytest.mark.parametrize("dosages", [False, True])
@pytest.mark.parametrize("missing", ["mean", "exact"])
def test_full_fits_are_those_of_statsmodels(missing, dosages):
    rng = np.random.default_rng(1)
    dosage, cases, covariates = make_data(rng, missing_calls=0.04, dosages=dosages)
    settings = ScanSettings(hits=1.0, min_mac=1.0, missing=missing)
    for test in ("lrt", "wald"):
        found = scan(dosage, cases, covariates, settings=settings, test=test)
        assert len(found) == dosage.shape[0] * cases.shape[1]
        for (j, name), row in found.items():
            y = cases[:, int(name.removeprefix("trait_")) - 1]
            g = dosage[j].astype(float)
            keep = ~np.isnan(g) if missing == "exact" else np.ones(g.size, dtype=bool)
            g = mean_filled(dosage[j])[keep]
            null = np.column_stack([np.ones(keep.sum()), covariates[keep]])
            fit = sm.Logit(y[keep], np.column_stack([null, g])).fit(disp=0, tol=1e-14)
            chi2 = 2 * (fit.llf - sm.Logit(y[keep], null).fit(disp=0, tol=1e-14).llf)
            assert row["method"] == "logistic"
            # The last Newton step is below 1e-6: beta is settled to its square, the error is of the place before it.
            # Dosages are float32, and counted in the rarer allele they are rounded once more, to 6e-8.
            np.testing.assert_allclose(row["beta"], fit.params[-1], rtol=1e-7, atol=1e-7 if dosages else 1e-10)
            np.testing.assert_allclose(row["standard_error"], fit.bse[-1], rtol=1e-6)
            z = fit.params[-1] / fit.bse[-1] if test == "wald" else np.copysign(np.sqrt(chi2), fit.params[-1])
            np.testing.assert_allclose(row["z"], z, rtol=2e-6, atol=1e-6)
            np.testing.assert_allclose(row["neg_log10_p"], -np.log10(stats.chi2.sf(z**2, 1)), rtol=1e-5, atol=1e-6)
            assert row["n"] == np.isfinite(dosage[j]).sum()
            called = np.isfinite(dosage[j])
            assert row["n_cases"] == y[called].sum()
            assert row["n_cases"] + row["n_controls"] == row["n"]
            expected = dosage[j][called & (y == 1)].astype(float).mean() / 2
            np.testing.assert_allclose(row["effect_allele_frequency_cases"], expected, rtol=1e-6)
            expected = dosage[j][called & (y == 0)].astype(float).mean() / 2
            np.testing.assert_allclose(row["effect_allele_frequency_controls"], expected, rtol=1e-6)


def test_the_screen_is_the_score_test():
    """Float32 products against dense matrices, with an offset; above the screen's p the score test stays."""
    rng = np.random.default_rng(2)
    dosage, cases, covariates = make_data(rng, missing_calls=0.01)
    offset = 0.3 * rng.normal(size=cases.shape)
    design = prepare_logistic(cases, covariates, offset=offset, settings=LogisticSettings(screen=1e-300))
    settings = ScanSettings(hits=1e-290, min_mac=1.0, full=True, missing="mean")
    _, result, tallies = results_of(design, dosage, settings)
    for j in range(dosage.shape[0]):
        for k in range(cases.shape[1]):
            u, v, _, _ = naive_score(mean_filled(dosage[j]), cases[:, k], covariates, offset=offset[:, k])
            np.testing.assert_allclose(result.full_traits["beta"][j, k], u / v, rtol=SEARCH, atol=SEARCH)
            np.testing.assert_allclose(result.full_traits["standard_error"][j, k], v**-0.5, rtol=SEARCH)
            p = -np.log10(stats.chi2.sf(u * u / v, 1))
            np.testing.assert_allclose(result.full_traits["neg_log10_p"][j, k], p, rtol=1e-4, atol=1e-4)
    assert tallies.counts.sum() == dosage.shape[0] * cases.shape[1]
    kept = scan(dosage, cases, covariates, screen=1e-300)
    assert {row["method"] for row in kept.values()} == {"score"}


def test_offsets_enter_null_and_full_fits():
    rng = np.random.default_rng(3)
    dosage, cases, covariates = make_data(rng, m=3, q=1)
    offset = rng.normal(size=cases.shape)
    for penalised, correction in ((False, "none"), (True, "firth")):
        found = scan(dosage, cases, covariates, offset=offset, correction=correction)
        for (j, _), row in found.items():
            beta, error, chi2 = naive_test(dosage[j], cases[:, 0], covariates, offset=offset[:, 0], penalised=penalised)
            np.testing.assert_allclose(row["beta"], beta, rtol=SEARCH, atol=SEARCH)
            np.testing.assert_allclose(row["standard_error"], error, rtol=SEARCH)
            np.testing.assert_allclose(row["z"] ** 2, chi2, rtol=1e-6, atol=1e-7)


def test_a_scan_with_polygenic_predictions():
    """Aligned by id; people without a prediction are left out of its trait only."""
    rng = np.random.default_rng(16)
    dosage, cases, covariates = make_data(rng, m=4, q=2)
    people = SampleIndex.of(range(400))
    offset = 0.5 * rng.normal(size=cases.shape)
    offset[:30, 1] = np.nan
    order = rng.permutation(400)
    plan = prepare_scan(
        quantitative_table(people, ["a", "b"], cases), people,
        covariates=quantitative_table(people, ["c1", "c2"], covariates),
        offset=quantitative_table(people.take(order), ["a", "b"], offset[order]),
        method="logistic", settings=ALL, logistic=LogisticSettings(screen=1.0),
    )  # fmt: skip
    assert plan.method.n_observed.tolist() == [400, 370]
    found = results_of(plan.method.design, dosage)[0]
    known = ~np.isnan(offset[:, 1])
    alone = scan(dosage[:, known], cases[known, 1:], covariates[known], offset=offset[known, 1:], names=["b"])
    for key, row in alone.items():
        np.testing.assert_allclose(found[key]["z"], row["z"], rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="logistic regression runs on cpu"):
        prepare_scan(
            quantitative_table(people, ["a", "b"], cases), people, method="logistic",
            settings=ScanSettings(device="cuda"),
        )  # fmt: skip


@pytest.mark.parametrize("test", ["lrt", "wald"])
def test_approximate_firth(test):
    rng = np.random.default_rng(4)
    dosage, cases, covariates = make_data(rng, m=4, q=1)
    found = scan(dosage, cases, covariates, correction="firth-approx", test=test)
    for (j, _), row in found.items():
        beta, error, chi2 = naive_approximate_firth(dosage[j].astype(float), cases[:, 0], covariates)
        assert row["method"] == "firth-approx"
        np.testing.assert_allclose(row["beta"], beta, rtol=SEARCH, atol=SEARCH)
        # By ratio, beta, error and p agree; by Wald the error is that of the information.
        expected = abs(beta) / np.sqrt(chi2) if test == "lrt" else error
        np.testing.assert_allclose(row["standard_error"], expected, rtol=2 * SEARCH)
        np.testing.assert_allclose(row["z"], row["beta"] / row["standard_error"], rtol=1e-9)


def test_a_trait_does_not_depend_on_the_others():
    """Missing people by trait, and calls missing in people that only some traits have."""
    rng = np.random.default_rng(5)
    dosage, cases, covariates = make_data(rng, m=20, q=4, missing_calls=0.05)
    cases[rng.random(400) < 0.2, 1] = np.nan
    cases[rng.random(400) < 0.6, 2] = np.nan
    for options in ({}, {"correction": "firth-approx", "screen": 0.3}, {"correction": "spa", "screen": 0.1}):
        for missing in ("auto", "mean", "exact"):
            settings = ScanSettings(hits=1.0, missing=missing)
            together = scan(dosage, cases, covariates, settings=settings, names=list("abcd"), **options)
            for k, name in enumerate("abcd"):
                people = ~np.isnan(cases[:, k])
                alone = scan(
                    dosage[:, people], cases[people, k : k + 1], covariates[people], settings=settings, names=[name],
                    **options,
                )  # fmt: skip
                assert alone.keys() == {key for key in together if key[1] == name}
                for key, row in alone.items():
                    for column, value in row.items():
                        if isinstance(value, str):
                            assert value == together[key][column]
                        else:
                            # Wald and ratio statistics of a fit that ends when a step is below 1e-6.
                            np.testing.assert_allclose(together[key][column], value, rtol=2e-6, atol=1e-7)


def test_a_missing_call_of_a_patient_group_is_filled_with_its_own_mean():
    """The mean of people without the trait must not leak into it (found elsewhere as false hits)."""
    rng = np.random.default_rng(6)
    dosage, cases, covariates = make_data(rng, m=1, q=2)
    cases[200:, 1] = np.nan
    dosage[0, 200:] = 2.0
    dosage[0, :60] = np.nan
    found = scan(dosage, cases, covariates, settings=ScanSettings(hits=1.0, missing="mean"), correction="none")
    alone = scan(
        dosage[:, :200], cases[:200, 1:], covariates[:200], settings=ScanSettings(hits=1.0, missing="mean"),
        correction="none",
    )  # fmt: skip
    np.testing.assert_allclose(found[0, "trait_2"]["beta"], alone[0, "trait_1"]["beta"], rtol=1e-6)


def test_blocks_alleles_and_order_change_nothing():
    rng = np.random.default_rng(7)
    dosage, cases, covariates = make_data(rng, m=12, missing_calls=0.02)
    options = {"screen": 0.3, "settings": ScanSettings(hits=1.0, missing="exact")}
    whole = scan(dosage, cases, covariates, **options)
    parts = scan(dosage[:5], cases, covariates, **options)
    swapped = scan(2 - dosage, cases, covariates, **options)
    order = rng.permutation(400)
    shuffled = scan(dosage[:, order], cases[order], covariates[order], **options)
    for key, row in whole.items():
        for other, sign in ((parts, 1), (swapped, -1), (shuffled, 1)):
            if key in other:
                assert other[key]["method"] == row["method"]
                for column in ("beta", "z", "standard_error"):
                    factor = 1 if column == "standard_error" else sign
                    np.testing.assert_allclose(factor * other[key][column], row[column], rtol=1e-6, atol=1e-8)


def test_separation():
    """An allele absent from the cases: no estimate, or Firth's, or an approximate one."""
    rng = np.random.default_rng(8)
    _, cases, covariates = make_data(rng, q=1)
    g = np.zeros((2, 400), dtype=np.float32)
    g[0, np.flatnonzero(cases[:, 0] == 0)[:30]] = 1.0
    g[1, np.flatnonzero(cases[:, 0] == 1)[:30]] = 2.0
    plain = scan(g, cases, covariates, correction="none")
    assert {row["status"] for row in plain.values()} == {"separated"}
    assert all(np.isnan(row["beta"]) and np.isnan(row["neg_log10_p"]) for row in plain.values())
    for correction, method in (("firth-fallback", "firth"), ("firth", "firth")):
        for (j, _), row in scan(g, cases, covariates, correction=correction).items():
            beta, error, chi2 = naive_test(g[j].astype(float), cases[:, 0], covariates, penalised=True)
            assert (row["method"], row["status"]) == (method, "ok")
            np.testing.assert_allclose(row["beta"], beta, rtol=SEARCH)
            np.testing.assert_allclose(row["standard_error"], error, rtol=SEARCH)
            np.testing.assert_allclose(row["z"] ** 2, chi2, rtol=1e-6)
    for correction in ("firth-approx", "spa"):
        found = scan(g, cases, covariates, correction=correction)
        assert [row["status"] for row in found.values()] == ["ok", "ok"]
        assert found[0, "trait_1"]["beta"] < 0 < found[1, "trait_1"]["beta"]


def test_a_failed_test_is_kept_when_its_score_is_a_hit():
    rng = np.random.default_rng(9)
    _, cases, covariates = make_data(rng, q=1)
    g = np.zeros((1, 400), dtype=np.float32)
    g[0, np.flatnonzero(cases[:, 0] == 1)[:40]] = 1.0
    found = scan(g, cases, covariates, correction="none", settings=ScanSettings(hits=1e-5))
    assert found[0, "trait_1"]["status"] == "separated"
    design = prepare_logistic(cases, covariates, settings=LogisticSettings(correction="none"))
    _, result, tallies = results_of(design, g, ScanSettings(hits=1e-5, full=True))
    assert np.isnan(result.full_traits["neg_log10_p"]).all()
    assert tallies.counts.sum() == 0


def test_variants_without_an_estimate():
    rng = np.random.default_rng(10)
    _, cases, covariates = make_data(rng, n=300, q=2)
    covariates[:, 0] = rng.binomial(2, 0.3, 300)
    g = np.zeros((6, 300), dtype=np.float32)
    g[0] = np.nan
    g[1] = 2.0
    g[2, :5] = 1.0
    g[3] = covariates[:, 0]
    g[4] = 1.0  # constant among the called, but not 0
    g[5] = rng.binomial(2, 0.3, 300)
    design = prepare_logistic(cases, covariates, settings=LogisticSettings(screen=1.0))
    table, result, _ = results_of(design, g, ScanSettings(hits=1.0, full=True))
    assert result.status.tolist() == [1, 2, 3, 4, 2, 0]
    assert {key[0] for key in table} == {5}
    assert np.isnan(result.full_traits["beta"][:5]).all()


def test_coding():
    rng = np.random.default_rng(11)
    _, cases, covariates = make_data(rng, q=3)
    coded = cases.copy()
    coded[:, 1] += 1.0
    coded[3, 2] = np.nan
    design = prepare_logistic(coded, covariates, names=["a", "b", "c"])
    assert isinstance(LogisticMethod(design), ScanDesign)
    assert design.coding == {"a": "0/1", "b": "1/2", "c": "0/1"}
    assert dict(zip(design.names, design.n_cases.tolist(), strict=True)) == {
        "a": cases[:, 0].sum(), "b": cases[:, 1].sum(), "c": np.nansum(coded[:, 2]),
    }  # fmt: skip
    for wrong, text in ((3.0, "found 3"), (0.5, r"found 0\.5"), (-9.0, "found -9"), (2.0, "0 and 2 together")):
        bad = cases.copy()
        bad[0, 1] = wrong
        bad[1, 1] = 0.0
        with pytest.raises(ValueError, match=rf"Trait 'b' is not binary.*{text}"):
            prepare_logistic(bad, covariates, names=["a", "b", "c"])


def test_traits_that_cannot_be_analysed():
    rng = np.random.default_rng(12)
    _, cases, covariates = make_data(rng, n=200, q=5)
    cases[:, 1] = 0.0
    cases[:9, 1] = 1.0
    cases[:, 2] = 1.0
    cases[:, 3] = covariates[:, 0] > np.median(covariates[:, 0])
    cases[4:, 4] = np.nan
    design = prepare_logistic(cases, covariates, names=list("abcde"))
    assert design.names == ("a",)
    reasons = {"b": "too_few_cases", "c": "too_few_controls", "d": "null_not_converged", "e": "too_few_people"}
    assert {**dict(design.skipped), "e": "too_few_people"} == reasons
    with pytest.raises(ValueError, match="No trait can be analysed"):
        prepare_logistic(cases[:, 1:3], covariates)


def test_constant_and_collinear_covariates_are_named_and_harmless():
    rng = np.random.default_rng(13)
    dosage, cases, covariates = make_data(rng, m=3)
    more = np.column_stack([covariates, covariates[:, 0] * 2 - 1, np.ones(400)])
    design = prepare_logistic(cases, more, covariate_names=["a", "b", "twice", "one"])
    assert "one" in design.dropped
    assert len(design.dropped) == 2
    found, plain = results_of(design, dosage)[0], scan(dosage, cases, covariates, screen=0.05)
    for key, row in found.items():
        np.testing.assert_allclose(row["z"], plain[key]["z"], rtol=1e-6, atol=1e-8)


def test_bad_input():
    rng = np.random.default_rng(14)
    dosage, cases, covariates = make_data(rng, m=2)
    design = prepare_logistic(cases, covariates)
    with pytest.raises(AlignmentError, match="300 samples, the design 400"):
        results_of(design, dosage[:, :300])
    with pytest.raises(ValueError, match="infinite values: trait_1"):
        prepare_logistic(np.where(cases == 1, np.inf, cases), covariates)
    offset = np.zeros(cases.shape)
    offset[3, 1] = np.nan
    with pytest.raises(ValueError, match="finite offset; some have none for: trait_2"):
        prepare_logistic(cases, covariates, offset=offset)
    with pytest.raises(ValueError, match=r"screen is a p-value in \(0, 1\], found 0"):
        LogisticSettings(screen=0.0)


def test_peak_bytes_grow_with_traits_and_block():
    rng = np.random.default_rng(15)
    _, cases, covariates = make_data(rng, q=3)
    design = prepare_logistic(cases, covariates)
    small, large = LogisticMethod(design).peak_bytes(64, ALL), LogisticMethod(design).peak_bytes(256, ALL)
    assert 0 < small < large
    assert LogisticMethod(design).peak_bytes(256, ScanSettings()) < large
