"""Folds, held-out correlations, permutation, resamples: no leakage, and the truth that was planted."""

import numpy as np
import pytest

from brainlocus.cohort.multivariate import (
    PLS,
    PairedTables,
    RidgeCca,
    SparseCca,
    choose_penalty,
    cross_validate_modes,
    fit_everyone,
    group_folds,
    held_out_interval,
    mode_correlations,
    permute_modes,
    plan_folds,
    resample_modes,
    ridge_grid,
    sparse_grid,
)
from brainlocus.cohort.multivariate.alignment import align_modes
from brainlocus.cohort.multivariate.residual_space import residual_space
from tests.reference.multivariate import residuals, ridge_cca


def planted(n=150, m=30, q=8, *, effect=0.0, seed=0, covariates=2):
    """Covariates move both tables; a shared factor too, with `effect`."""
    rng = np.random.default_rng(seed)
    c, shared = rng.standard_normal((n, covariates)), rng.standard_normal((n, 1))
    x, y = rng.standard_normal((n, m)), rng.standard_normal((n, q))
    x += c @ rng.standard_normal((covariates, m))
    y += c @ rng.standard_normal((covariates, q))
    x[:, :4] += effect * shared
    y[:, :2] += effect * shared
    return PairedTables(x, y, c)


def test_groups_are_never_divided_and_folds_are_even():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), rng.integers(1, 5, 40))
    plan = plan_folds(groups.size, groups, folds=5, inner_folds=4, rng=rng)
    held = np.concatenate([s.test for s in plan.outer])
    assert sorted(held.tolist()) == list(range(groups.size))
    for split, inner in zip(plan.outer, plan.inner, strict=True):
        assert not set(groups[split.train]) & set(groups[split.test])
        assert abs(split.test.size - groups.size / 5) <= 4
        for within in inner:
            assert not set(groups[within.train]) & set(groups[within.test])
            assert set(within.test) | set(within.train) == set(split.train)


def test_folds_that_cannot_be():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"at least 5 groups of people .* found 3"):
        group_folds(np.repeat([0, 1, 2], 20), 5, rng)
    with pytest.raises(ValueError, match="would have 3 of 15 people"):
        group_folds(np.arange(15), 5, rng)


def test_held_out_correlation_step_by_step():
    """One fold by hand: regressions on training rows, the eigenproblem, the variates of the others."""
    tables = planted(effect=1.0)
    plan = plan_folds(150, None, folds=5, inner_folds=5, rng=np.random.default_rng(1))
    held = cross_validate_modes(RidgeCca(((0.4, 0.2),)), tables, [tables.y], plan, 2)
    for fold, split in enumerate(plan.outer):
        x, y = (residuals(t, tables.covariates, split.train) for t in (tables.x, tables.y))
        a, b, _ = ridge_cca(x[split.train], y[split.train], 0.4, 0.2, 2)
        expected = mode_correlations(x[split.test] @ a, y[split.test] @ b)
        np.testing.assert_allclose(held.r_test[0, fold], expected, atol=1e-9)
        expected = mode_correlations(x[split.train] @ a, y[split.train] @ b)
        np.testing.assert_allclose(held.r_train[0, fold], expected, atol=1e-9)


def test_held_out_people_do_not_enter_their_model():
    """A held-out person changed beyond recognition changes no model of the fold: all other variates stay."""
    tables = planted(effect=0.5)
    plan = plan_folds(150, None, folds=5, inner_folds=3, rng=np.random.default_rng(1))
    who = int(plan.outer[2].test[0])
    x, y, c = tables.x.copy(), tables.y.copy(), tables.covariates.copy()
    x[who], y[who], c[who] = 1e3, -1e3, 50.0
    changed = PairedTables(x, y, c)
    for method in (RidgeCca(ridge_grid(150, 30, 8)), SparseCca(sparse_grid(30, 8))):
        before = cross_validate_modes(method, tables, [tables.y], plan, 1)
        after = cross_validate_modes(method, changed, [y], plan, 1)
        others = plan.outer[2].test != who
        np.testing.assert_allclose(before.modes[2].x_test[others], after.modes[2].x_test[others], atol=1e-9)
        np.testing.assert_allclose(before.modes[2].y_test[others], after.modes[2].y_test[others], atol=1e-9)
        assert before.penalty[0, 2] == after.penalty[0, 2]


def test_penalty_is_the_strongest_within_one_standard_error():
    tables = planted(effect=0.7)
    method = RidgeCca(ridge_grid(150, 30, 8))
    plan = plan_folds(150, None, folds=5, inner_folds=5, rng=np.random.default_rng(1))
    scores = []
    for split in plan.everyone:
        x, y = (residuals(t, tables.covariates, split.train) for t in (tables.x, tables.y))
        row = []
        for penalty in method.penalties:
            a, b, _ = ridge_cca(x[split.train], y[split.train], *penalty, 1)
            row.append(mode_correlations(x[split.test] @ a, y[split.test] @ b)[0])
        scores.append(row)
    mean, error = np.mean(scores, axis=0), np.std(scores, axis=0, ddof=1) / np.sqrt(5)
    best = mean.argmax()
    expected = np.flatnonzero(mean >= mean[best] - error[best]).max()
    assert choose_penalty(method, tables, [tables.y], plan.everyone)[0] == expected


