"""Ridge CCA, PLS, sparse CCA and reduced-rank regression against their formulas and other programs."""

from pathlib import Path

import numpy as np
import pytest

from brainlocus.cohort.multivariate import (
    PLS,
    RidgeCca,
    SparseCca,
    SparseReducedRank,
    Standardised,
    check_bounds,
    check_unregularised,
    mode_correlations,
    ridge_grid,
    sparse_grid,
    standardise,
)
from brainlocus.cohort.multivariate.cross_product import CrossProduct
from brainlocus.cohort.multivariate.sparse_cca import threshold_to_bound
from tests.reference.multivariate import reduced_rank, residuals, ridge_cca, soft_to_bound, sparse_cca

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "cca_zoo" / "golden.npz")


def alone(x):
    """A table that is standardised already, with nobody held out."""
    return Standardised(x, x[:0], np.ones(x.shape[1]))


def tables(n=80, m=12, q=5, seed=0, effect=1.0):
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, 1))
    x, y = rng.standard_normal((n, m)), rng.standard_normal((n, q))
    x[:, :2] += effect * shared
    y[:, :2] += effect * shared
    return tuple((t - t.mean(axis=0)) / t.std(axis=0) for t in (x, y))


def fit(method, x, y, penalty, n_modes=3):
    (modes,) = method.prepare(alone(x), weights=True).fit(alone(y), [penalty], n_modes)
    return modes


def same_up_to_sign(found, expected, tolerance):
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=tolerance * np.abs(expected).max())


def test_standardise_is_one_regression_a_column():
    rng = np.random.default_rng(1)
    values, covariates = rng.normal(3, 2, (40, 6)), rng.normal(5, 1, (40, 2))
    order = rng.permutation(40)
    train, test = np.sort(order[:30]), np.sort(order[30:])
    found = standardise(values, covariates, train, test)
    expected = residuals(values, covariates, train)
    np.testing.assert_allclose(found.train, expected[train], atol=1e-12)
    np.testing.assert_allclose(found.test, expected[test], atol=1e-12)
    # A covariate that is a sum of the others changes nothing.
    more = np.column_stack([covariates, covariates.sum(axis=1)])
    np.testing.assert_allclose(standardise(values, more, train, test).test, expected[test], atol=1e-10)


def test_standardise_fills_with_training_means_and_silences_flat_columns():
    values = np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0], [np.nan, 9.0]])
    found = standardise(values, np.empty((4, 0)), np.array([0, 1, 2]), np.array([3]))
    np.testing.assert_allclose(found.train[:, 0] * found.spread[0], [-1, 1, 0])
    assert found.test[0, 0] == 0.0  # the training mean, not that of everyone
    assert not found.train[:, 1].any()
    assert found.test[0, 1] == 0.0
    assert np.isinf(found.spread[1])


@pytest.mark.parametrize(("m", "q"), [(12, 5), (5, 12), (1, 4), (6, 6)])
@pytest.mark.parametrize("penalty", [(0.0, 0.0), (0.2, 0.7), (1.0, 1.0)])
def test_ridge_cca_is_the_generalised_eigenproblem(m, q, penalty):
    x, y = tables(m=m, q=q)
    modes = fit(RidgeCca((penalty,)), x, y, penalty, min(m, q, 3))
    x_weights, y_weights, _ = ridge_cca(x, y, *penalty, min(m, q, 3))
    same_up_to_sign(modes.x_weights, x_weights, 1e-8)
    same_up_to_sign(modes.y_weights, y_weights, 1e-8)
    np.testing.assert_allclose(modes.x_train, x @ modes.x_weights, atol=1e-9)


def test_kernel_form_is_the_eigenproblem_in_the_columns():
    x, y = tables(n=40, m=90, q=5)
    found = RidgeCca(((0.3, 0.4),)).prepare(alone(x[:30]), weights=True)
    held = Standardised(x[:30], x[30:], np.ones(90))
    other = Standardised(y[:30], y[30:], np.ones(5))
    (modes,) = RidgeCca(((0.3, 0.4),)).prepare(held, weights=True).fit(other, [(0.3, 0.4)], 3)
    x_weights, _, _ = ridge_cca(x[:30], y[:30], 0.3, 0.4, 3)
    same_up_to_sign(modes.x_weights, x_weights, 1e-7)
    np.testing.assert_allclose(modes.x_test, x[30:] @ modes.x_weights, atol=1e-9)
    (without,) = found.fit(alone(y[:30]), [(0.3, 0.4)], 3)
    np.testing.assert_allclose(without.x_train, modes.x_train, atol=1e-12)


def test_scikit_learn_and_statsmodels():
    from sklearn.cross_decomposition import PLSSVD
    from statsmodels.multivariate.cancorr import CanCorr

    x, y = tables(n=200, m=10, q=6)
    cca = fit(RidgeCca(((0.0, 0.0),)), x, y, (0.0, 0.0), 6)
    np.testing.assert_allclose(mode_correlations(cca.x_train, cca.y_train), CanCorr(y, x).cancorr, atol=1e-8)
    pls = fit(PLS, x, y, (1.0, 1.0), 6)
    other = PLSSVD(6, scale=False).fit(x, y)
    same_up_to_sign(pls.x_weights, other.x_weights_, 1e-8)
    same_up_to_sign(pls.y_weights, other.y_weights_, 1e-8)


@pytest.mark.parametrize(("name", "penalty"), [("mild", (0.3, 0.1)), ("strong", (0.9, 0.6)), ("pls", (1.0, 1.0))])
def test_ridge_cca_of_cca_zoo(name, penalty):
    modes = fit(RidgeCca((penalty,)), GOLDEN["x"], GOLDEN["y"], penalty)
    for found, side in ((modes.x_weights, "x"), (modes.y_weights, "y")):
        expected = GOLDEN[f"ridge_{name}_{side}"]
        # Their weights have another length where the scale of a mode is theirs; directions are compared.
        same_up_to_sign(found / np.linalg.norm(found, axis=0), expected / np.linalg.norm(expected, axis=0), 1e-8)


