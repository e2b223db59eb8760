"""Confound sets against the rules read literally, planted confounds, and what is refused."""

import numpy as np
import pytest

from brainlocus.cohort.prepare import (
    ConfoundRole,
    ConfoundSetOptions,
    PrepareOptions,
    build_confound_set,
    confound_role,
    deconfound,
    explained_by_group,
    prepare_table,
    svd_basis,
)
from brainlocus.cohort.prepare.coding import code_categorical, code_continuous, code_sites
from brainlocus.cohort.prepare.drift import drift_components, smooth_along
from brainlocus.cohort.prepare.expansion import partial_r2, screen_candidates
from brainlocus.core import Column, PhenotypeTable, SampleIndex, SchemaError, quantitative_table
from brainlocus.numerics import design_from_formula, pattern_systems
from tests.reference import naive_confounds as naive


def cohort(n=260, q=7, seed=0, missing=0.0):
    """People of two sites with every kind of confound, and traits that depend on some."""
    rng = np.random.default_rng(seed)
    site = np.array(["east", "west"])[(rng.uniform(size=n) < 0.4).astype(int)]
    values = {
        "age": rng.uniform(45, 80, n),
        "sex": rng.integers(0, 2, n).astype(float),
        "head": rng.normal(1.3, 0.1, n),
        "motion": np.exp(rng.normal(0, 0.5, n)),
        "table": rng.normal(0, 5, n),
        "date": 2015 + rng.uniform(0, 2, n),
        "hour": rng.uniform(8, 18, n),
    }
    phase = np.array(["a", "b", "c"])[rng.integers(0, 3, n)]
    traits = rng.standard_normal((n, q)) + 0.03 * (values["age"] - 60)[:, None]
    traits[:, 1] += np.sin(6 * values["date"])
    traits[:, 2] += (site == "east") * 0.004 * (values["age"] - 60) ** 2
    values["motion"][3] = 500.0
    values["motion"][5] = np.nan
    values["table"][:4] = np.nan
    values["date"][9] = np.nan
    traits[rng.uniform(size=traits.shape) < missing] = np.nan
    columns = [Column(name, v) for name, v in values.items()]
    columns += [Column("site", site, "categorical"), Column("phase", phase, "categorical")]
    return PhenotypeTable(SampleIndex.of(range(n)), tuple(columns)), traits


ROLES = tuple(
    ConfoundRole(column, role)
    for column, role in (
        ("age", "age"), ("sex", "sex"), ("site", "site"), ("head", "head_size"), ("motion", "head_motion"),
        ("table", "table_position"), ("date", "scan_date"), ("hour", "time_of_day"), ("phase", "protocol"),
    )
)  # fmt: skip


def values_of(table, name):
    return table.column(name).values


def small_columns(table, *, only_small):
    """The set before non-linear columns, literally."""
    site = values_of(table, "site").tolist()
    homes = sorted(set(site))
    age, date = (naive.continuous(values_of(table, k), site) for k in ("age", "date"))
    sex = naive.categorical([f"{v:g}" for v in values_of(table, "sex")], site)
    numbers = ["head", "motion"] if only_small else ["head", "motion", "table", "hour"]
    columns = [*age, *date, *sex, *naive.sites(site)]
    for k, home in enumerate(homes):
        columns.append(naive.within(age[k] ** 2, home, site))
        columns.append(naive.within(date[k] ** 2, home, site))
        columns.append(naive.within(age[k] * sex[k], home, site))
        columns.append(naive.within(age[k] ** 2 * sex[k], home, site))
    for name in numbers:
        columns += naive.continuous(values_of(table, name), site)
    if not only_small:
        columns += naive.categorical(values_of(table, "phase").tolist(), site)
    return columns


def same_columns(found, expected):
    """Whether two sets of columns are the same up to order and sign."""
    assert found.shape[1] == len(expected)
    for column in expected:
        distance = [min(np.abs(column - f).max(), np.abs(column + f).max()) for f in found.T]
        assert min(distance) < 1e-6


