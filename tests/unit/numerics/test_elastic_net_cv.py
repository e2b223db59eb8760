"""Cross-validated elastic nets: against one fit at a time, one fold at a time."""

import numpy as np
import pytest
from tests.reference.twas_training import naive_cross_validation, naive_lambdas, naive_standardised_fit

from brainlocus.numerics import cross_validate, elastic_net_path_columns, standardise_columns
from brainlocus.numerics.elastic_net_cv import N_LAMBDAS


def _data(n=60, m=25, *, seed=0, r2=0.4):
    rng = np.random.default_rng(seed)
    x = rng.binomial(2, rng.uniform(0.1, 0.5, m)[:, None], (m, n)).astype(float)
    x[1] = np.where(rng.random(n) < 0.9, x[0], x[1])  # in LD
    g = x[:3].T @ np.array([1.0, -0.5, 0.7])
    y = (g - g.mean()) / g.std() * np.sqrt(r2) + rng.normal(size=n) * np.sqrt(1 - r2)
    return x, y, rng.permutation(np.arange(n) % 5)


@pytest.mark.parametrize("mixing", [0.5, 1.0])
@pytest.mark.parametrize("ridge_by_sd", [False, True])
def test_errors_predictions_and_model_are_those_of_single_fits(mixing, ridge_by_sd):
    x, y, folds = _data(45, 12)
    lambdas = naive_lambdas(x.T, y, mixing)[:72:9]
    weights = np.random.default_rng(1).uniform(0.2, 2.0, y.size)
    (found,) = cross_validate(
        x, y[None], weights[None], folds[None], mixing=mixing, lambdas=lambdas[None], ridge_by_sd=ridge_by_sd
    )
    errors, predictions = naive_cross_validation(x.T, y, weights, folds, lambdas, mixing, ridge_by_sd=ridge_by_sd)
    np.testing.assert_allclose(found.errors, errors, rtol=1e-9)
    assert found.best == errors.argmin()
    np.testing.assert_allclose(found.out_of_fold, predictions[found.best], atol=1e-8)
    b0, b = naive_standardised_fit(x.T, y, weights, lambdas[found.best], mixing, ridge_by_sd=ridge_by_sd)
    np.testing.assert_array_equal(found.support, np.flatnonzero(b))
    np.testing.assert_allclose(found.coefficients, b[found.support], atol=1e-9)
    assert found.intercept == pytest.approx(b0, abs=1e-9)
    np.testing.assert_allclose(found.in_sample, b0 + b @ x, atol=1e-8)


def test_own_path_is_that_of_the_definition_with_more_rows_or_columns():
    for n, m in ((60, 25), (30, 80)):
        x, y, folds = _data(n, m)
        (found,) = cross_validate(x, y[None], np.ones((1, n)), folds[None], mixing=0.5)
        expected = naive_lambdas(x.T, y, 0.5)
        np.testing.assert_allclose(found.lambdas, expected[: found.lambdas.size], rtol=1e-12)
        assert found.lambdas.size <= N_LAMBDAS


def test_agrees_with_paths_by_columns_where_there_are_many_columns():
    x, y, folds = _data(60, 150, seed=3)
    held = folds == 2
    (found,) = cross_validate(x, y[None], np.ones((1, 60)), folds[None], mixing=0.5, patience=0.05)
    y = y - 0.0
    scaled = standardise_columns(x.T)
    whole = elastic_net_path_columns(scaled.x, y - y.mean(), found.lambdas, mixing=0.5)
    b = whole.coefficients[found.best] / np.where(scaled.scale > 0, scaled.scale, 1)
    np.testing.assert_array_equal(found.support, np.flatnonzero(b))
    np.testing.assert_allclose(found.coefficients, b[found.support], atol=1e-8)
    train = standardise_columns(x.T[~held])
    y_train = y[~held]
    part = elastic_net_path_columns(train.x, y_train - y_train.mean(), found.lambdas, mixing=0.5)
    slope = part.coefficients[found.best] / np.where(train.scale > 0, train.scale, 1)
    predicted = y_train.mean() + (x.T[held] - train.mean) @ slope
    np.testing.assert_allclose(found.out_of_fold[held], predicted, atol=1e-8)


def test_outcomes_do_not_depend_on_their_company():
    x, y, folds = _data(70, 40, seed=5)
    rng = np.random.default_rng(6)
    outcomes = np.stack([y, rng.normal(size=70), -y])
    weights = np.stack([np.ones(70), (rng.random(70) < 0.7).astype(float), np.ones(70)])
    many_folds = np.where(weights > 0, np.stack([folds, folds, folds[::-1]]), -1)
    together = cross_validate(x, outcomes, weights, many_folds, mixing=0.5)
    for k, found in enumerate(together):
        (alone,) = cross_validate(x, outcomes[k : k + 1], weights[k : k + 1], many_folds[k : k + 1], mixing=0.5)
        assert found.best == alone.best
        np.testing.assert_allclose(found.errors, alone.errors, rtol=1e-9)
        np.testing.assert_allclose(found.coefficients, alone.coefficients, atol=1e-9)


