"""Outliers, normal scores and confounds against loops and scikit-learn."""

import numpy as np
import pytest

from brainlocus.cohort.prepare import (
    PrepareOptions,
    apply_quantile_map,
    deconfound,
    fit_quantile_map,
    normalise,
    prepare_table,
    remove_outliers,
    standardise,
)
from brainlocus.core import Column, PhenotypeTable, SampleIndex, SchemaError, quantitative_table


def naive_outliers(column, mads):
    out = column.copy()
    present = [v for v in column if not np.isnan(v)]
    middle = np.median(present)
    mad = np.median([abs(v - middle) for v in present])
    for k, value in enumerate(column):
        if mad > 0 and abs(value - middle) > mads * mad:
            out[k] = np.nan
    return out


def test_outliers_against_a_loop():
    rng = np.random.default_rng(0)
    values = rng.standard_t(2, size=(200, 5))
    values[rng.uniform(size=values.shape) < 0.1] = np.nan
    found = remove_outliers(values)
    for k in range(5):
        np.testing.assert_array_equal(found.values[:, k], naive_outliers(values[:, k], 6.0))
    np.testing.assert_array_equal(found.n_removed, np.isnan(found.values).sum(axis=0) - np.isnan(values).sum(axis=0))
    assert found.n_removed.sum() > 0
    assert not np.isnan(values).all()


def test_outliers_of_special_columns():
    n = 100
    mostly_zero = np.zeros(n)
    mostly_zero[:20] = np.arange(20)
    skewed = np.exp(2 * np.random.default_rng(0).standard_normal(n))
    empty = np.full(n, np.nan)
    found = remove_outliers(np.column_stack([mostly_zero, skewed, empty]))
    assert found.zero_mad.tolist() == [True, False, False]
    np.testing.assert_array_equal(found.values[:, 0], mostly_zero)
    assert found.excessive.tolist() == [False, True, False]
    assert found.n_removed[2] == 0
    robust = remove_outliers(skewed[:, None], mads=6.0, scale=1.4826)
    assert robust.n_removed[0] < found.n_removed[1]
    with pytest.raises(ValueError, match="must be positive"):
        remove_outliers(skewed[:, None], mads=0.0)


def test_rank_normal_is_standardised_and_binary_columns_keep_two_values():
    rng = np.random.default_rng(0)
    column = np.exp(rng.standard_normal(300))
    column[:7] = np.nan
    found = normalise(column)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(column))
    assert np.nanmean(found) == pytest.approx(0, abs=1e-12)
    assert np.nanstd(found, ddof=1) == pytest.approx(1, rel=1e-12)
    np.testing.assert_array_equal(np.argsort(found[7:]), np.argsort(column[7:]))
    binary = (column > 1).astype(float)
    assert np.unique(normalise(binary)).size == 2
    np.testing.assert_array_equal(normalise(column, method="none"), column)


def test_quantile_map_equals_scikit_learn():
    from sklearn.preprocessing import QuantileTransformer

    rng = np.random.default_rng(1)
    train, new = rng.gamma(2, size=2500), rng.gamma(2, size=300)
    train[:100] = 1.0
    fitted = fit_quantile_map(train)
    reference = QuantileTransformer(n_quantiles=1000, output_distribution="normal", subsample=10**9)
    reference.fit(train[:, None])
    np.testing.assert_allclose(
        apply_quantile_map(fitted, new), reference.transform(new[:, None])[:, 0], rtol=1e-9, atol=1e-12
    )
    assert np.isnan(apply_quantile_map(fitted, np.array([np.nan]))).all()
    assert apply_quantile_map(fitted, np.array([1e9]))[0] == pytest.approx(5.199, abs=1e-3)
    with pytest.raises(ValueError, match="no quantiles"):
        fit_quantile_map(np.full(3, np.nan))


def test_standardise_of_degenerate_columns():
    np.testing.assert_array_equal(standardise(np.array([2.0, 2.0, np.nan])), [0.0, 0.0, np.nan])
    np.testing.assert_array_equal(standardise(np.array([2.0, np.nan])), [0.0, np.nan])


