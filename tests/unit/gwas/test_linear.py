"""The linear scan against one literal regression per variant and trait."""

import numpy as np
import pytest
from tests.reference.gwas import naive_linear

from brainlocus.core import AlignmentError
from brainlocus.genetics.gwas import STATUS, prepare_linear, scan_linear


def make_data(rng, *, n=300, m=25, q=4, c=3, missing_calls=0.0, dosages=False):
    frequency = rng.uniform(0.1, 0.9, m)
    dosage = rng.binomial(2, frequency[:, None], (m, n)).astype(np.float32)
    if dosages:
        dosage = np.clip(dosage + rng.normal(0, 0.1, dosage.shape), 0, 2).astype(np.float32)
    covariates = rng.normal(size=(n, c)) + np.arange(c)
    traits = rng.normal(size=(n, q)) + covariates @ rng.normal(size=(c, q))
    traits[:, 0] += 0.5 * dosage[min(3, m - 1)]
    if missing_calls:
        dosage[rng.random(dosage.shape) < missing_calls] = np.nan
    return dosage, traits, covariates


def assert_like_naive(design, scan, dosage, traits, covariates, names, *, missing, rtol):
    for k, name in enumerate(design.names):
        column = names.index(name)
        for j in range(dosage.shape[0]):
            beta, error, t, df, p = naive_linear(dosage[j], traits[:, column], covariates, missing)
            g = scan.group_of[k]
            np.testing.assert_allclose(scan.t[j, k], t, rtol=rtol, atol=rtol)
            np.testing.assert_allclose(scan.beta[j, k], beta, rtol=rtol, atol=rtol)
            np.testing.assert_allclose(scan.standard_error[j, k], error, rtol=rtol)
            np.testing.assert_allclose(scan.neg_log10_p[j, k], p, rtol=10 * rtol, atol=10 * rtol)
            assert scan.degrees_of_freedom[j, g] == df


@pytest.mark.parametrize("missing", ["mean", "exact"])
@pytest.mark.parametrize("dosages", [False, True])
def test_double_precision_is_least_squares(missing, dosages):
    rng = np.random.default_rng(1)
    dosage, traits, covariates = make_data(rng, missing_calls=0.04, dosages=dosages)
    names = ["a", "b", "c", "d"]
    design = prepare_linear(traits, covariates, names=names)
    scan = scan_linear(design, dosage, missing=missing, precision="double")
    # 1e-6 max(1, |t|) is the acceptance of methods/gwas.md 2.4 for recomputed hits; float64 is far inside it.
    assert_like_naive(design, scan, dosage, traits, covariates, names, missing=missing, rtol=1e-9)


def test_single_precision_is_within_its_bound():
    rng = np.random.default_rng(2)
    dosage, traits, covariates = make_data(rng, n=1000, m=40, missing_calls=0.01)
    design = prepare_linear(traits, covariates)
    single = scan_linear(design, dosage)
    double = scan_linear(design, dosage, precision="double")
    assert single.t.dtype == np.float32
    assert np.abs(single.t - double.t).max() < 2e-4  # methods/gwas.md 2.4


@pytest.mark.parametrize("missing", ["mean", "exact"])
def test_traits_with_different_missing_people_are_separate_analyses(missing):
    rng = np.random.default_rng(3)
    dosage, traits, covariates = make_data(rng, missing_calls=0.03)
    traits[rng.random(300) < 0.2, 1] = np.nan
    traits[rng.random(300) < 0.5, 2] = np.nan
    names = ["a", "b", "c", "d"]
    design = prepare_linear(traits, covariates, names=names)
    assert len(design.groups) == 3
    assert design.names == ("a", "d", "b", "c")
    scan = scan_linear(design, dosage, missing=missing, min_mac=5.0, precision="double")
    assert_like_naive(design, scan, dosage, traits, covariates, names, missing=missing, rtol=1e-9)
    alone = scan_linear(
        prepare_linear(traits[:, 2:3], covariates), dosage, missing=missing, min_mac=5.0, precision="double"
    )
    np.testing.assert_allclose(scan.t[:, 3], alone.t[:, 0], rtol=1e-10)


