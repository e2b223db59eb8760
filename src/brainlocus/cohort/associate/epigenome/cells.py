r"""Cell proportions of a sample from the methylation of pure cells: constrained projection.

For a sample m and a reference B of the same CpGs, markers x cell types::

    min |m - B w|^2    w >= 0    sum w <= 1

If the least squares with w >= 0 sum to at most 1 they are the answer. Otherwise the sum is 1, and with A = B - m 1' the
aim is ``|A w|^2``, so that w is the u >= 0 that minimises ``|A u|^2 + (1'u - 1)^2``, divided by its sum: of all u = s w
with sum w = 1, that minimum is ``|A w|^2 / (|A w|^2 + 1)``, smallest where ``|A w|^2`` is. Both are solved by Lawson &
Hanson's active sets, which end at the exact solution, on the triangle of a QR of B.

References
----------
Houseman et al. (2012), BMC Bioinformatics 13:86; Lawson & Hanson (1974), Solving Least Squares Problems, ch. 23.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.optimize import nnls

from brainlocus.numerics import same_people

__all__ = ["CellProportions", "estimate_cells"]

_CONDITION = 1e10
"""Ratio of the singular values of a reference above which its cell types cannot be told apart."""


@dataclass(frozen=True, slots=True, eq=False)
class CellProportions:
    """Proportions of every person; NaN where too few markers are known."""

    proportions: Float64[np.ndarray, "people cells"]
    residual: Float64[np.ndarray, " people"]
    """Root mean square of the methylation that the proportions do not explain."""
    n_markers: Int[np.ndarray, " people"]


def estimate_cells(
    methylation: Float[np.ndarray, "markers people"], reference: Float[np.ndarray, "markers cells"]
) -> CellProportions:
    """Return the proportions of cell types.

    Parameters
    ----------
    methylation
        Betas of the markers; NaN is missing: a person's proportions are from the markers that are there.
    reference
        Mean betas of pure cells.

    Raises
    ------
    ValueError
        Fewer markers than cell types, or cell types that the markers do not tell apart.

    Examples
    --------
    >>> reference = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    >>> estimate_cells(reference @ np.array([[0.7], [0.2]]), reference).proportions.round(6).tolist()
    [[0.7, 0.2]]
    """
    n_markers, n_cells = reference.shape
    if n_markers < n_cells:
        raise ValueError(f"{n_cells} cell types need at least as many marker CpGs, {n_markers} are there.")
    singular = np.linalg.svd(reference, compute_uv=False)
    if singular[0] > _CONDITION * singular[-1]:
        raise ValueError("The reference does not tell its cell types apart: a column is a combination of others.")
    n_people = methylation.shape[1]
    present = np.isfinite(methylation)
    proportions = np.full((n_people, n_cells), np.nan)
    residual = np.full(n_people, np.nan)
    for markers, people in same_people(present):
        if markers.sum() >= n_cells:
            _project(methylation, reference, markers, people, proportions, residual)
    return CellProportions(proportions, residual, present.sum(axis=0).astype(np.int64))


def _project(
    methylation: Float[np.ndarray, "markers people"],
    reference: Float[np.ndarray, "markers cells"],
    markers: Bool[np.ndarray, " markers"],
    people: Int[np.ndarray, " some"],
    proportions: Float64[np.ndarray, "people cells"],
    residual: Float64[np.ndarray, " people"],
) -> None:
    """Fill the rows of people who have the same markers."""
    b = np.asarray(reference[markers], dtype=np.float64)
    q, r = np.linalg.qr(b)
    if np.abs(np.diag(r)).min() * _CONDITION < np.abs(np.diag(r)).max():
        return
    values = np.asarray(methylation[np.ix_(markers, people)], dtype=np.float64)
    turned = q.T @ values
    for at, person in enumerate(people.tolist()):
        w = nnls(r, turned[:, at])[0]
        if w.sum() > 1.0:
            w = _sum_one(r, turned[:, at])
        proportions[person] = w
        residual[person] = np.linalg.norm(values[:, at] - b @ w) / np.sqrt(b.shape[0])


def _sum_one(r: Float64[np.ndarray, "cells cells"], m: Float64[np.ndarray, " cells"]) -> Float64[np.ndarray, " cells"]:
    """Return the w >= 0 of sum 1 that is nearest.

    The part of a sample outside the reference's span adds the same to ``|A w|^2`` of every such w, and is left out.
    """
    n_cells = r.shape[0]
    system = np.vstack([r - m[:, None], np.ones((1, n_cells))])
    u = nnls(system, np.r_[np.zeros(n_cells), 1.0])[0]
    return np.asarray(u / u.sum())