def test_continuous_and_categorical_coding_by_the_rules():
    table, _ = cohort()
    site = values_of(table, "site")
    code = (site == "west").astype(np.int64)
    motion = code_continuous(values_of(table, "motion"), code, 2)
    np.testing.assert_allclose(motion.matrix.T, naive.continuous(values_of(table, "motion"), site.tolist()), atol=1e-12)
    assert motion.n_replaced == 2
    phase = values_of(table, "phase").copy()
    phase[7] = ""
    coded = code_categorical(phase, code, 2)
    np.testing.assert_allclose(coded.matrix.T, naive.categorical(phase.tolist(), site.tolist()), atol=1e-12)
    assert (coded.level, coded.n_replaced) == (("b", "c", "b", "c"), 1)
    assert (coded.matrix[7] == 0).all()
    np.testing.assert_allclose(code_sites(code, 2).T, naive.sites(site.tolist()), atol=1e-12)
    # More than half of the values are equal: the standard deviation takes the MAD's place.
    mostly = np.where(np.arange(260) < 200, 1.0, 3.0)
    np.testing.assert_allclose(
        code_continuous(mostly, code, 2).matrix.T, naive.continuous(mostly, site.tolist()), atol=1e-12
    )
    nobody = np.full(260, np.nan)
    assert (code_continuous(nobody, code, 2).matrix == 0).all()


@pytest.mark.parametrize("missing", [0.0, 0.05])
def test_sets_equal_the_rules_read_literally(missing):
    table, traits = cohort(missing=missing)
    small = build_confound_set(table, ROLES, traits, options=ConfoundSetOptions("small"))
    same_columns(small.matrix, small_columns(table, only_small=True))
    found = build_confound_set(table, ROLES, traits, options=ConfoundSetOptions("ukb", min_variance=0.04))
    expected = small_columns(table, only_small=False)
    numbers = {name: values_of(table, name) for name in ("age", "head", "motion", "table", "date", "hour")}
    categories = {
        "sex": [f"{v:g}" for v in values_of(table, "sex")],
        "phase": values_of(table, "phase").tolist(),
    }
    nonlinear, crossed, drifts = naive.ukb_set(
        numbers, categories, values_of(table, "site").tolist(), traits, small=expected,
        dates={"date": 0.1, "hour": None},
        pairs_skipped=[{"age", "sex"}], squares_there={"age", "date"}, min_variance=0.04,
    )  # fmt: skip
    groups = np.array(found.groups)
    same_columns(found.matrix[:, groups == "non_linear"], nonlinear)
    same_columns(found.matrix[:, groups == "crossed"], crossed)
    same_columns(found.matrix[:, np.char.startswith(groups, "drift")], drifts)
    same_columns(found.matrix, [*expected, *nonlinear, *crossed, *drifts])
    assert found.replaced == {"motion": 2, "table": 4, "date": 1}
    # Candidates: 6 numbers x 3 forms less 2 squares, and 28 pairs of 8 confounds (phase has 2 columns) less age x sex.
    assert found.screening.keep.size == 2 * (6 * 3 - 2) + 2 * (21 + 7 * 2 - 1)
    assert 0 < found.screening.keep.sum() < found.screening.keep.size
    # The basis spans the columns, and nothing more.
    q = found.basis.q
    np.testing.assert_allclose(q.T @ q, np.eye(found.basis.rank), atol=1e-12)
    np.testing.assert_allclose(q @ (q.T @ found.matrix), found.matrix, atol=1e-9)
    assert found.basis.rank == np.linalg.matrix_rank(np.column_stack([np.ones(260), found.matrix]), tol=1e-9)