def test_covariates_that_move_both_tables_are_no_association():
    rng = np.random.default_rng(2)
    tables = planted(n=300, effect=0.0, seed=2)
    plan = plan_folds(300, None, folds=5, inner_folds=5, rng=rng)
    adjusted = cross_validate_modes(PLS, tables, [tables.y], plan, 1).mean[0, 0]
    raw = PairedTables(tables.x, tables.y, np.empty((300, 0)))
    assert abs(adjusted) < 0.15
    assert cross_validate_modes(PLS, raw, [tables.y], plan, 1).mean[0, 0] > 0.5


def families(seed, *, n=120, size=4, m=150, q=10):
    """Relatives are alike in both tables, which have nothing to do with one another."""
    rng = np.random.default_rng(seed)
    family = np.repeat(np.arange(n // size), size)
    x = rng.standard_normal((n // size, m))[family] + 0.3 * rng.standard_normal((n, m))
    y = rng.standard_normal((n // size, q))[family] + 0.3 * rng.standard_normal((n, q))
    return PairedTables(x, y, np.empty((n, 0))), family


def test_relatives_in_other_folds_leak_and_kept_together_do_not():
    together, divided = [], []
    method = RidgeCca(((0.5, 0.5),))
    for seed in range(8):
        tables, family = families(seed)
        for groups, found in ((family, together), (None, divided)):
            plan = plan_folds(120, groups, folds=4, inner_folds=0, rng=np.random.default_rng(seed))
            found.append(cross_validate_modes(method, tables, [tables.y], plan, 1).mean[0, 0])
    assert np.mean(divided) > 0.6
    assert abs(np.mean(together)) < 3 * np.std(together) / np.sqrt(8)


def test_residual_space():
    rng = np.random.default_rng(0)
    c = rng.standard_normal((30, 4))
    space = residual_space(c)
    z = space.project(np.eye(30)).T  # people x kept
    design = np.column_stack([np.ones(30), c])
    hat = design @ np.linalg.solve(design.T @ design, design.T)
    np.testing.assert_allclose(z.T @ z, np.eye(25), atol=1e-10)
    np.testing.assert_allclose(z @ z.T, np.eye(30) - hat, atol=1e-10)
    np.testing.assert_allclose(space.restore(np.eye(25)), z, atol=1e-10)
    # A kept person's row is the nearest to their own residual (Theil).
    assert (np.abs(z[space.kept]).argmax(axis=1) == np.arange(25)).all()
    with pytest.raises(ValueError, match="at least twice as many people as covariates"):
        residual_space(rng.standard_normal((7, 4)))


def test_permuting_nothing_gives_the_observed_statistic(monkeypatch):
    """The pipeline sees in Z Z'Y what it sees in Y, so that Y itself is one of its own permutations."""
    tables = planted(effect=0.5)
    plan = plan_folds(150, None, folds=4, inner_folds=3, rng=np.random.default_rng(1))
    method = RidgeCca(ridge_grid(150, 30, 8))
    held = cross_validate_modes(method, tables, [tables.y], plan, 2)
    final = fit_everyone(method, tables, (0.5, 0.5), 2)
    module = "brainlocus.cohort.multivariate.inference.permute_people"
    monkeypatch.setattr(module, lambda _rng, n, count, **_: np.tile(np.arange(n), (count, 1)))
    test = permute_modes(
        method, tables, plan, held.mean[0], final, rng=np.random.default_rng(0), permutations=2, alpha=1.0
    )
    np.testing.assert_allclose(test.null, np.repeat(held.mean[0][:, None], 2, axis=1), atol=1e-8)
    np.testing.assert_allclose(test.p, 1.0)


def test_planted_mode_is_found_and_the_second_is_not():
    tables = planted(effect=1.0)
    rng = np.random.default_rng(3)
    plan = plan_folds(150, None, folds=3, inner_folds=3, rng=rng)
    method = SparseCca(((0.6, 0.8), (0.3, 0.5)))
    held = cross_validate_modes(method, tables, [tables.y], plan, 3)
    penalty = method.penalties[choose_penalty(method, tables, [tables.y], plan.everyone)[0]]
    final = fit_everyone(method, tables, penalty, 3)
    test = permute_modes(method, tables, plan, held.mean[0], final, rng=rng, permutations=19, alpha=0.051)
    assert test.p[0] == pytest.approx(1 / 20)
    assert test.p[1] > 0.05
    assert np.isnan(test.p[2])
    assert test.null.shape == (2, 19)
    groups = np.arange(150)
    lower, upper = held_out_interval(held, plan, groups, rng=rng)
    assert lower[0] < held.mean[0, 0] < upper[0]
    assert lower[0] > 0.2
    # A fold that is one site: its people are drawn.
    sites = np.zeros(150, dtype=np.int64)
    for k, split in enumerate(plan.outer):
        sites[split.test] = k
    lower, upper = held_out_interval(held, plan, sites, rng=rng)
    assert upper[0] - lower[0] > 0.1
    assert final.modes.x_weights is not None
    assert {0, 1, 2, 3} <= set(np.argsort(-np.abs(final.modes.x_weights[:, 0]))[:6])
    again = resample_modes(method, tables, penalty, final, groups, rng=rng, draws=15)
    assert again.x_frequency[:4, 0].min() > 0.8
    assert np.abs(again.x_ratio[:4, 0]).min() > 3
    assert again.x_frequency[10:, 0].mean() < 0.5
    half = resample_modes(method, tables, penalty, final, groups, rng=rng, draws=10, kind="half")
    assert half.x_frequency[:4, 0].min() > 0.6


def test_exchange_within_groups_only():
    tables = planted(n=120)
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 2)
    plan = plan_folds(120, groups, folds=4, inner_folds=3, rng=rng)
    final = fit_everyone(PLS, tables, (1.0, 1.0), 1)
    common = {"rng": rng, "permutations": 3, "groups": groups}
    for exchange in ("free", "within", "whole"):
        test = permute_modes(PLS, tables, plan, np.zeros(1), final, exchange=exchange, **common)
        assert test.null.shape == (1, 3)
    with pytest.raises(ValueError, match=r"Every block is of one person.* whole groups or all people instead"):
        permute_modes(PLS, tables, plan, np.zeros(1), final, exchange="within", **{**common, "groups": np.arange(120)})


def test_alignment_finds_orders_and_signs():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((50, 4))
    order, signs = np.array([2, 0, 3, 1]), np.array([1.0, -1.0, -1.0, 1.0])
    found = np.empty_like(reference)
    found[:, order] = reference * signs
    np.testing.assert_allclose(align_modes(reference, found).apply(found), reference)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ridge", "pls", "sparse"])
def test_noise_gives_uniform_p_and_held_out_r_about_0(kind):
    """120 studies without an association, covariates in both tables: p uniform, held-out r centred on 0."""
    from scipy.stats import kstest

    method = {
        "ridge": RidgeCca(((0.1, 0.1), (0.9, 0.9))),
        "pls": PLS,
        "sparse": SparseCca(((0.6, 0.8), (0.3, 0.5))),
    }[kind]
    p, r = [], []
    for seed in range(120):
        tables = planted(n=60, m=15, q=5, seed=100 + seed, covariates=6)
        rng = np.random.default_rng(seed)
        plan = plan_folds(60, None, folds=3, inner_folds=3, rng=rng)
        held = cross_validate_modes(method, tables, [tables.y], plan, 1)
        final = fit_everyone(method, tables, method.penalties[0], 1)
        test = permute_modes(method, tables, plan, held.mean[0], final, rng=rng, permutations=19)
        # A random place among ties of the grid of 1/20 makes the p continuous.
        p.append(test.p[0] - rng.uniform() / 20)
        r.append(held.mean[0, 0])
    assert kstest(p, "uniform").pvalue > 0.01
    assert abs(np.mean(r)) < 3 * np.std(r) / np.sqrt(len(r))


@pytest.mark.slow
def test_second_mode_is_not_found_where_there_is_one():
    """100 studies with one strong mode: the step-down p of the second is below 0.05 no more often than it should."""
    found = 0
    for seed in range(100):
        tables = planted(n=80, m=12, q=5, seed=500 + seed, effect=1.5)
        rng = np.random.default_rng(seed)
        plan = plan_folds(80, None, folds=4, inner_folds=3, rng=rng)
        method = RidgeCca(((0.5, 0.5),))
        held = cross_validate_modes(method, tables, [tables.y], plan, 2)
        final = fit_everyone(method, tables, (0.5, 0.5), 2)
        test = permute_modes(method, tables, plan, held.mean[0], final, rng=rng, permutations=19, alpha=0.051)
        assert test.p[0] <= 0.051
        found += int(test.p[1] <= 0.051)
    assert found <= 12  # 5 expected; binomial 99.9 % quantile


@pytest.mark.slow
def test_families_exchanged_as_wholes_give_uniform_p():
    """80 studies of families without an association: uniform p when whole families change places."""
    from scipy.stats import kstest

    p, method = [], RidgeCca(((0.5, 0.5),))
    for seed in range(80):
        tables, family = families(900 + seed, n=80, m=30, q=5)
        rng = np.random.default_rng(seed)
        plan = plan_folds(80, family, folds=4, inner_folds=0, rng=rng)
        held = cross_validate_modes(method, tables, [tables.y], plan, 1)
        final = fit_everyone(method, tables, (0.5, 0.5), 1)
        test = permute_modes(
            method, tables, plan, held.mean[0], final, rng=rng, permutations=19, groups=family, exchange="whole"
        )
        p.append(test.p[0] - rng.uniform() / 20)
    assert kstest(p, "uniform").pvalue > 0.01
