import numpy as np
import pytest

from brainlocus.numerics.conjugate_gradient import conjugate_gradient, inner


def positive(n, rank, seed=0):
    factor = np.random.default_rng(seed).normal(size=(n, rank))
    return factor @ factor.T


def test_solves_the_dense_system_in_as_many_steps_as_unknowns():
    matrix = positive(12, 40)
    b = np.random.default_rng(1).normal(size=(3, 4))
    kept = b.copy()
    found = conjugate_gradient(lambda x: (matrix @ x.ravel()).reshape(3, 4), b, tolerance=1e-10, max_iterations=40)
    np.testing.assert_allclose(found.x.ravel(), np.linalg.solve(matrix, b.ravel()), rtol=1e-7)
    assert found.converged
    assert 8 <= found.n_iterations <= 20
    left = np.linalg.norm(b.ravel() - matrix @ found.x.ravel()) / np.linalg.norm(b)
    assert found.relative_residual == pytest.approx(left, abs=1e-9)
    np.testing.assert_array_equal(b, kept)


def test_a_singular_system_in_range_has_its_shortest_solution():
    matrix = positive(12, 5)
    b = matrix @ np.random.default_rng(1).normal(size=12)
    found = conjugate_gradient(lambda x: matrix @ x, b, tolerance=1e-9, max_iterations=50)
    np.testing.assert_allclose(found.x, np.linalg.pinv(matrix) @ b, atol=1e-7)


def test_what_the_operator_cannot_reach_stops_it_without_convergence():
    found = conjugate_gradient(lambda x: 0 * x, np.ones(4), tolerance=1e-3, max_iterations=50)
    assert (found.n_iterations, found.converged, found.relative_residual) == (0, False, 1.0)
    assert not found.x.any()


def test_nothing_to_solve_for_is_solved():
    found = conjugate_gradient(lambda x: x, np.zeros(4), tolerance=1e-3, max_iterations=50)
    assert found.converged
    assert found.n_iterations == 0
    assert not found.x.any()


def test_the_largest_number_of_iterations_is_kept_and_said():
    matrix = positive(40, 42)
    found = conjugate_gradient(lambda x: matrix @ x, np.ones(40), tolerance=1e-12, max_iterations=3)
    assert found.n_iterations == 3
    assert not found.converged


def test_the_factor_of_the_product_and_an_operator_that_writes_into_one_array_change_nothing():
    matrix = positive(12, 40)
    b = np.random.default_rng(1).normal(size=12)
    out = np.empty(12)
    plain = conjugate_gradient(lambda x: matrix @ x, b, tolerance=1e-8, max_iterations=30)
    other = conjugate_gradient(
        lambda x: np.matmul(matrix, x, out=out),
        b,
        tolerance=1e-8,
        max_iterations=30,
        product=lambda u, v: 7 * inner(u, v),
    )
    np.testing.assert_allclose(other.x, plain.x, rtol=1e-9)
    assert other.n_iterations == plain.n_iterations


def test_single_precision_stays_single():
    matrix = positive(12, 40).astype(np.float32)
    found = conjugate_gradient(lambda x: matrix @ x, np.ones(12, dtype=np.float32), tolerance=1e-3, max_iterations=30)
    assert found.x.dtype == np.float32


def test_inner_product_sums_planes_in_double_precision():
    image = np.full((400, 50, 50), 1.1, dtype=np.float32)
    assert inner(image, image) == pytest.approx(1e6 * float(np.float32(1.1)) ** 2, rel=1e-6)
