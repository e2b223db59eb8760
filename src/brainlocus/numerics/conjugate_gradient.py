"""Conjugate gradients for symmetric positive definite operators on images."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["Solution", "conjugate_gradient", "inner"]


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Where conjugate gradients stopped."""

    x: Float[np.ndarray, "..."]
    n_iterations: int
    converged: bool
    """The residual fell below the tolerance."""
    relative_residual: float
    """||b - A x|| / ||b||."""


def inner(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "..."]) -> float:
    """Return the inner product of two images, summed plane by plane with the planes' sums in double precision."""
    flat_a, flat_b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
    return float(np.einsum("ij,ij->i", flat_a, flat_b).astype(np.float64).sum())


def conjugate_gradient(
    apply: Callable[[Float[np.ndarray, "..."]], Float[np.ndarray, "..."]],
    b: Float[np.ndarray, "..."],
    *,
    tolerance: float,
    max_iterations: int,
    precondition: Float[np.ndarray, "..."] | None = None,
) -> Solution:
    """Return x with A x = b, starting from 0, by preconditioned conjugate gradients.

    Parameters
    ----------
    apply
        A, symmetric and positive (semi-)definite, and linear.
    b
        Right-hand side; its precision is that of the result.
    tolerance
        Stop once ||b - A x|| <= tolerance ||b||.
    max_iterations
        Stop there in any case.
    precondition
        Diagonal of an approximate inverse of A; None: none.

    References
    ----------
    Hestenes & Stiefel (1952), J Res Natl Bur Stand 49:409.
    """
    x = np.zeros_like(b)
    residual = b.copy()
    start = np.sqrt(inner(b, b))
    if start == 0:
        return Solution(x, 0, True, 0.0)
    scaled = residual if precondition is None else precondition * residual
    direction = scaled.copy()
    squared = inner(residual, scaled)
    size = start
    for iteration in range(1, max_iterations + 1):
        image = apply(direction)
        curvature = inner(direction, image)
        if not curvature > 0:  # nothing left in the operator's range
            return Solution(x, iteration - 1, bool(size <= tolerance * start), float(size / start))
        step = b.dtype.type(squared / curvature)
        x += step * direction
        residual -= step * image
        size = np.sqrt(inner(residual, residual))
        if size <= tolerance * start:
            return Solution(x, iteration, True, float(size / start))
        scaled = residual if precondition is None else precondition * residual
        previous, squared = squared, inner(residual, scaled)
        direction *= b.dtype.type(squared / previous)
        direction += scaled
    return Solution(x, max_iterations, False, float(size / start))
