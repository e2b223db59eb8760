"""Gene-environment interaction beside statsmodels, and what must not change it."""

import numpy as np
import pytest
from tests.reference.interactions import naive_gxe

from brainlocus.core import AlignmentError, SampleIndex
from brainlocus.genetics.interactions import (
    ERROR_MODELS,
    GXE_STATUS,
    AlignedTraits,
    GxeSettings,
    joint_neg_log10_p,
    prepare_gxe,
    refit_gxe,
    scan_gxe,
)

N, M = 240, 12
RNG = np.random.default_rng(11)
CALLS = RNG.binomial(2, RNG.uniform(0.25, 0.75, M)[:, None], (M, N)).astype(np.float32)
COVARIATES = np.column_stack([RNG.normal(size=N), RNG.integers(0, 2, N)])
AGE, SMOKER = RNG.uniform(40, 80, N), RNG.integers(0, 2, N).astype(float)
TRAITS = np.column_stack([RNG.normal(size=N) * (1 + SMOKER), 5 + 0.02 * AGE * CALLS[3] + RNG.normal(size=N)])


def data(traits=TRAITS, covariates=COVARIATES):
    names = tuple(f"t{k}" for k in range(traits.shape[1]))
    labels = tuple(f"c{k}" for k in range(covariates.shape[1]))
    return AlignedTraits(SampleIndex.of(range(traits.shape[0])), names, traits, covariates, labels)


def scan(design, errors="hc3", calls=CALLS, **more):
    return scan_gxe(design, design.groups[0], calls, GxeSettings(errors=errors, min_carriers=5.0, **more))


@pytest.mark.parametrize(("exposure", "square"), [(AGE, True), (SMOKER, False)], ids=["quantitative", "binary"])
@pytest.mark.parametrize("errors", ["hc3", "ols"])
def test_equals_statsmodels(exposure, square, errors):
    design = prepare_gxe(data(), exposure, "e")
    assert design.quantitative == square
    found = scan(design, errors)
    assert (found.status == 0).all()
    for j in range(M):
        for k in range(2):
            fit = naive_gxe(CALLS[j], TRAITS[:, k], exposure, COVARIATES, square=square, errors=errors.upper())
            expected = [fit.params[-2], fit.bse[-2], fit.params[-1], fit.bse[-1]]
            ours = [found.beta, found.standard_error, found.interaction_beta, found.interaction_standard_error]
            np.testing.assert_allclose([a[j, k] for a in ours], expected, rtol=1e-9)
            wald = fit.wald_test(np.eye(fit.params.size)[-2:], use_f=False, scalar=True).statistic
            assert found.joint[j, k] == pytest.approx(float(wald), rel=1e-8)
            assert found.degrees_of_freedom[j] == fit.df_resid


def test_heteroscedastic_model_is_weighted_least_squares_and_recovers_the_error_spread():
    design = prepare_gxe(data(), SMOKER, "smoker")
    found = scan(design, "auto")
    assert (found.error_model == ERROR_MODELS.index("hlm")).all()  # 240 people: every count is below 1,000
    weights = design.groups[0].weights[:, 0]
    ratio = weights[SMOKER == 0][0] / weights[SMOKER == 1][0]
    assert ratio == pytest.approx(2.0, rel=0.2)
    fit = naive_gxe(CALLS[0], TRAITS[:, 0], SMOKER, COVARIATES, square=False, weights=weights**2)
    assert found.interaction_beta[0, 0] == pytest.approx(fit.params[-1], rel=1e-9)
    assert found.interaction_standard_error[0, 0] == pytest.approx(fit.bse[-1], rel=1e-9)


def test_error_variances_are_the_maximum_of_the_likelihood():
    from scipy.optimize import minimize

    design = prepare_gxe(data(), AGE, "age")
    group = design.groups[0]
    e = group.exposure / group.exposure.std()
    v = np.column_stack([np.ones(N), e, e**2])

    def deviance(theta):
        root = np.exp(-0.5 * v @ theta)
        basis, _ = np.linalg.qr(group.q * root[:, None])
        r = group.residuals[:, 1] * root
        r = r - basis @ (basis.T @ r)
        return r @ r - 2 * np.log(root).sum()

    best = np.exp(-0.5 * v @ minimize(deviance, np.zeros(3), tol=1e-12).x)
    np.testing.assert_allclose(group.weights[:, 1], best / np.sqrt((best**2).mean()), rtol=1e-4)


def test_a_trait_does_not_depend_on_the_others_nor_on_blocks():
    holes = TRAITS.copy()
    holes[:40, 1] = np.nan
    together, alone = prepare_gxe(data(holes), AGE, "age"), prepare_gxe(data(holes[:, 1:]), AGE, "age")
    a = scan_gxe(together, together.groups[1], CALLS, GxeSettings("hc3", min_carriers=5.0))
    b = scan(alone)
    np.testing.assert_allclose(a.t, b.t, rtol=1e-10)
    parts = [scan(alone, calls=CALLS[k : k + 1]).t for k in range(M)]
    np.testing.assert_allclose(np.vstack(parts), b.t, rtol=1e-9)


def test_swapping_alleles_and_scaling_the_trait():
    design = prepare_gxe(data(), AGE, "age")
    one, other = scan(design), scan(design, calls=2 - CALLS)
    np.testing.assert_allclose(one.interaction_beta, -other.interaction_beta, rtol=1e-9)
    scaled = scan(prepare_gxe(data(1e6 * TRAITS), AGE, "age"))
    np.testing.assert_allclose(scaled.interaction_beta, 1e6 * one.interaction_beta, rtol=1e-9)