def test_deconfound_equals_one_regression_a_trait():
    rng = np.random.default_rng(2)
    confounds = rng.standard_normal((80, 3))
    confounds[5, 1] = np.nan
    traits = rng.standard_normal((80, 6)) + 2 * np.nan_to_num(confounds[:, :1]) + 10
    traits[rng.uniform(size=traits.shape) < 0.15] = np.nan
    found = deconfound(traits, confounds)
    for k in range(6):
        rows = ~np.isnan(traits[:, k]) & ~np.isnan(confounds).any(axis=1)
        design = np.column_stack([np.ones(rows.sum()), confounds[rows]])
        fit = np.linalg.lstsq(design, traits[rows, k], rcond=None)[0]
        expected = traits[rows, k] - design @ fit
        np.testing.assert_allclose(found.values[rows, k], expected, atol=1e-12)
        assert np.isnan(found.values[~rows, k]).all()
        share = 1 - expected.var() / traits[rows, k].var()
        assert found.explained[k] == pytest.approx(share, rel=1e-10)
    assert found.n_without_confounds == 1
    assert (found.rank == 4).all()


def test_deconfound_drops_collinear_confounds_and_gives_up_on_few_people():
    rng = np.random.default_rng(3)
    age = rng.uniform(20, 80, 50)
    found = deconfound(rng.standard_normal((50, 1)), np.column_stack([age, 2 * age + 1]), names=["age", "twice"])
    assert found.dropped == ("twice",)
    few = np.full((50, 1), np.nan)
    few[:3] = 1.0
    assert np.isnan(deconfound(few, age[:, None]).values).all()
    with pytest.raises(ValueError, match="No person has every confound"):
        deconfound(few, np.full((50, 1), np.nan))


@pytest.fixture
def table():
    rng = np.random.default_rng(4)
    n = 150
    age = rng.uniform(20, 80, n)
    site = np.array(["a", "b", "c"])[rng.integers(0, 3, n)]
    one = np.exp(0.02 * age + 0.3 * rng.standard_normal(n))
    one[0] = 1e4
    few = np.full(n, np.nan)
    few[:30] = 1.0
    columns = (
        Column("age", age),
        Column("site", site, "categorical"),
        Column("one", one, unit="mm3"),
        Column("few", few),
        Column("flat", np.ones(n)),
    )
    return PhenotypeTable(SampleIndex.of(range(n)), columns)


def test_prepare_does_the_steps_in_order_and_reports(table):
    found = prepare_table(table, ["one", "few", "flat"], confounds="age + C(site)")
    report = found.report
    result = found.table.column("one").values
    assert np.isnan(result[0])
    assert np.nanstd(result, ddof=1) == pytest.approx(1, rel=1e-12)
    age = table.column("age").values
    rows = ~np.isnan(result)
    assert np.corrcoef(result[rows], age[rows])[0, 1] == pytest.approx(0, abs=1e-12)
    for site in "abc":
        assert result[rows & (table.column("site").values == site)].mean() == pytest.approx(0, abs=1e-12)
    removed = int(np.isnan(naive_outliers(table.column("one").values, 6.0)).sum())
    assert report.n_outliers.tolist() == [removed, 0, 0]
    assert report.n_before.tolist() == [150, 30, 150]
    assert report.n_after.tolist() == [150 - removed, 0, 0]
    assert report.reason == ("", "30 values, 40 are needed", "constant")
    assert report.explained[0] > 0.3
    assert abs(report.skewness_after[0]) < abs(report.skewness_before[0])
    assert found.table.column("age").values is table.column("age").values
    assert found.table.column("one").unit == "mm3"


def test_prepare_without_anything_returns_the_numbers(table):
    options = PrepareOptions(outlier_mads=None, normalise="none")
    same = prepare_table(table, ["one"], options=options).table.column("one").values
    np.testing.assert_array_equal(same, table.column("one").values)


def test_bad_names_are_refused(table):
    with pytest.raises(SchemaError, match=r"no column 'onee'.*'one'"):
        prepare_table(table, ["onee"])
    with pytest.raises(SchemaError, match=r"'aeg', which is not a column.*'age'"):
        prepare_table(table, ["one"], confounds="aeg")
    with pytest.raises(SchemaError, match="hold text"):
        prepare_table(table, ["site"])


def test_order_of_people_changes_nothing():
    rng = np.random.default_rng(5)
    values = rng.gamma(2, size=(90, 3))
    people = SampleIndex.of(range(90))
    table = quantitative_table(people, ["x", "y", "age"], values)
    order = rng.permutation(90)
    here = prepare_table(table, ["x", "y"], confounds="age").table.matrix(["x", "y"])
    there = prepare_table(table.take(order), ["x", "y"], confounds="age").table.matrix(["x", "y"])
    np.testing.assert_allclose(there, here[order], atol=1e-12)