def test_auto_is_exact_below_97_percent_and_mean_above():
    rng = np.random.default_rng(4)
    dosage, traits, covariates = make_data(rng, m=2)
    dosage[0, :6] = np.nan  # call rate 98 %
    dosage[1, :30] = np.nan  # 90 %
    design = prepare_linear(traits, covariates)
    auto = scan_linear(design, dosage, precision="double").t
    np.testing.assert_array_equal(auto[0], scan_linear(design, dosage, missing="mean", precision="double").t[0])
    np.testing.assert_array_equal(auto[1], scan_linear(design, dosage, missing="exact", precision="double").t[1])
    assert abs(auto[1] - scan_linear(design, dosage, missing="mean", precision="double").t[1]).max() > 1e-3


def test_exact_mode_when_a_covariate_becomes_constant_among_the_called():
    rng = np.random.default_rng(5)
    dosage, traits, covariates = make_data(rng, m=1, c=2)
    covariates[:, 1] = 0
    covariates[:40, 1] = rng.normal(size=40)
    dosage[0, :40] = np.nan
    design = prepare_linear(traits, covariates)
    scan = scan_linear(design, dosage, missing="exact", precision="double")
    beta, _, t, df, _ = naive_linear(dosage[0], traits[:, 0], covariates)
    np.testing.assert_allclose(scan.t[0, 0], t, rtol=1e-8)
    np.testing.assert_allclose(scan.beta[0, 0], beta, rtol=1e-8)
    assert scan.degrees_of_freedom[0, 0] == df == 300 - 40 - 2 - 1


def test_exact_mode_with_a_lost_covariate_and_a_trait_all_but_equal_to_the_dosage():
    rng = np.random.default_rng(11)
    dosage, _, covariates = make_data(rng, m=1, n=40, c=2)
    covariates[:, 1] = np.arange(40) < 10
    dosage[0, :10] = np.nan
    trait = np.nan_to_num(dosage[0]) + 1e-7 * rng.normal(size=40)  # 1 - r^2 near 1e-14
    design = prepare_linear(trait[:, None], covariates)
    scan = scan_linear(design, dosage, missing="exact", min_mac=0.0, precision="double")
    beta, error, t, df, _ = naive_linear(dosage[0], trait, covariates)
    assert scan.degrees_of_freedom[0, 0] == df == 40 - 10 - 2 - 1
    np.testing.assert_allclose(scan.beta[0, 0], beta, rtol=1e-12)
    np.testing.assert_allclose(scan.t[0, 0], t, rtol=1e-6)  # float64 has so many digits of the residual
    np.testing.assert_allclose(scan.standard_error[0, 0], error, rtol=1e-6)


@pytest.mark.parametrize("precision", ["single", "double"])
def test_exact_mode_when_a_trait_has_no_variance_among_the_called(precision):
    rng = np.random.default_rng(12)
    dosage, traits, covariates = make_data(rng, m=30)
    traits[:, 1] = 1e3
    traits[10:12, 1] += 5.0
    dosage[::2, 10:12] = np.nan  # the only two who differ have no call
    scan = scan_linear(prepare_linear(traits, covariates), dosage, missing="exact", precision=precision)
    for found in (scan.t, scan.beta, scan.standard_error, scan.neg_log10_p):
        assert np.isnan(found[::2, 1]).all()
        assert np.isfinite(found[1::2]).all()
        assert np.isfinite(np.delete(found, 1, axis=1)).all()


