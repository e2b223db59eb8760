"""Elastic-net paths: against the formula read literally, scikit-learn, and what makes an optimum one."""

import numpy as np
import pytest
from tests.reference.elastic_net import naive_elastic_net

from brainlocus.numerics.elastic_net import (
    elastic_net_path,
    elastic_net_path_columns,
    elastic_net_paths,
    lambda_path,
    standardise_columns,
)


def _problem(seed=0, n=60, p=12, correlation=0.6):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) + correlation * rng.normal(size=(n, 1))
    y = x[:, :3] @ np.array([0.5, -0.4, 0.3]) + rng.normal(size=n)
    return x, (y - y.mean()) / y.std(), rng.uniform(0.2, 2, n)


@pytest.mark.parametrize("mixing", [1.0, 0.5, 0.05])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("factors", [False, True])
def test_paths_agree_with_the_literal_descent(mixing, weighted, factors):
    x, y, weights = _problem()
    w = weights / weights.sum() if weighted else np.full(y.size, 1 / y.size)
    factor = np.r_[0.0, 0.0, np.ones(9), 2.0] if factors else None
    z = standardise_columns(x, w).x
    y = y - w @ y
    gram, xty = z.T @ (z * w[:, None]), z.T @ (w * y)
    lambdas = lambda_path(xty, mixing, n=y.size, penalty_factor=factor, n_lambdas=12, gram=gram)
    by_gram = elastic_net_path(gram, xty, lambdas, mixing=mixing, penalty_factor=factor, tolerance=1e-13)
    by_columns = elastic_net_path_columns(
        z, y, lambdas, weights=w, mixing=mixing, penalty_factor=factor, tolerance=1e-13
    )
    assert by_gram.converged.all()
    assert by_columns.converged.all()
    for k, penalty in enumerate(lambdas):
        expected = naive_elastic_net(z, y, penalty, mixing, factor=factor, weights=w)
        # Descent that stops at steps of 1e-13 is within a few hundred steps of the optimum.
        np.testing.assert_allclose(by_gram.coefficients[k], expected, atol=1e-10)
        np.testing.assert_allclose(by_columns.coefficients[k], expected, atol=1e-10)


def test_first_lambda_is_where_the_first_penalised_column_enters():
    x, y, _ = _problem()
    z = standardise_columns(x).x
    gram, xty = z.T @ z / y.size, z.T @ y / y.size
    factor = np.r_[0.0, np.ones(11)]
    first = lambda_path(xty, 0.7, n=y.size, penalty_factor=factor, gram=gram)[0]
    around = np.array([first * (1 + 1e-9), first * (1 - 1e-6)])
    path = elastic_net_path(gram, xty, around, mixing=0.7, penalty_factor=factor, tolerance=1e-14)
    assert np.count_nonzero(path.coefficients[0, 1:]) == 0
    assert np.count_nonzero(path.coefficients[1, 1:]) == 1
    assert path.coefficients[0, 0] != 0


@pytest.mark.parametrize(("n", "ratio"), [(13, 1e-4), (12, 1e-2), (5, 1e-2)])
def test_ratio_follows_samples_and_columns(n, ratio):
    lambdas = lambda_path(np.linspace(-1, 1, 12), 0.5, n=n)
    assert lambdas.size == 100
    assert lambdas[0] == 2.0
    assert lambdas[-1] / lambdas[0] == pytest.approx(ratio, rel=1e-12)
    np.testing.assert_allclose(np.diff(np.log(lambdas)), np.log(ratio) / 99, rtol=1e-9)


@pytest.mark.parametrize("mixing", [1.0, 0.5])
def test_wide_problems_meet_the_optimality_conditions_and_scikit_learn(mixing):
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(1)
    n, p = 80, 600
    x = rng.binomial(2, 0.3, (n, p)).astype(float)
    x[:, 1] = x[:, 0]  # two columns in perfect correlation
    x[:, 2] = 1.0  # a constant one
    y = x[:, [0, 10, 20]].sum(axis=1) + rng.normal(size=n)
    y = (y - y.mean()) / y.std()
    found = standardise_columns(x)
    lambdas = lambda_path(found.x.T @ y / n, mixing, n=n, n_lambdas=20)
    path = elastic_net_path_columns(found.x, y, lambdas, mixing=mixing)
    assert path.converged.all()
    assert not path.coefficients[:, 2].any()
    for penalty, beta in zip(lambdas, path.coefficients, strict=True):
        pull = found.x.T @ (y - found.x @ beta) / n - penalty * (1 - mixing) * beta
        assert np.abs(pull).max() <= penalty * mixing + 1e-8
        np.testing.assert_allclose(pull[beta != 0], np.sign(beta[beta != 0]) * penalty * mixing, atol=1e-8)
    model = linear_model.ElasticNet(alpha=lambdas[12], l1_ratio=mixing, fit_intercept=False, tol=1e-14, max_iter=10**6)
    fitted = found.x @ model.fit(found.x, y).coef_
    np.testing.assert_allclose(found.x @ path.coefficients[12], fitted, atol=1e-6)


def test_gram_and_columns_agree_on_wide_problems():
    rng = np.random.default_rng(2)
    n, p = 50, 300
    found = standardise_columns(rng.normal(size=(n, p)))
    y = found.x[:, 0] + rng.normal(size=n)
    y -= y.mean()
    gram, xty = found.x.T @ found.x / n, found.x.T @ y / n
    lambdas = lambda_path(xty, 0.5, n=n, n_lambdas=30)
    one = elastic_net_path(gram, xty, lambdas, mixing=0.5)
    other = elastic_net_path_columns(found.x, y, lambdas, mixing=0.5)
    np.testing.assert_allclose(one.coefficients, other.coefficients, atol=1e-8)