def test_partial_r2_with_missing_values_is_the_pairwise_regression():
    rng = np.random.default_rng(1)
    kept, candidates = rng.standard_normal((120, 4)), rng.standard_normal((120, 3))
    traits = rng.standard_normal((120, 5)) + candidates[:, :1]
    traits[rng.uniform(size=traits.shape) < 0.2] = np.nan
    traits[:100, 4] = np.nan
    found = partial_r2(svd_basis(kept, list("abcd")).q, candidates, traits)
    expected = [[naive.partial_r2(c, traits[:, j], list(kept.T)) for j in range(5)] for c in candidates.T]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    # A combination of the kept columns explains nothing more, and is not a number.
    assert np.isnan(partial_r2(svd_basis(kept, list("abcd")).q, kept[:, :1] + 2.0, traits)).all()


def test_screening_keeps_by_the_largest_and_by_the_mean():
    r2 = np.full((40, 2), 0.001)
    r2[3] = [0.0074, 0.0074]
    r2[5] = [0.0, 0.0075]
    r2[7] = [0.0076, 0.0]
    r2[9] = [0.0074, 0.0]
    found = screen_candidates(r2, min_variance=0.0075)
    # The 95th percentile of 40 means lies between the second and third largest.
    assert np.flatnonzero(found.keep).tolist() == [3, 5, 7]
    nothing = screen_candidates(np.full((2, 2), np.nan), min_variance=0.0075)
    assert not nothing.keep.any()


def test_smoothing_is_the_kernel_mean_also_when_times_are_rounded(monkeypatch):
    rng = np.random.default_rng(2)
    times, traits = rng.uniform(0, 2, 150), rng.standard_normal((150, 3))
    traits[rng.uniform(size=traits.shape) < 0.1] = np.nan
    expected = np.column_stack([naive.smoothed(times, traits[:, j], 0.1) for j in range(3)])
    np.testing.assert_allclose(smooth_along(times, traits, 0.1), expected, atol=1e-12)
    monkeypatch.setattr("brainlocus.cohort.prepare.drift.MAX_TIMES", 100)
    rounded = smooth_along(times, traits, 0.1)
    assert 0 < np.abs(rounded - expected).max() < 0.02
    assert drift_components(np.zeros(9), traits[:9], 0.1).shape == (9, 0)
    assert drift_components(times, np.zeros((150, 3)), 0.1).shape == (150, 0)
    # More traits than people: the other eigenproblem, the same components.
    wide = rng.standard_normal((60, 90))
    same_columns(drift_components(times[:60], wide, 0.3), naive.drift(times[:60], wide, 0.3))


def test_variance_by_group_is_that_of_regressions_with_and_without():
    table, traits = cohort(n=200, missing=0.04)
    traits[:, 6] = traits[:, 0]
    traits[values_of(table, "site") == "west", 6] = np.nan  # one site alone leaves the columns of the other empty
    found = build_confound_set(table, ROLES, traits, options=ConfoundSetOptions("small"))
    share = explained_by_group(found.basis.q, found.matrix, found.groups, traits)
    groups = np.array(found.groups)
    assert share.groups == tuple(dict.fromkeys(found.groups))
    for j in range(traits.shape[1]):
        y = traits[:, j]
        total = naive.r2_of(y, list(found.matrix.T))
        assert share.total[j] == pytest.approx(total, abs=1e-9)
        for g, name in enumerate(share.groups):
            inside, others = found.matrix[:, groups == name], found.matrix[:, groups != name]
            assert share.marginal[g, j] == pytest.approx(naive.r2_of(y, list(inside.T)), abs=1e-9)
            assert share.unique[g, j] == pytest.approx(total - naive.r2_of(y, list(others.T)), abs=1e-9)
    systems = list(pattern_systems(found.basis.q, ~np.isnan(traits)))
    assert any(s.factor is None for s in systems)


def test_residuals_of_a_set_are_those_of_one_regression_a_trait():
    table, traits = cohort(missing=0.04)
    traits[40:, 6] = np.nan
    found = build_confound_set(table, ROLES, traits)
    free = deconfound(traits, found.matrix, names=found.names, basis=found.basis)
    for j in range(6):
        np.testing.assert_allclose(free.values[:, j], naive.residual(traits[:, j], list(found.matrix.T)), atol=1e-8)
    assert np.isnan(free.values[:, 6]).all()  # 40 people, more columns


