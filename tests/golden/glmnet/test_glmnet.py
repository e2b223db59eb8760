"""Paths agree with R's glmnet run at thresh = 1e-22; its numbers and the script that made them lie beside this file."""

import csv
from pathlib import Path

import numpy as np
import pytest

from brainlocus.numerics.elastic_net import (
    elastic_net_path,
    elastic_net_path_columns,
    lambda_path,
    standardise_columns,
)

CASES = {
    "lasso": (40, 8, 1.0, None, None),
    "elastic_net": (40, 8, 0.5, None, None),
    "factors": (40, 8, 1.0, np.r_[0.0, 0.0, np.ones(6)], None),
    "weights": (40, 8, 0.5, None, 1.0 + np.arange(1, 41) % 5),
    "wide": (25, 60, 0.5, None, None),
}
ROWS = np.array([1, 2, 10, 30, 50, 80, 100]) - 1


def _columns(n, p):
    i, j = np.arange(1, n + 1)[:, None], np.arange(1, p + 1)[None]
    x = np.sin(1.7 * i * j + 0.3 * j**2) + 0.6 * np.cos(0.9 * i + 0.05 * j)
    x[:, 1] = 0.95 * x[:, 0] + 0.1 * x[:, 1]
    return x


def _response(x, share):
    y = x[:, 0] - 0.7 * x[:, 3] + 0.5 * x[:, 4] + 1.5 * np.cos(2.3 * np.arange(1, len(x) + 1) ** 1.5)
    y = y - y.mean()
    y = y - share @ y
    return y / np.sqrt(share @ y**2)


@pytest.mark.parametrize("case", CASES)
def test_paths_are_those_of_glmnet(case):
    n, p, mixing, factor, weights = CASES[case]
    with (Path(__file__).parent / f"{case}.tsv").open() as lines:
        table = list(csv.reader(lines, delimiter="\t"))[1:]
    golden = np.array([[float(cell) for cell in row[1:]] for row in table])
    x = _columns(n, p)
    share = np.full(n, 1 / n) if weights is None else weights / weights.sum()
    y = _response(x, share)
    found = standardise_columns(x, weights)
    gram, xty = found.x.T @ (found.x * share[:, None]), found.x.T @ (share * y)
    lambdas = lambda_path(xty, mixing, n=n, penalty_factor=factor, gram=gram)
    np.testing.assert_allclose(lambdas[ROWS], golden[:, 0], rtol=1e-10)
    by_columns = elastic_net_path_columns(
        found.x, y, lambdas, weights=weights, mixing=mixing, penalty_factor=factor
    ).coefficients
    by_gram = elastic_net_path(gram, xty, lambdas, mixing=mixing, penalty_factor=factor).coefficients
    # glmnet stops at steps of 1e-11 in the fit, which correlated columns multiply.
    np.testing.assert_allclose((by_columns / found.scale)[ROWS], golden[:, 1:], atol=2e-9)
    np.testing.assert_allclose((by_gram / found.scale)[ROWS], golden[:, 1:], atol=2e-9)
