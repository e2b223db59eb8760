"""Outliers, normal scores and confounds against loops and scikit-learn."""

import numpy as np
import pytest

from brainlocus.cohort.prepare import (
    PrepareOptions,
    Sentinel,
    apply_quantile_map,
    deconfound,
    fit_quantile_map,
    normalise,
    prepare_table,
    remove_outliers,
    standardise,
    suspected_sentinels,
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


def test_many_patterns_of_missing_people_get_the_regression_of_each():
    """Each trait lacks other people; one has nobody of a site, which leaves that site's column empty."""
    rng = np.random.default_rng(6)
    site = (np.arange(300) < 90).astype(float)
    confounds = np.column_stack([rng.standard_normal((300, 8)), site])
    traits = rng.standard_normal((300, 40)) + confounds[:, :1] + 1e4
    traits[rng.uniform(size=traits.shape) < 0.1] = np.nan
    traits[site == 1, 5] = np.nan
    traits[20:, 6] = np.nan
    traits[9:, 7] = np.nan
    traits[:, 8] = np.nan
    found = deconfound(traits, confounds)
    for k in range(40):
        rows = ~np.isnan(traits[:, k])
        if rows.sum() > 9:
            design = np.column_stack([np.ones(rows.sum()), confounds[rows]])
            fit = np.linalg.lstsq(design, traits[rows, k], rcond=1e-12)[0]
            np.testing.assert_allclose(found.values[rows, k], traits[rows, k] - design @ fit, atol=1e-9)
        else:
            assert np.isnan(found.values[:, k]).all()
    assert found.rank[[4, 5, 8]].tolist() == [10, 9, 0]


def test_normal_scores_twice_is_rank_regress_rank_regress():
    rng = np.random.default_rng(7)
    n = 400
    age = rng.exponential(1.0, n)
    y = np.exp(rng.standard_normal(n)) * age
    y[:9] = np.nan
    binary = (rng.uniform(size=n) < 0.3).astype(float)
    table = quantitative_table(SampleIndex.of(range(n)), ["age", "y", "binary"], np.column_stack([age, y, binary]))

    def prepared(**more):
        options = PrepareOptions(outlier_mads=None, **more)
        return prepare_table(table, ["y", "binary"], confounds="age", options=options)

    def residual(values):
        rows = ~np.isnan(values)
        design = np.column_stack([np.ones(rows.sum()), age[rows]])
        out = np.full(n, np.nan)
        out[rows] = values[rows] - design @ np.linalg.lstsq(design, values[rows], rcond=None)[0]
        return standardise(out)

    once, twice = prepared(), prepared(int_twice=True)
    expected = residual(normalise(residual(normalise(y))))
    np.testing.assert_allclose(twice.table.column("y").values, expected, atol=1e-10)
    # Regressing again takes out what ranking the residuals brought back, and the result is closer to normal.
    assert abs(np.corrcoef(expected[9:], age[9:])[0, 1]) < 1e-12
    assert abs(twice.report.kurtosis_after[0]) < abs(once.report.kurtosis_after[0])
    # Two levels are not ranked, so twice is once.
    np.testing.assert_array_equal(twice.table.column("binary").values, once.table.column("binary").values)
    with pytest.raises(ValueError, match="int_twice ranks twice and needs normalise='rank', found 'none'"):
        prepared(int_twice=True, normalise="none")


def test_ties_rare_classes_close_confounds_and_halved_traits_are_reported():
    rng = np.random.default_rng(8)
    n = 500
    age = rng.uniform(20, 80, n)
    columns = {
        "age": age,
        "nearly": age + rng.normal(0, 2, n),
        "half": age / age.std() + 0.8 * rng.standard_normal(n),
        "years": np.floor(age),
        "free": rng.standard_normal(n),
        "rare": (np.arange(n) < 9).astype(float),
        "enough": (np.arange(n) < 10).astype(float),
        "three": np.arange(n) % 3.0,
    }
    table = quantitative_table(SampleIndex.of(range(n)), list(columns), np.column_stack(list(columns.values())))
    names = [name for name in columns if name != "age"]
    found = prepare_table(table, names, confounds="age", options=PrepareOptions(outlier_mads=None)).report
    assert dict(zip(names, found.many_ties.tolist(), strict=True)) == {name: name == "years" for name in names}
    assert dict(zip(names, found.reason, strict=True))["rare"] == "9 in the smaller class, 10 are needed"
    assert [why for why in found.reason if why] == ["9 in the smaller class, 10 are needed"]
    assert {(c.confound, c.trait) for c in found.close} == {("age", "nearly"), ("age", "years")}
    assert found.close[0].r == pytest.approx(np.corrcoef(age, columns["nearly"])[0, 1], rel=1e-12)
    assert found.halved == ("nearly", "half", "years")
    options = PrepareOptions(outlier_mads=None, min_cases=9)
    assert not any(prepare_table(table, names, confounds="age", options=options).report.reason)


def test_a_negative_value_that_may_mean_missing_is_suspected():
    rng = np.random.default_rng(9)
    values = rng.uniform(0, 5, (100, 5))
    values[:6, 0] = -9.0  # 6 %
    values[:5, 1] = -9.0  # 5 %, not more
    values[:20, 2] = -1.0
    values[:2, 2] = -3.0  # two negative values
    values[:, 3] = -1.0  # nothing else
    values[:20, 4] = np.nan
    found = suspected_sentinels(values, list("abcde"))
    assert found == (Sentinel("a", -9.0, 6),)


def test_infinite_traits_and_too_few_people_for_the_confounds():
    rng = np.random.default_rng(10)
    values = rng.standard_normal((60, 3))
    table = quantitative_table(SampleIndex.of(range(60)), ["x", "y", "z"], values)
    infinite = table.replace_values(["y"], np.where(np.arange(60) == 3, np.inf, values[:, 1])[:, None])
    with pytest.raises(ValueError, match="infinite values: y"):
        prepare_table(infinite, ["x", "y"])
    formula = " + ".join(f"I(z**{k})" for k in range(1, 6)) + " + " + " + ".join(f"I(z>{c})" for c in (-1, 0, 1))
    few = table.replace_values(["x"], np.where(np.arange(60) < 8, values[:, 0], np.nan)[:, None])
    found = prepare_table(few, ["x", "y"], confounds=formula, options=PrepareOptions(min_people=5)).report
    assert found.reason[0].startswith("8 people and ")
    assert found.reason[0].endswith("columns of confounds leave nothing")
    assert found.reason[1] == ""