def test_blocks_of_candidates_change_nothing(monkeypatch):
    table, traits = cohort(missing=0.03)
    whole = build_confound_set(table, ROLES, traits)
    monkeypatch.setattr("brainlocus.cohort.prepare.confound_set.CANDIDATE_BYTES", 1)
    assert whole.screening.groups.count("crossed") == 68  # blocks of 64 and 4
    parts = build_confound_set(table, ROLES, traits)
    assert parts.names == whole.names
    np.testing.assert_allclose(parts.screening.largest, whole.screening.largest, rtol=1e-9)
    np.testing.assert_allclose(parts.matrix, whole.matrix, atol=1e-9)


def planted(n=4_000, seed=3):
    """Traits with a curved effect of age in one site, a product of motion and head size, and a drift of the scanner."""
    rng = np.random.default_rng(seed)
    site = np.array(["a", "b"])[rng.integers(0, 2, n)]
    age, head, motion = rng.uniform(45, 80, n), rng.normal(1.3, 0.1, n), rng.normal(0, 1, n)
    date = 2015 + rng.uniform(0, 3, n)
    third = ((age - 62) / 10) ** 3
    product = motion * (head - 1.3) / 0.1
    drift = np.sin(2 * np.pi * date / 0.9) * (site == "a")
    effects = np.column_stack([third * (site == "b"), product, drift])
    traits = rng.standard_normal((n, 6))
    traits[:, :3] += 0.5 * effects / effects.std(axis=0)
    traits[:, 3] += 0.5 * drift / drift.std()  # a drift shared by two traits
    traits[rng.uniform(size=traits.shape) < 0.01] = np.nan
    names = ("age", "head", "motion", "date")
    people = PhenotypeTable(
        SampleIndex.of(range(n)),
        (
            *(Column(k, v) for k, v in zip(names, (age, head, motion, date), strict=True)),
            Column("site", site, "categorical"),
        ),
    )
    return people, quantitative_table(people.samples, [f"idp{k}" for k in range(6)], traits), effects


def test_planted_confounds_stay_after_the_small_set_and_go_with_the_whole():
    people, table, effects = planted()
    roles = [ConfoundRole(c, r) for c, r in (("age", "age"), ("head", "head_size"), ("motion", "head_motion"),
                                             ("date", "scan_date"), ("site", "site"))]  # fmt: skip

    def largest(kind):
        options = PrepareOptions(confound_set=ConfoundSetOptions(kind), outlier_mads=None)
        found = prepare_table(table, table.names, confound_table=people, roles=roles, options=options)
        values = found.table.matrix()
        r = []
        for j in range(3):
            rows = ~np.isnan(values[:, j])
            r.append(abs(np.corrcoef(values[rows, j], effects[rows, j])[0, 1]))
        return np.array(r), found

    small, _ = largest("small")
    whole, found = largest("ukb")
    # A cubic is partly taken by its line and parabola; the others are untouched by the small set.
    assert (small > [0.08, 0.4, 0.4]).all()
    # Chance alone leaves 1.96 / sqrt(4000) = 0.03.
    assert (whole < 0.03).all()
    groups = found.report.groups
    unique = dict(zip(groups.groups, groups.unique, strict=True))
    assert unique["crossed"][1] > 0.15
    assert unique["drift_date"][2] > 0.1
    assert unique["drift_date"][3] > 0.1
    assert unique["drift_date"][4] < 0.03
    assert found.report.explained[4] < 0.05
    assert "head__a__x__motion__a" in found.confounds.names