def test_many_responses_are_each_like_one_alone():
    x, y, _ = _problem()
    rng = np.random.default_rng(3)
    z = standardise_columns(x).x
    many = np.stack([y, rng.permutation(y), rng.permutation(y)])
    gram, xty = z.T @ z / y.size, many @ z / y.size
    lambdas = np.stack([lambda_path(c, 1.0, n=y.size, n_lambdas=10) for c in xty])
    together = elastic_net_paths(gram, xty, lambdas, mixing=1.0)
    for k in range(3):
        alone = elastic_net_path(gram, xty[k], lambdas[k], mixing=1.0)
        np.testing.assert_array_equal(together.coefficients[k], alone.coefficients)
        np.testing.assert_array_equal(together.iterations[k], alone.iterations)
    shared = elastic_net_paths(gram, xty, lambdas[0], mixing=1.0)
    np.testing.assert_array_equal(shared.coefficients[0], together.coefficients[0])


def test_a_start_changes_the_way_and_not_the_solution():
    x, y, _ = _problem()
    z = standardise_columns(x).x
    gram, xty = z.T @ z / y.size, z.T @ y / y.size
    lambdas = np.array([0.05])
    cold = elastic_net_path(gram, xty, lambdas, mixing=0.5)
    warm = elastic_net_path(gram, xty, lambdas, mixing=0.5, start=cold.coefficients[0])
    assert warm.iterations[0] < cold.iterations[0]
    np.testing.assert_allclose(warm.coefficients, cold.coefficients, atol=1e-9)
    from_columns = elastic_net_path_columns(z, y, lambdas, mixing=0.5, start=cold.coefficients[0])
    np.testing.assert_allclose(from_columns.coefficients, cold.coefficients, atol=1e-9)


def test_scaling_y_and_lambda_scales_the_coefficients_and_order_of_people_does_nothing():
    x, y, weights = _problem()
    z = standardise_columns(x, weights).x
    lambdas = np.array([0.2, 0.1, 0.02])
    plain = elastic_net_path_columns(z, y, lambdas, weights=weights, mixing=1.0)
    twice = elastic_net_path_columns(z, 2 * y, 2 * lambdas, weights=2 * weights, mixing=1.0)
    np.testing.assert_allclose(twice.coefficients, 2 * plain.coefficients, atol=1e-9)
    order = np.random.default_rng(4).permutation(y.size)
    mixed = elastic_net_path_columns(z[order], y[order], lambdas, weights=weights[order], mixing=1.0)
    np.testing.assert_allclose(mixed.coefficients, plain.coefficients, atol=1e-9)


def test_a_weight_of_zero_takes_a_person_out():
    x, y, _ = _problem()
    weights = np.r_[0.0, np.ones(y.size - 1)]
    lambdas = np.array([0.1])
    z = standardise_columns(x, weights)
    without = standardise_columns(x[1:])
    np.testing.assert_allclose(z.mean, without.mean, atol=1e-12)
    np.testing.assert_allclose(z.scale, without.scale, rtol=1e-12)
    with_zero = elastic_net_path_columns(z.x, y, lambdas, weights=weights, mixing=0.5)
    left_out = elastic_net_path_columns(without.x, y[1:], lambdas, mixing=0.5)
    np.testing.assert_allclose(with_zero.coefficients, left_out.coefficients, atol=1e-9)


def test_large_offsets_are_not_taken_for_variance():
    found = standardise_columns(np.column_stack([np.full(7, 0.1), 1e6 + np.arange(7.0)]))
    assert found.scale.tolist() == [0.0, 2.0]
    assert not found.x[:, 0].any()


def test_no_descent_within_the_limit_is_said():
    # Two all but equal columns and no penalty: descent crawls along the valley between them.
    gram = np.array([[1.0, 1 - 1e-9], [1 - 1e-9, 1.0]])
    path = elastic_net_path(gram, np.array([1.0, 0.9]), np.array([0.0]), mixing=1.0, tolerance=1e-13)
    assert not path.converged[0]
    assert path.iterations[0] >= 100_000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mixing": 1.5}, "Expected a mixing from 0"),
        ({"penalty_factor": np.array([-1.0, 1.0])}, "penalty factors of 0 or more"),
        ({"lambdas": np.array([0.1, np.nan])}, "Expected lambdas of 0 or more"),
    ],
)
def test_wrong_arguments_are_refused(change, said):
    given = {"gram": np.eye(2), "xty": np.array([0.5, 0.1]), "lambdas": np.array([0.1]), "mixing": 1.0} | change
    gram, xty, lambdas = given.pop("gram"), given.pop("xty"), given.pop("lambdas")
    with pytest.raises(ValueError, match=said):
        elastic_net_path(gram, xty, lambdas, **given)


def test_paths_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="has no path"):
        lambda_path(np.ones(2), 0.5, n=9, penalty_factor=np.zeros(2))
    with pytest.raises(ValueError, match="give the Gram matrix"):
        lambda_path(np.ones(2), 0.5, n=9, penalty_factor=np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="n_lambdas = 0"):
        lambda_path(np.ones(2), 0.5, n=9, n_lambdas=0)
    with pytest.raises(ValueError, match="Expected 3 weights"):
        standardise_columns(np.ones((3, 2)), np.array([1.0, -1.0, 1.0]))