@pytest.mark.parametrize(("name", "penalty"), [("mild", (0.6, 0.7)), ("strong", (0.2, 0.4))])
def test_sparse_cca_of_cca_zoo(name, penalty):
    modes = fit(SparseCca((penalty,)), GOLDEN["x"], GOLDEN["y"], penalty, 1)
    for found, side in ((modes.x_weights, "x"), (modes.y_weights, "y")):
        # Both stop when weights change by less than 1e-7 (theirs 1e-13).
        same_up_to_sign(found, GOLDEN[f"sparse_{name}_{side}"], 1e-6)


@pytest.mark.parametrize("deflation", ["pmd", "regression"])
@pytest.mark.parametrize("penalty", [(0.4, 0.6), (0.7, 1.0)])
def test_sparse_cca_is_the_algorithm_read_literally(deflation, penalty):
    x, y = tables(n=60, m=20, q=6)
    modes = fit(SparseCca((penalty,), deflation), x, y, penalty, 2)
    u, v = sparse_cca(x, y, penalty[0] * np.sqrt(20), penalty[1] * np.sqrt(6), 2, deflation=deflation)
    same_up_to_sign(modes.x_weights, u, 1e-5)
    same_up_to_sign(modes.y_weights, v, 1e-5)
    assert (modes.x_weights == 0).any()


def test_threshold_is_that_of_bisection():
    rng = np.random.default_rng(3)
    for size in (2, 7, 500):
        a = rng.standard_normal(size)
        for bound in np.linspace(1.01, np.sqrt(size), 6):
            np.testing.assert_allclose(threshold_to_bound(a, bound), soft_to_bound(a, bound), atol=1e-9)
    np.testing.assert_allclose(threshold_to_bound(np.array([2.0, -5.0, 1.0]), 1.0), [0, -1, 0])
    np.testing.assert_allclose(threshold_to_bound(np.array([1.0, -1.0, 0.1]), 1.1), np.array([1, -1, 0]) / np.sqrt(2))
    assert not threshold_to_bound(np.zeros(3), 1.2).any()


def test_product_that_is_not_formed_is_the_same():
    x, y = tables(n=20, m=30, q=40)
    formed, implicit = CrossProduct.of(x, y), CrossProduct(x, y)
    assert formed.dense is not None
    for one in (formed, implicit):
        one.take_out(np.arange(30.0), np.arange(40.0))
    v, u = np.linspace(-1, 1, 40), np.linspace(0, 1, 30)
    np.testing.assert_allclose(implicit.times(v), formed.times(v), atol=1e-9)
    np.testing.assert_allclose(implicit.transposed_times(u), formed.transposed_times(u), atol=1e-9)


def test_reduced_rank_regression_without_penalty():
    """With X'X = I the closed form of reduced-rank regression, rank by rank."""
    x, y = tables(n=90, m=8, q=6)
    x = np.linalg.qr(x)[0]
    modes = fit(SparseReducedRank(((0.0, 0.0),)), x, y, (0.0, 0.0), 4)
    for rank in (1, 2, 4):
        b = modes.x_weights[:, :rank]
        found = b @ (b.T @ x.T @ y)
        np.testing.assert_allclose(found, reduced_rank(x, y, rank), atol=1e-6 * np.abs(found).max())


def test_reduced_rank_regression_selects():
    x, y = tables(n=200, m=30, q=6, effect=2.0)
    modes = fit(SparseReducedRank(((0.5, 0.5),)), x, y, (0.5, 0.5), 1)
    assert set(np.flatnonzero(modes.x_weights[:, 0])) == {0, 1}
    assert set(np.flatnonzero(modes.y_weights[:, 0])) == {0, 1}


def test_sample_order_and_sign_of_a_column_change_nothing():
    x, y = tables()
    order = np.random.default_rng(5).permutation(len(x))
    flipped = y * np.array([-1, 1, 1, 1, 1])
    for method, penalty in ((RidgeCca(((0.2, 0.5),)), (0.2, 0.5)), (SparseCca(((0.5, 0.7),)), (0.5, 0.7))):
        one, other = fit(method, x, y, penalty, 1), fit(method, x[order], flipped[order], penalty, 1)
        same_up_to_sign(other.x_train, one.x_train[order], 1e-6)


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_ridge_penalties_are_shares(value):
    with pytest.raises(ValueError, match=r"expected 0 \(CCA\) to 1 \(PLS\), found"):
        RidgeCca(((0.5, value),))


def test_bounds_that_would_select_everything_or_nothing_are_refused():
    with pytest.raises(ValueError, match=r"expected 0.1 .* to 1 \(no sparsity\), found 1.5"):
        check_bounds([(1.5, 0.5)], 100, 10)
    with pytest.raises(ValueError, match=r"sparsity of Y .* expected 0.3162"):
        check_bounds([(0.5, 0.1)], 100, 10)
    check_bounds(sparse_grid(100, 10), 100, 10)
    with pytest.raises(ValueError, match="to below 1, found 1"):
        SparseReducedRank(((1.0, 0.0),))


def test_unregularised_cca_needs_people():
    with pytest.raises(ValueError, match=r"at least 5 x 30 = 150 .* found 149"):
        check_unregularised([(0.0, 0.0)], 149, 20, 10)
    check_unregularised([(0.0, 0.0)], 150, 20, 10)
    check_unregularised(ridge_grid(20, 100, 10), 20, 100, 10)
