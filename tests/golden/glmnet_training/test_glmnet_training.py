"""Training agrees with R's glmnet run at thresh = 1e-20; its numbers and the script that made them lie beside this."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from brainlocus.genetics.twas import ElasticNetSettings
from brainlocus.genetics.twas.jti import _donor_rows
from brainlocus.genetics.twas.training import correlation, nested_model
from brainlocus.numerics import cross_validate

HERE = Path(__file__).parent


def _golden(name):
    with (HERE / name).open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


def _dosages(n, p):
    i, j = np.arange(1, n + 1)[:, None], np.arange(1, p + 1)[None]
    x = np.sin(1.7 * i * j + 0.3 * j**2) + np.sin(0.31 * i**1.3 + 2.1 * j + 0.7 * i * j**1.5)
    for k in range(1, p, 3):
        x[:, k] = 0.8 * x[:, k - 1] + 0.4 * x[:, k]
    return ((x > -0.4) + 0 + (x > 0.9)).astype(float).T


def _outcome(x, phase):
    i = np.arange(1, x.shape[1] + 1)
    y = 0.8 * x[0] - 0.6 * x[3] + 0.4 * x[7] + 1.2 * np.cos(2.3 * (i + phase) ** 1.5)
    return (y - y.mean()) / y.std(ddof=1)


def _folds(n, k):
    return (7 * np.arange(1, n + 1)) % k


@pytest.mark.parametrize(
    ("name", "n", "p", "mixing"), [("tall", 120, 30, 0.5), ("wide", 60, 90, 0.5), ("lasso", 60, 90, 1.0)]
)
def test_cross_validation(name, n, p, mixing):
    x = _dosages(n, p)
    y = _outcome(x, 0)
    (found,) = cross_validate(x, y[None], np.ones((1, n)), _folds(n, 10)[None], mixing=mixing, ridge_by_sd=True)
    errors, b = _golden(f"{name}_errors.tsv"), _golden(f"{name}_coefficients.tsv")["value"]
    # The grid, its early end on all rows included, is that of glmnet.
    assert found.lambdas.size == errors["lambda"].size
    np.testing.assert_allclose(found.lambdas, errors["lambda"], rtol=1e-12)
    np.testing.assert_allclose(found.errors, errors["cvm"], rtol=1e-7)
    assert found.best == errors["cvm"].argmin()
    dense = np.zeros(p)
    dense[found.support] = found.coefficients
    np.testing.assert_allclose(dense, b[1:], atol=1e-7)
    assert found.intercept == pytest.approx(b[0], abs=1e-7)
    np.testing.assert_allclose(found.out_of_fold, _golden(f"{name}_predictions.tsv")["value"], atol=1e-7)


def test_nested_cross_validation():
    x = _dosages(110, 40)
    y = _outcome(x, 3)
    outer = _folds(110, 5)
    inner = np.full((6, 110), -1)
    for k in range(5):
        people = np.flatnonzero(outer != k)
        inner[k, people] = _folds(people.size, 10)
    inner[5] = _folds(110, 10)
    settings = ElasticNetSettings(ridge_by_sd=True, patience=None)
    found = nested_model(x, y, outer, inner, settings)
    rows = _golden("nested.tsv")
    assert found.rho_avg == pytest.approx(rows["r"].mean(), abs=1e-8)
    assert found.rho_sd == pytest.approx(rows["r"].std(ddof=1), abs=1e-8)
    assert found.r2 == pytest.approx(rows["r2"].mean(), abs=1e-8)
    assert found.fisher_p == pytest.approx(stats.combine_pvalues(rows["p"]).pvalue, rel=1e-6)
    sizes = np.bincount(outer)
    z = (np.arctanh(rows["r"]) * np.sqrt(sizes - 3)).sum() / np.sqrt(5)
    assert found.z == pytest.approx(z, abs=1e-7)


@pytest.mark.parametrize("mixing", [0.5, 1.0])
def test_joint_tissues_with_donors_as_rows(mixing):
    n, p = 90, 35
    x = _dosages(n, p)
    i = np.arange(1, n + 1)
    have = np.stack([i % 3 != 0, i % 4 != 1, i % 5 != 2])
    expression = np.full((3, n), np.nan)
    for t in range(3):
        values = _outcome(x, 10 * (t + 1))[have[t]]
        expression[t, have[t]] = (values - values.mean()) / values.std(ddof=1)
    weight = np.array([1, 0.95**4 * 0.98, 0.9**4 * 0.7])
    outcomes, weights, spread = _donor_rows(expression, weight[None])
    lambdas = np.exp(np.linspace(np.log(0.3), np.log(0.02), 21))
    (found,) = cross_validate(
        x, outcomes, weights, _folds(n, 5)[None], mixing=mixing, spread=spread, lambdas=lambdas[None], ridge_by_sd=True
    )
    np.testing.assert_allclose(found.errors, _golden(f"jti_{mixing:g}_errors.tsv")["cvm"], rtol=1e-7)
    model = _golden(f"jti_{mixing:g}_model.tsv")["value"]
    r, neg_log10_p = correlation(found.out_of_fold[have[0]], expression[0, have[0]])
    assert r == pytest.approx(model[0], abs=1e-7)
    assert 10**-neg_log10_p == pytest.approx(model[1], rel=1e-5)
    dense = np.zeros(p)
    dense[found.support] = found.coefficients
    np.testing.assert_allclose(dense, model[2:], atol=1e-7)
