"""Covariate bases, residuals, formulas, corrections and ranks against literal formulas."""

import numpy as np
import pytest
from scipy import stats

from brainlocus.core import Column, PhenotypeTable, SampleIndex, SchemaError
from brainlocus.numerics import (
    benjamini_hochberg_q,
    bonferroni_p,
    covariate_basis,
    design_from_formula,
    formula_variables,
    project_out,
    rank_normal,
)


def least_squares_residuals(covariates, values):
    design = np.column_stack([np.ones(len(values)), covariates])
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def test_residuals_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    age = rng.uniform(40, 80, 200)
    covariates = np.column_stack([age, age**2, rng.integers(0, 2, 200)])
    values = rng.normal(1e3, 5, (200, 4))
    basis = covariate_basis(covariates)
    assert basis.rank == 4
    np.testing.assert_allclose(basis.q.T @ basis.q, np.eye(4), atol=1e-13)
    residuals = project_out(basis.q, values)
    np.testing.assert_allclose(residuals, least_squares_residuals(covariates, values), atol=1e-8)
    assert np.abs(basis.q.T @ residuals).max() <= 1e-14 * np.linalg.norm(values, axis=0).max()


def test_collinear_and_constant_columns_are_dropped_by_name():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 2))
    matrix = np.column_stack([x, np.full(50, 3.0), x[:, 0] - 2 * x[:, 1]])
    basis = covariate_basis(matrix, ["a", "b", "constant", "sum"])
    assert basis.rank == 3
    assert "constant" in basis.dropped
    assert len(basis.dropped) == 2


def test_an_age_and_its_square_are_kept():
    age = np.linspace(45, 46, 30)
    assert covariate_basis(np.column_stack([age, age**2])).rank == 3


def test_missing_covariates_are_named():
    with pytest.raises(ValueError, match="not: age"):
        covariate_basis(np.array([[1.0], [np.nan]]), ["age"])
    with pytest.raises(ValueError, match="no samples"):
        covariate_basis(np.empty((0, 1)))


def test_formula_terms_and_missing_rows():
    people = SampleIndex.of("abcd")
    table = PhenotypeTable(
        people,
        (
            Column("age", np.array([1.0, 2.0, np.nan, 4.0])),
            Column("site", np.array(["x", "y", "x", "z"]), "categorical"),
            Column("sex", np.array([0.0, 1.0, 1.0, 0.0]), "binary"),
        ),
    )
    design = design_from_formula("age + I(age**2) + age:sex + C(site)", table)
    assert design.complete.tolist() == [True, True, False, True]
    assert np.isnan(design.matrix[2]).all()
    assert design.matrix.shape == (4, 5)
    np.testing.assert_array_equal(design.matrix[1, :2], [2.0, 4.0])
    assert formula_variables("age + C(site)") == ("age", "site")
    assert design_from_formula("", table).matrix.shape == (4, 0)
    with pytest.raises(SchemaError, match="Did you mean 'site'"):
        design_from_formula("age + C(sitte)", table)
    with pytest.raises(SchemaError, match="cannot be read"):
        design_from_formula("age + + *", table)


def test_benjamini_hochberg_and_bonferroni_against_scipy():
    rng = np.random.default_rng(2)
    p = np.concatenate([rng.uniform(size=80), rng.uniform(size=20) * 1e-4])
    np.testing.assert_allclose(benjamini_hochberg_q(-np.log10(p)), stats.false_discovery_control(p), rtol=1e-10)
    with_nan = np.append(-np.log10(p), np.nan)
    np.testing.assert_allclose(bonferroni_p(with_nan)[:-1], np.minimum(p * 100, 1), rtol=1e-10)
    assert np.isnan(bonferroni_p(with_nan)[-1])
    assert benjamini_hochberg_q(np.array([400.0]))[0] == 0.0


def test_rank_normal_is_blom():
    x = np.array([10.0, 20.0, 20.0, np.nan, 40.0])
    expected = stats.norm.ppf((np.array([1, 2.5, 2.5, 4]) - 0.375) / 4.25)
    np.testing.assert_allclose(rank_normal(x)[[0, 1, 2, 4]], expected, rtol=1e-12)
    assert np.isnan(rank_normal(x)[3])
