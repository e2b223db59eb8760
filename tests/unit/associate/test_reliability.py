"""Reliability against Shrout and Fleiss, statsmodels' analysis of variance, pingouin, and a bootstrap by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from brainlocus.cohort.associate import measure_reliability, reliability_results

RATINGS = np.array([[9.0, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
"""Shrout & Fleiss (1979), table 2: six targets, four judges."""


def measures(n=30, k=2, m=4, seed=0):
    rng = np.random.default_rng(seed)
    person = rng.normal(size=(n, 1, m))
    shift = np.linspace(0, 1, k)[None, :, None]
    return 5.0 + person + shift + rng.normal(size=(n, k, m)) * np.linspace(0.1, 1.5, m)


def test_the_classical_table():
    found = measure_reliability(RATINGS[:, :, None], n_bootstrap=0)
    assert found.status.tolist() == ["ok"]
    assert found.icc_2_1[0] == pytest.approx(0.2897638, abs=1e-7)
    assert found.icc_3_1[0] == pytest.approx(0.7148407, abs=1e-7)
    # pingouin 0.7.0, intraclass_corr: the 95 % intervals of ICC(A,1) and ICC(C,1), two digits
    assert [round(float(b[0]), 2) for b in (found.icc_2_1_interval.lower, found.icc_2_1_interval.upper)] == [0.02, 0.76]
    assert [round(float(b[0]), 2) for b in (found.icc_3_1_interval.lower, found.icc_3_1_interval.upper)] == [0.34, 0.95]
    assert np.isnan(found.r_bootstrap.lower[0])


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_analysis_of_variance_of_statsmodels(k):
    values = measures(k=k)
    found = measure_reliability(values, n_bootstrap=0)
    n = values.shape[0]
    for m in range(values.shape[2]):
        table = pd.DataFrame(
            [(i, j, values[i, j, m]) for i in range(n) for j in range(k)], columns=["person", "session", "value"]
        )
        squares = anova_lm(ols("value ~ C(person) + C(session)", table).fit())["mean_sq"]
        msr, msc, mse = squares["C(person)"], squares["C(session)"], squares["Residual"]
        icc_2 = (msr - mse) / (msr + (k - 1) * mse + k * (msc - mse) / n)
        assert found.icc_2_1[m] == pytest.approx(icc_2, rel=1e-9)
        assert found.icc_3_1[m] == pytest.approx((msr - mse) / (msr + (k - 1) * mse), rel=1e-9)
        first, last = values[:, 0, m], values[:, -1, m]
        assert found.r[m] == pytest.approx(pearsonr(first, last)[0], rel=1e-12)
        difference = last - first
        assert found.bias[m] == pytest.approx(difference.mean())
        assert found.limits.upper[m] == pytest.approx(difference.mean() + 1.96 * difference.std(ddof=1), rel=1e-4)
        within = np.sqrt(np.mean([np.var(values[i, :, m], ddof=1) for i in range(n)]))
        assert found.within_subject_sd[m] == pytest.approx(within)
        assert found.coefficient_of_variation[m] == pytest.approx(within / values[:, :, m].mean())


def test_a_shift_lowers_agreement_and_not_consistency():
    values = measures(k=2)
    shifted = values.copy()
    shifted[:, 1] += 3.0
    here, there = (measure_reliability(v, n_bootstrap=0) for v in (values, shifted))
    np.testing.assert_allclose(here.icc_3_1, there.icc_3_1, rtol=1e-9)
    assert (there.icc_2_1 < here.icc_2_1).all()
    np.testing.assert_allclose(there.bias, here.bias + 3.0)


def test_the_bootstrap_is_that_of_drawing_people_one_by_one():
    values = measures(n=12, k=3, m=2)
    values[3, 1, 0] = np.nan
    found = measure_reliability(values, n_bootstrap=200, rng=np.random.default_rng(4))
    rng = np.random.default_rng(4)
    by_hand = []
    for people in rng.integers(0, 12, size=(200, 12)):
        one = measure_reliability(values[people], n_bootstrap=0, min_people=2)
        by_hand.append((one.r, one.icc_2_1, one.icc_3_1))
    low, high = np.nanpercentile(np.array(by_hand), [2.5, 97.5], axis=0)
    for k, interval in enumerate((found.r_bootstrap, found.icc_2_1_bootstrap, found.icc_3_1_bootstrap)):
        np.testing.assert_allclose(interval.lower, low[k], rtol=1e-8)
        np.testing.assert_allclose(interval.upper, high[k], rtol=1e-8)


def test_blocks_of_draws_change_nothing(monkeypatch):
    from brainlocus.cohort.associate import reliability

    whole = measure_reliability(measures(), n_bootstrap=50, rng=np.random.default_rng(1))
    monkeypatch.setattr(reliability, "_BYTES_PER_DRAW_BLOCK", 1)
    parts = measure_reliability(measures(), n_bootstrap=50, rng=np.random.default_rng(1))
    np.testing.assert_allclose(whole.icc_2_1_bootstrap.lower, parts.icc_2_1_bootstrap.lower, rtol=1e-12)


def test_missing_sessions_take_a_person_out_of_that_measure_only():
    values = measures(n=20, m=3)
    spoilt = values.copy()
    spoilt[4, 1, 1] = np.nan
    found = measure_reliability(spoilt, n_bootstrap=0)
    assert found.n.tolist() == [20, 19, 20]
    without = measure_reliability(np.delete(values, 4, axis=0), n_bootstrap=0)
    assert found.icc_2_1[1] == pytest.approx(without.icc_2_1[1])
    assert found.within_subject_sd[1] == pytest.approx(without.within_subject_sd[1])
    assert found.limits.lower[1] == pytest.approx(without.limits.lower[1])


def test_measures_without_reliability_say_why():
    values = measures(n=6, m=4)
    values[:, :, 0] = 3.3
    values[1:, 0, 1] = np.nan
    values[:, :, 2] = np.nan
    found = measure_reliability(values, n_bootstrap=20)
    assert found.status.tolist() == [
        "the measure is constant",
        "1 people with every session, 3 needed",
        "0 people with every session, 3 needed",
        "ok",
    ]
    for array in (found.r, found.icc_2_1, found.icc_3_1_interval.upper, found.bias, found.r_bootstrap.lower):
        assert np.isnan(array).tolist() == [True, True, True, False]


def test_perfect_repetition():
    values = np.repeat(measures(n=10, k=1, m=2), 2, axis=1)
    found = measure_reliability(values, n_bootstrap=20)
    np.testing.assert_allclose([found.r, found.icc_2_1, found.icc_3_1, found.icc_3_1_interval.lower], 1.0)
    np.testing.assert_allclose(found.icc_2_1_interval.upper, 1.0)
    np.testing.assert_allclose(found.within_subject_sd, 0.0)


def test_scale_of_a_measure_changes_only_what_has_its_unit():
    values = measures()
    here, there = (measure_reliability(v, n_bootstrap=20) for v in (values, 1000.0 * values))
    np.testing.assert_allclose(here.icc_2_1, there.icc_2_1)
    np.testing.assert_allclose(here.icc_3_1_bootstrap.upper, there.icc_3_1_bootstrap.upper)
    np.testing.assert_allclose(1000.0 * here.within_subject_sd, there.within_subject_sd)
    np.testing.assert_allclose(here.coefficient_of_variation, there.coefficient_of_variation)


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """ICC(3,1) of the population is 0.8; its 95 % intervals hold it in 93 to 97 % of 1,000 samples of 60 people."""
    rng = np.random.default_rng(8)
    values = rng.normal(size=(60, 1, 1000)) * 2.0 + rng.normal(size=(60, 2, 1000))
    found = measure_reliability(values, n_bootstrap=400, rng=rng)
    for interval in (found.icc_3_1_interval, found.icc_2_1_interval):
        covered = ((interval.lower < 0.8) & (interval.upper > 0.8)).mean()
        assert 0.93 < covered < 0.97
    boot = found.icc_3_1_bootstrap
    assert 0.90 < ((boot.lower < 0.8) & (boot.upper > 0.8)).mean() < 0.97


def test_table_and_bad_input():
    found = measure_reliability(measures(m=2), n_bootstrap=10)
    table = reliability_results(found, measures=["a", "b"], units=["ppb", ""], sessions=["1", "2"])
    assert len(table) == 2
    assert table["first_session"].tolist() == ["1", "1"]
    with pytest.raises(ValueError, match="two sessions or more, got 1"):
        measure_reliability(measures(k=1))
    with pytest.raises(ValueError, match="confidence"):
        measure_reliability(measures(), confidence=95.0)
