"""Modes of resamples in the order and with the signs of the modes of everyone.

Procrustes over signed permutations: of all orders and signs, those that bring the resample nearest to the reference in
the least-squares sense. A full rotation would mix modes, and show modes that merely span one plane as stable.

References
----------
McIntosh & Lobaugh (2004), NeuroImage 23:S250 (Procrustes in PLS); Kuhn (1955), Naval Res. Logist. 2:83 (assignment).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

__all__ = ["Alignment", "align_modes"]


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """``found[:, order] * signs`` is nearest to the reference."""

    order: Int[np.ndarray, " modes"]
    signs: Float64[np.ndarray, " modes"]

    def apply(self, modes: Float64[np.ndarray, "rows modes"]) -> Float64[np.ndarray, "rows modes"]:
        """Return modes in the reference's order and with its signs."""
        return np.asarray(modes[:, self.order] * self.signs)


def align_modes(reference: Float64[np.ndarray, "rows modes"], found: Float64[np.ndarray, "rows modes"]) -> Alignment:
    """Return the signed permutation of modes that minimises the squared distance to the reference.

    Examples
    --------
    >>> reference = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> aligned = align_modes(reference, np.array([[0.0, -1.0], [1.0, 0.0]]))
    >>> aligned.order.tolist(), aligned.signs.tolist()
    ([1, 0], [-1.0, 1.0])
    """
    from scipy.optimize import linear_sum_assignment

    alike = reference.T @ found
    rows, order = linear_sum_assignment(-np.abs(alike))
    return Alignment(order.astype(np.int64), np.where(alike[rows, order] < 0, -1.0, 1.0))