def test_rows_of_weight_zero_are_as_if_absent():
    x, y, folds = _data(50, 30, seed=7)
    kept = np.arange(50) < 40
    weights = kept.astype(float)
    (found,) = cross_validate(x, y[None], weights[None], np.where(kept, folds, -1)[None], mixing=0.5)
    (alone,) = cross_validate(x[:, kept], y[kept][None], np.ones((1, 40)), folds[kept][None], mixing=0.5)
    assert found.best == alone.best
    np.testing.assert_allclose(found.errors, alone.errors, rtol=1e-9)
    np.testing.assert_allclose(found.coefficients, alone.coefficients, atol=1e-9)
    assert np.isnan(found.out_of_fold[~kept]).all()
    np.testing.assert_allclose(found.in_sample[kept], alone.in_sample, atol=1e-8)


def test_a_path_ends_before_more_variables_than_allowed():
    x, y, folds = _data(100, 50, seed=8)
    (whole,) = cross_validate(x, y[None], np.ones((1, 100)), folds[None], mixing=0.5)
    (short,) = cross_validate(x, y[None], np.ones((1, 100)), folds[None], mixing=0.5, max_variables=4)
    assert 0 < short.lambdas.size < whole.lambdas.size
    np.testing.assert_allclose(short.lambdas, whole.lambdas[: short.lambdas.size])
    assert short.support.size <= 4


def test_patience_keeps_the_smallest_error_and_saves_what_follows():
    x, y, folds = _data(60, 100, seed=9)
    (whole,) = cross_validate(x, y[None], np.ones((1, 60)), folds[None], mixing=0.5)
    (short,) = cross_validate(x, y[None], np.ones((1, 60)), folds[None], mixing=0.5, patience=0.1)
    assert short.best == whole.best
    assert short.best + 10 <= short.lambdas.size < whole.lambdas.size
    np.testing.assert_array_equal(short.coefficients, whole.coefficients)


@pytest.mark.slow
def test_patience_finds_the_lambda_of_the_whole_path():
    """Sixty genes of every strength: the smallest error is never beyond where a path ends for its error."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        n, m = int(rng.choice([70, 150, 300])), int(rng.choice([100, 400]))
        x = np.zeros((m, n))
        threshold = rng.normal(-0.5, 0.8, m)
        for _ in range(2):
            latent = rng.normal(size=n)
            for k in range(m):
                latent = 0.9 * latent + np.sqrt(0.19) * rng.normal(size=n)
                x[k] += latent < threshold[k]
        r2 = rng.choice([0.0, 0.05, 0.2, 0.5])
        g = rng.normal(size=3) @ x[rng.choice(m, 3, replace=False)]
        y = g / max(g.std(), 1e-9) * np.sqrt(r2) + rng.normal(size=n) * np.sqrt(1 - r2)
        folds = rng.permutation(np.arange(n) % 10)[None]
        (whole,) = cross_validate(x, y[None], np.ones((1, n)), folds, mixing=0.5)
        (short,) = cross_validate(x, y[None], np.ones((1, n)), folds, mixing=0.5, patience=0.1)
        assert short.best == whole.best


def test_columns_that_are_alike_or_constant_change_nothing():
    x, y, folds = _data(60, 10, seed=10)
    wider = np.concatenate([x, x[:2], np.ones((1, 60))])
    lambdas = naive_lambdas(x.T, y, 1.0)[None, :40:5]
    (plain,) = cross_validate(x, y[None], np.ones((1, 60)), folds[None], mixing=1.0, lambdas=lambdas)
    (found,) = cross_validate(wider, y[None], np.ones((1, 60)), folds[None], mixing=1.0, lambdas=lambdas)
    np.testing.assert_allclose(found.errors, plain.errors, rtol=1e-9)
    np.testing.assert_allclose(found.in_sample, plain.in_sample, atol=1e-8)
    assert 12 not in found.support


def test_an_outcome_without_variance_has_no_path():
    x, _, folds = _data(30, 8)
    (found,) = cross_validate(x, np.zeros((1, 30)), np.ones((1, 30)), folds[None], mixing=0.5)
    assert found.best == -1
    assert found.support.size == 0


def test_ridge_is_refused():
    x, y, folds = _data(30, 8)
    with pytest.raises(ValueError, match="mixing must be above 0"):
        cross_validate(x, y[None], np.ones((1, 30)), folds[None], mixing=0.0)


def test_folds_agree_with_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    x, y, folds = _data(80, 30, seed=11)
    lambdas = naive_lambdas(x.T, y, 0.5)[:50:7]
    (found,) = cross_validate(x, y[None], np.ones((1, 80)), folds[None], mixing=0.5, lambdas=lambdas[None])
    errors = np.zeros((lambdas.size, 80))
    for fold in range(5):
        train = standardise_columns(x.T[folds != fold])
        held = (x.T[folds == fold] - train.mean) / train.scale
        for k, penalty in enumerate(lambdas):
            model = linear.ElasticNet(alpha=penalty, l1_ratio=0.5, tol=1e-12, max_iter=100_000)
            model.fit(train.x, y[folds != fold])
            errors[k, folds == fold] = (y[folds == fold] - model.predict(held)) ** 2
    np.testing.assert_allclose(found.errors, errors.mean(axis=1), rtol=1e-8)