@pytest.mark.parametrize("kind", ["small", "ukb"])
def test_confounds_of_some_traits_only_are_regressed_out_of_these(kind):
    people, table, _ = planted(1_000)
    rng = np.random.default_rng(6)
    gradient, lesions = rng.standard_normal((2, 1_000))
    gradient[7] = np.nan
    values = table.matrix() + np.outer(np.nan_to_num(gradient), [0, 0, 0, 0, 1, 1]) + np.outer(lesions, [0] * 5 + [1])
    table = quantitative_table(table.samples, ["a", "b", "c", "d", "T2star_e", "T2star_f"], values)
    people = PhenotypeTable(people.samples, (*people.columns, Column("grad", gradient), Column("wmh", lesions)))
    roles = [ConfoundRole("age", "age"), ConfoundRole("site", "site"), ConfoundRole("head", "head_size")]
    special = [ConfoundRole("grad", "extra", traits=("T2star_*",)), ConfoundRole("wmh", "extra", traits=("*_f", "no"))]
    options = PrepareOptions(outlier_mads=None, confound_set=ConfoundSetOptions(kind))

    def prepared(given):
        return prepare_table(table, table.names, confound_table=people, roles=given, options=options)

    with_special, without = prepared([*roles, *special]), prepared(roles)
    here, there = with_special.table.matrix(), without.table.matrix()
    np.testing.assert_array_equal(here[:, :4], there[:, :4])
    columns = without.confounds.matrix
    site = (values_of(people, "site") == "b").astype(np.int64)
    own = {4: [gradient], 5: [gradient, lesions]}
    for k, further in own.items():
        added = [code_continuous(v, site, 2).matrix for v in further]
        expected = naive.residual(naive_normal(table.matrix()[:, k]), list(np.hstack([columns, *added]).T))
        np.testing.assert_allclose(here[:, k], expected / np.nanstd(expected, ddof=1), atol=1e-8)
    groups = with_special.report.groups
    extra = groups.unique[groups.groups.index("extra")]
    assert (extra[:4] == 0).all()
    assert extra[4] > 0.3
    assert extra[5] > 0.5
    with pytest.raises(SchemaError, match=r"'grad' is for the traits R2_\*, and none of the 6 traits"):
        prepared([*roles, ConfoundRole("grad", "extra", traits=("R2_*",))])
    with pytest.raises(SchemaError, match=r"'x' is for some traits only \(T2\*\).*with the role extra, found qc"):
        confound_role("x", "qc", "auto", ("T2*",))


def naive_normal(values):
    """Normal scores of mean 0 and variance 1."""
    scores = naive.normal_scores(np.where(np.isnan(values), 0.0, values), 0, np.where(np.isnan(values), 1, 0))
    scores[np.isnan(values)] = np.nan
    return (scores - np.nanmean(scores)) / np.nanstd(scores, ddof=1)


def test_rows_in_another_order_give_the_same_residuals():
    table, traits = cohort(missing=0.02)
    order = np.random.default_rng(4).permutation(260)
    here = build_confound_set(table, ROLES, traits)
    there = build_confound_set(table.take(order), ROLES, traits[order])
    assert here.names == there.names
    first = deconfound(traits, here.matrix, basis=here.basis).values
    second = deconfound(traits[order], there.matrix, basis=there.basis).values
    np.testing.assert_allclose(second, first[order], atol=1e-8)


def test_dates_times_and_sites_in_other_writings_are_the_same():
    table, traits = cohort(n=120)
    day = np.random.default_rng(5).integers(0, 700, 120)
    iso = np.datetime_as_string(np.datetime64("2016-02-28") + day)
    stamps = np.array([f"{d}T11:00:00" for d in iso])
    compact = np.array([float(d.replace("-", "")) for d in iso])
    clock = np.array([f"{int(h)}:{round(h % 1 * 60) % 60:02d}" for h in values_of(table, "hour")])
    hours = np.array([int(c.split(":")[0]) + int(c.split(":")[1]) / 60 for c in clock])
    found = []
    for date, hour in ((Column("date", iso, "categorical"), Column("hour", clock, "categorical")),
                       (Column("date", stamps, "categorical"), Column("hour", hours)),
                       (Column("date", compact), Column("hour", hours))):  # fmt: skip
        other = PhenotypeTable(
            table.samples, (*(c for c in table.columns if c.name not in ("date", "hour")), date, hour)
        )
        found.append(build_confound_set(other, ROLES, traits))
    for other in found[1:]:
        np.testing.assert_allclose(other.matrix, found[0].matrix, atol=1e-9)