def test_swapping_alleles_negates_beta_and_scaling_a_trait_scales_it():
    rng = np.random.default_rng(6)
    dosage, traits, covariates = make_data(rng, missing_calls=0.02)
    design = prepare_linear(traits, covariates)
    here, swapped = scan_linear(design, dosage), scan_linear(design, 2 - dosage)
    np.testing.assert_allclose(swapped.beta, -here.beta, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(swapped.effect_allele_frequency, 1 - here.effect_allele_frequency, atol=1e-12)
    scaled = scan_linear(prepare_linear(traits * 1e-6, covariates), dosage)
    np.testing.assert_allclose(scaled.beta, here.beta * 1e-6, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(scaled.t, here.t, rtol=1e-4, atol=1e-5)


def test_variants_without_an_estimate_say_why():
    rng = np.random.default_rng(7)
    dosage, traits, covariates = make_data(rng, m=6)
    dosage[0] = np.nan
    dosage[1] = 1
    dosage[2] = 0
    dosage[2, :10] = 1
    dosage[3] = np.round(np.clip(covariates[:, 0] + 1, 0, 2))
    covariates = np.column_stack([covariates, dosage[3]])
    for precision in ("single", "double"):
        scan = scan_linear(prepare_linear(traits, covariates), dosage, precision=precision)
        reasons = [STATUS[code] for code in scan.status[:, 0]]
        assert reasons[:3] == ["no_calls", "constant", "rare"]
        assert np.isnan(scan.t[:3]).all()
        assert np.isnan(scan.beta[:3]).all()
        assert reasons[4:] == ["ok", "ok"]
        if precision == "double":
            assert reasons[3] == "collinear"
            assert np.isnan(scan.beta[3]).all()
        else:
            assert scan.unstable[3]


def test_a_trait_equal_to_a_dosage_keeps_its_digits():
    rng = np.random.default_rng(8)
    dosage, traits, covariates = make_data(rng, m=2)
    noise = rng.normal(size=300)
    traits[:, 0] = dosage[0] + 1e-8 * noise
    scan = scan_linear(prepare_linear(traits, covariates), dosage, precision="double")
    _, _, t, _, _ = naive_linear(dosage[0], traits[:, 0], covariates)
    np.testing.assert_allclose(scan.t[0, 0], t, rtol=1e-5)  # t is 1e8: eight digits of the trait are left


def test_collinear_and_constant_covariates_are_dropped_and_named():
    rng = np.random.default_rng(9)
    dosage, traits, covariates = make_data(rng)
    wide = np.column_stack([covariates, covariates[:, 0] * 2, np.ones(300)])
    design = prepare_linear(traits, wide, covariate_names=["x", "y", "z", "twice_x", "one"])
    assert set(design.groups[0].dropped) in ({"twice_x", "one"}, {"x", "one"})
    np.testing.assert_allclose(
        scan_linear(design, dosage).t, scan_linear(prepare_linear(traits, covariates), dosage).t, atol=2e-4
    )


def test_traits_that_cannot_be_analysed_are_named():
    rng = np.random.default_rng(10)
    _, traits, covariates = make_data(rng)
    traits[:, 1] = 5.0
    traits[:, 2] = covariates @ np.ones(3) * 1e3
    traits[4:, 3] = np.nan
    design = prepare_linear(traits, covariates, names=["a", "b", "c", "d"])
    assert design.names == ("a",)
    assert dict(design.skipped) == {"b": "constant", "c": "collinear", "d": "too_few_people"}


def test_bad_input_is_refused():
    rng = np.random.default_rng(11)
    dosage, traits, covariates = make_data(rng)
    infinite = traits.copy()
    infinite[3, 1] = np.inf
    with pytest.raises(ValueError, match="infinite values: trait_2"):
        prepare_linear(infinite, covariates)
    with pytest.raises(ValueError, match="complete and finite; these are not: column 2"):
        prepare_linear(traits, np.where(np.arange(3) == 1, np.nan, covariates))
    with pytest.raises(ValueError, match="300 covariates for 300 people"):
        prepare_linear(traits, rng.normal(size=(300, 300)))
    with pytest.raises(ValueError, match=r"No trait can be analysed.*constant"):
        prepare_linear(np.ones((300, 1)), covariates)
    with pytest.raises(AlignmentError, match="299 samples, the design 300"):
        scan_linear(prepare_linear(traits, covariates), dosage[:, 1:])
