"""Estimators of Mendelian randomisation: check values of the specification, statsmodels, loops, awkward variants."""

import numpy as np
import pytest
from scipy import stats

from brainlocus.core import Instruments, SchemaError
from brainlocus.genetics.twas import causal_estimates, heterogeneity
from tests.reference.mendelian import naive_ivw, naive_weighted_median
from tests.unit.twas.example import mr_example


def _simulated(n=25, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(0.1, 0.2, n)
    s, sx = rng.uniform(0.01, 0.05, n), rng.uniform(0.01, 0.04, n)
    y = 0.4 * x + rng.normal(0, s) + 0.02
    return Instruments(np.array([f"v{k}" for k in range(n)]), x, y, sx, s)


def _by_method(instruments, *methods, **options):
    return {e.method: e for e in causal_estimates(instruments, *([methods] if methods else []), **options)}


def test_check_values_of_the_example():
    found = _by_method(mr_example())
    fixed, random = found["ivw-fixed"], found["ivw-random"]
    assert round(fixed.beta, 10) == round(random.beta, 10) == -0.0605598345
    assert round(fixed.standard_error, 10) == 0.0012940370
    assert round(random.standard_error, 10) == 0.0044136520
    assert round(fixed.heterogeneity.q, 4) == 1675.1946
    egger = found["egger"]
    assert round(egger.beta, 10) == -0.0784834841
    assert round(egger.standard_error, 10) == 0.0058804690
    assert round(egger.intercept, 10) == 0.0051599541
    assert round(found["weighted-median"].beta, 10) == -0.0690760543
    assert all(e.n == 145 and e.status == "ok" for e in found.values())


@pytest.mark.parametrize("reference", ["normal", "t"])
def test_least_squares_agree_with_statsmodels(reference):
    models = pytest.importorskip("statsmodels.api")
    given = _simulated()
    weights = given.outcome_se**-2
    found = _by_method(given, "ivw-random", "egger", reference=reference)
    through_zero = models.WLS(given.outcome_beta, given.exposure_beta, weights=weights).fit(use_t=reference == "t")
    sign = np.sign(given.exposure_beta)
    design = models.add_constant(sign * given.exposure_beta)
    line = models.WLS(sign * given.outcome_beta, design, weights=weights).fit(use_t=reference == "t")
    # Standard errors of a fit with residual variance below 1 are not made smaller.
    for ours, theirs, at in ((found["ivw-random"], through_zero, 0), (found["egger"], line, 1)):
        error = theirs.bse[at] / min(1.0, theirs.scale**0.5)
        assert ours.beta == pytest.approx(theirs.params[at], rel=1e-10)
        assert ours.standard_error == pytest.approx(error, rel=1e-10)
        if theirs.scale > 1:
            assert 10**-ours.neg_log10_p == pytest.approx(theirs.pvalues[at], rel=1e-8)
            low, high = theirs.conf_int()[at]
            assert (ours.lower, ours.upper) == (pytest.approx(low, rel=1e-8), pytest.approx(high, rel=1e-8))
    assert through_zero.scale > 1 or line.scale > 1
    assert found["egger"].intercept == pytest.approx(line.params[0], rel=1e-9)


def test_ivw_and_its_heterogeneity_agree_with_loops():
    given = _simulated()
    b, fixed, random, q = naive_ivw(given.exposure_beta, given.outcome_beta, given.outcome_se)
    found = _by_method(given, "ivw-fixed", "ivw-random")
    assert found["ivw-fixed"].beta == pytest.approx(b, rel=1e-12)
    assert found["ivw-fixed"].standard_error == pytest.approx(fixed, rel=1e-12)
    assert found["ivw-random"].standard_error == pytest.approx(random, rel=1e-12)
    spread, parts = heterogeneity(given)
    assert spread.q == pytest.approx(q, rel=1e-12)
    assert parts.sum() == pytest.approx(q, rel=1e-12)
    assert 10**-spread.neg_log10_p == pytest.approx(stats.chi2.sf(q, 24), rel=1e-10)
    assert spread.i2 == pytest.approx(max(0, (q - 24) / q))


def test_weighted_median_agrees_with_a_search():
    for seed in range(20):
        given = _simulated(n=3 + seed, seed=seed)
        ratio = given.outcome_beta / given.exposure_beta
        expected = naive_weighted_median(ratio.tolist(), ((given.exposure_beta / given.outcome_se) ** 2).tolist())
        found = _by_method(given, "weighted-median", draws=10)["weighted-median"]
        assert found.beta == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("heavy", [0, 1, 2])
def test_a_variant_with_most_of_the_weight_draws_the_median(heavy):
    x = np.where(np.arange(3) == heavy, 1000.0, 1.0)
    ratio = np.array([1.0, 2.0, 3.0])
    given = Instruments(np.array(["a", "b", "c"]), x, ratio * x, None, np.ones(3))
    found = _by_method(given, "weighted-median")["weighted-median"].beta
    assert found == pytest.approx(ratio[heavy], abs=1e-5)
    assert found == pytest.approx(naive_weighted_median(ratio.tolist(), (x**2).tolist()), rel=1e-12)


def test_drawn_error_of_the_median_is_that_of_a_simulation():
    given = _simulated(n=40)
    found = _by_method(given, "weighted-median", draws=4000)["weighted-median"]
    rng = np.random.default_rng(99)
    weights = (given.exposure_beta / given.outcome_se) ** 2
    medians = []
    for _ in range(2000):
        x = rng.normal(given.exposure_beta, given.exposure_se)
        y = rng.normal(given.outcome_beta, given.outcome_se)
        medians.append(naive_weighted_median((y / x).tolist(), weights.tolist()))
    # Standard deviations of 4,000 and 2,000 draws: 2 % apart by chance (one standard error), more with heavy tails.
    assert found.standard_error == pytest.approx(np.std(medians, ddof=1), rel=0.08)


def test_i2_gx_is_that_of_the_weighted_regressor():
    given = _simulated()
    ratio, error = abs(given.exposure_beta) / given.outcome_se, given.exposure_se / given.outcome_se
    q = np.sum(((ratio - np.average(ratio, weights=error**-2)) / error) ** 2)
    found = _by_method(given, "egger")["egger"]
    assert found.i2_gx == pytest.approx((q - 24) / q)
    without = Instruments(given.variants, given.exposure_beta, given.outcome_beta, None, given.outcome_se)
    assert np.isnan(_by_method(without, "egger")["egger"].i2_gx)


def test_other_alleles_change_nothing():
    given = _simulated()
    flip = np.where(np.arange(25) % 2, -1.0, 1.0)
    flipped = Instruments(
        given.variants, flip * given.exposure_beta, flip * given.outcome_beta, given.exposure_se, given.outcome_se
    )
    for one, two in zip(causal_estimates(given), causal_estimates(flipped), strict=True):
        assert two.beta == pytest.approx(one.beta, rel=1e-10)
        if one.method != "weighted-median":  # its error is drawn
            assert two.standard_error == pytest.approx(one.standard_error, rel=1e-10)


def test_few_variants():
    one = _simulated(n=1)
    (wald,) = causal_estimates(one)
    assert wald.method == "wald-ratio"
    assert wald.beta == pytest.approx(one.outcome_beta[0] / one.exposure_beta[0])
    assert wald.standard_error == pytest.approx(one.outcome_se[0] / abs(one.exposure_beta[0]))
    assert np.isnan(wald.heterogeneity.q)
    two = _by_method(_simulated(n=2))
    assert two["ivw-fixed"].status == two["ivw-random"].status == "ok"
    for method in ("egger", "weighted-median"):
        assert two[method].status == "2 variants with an effect on expression, 3 are needed"
        assert np.isnan(two[method].beta)
    nothing = Instruments(np.array(["a"]), np.array([np.nan]), np.array([1.0]), None, np.ones(1))
    assert all(e.status.startswith("0 variants") and e.n == 0 for e in causal_estimates(nothing))


def test_variants_without_effect_on_expression_have_no_ratio():
    given = Instruments(
        np.array(list("abcd")), np.array([0.0, 1, 2, 3]), np.array([5.0, 1, 2, 3]), None, np.full(4, 0.1)
    )
    found = _by_method(given)
    assert found["weighted-median"].beta == pytest.approx(1.0)
    assert found["ivw-fixed"].beta == pytest.approx(1.0)
    assert found["ivw-fixed"].heterogeneity.q == pytest.approx(2500)


def test_equal_effects_on_expression_have_no_egger():
    given = Instruments(np.array(list("abc")), np.full(3, 0.3), np.array([0.1, 0.2, 0.1]), None, np.full(3, 0.1))
    assert _by_method(given, "egger")["egger"].status.startswith("all effects on expression are equal")


def test_bad_input():
    given = _simulated()
    bare = Instruments(given.variants, given.exposure_beta, given.outcome_beta)
    with pytest.raises(SchemaError, match="Expected outcome_se of the variants"):
        causal_estimates(bare)
