"""Conjugate gradients for symmetric positive semi-definite operators on images, or on their spectra."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Inexact

__all__ = ["LinearSolution", "conjugate_gradient", "inner"]


@dataclass(frozen=True, slots=True, eq=False)
class LinearSolution:
    """Where conjugate gradients stopped."""

    x: Any
    """Like the right-hand side: same shape, precision and namespace."""
    n_iterations: int
    converged: bool
    """The residual fell below the tolerance."""
    relative_residual: float
    """||b - A x|| / ||b||."""


def inner(a: Inexact[np.ndarray, "..."], b: Inexact[np.ndarray, "..."]) -> float:
    """Return the real part of the inner product; planes are summed by BLAS in their precision, their sums in double."""
    return float(sum(float(np.vdot(left, right).real) for left, right in zip(a, b, strict=True)))


def conjugate_gradient(
    apply: Callable[[Any], Any],
    b: Any,
    *,
    tolerance: float,
    max_iterations: int,
    product: Callable[[Any, Any], float] = inner,
) -> LinearSolution:
    """Return x with A x = b, starting from 0, by conjugate gradients.

    Parameters
    ----------
    apply
        A, linear, symmetric and positive (semi-)definite in `product`. It may return the same array every time.
    b
        Right-hand side, of NumPy or an array-API namespace; its precision is that of the result.
    tolerance
        Stop once ||b - A x|| <= tolerance ||b||.
    max_iterations
        Stop there in any case.
    product
        Inner product of two arrays like `b`, up to a factor.

    References
    ----------
    Hestenes & Stiefel (1952), J Res Natl Bur Stand 49:409.

    Examples
    --------
    >>> diagonal = np.array([1.0, 2.0, 4.0])
    >>> found = conjugate_gradient(lambda v: diagonal * v, np.ones(3), tolerance=1e-9, max_iterations=3)
    >>> found.x.round(6).tolist(), found.n_iterations
    ([1.0, 0.5, 0.25], 3)
    """
    x, residual, direction = 0.0 * b, 1.0 * b, 1.0 * b
    squared = product(b, b)
    size = start = math.sqrt(squared)
    if start == 0:
        return LinearSolution(x, 0, True, 0.0)
    for iteration in range(1, max_iterations + 1):
        image = apply(direction)
        curvature = product(direction, image)
        if not curvature > 0:  # nothing left in the operator's range
            return LinearSolution(x, iteration - 1, size <= tolerance * start, size / start)
        step = squared / curvature
        x += step * direction
        residual -= step * image
        last, squared = squared, product(residual, residual)
        size = math.sqrt(squared)
        if size <= tolerance * start:
            return LinearSolution(x, iteration, True, size / start)
        direction = residual + (squared / last) * direction
    return LinearSolution(x, max_iterations, False, size / start)
