"""Firth's regression against its likelihood maximised by scipy, and in closed form."""

import numpy as np
import pytest
from tests.reference.logistic import maximum, naive_test

from brainlocus.genetics.gwas import fit_firth


@pytest.mark.parametrize("rare", [False, True])
def test_is_the_maximum_of_the_penalised_likelihood(rare):
    rng = np.random.default_rng(1)
    n = 150
    covariates = rng.normal(size=(n, 2))
    g = rng.binomial(2, 0.02 if rare else 0.3, n).astype(float)
    cases = (rng.random(n) < 1 / (1 + np.exp(2 - 0.8 * g - covariates[:, 0]))).astype(float)
    if rare:
        cases[g > 0] = 1.0
    fit = fit_firth(np.column_stack([np.ones(n), covariates, g]), cases)
    beta, error, chi2 = naive_test(g, cases, covariates, penalised=True)
    _, value = maximum(np.column_stack([np.ones(n), covariates, g]), cases, np.zeros(n), penalised=True)
    assert fit.status == "ok"
    # scipy's search ends within 1e-5 of the maximum, where the likelihood is flat to 1e-9
    np.testing.assert_allclose(fit.coefficients[-1], beta, rtol=2e-5)
    np.testing.assert_allclose(fit.standard_error, error, rtol=2e-5)
    np.testing.assert_allclose(fit.chi2, chi2, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(fit.log_likelihood, value, atol=1e-8)


def test_two_by_two_table_in_closed_form():
    """A saturated table: Firth's estimate is the log odds ratio with 1/2 added to each cell (Firth 1993, section 3)."""
    a, b, c, d = 7, 0, 12, 31
    exposed = np.repeat([1.0, 1.0, 0.0, 0.0], [a, b, c, d])
    cases = np.repeat([1.0, 0.0, 1.0, 0.0], [a, b, c, d])
    fit = fit_firth(np.column_stack([np.ones(exposed.size), exposed]), cases)
    expected = np.log((a + 0.5) * (d + 0.5) / ((b + 0.5) * (c + 0.5)))
    np.testing.assert_allclose(fit.coefficients[1], expected, rtol=1e-8)


def test_an_offset_shifts_what_is_left_to_fit():
    rng = np.random.default_rng(2)
    x = np.column_stack([np.ones(80), rng.normal(size=80)])
    cases = (rng.random(80) < 0.3).astype(float)
    plain = fit_firth(x, cases)
    shifted = fit_firth(x, cases, offset=0.5 + 0.2 * x[:, 1])
    np.testing.assert_allclose(shifted.coefficients, plain.coefficients - [0.5, 0.2], atol=1e-7)


def test_a_repeated_column_has_no_effect_of_its_own():
    rng = np.random.default_rng(3)
    x = np.column_stack([np.ones(80), rng.normal(size=80)])
    cases = (rng.random(80) < 0.3).astype(float)
    fit = fit_firth(np.column_stack([x[:, 0], x[:, 0], x[:, 1]]), cases)
    np.testing.assert_allclose(fit.coefficients[[0, 2]], fit_firth(x, cases).coefficients, atol=1e-8)
    assert fit_firth(np.column_stack([x, x[:, 1]]), cases).status == "not_converged"