def test_the_order_of_people_changes_nothing():
    order = RNG.permutation(N)
    here = scan(prepare_gxe(data(), AGE, "age"))
    there = scan(prepare_gxe(data(TRAITS[order], COVARIATES[order]), AGE[order], "age"), calls=CALLS[:, order])
    for name in ("beta", "standard_error", "interaction_beta", "interaction_standard_error", "joint"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-9, err_msg=name)


def test_missing_calls_count_as_the_mean_and_hits_are_refitted_without_them():
    calls = CALLS.copy()
    calls[3, ::9] = np.nan
    design = prepare_gxe(data(), AGE, "age")
    found = scan(design, calls=calls)
    filled = calls.copy()
    filled[3, ::9] = np.nanmean(calls[3])
    np.testing.assert_allclose(found.t[3], scan(design, calls=filled).t[3], rtol=1e-6)  # float32 mean
    assert found.n[3] == N - len(range(0, N, 9))
    fit = refit_gxe(design, design.groups[0], 1, calls[3])
    kept = ~np.isnan(calls[3])
    # Centring by all people or by those with a call changes the meaning of beta, not the interaction.
    literal = naive_gxe(calls[3][kept], TRAITS[kept, 1], AGE[kept], COVARIATES[kept], square=True)
    assert fit is not None
    assert fit.n == kept.sum()
    assert fit.interaction_beta == pytest.approx(literal.params[-1], rel=1e-9)
    assert fit.interaction_standard_error == pytest.approx(literal.bse[-1], rel=1e-9)
    assert fit.degrees_of_freedom == literal.df_resid
    assert fit.interaction_neg_log10_p == pytest.approx(-np.log10(literal.pvalues[-1]), rel=1e-8)


def test_slopes_and_johnson_neyman():
    design = prepare_gxe(data(), AGE, "age")
    fit = refit_gxe(design, design.groups[0], 1, CALLS[3])
    assert fit is not None
    np.testing.assert_allclose(fit.slope_at, AGE.mean() + AGE.std() * np.array([-1, 0, 1]))
    np.testing.assert_allclose(fit.slopes, fit.beta + fit.interaction_beta * (fit.slope_at - AGE.mean()), rtol=1e-9)
    assert fit.slope_errors[1] == pytest.approx(fit.standard_error)
    from scipy.stats import t

    low, high, side = fit.johnson_neyman
    assert side in ("inside", "outside")
    moved = AGE - AGE.mean()
    for bound in (low, high):  # with the exposure centred there, the effect of g is just significant
        at = bound - AGE.mean()
        b = fit.beta + fit.interaction_beta * at
        x = naive_gxe(CALLS[3], TRAITS[:, 1], moved, COVARIATES, square=True)
        cov = x.cov_params()[-2:, -2:]
        assert abs(b) / np.sqrt(cov[0, 0] + 2 * at * cov[0, 1] + at**2 * cov[1, 1]) == pytest.approx(
            t.isf(0.025, fit.degrees_of_freedom), rel=1e-6
        )
    assert fit.exposure_r == pytest.approx(np.corrcoef(CALLS[3], AGE)[0, 1])
    two = prepare_gxe(data(), SMOKER, "smoker")
    again = refit_gxe(two, two.groups[0], 0, CALLS[3])
    assert again is not None
    np.testing.assert_allclose(again.slope_at, [0, 1], atol=1e-12)
    assert np.isnan(again.log_neg_log10_p)  # the trait has values below 0
    assert again.rank_normal_neg_log10_p >= 0


def test_variants_without_an_estimate_say_why():
    calls = CALLS.copy()
    calls[0], calls[1], calls[2] = np.nan, 1.0, 0.0
    calls[2, :3] = 1
    calls[4] = SMOKER  # e itself
    found = scan(prepare_gxe(data(), SMOKER, "smoker"), calls=calls)
    named = [GXE_STATUS[k] for k in found.status[[0, 1, 2, 4, 5]]]
    assert named == ["no_calls", "constant", "few_carriers", "collinear", "ok"]
    assert np.isnan(found.t[[0, 1, 2, 4]]).all()
    assert np.isfinite(found.t[5]).all()


def test_a_covariate_without_carriers_in_a_group_is_left_out_not_the_variant():
    site = (np.arange(N) < 60).astype(float)
    calls = CALLS.copy()
    calls[0, :60] = 0  # no carrier at this site: g x site is a multiple of g
    design = prepare_gxe(data(covariates=np.column_stack([COVARIATES, site])), AGE, "age")
    found = scan(design, calls=calls)
    assert found.status[0] == 0
    assert found.degrees_of_freedom[0] == found.degrees_of_freedom[1] + 1


def test_wrong_input():
    with pytest.raises(ValueError, match="'e' has 1 distinct values"):
        prepare_gxe(data(), np.ones(N), "e")
    with pytest.raises(ValueError, match=r"No trait can be analysed .*too_few_people"):
        prepare_gxe(data(TRAITS[:10], COVARIATES[:10]), AGE[:10], "age")
    with pytest.raises(AlignmentError, match="The block has 5 samples"):
        scan(prepare_gxe(data(), AGE, "age"), calls=CALLS[:, :5])


def test_joint_p_is_the_f_distribution():
    from scipy.stats import f

    wald = np.array([0.3, 4.0, 30.0])
    np.testing.assert_allclose(joint_neg_log10_p(wald, 57.0), -np.log10(f.sf(wald / 2, 2, 57)), rtol=1e-10)