def test_a_formula_joins_the_set_and_people_without_a_site_have_no_confounds():
    table, traits = cohort()
    site = values_of(table, "site").copy()
    site[:3] = ""
    lacking = PhenotypeTable(table.samples, tuple(Column("site", site, "categorical") if c.name == "site" else c
                                                  for c in table.columns))  # fmt: skip
    further = design_from_formula("I(head**2)", lacking)
    found = build_confound_set(lacking, ROLES, traits, options=ConfoundSetOptions("small"), further=further)
    assert found.groups.count("formula") == 1
    np.testing.assert_array_equal(found.complete, site != "")
    assert np.isnan(found.matrix[:3]).all()
    assert np.isfinite(found.matrix[3:]).all()


def test_constant_confounds_are_dropped_by_name_and_one_site_needs_no_site():
    table, traits = cohort()
    flat = PhenotypeTable(table.samples, (*table.columns, Column("flat", np.ones(260))))
    roles = [*(r for r in ROLES if r.role != "site"), ConfoundRole("flat", "extra")]
    found = build_confound_set(flat, roles, traits)
    assert "flat" in found.basis.dropped
    assert "flat" not in found.names
    assert "site" not in found.groups
    assert "age" in found.names


BAD = {
    "absent": (
        [ConfoundRole("agee", "age"), ConfoundRole("sexx", "sex")],
        r"2 of 2 columns are not in the table of people: 'agee', 'sexx'.*'age'",
    ),
    "twice": ([ConfoundRole("age", "age"), ConfoundRole("age", "extra")], "found 'age' more than once"),
    "two ages": ([ConfoundRole("age", "age"), ConfoundRole("head", "age")], "age is one column, found 'age', 'head'"),
    "none": ([], "expected at least one column with a role"),
    "text": (
        [ConfoundRole("phase", "head_size")],
        r"head_size 'phase' is continuous, but the column holds text \(a, b",
    ),
    "date": ([ConfoundRole("phase", "scan_date")], r"column 'phase' has 260 values such as 'a'; expected a date"),
    "number of date": ([ConfoundRole("table", "scan_date")], "expected dates as 2016-03-31, 20160331 or years"),
    "time": ([ConfoundRole("phase", "time_of_day")], "expected a time such as 14:30"),
    "hours": ([ConfoundRole("age", "time_of_day")], "holds 260 numbers outside 0 to 24"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_roles_are_refused(case):
    roles, message = BAD[case]
    table, traits = cohort()
    with pytest.raises(SchemaError, match=message):
        build_confound_set(table, roles, traits)


def test_roles_and_types_are_read_from_texts():
    assert confound_role("x", "qc", "categorical") == ConfoundRole("x", "qc", "categorical")
    with pytest.raises(SchemaError, match=r"column 'x' has the unknown role 'agee'.*'age'.*Roles are: age, sex"):
        confound_role("x", "agee")
    with pytest.raises(SchemaError, match="unknown type 'number'; expected auto, continuous, categorical"):
        confound_role("x", "age", "number")


def test_more_columns_than_people_and_nobody_at_all_are_refused():
    table, traits = cohort()
    rows = np.arange(24)
    with pytest.raises(ValueError, match=r"24 people have every confound, and the set has \d+ independent columns"):
        build_confound_set(table.take(rows), ROLES, traits[rows])
    nowhere = PhenotypeTable(table.samples, (table.column("age"), Column("site", np.full(260, ""), "categorical")))
    with pytest.raises(ValueError, match="No person has every confound: the site"):
        build_confound_set(nowhere, [ConfoundRole("age", "age"), ConfoundRole("site", "site")], traits)
