"""Columns of a variant that can be told apart: Cholesky factors that leave out what depends on the columns before."""

from typing import no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit

__all__ = ["independent", "invert_kept"]

_TOLERANCE = 1e-7
"""Share of a column's sum of squares that the covariates and the columns before it must leave."""


@njit(cache=True, nogil=True)
@no_type_check
def invert_kept(gram, raw, inverse, kept, fine):  # noqa: ANN001, ANN202
    """Fill the inverse of each Gram matrix over its independent columns (0 elsewhere).

    Also their number, and whether the first two are among them. `raw` has the sum of squares of each column before
    the covariates were taken out.
    """
    columns = gram.shape[1]
    factor = np.zeros((columns, columns))
    lower = np.zeros((columns, columns))
    use = np.zeros(columns, dtype=np.bool_)
    for v in range(gram.shape[0]):
        factor[:] = 0.0
        lower[:] = 0.0
        number = 0
        for j in range(columns):
            for i in range(j):
                if use[i]:
                    total = gram[v, j, i]
                    for k in range(i):
                        if use[k]:
                            total -= factor[j, k] * factor[i, k]
                    factor[j, i] = total / factor[i, i]
            pivot = gram[v, j, j]
            for k in range(j):
                if use[k]:
                    pivot -= factor[j, k] ** 2
            use[j] = pivot > _TOLERANCE * raw[v, j] and raw[v, j] > 0.0
            if use[j]:
                factor[j, j] = pivot**0.5
                number += 1
        for i in range(columns):
            if not use[i]:
                continue
            lower[i, i] = 1.0 / factor[i, i]
            for j in range(i):
                if use[j]:
                    total = 0.0
                    for k in range(j, i):
                        if use[k]:
                            total -= factor[i, k] * lower[k, j]
                    lower[i, j] = total / factor[i, i]
        for i in range(columns):
            for j in range(columns):
                total = 0.0
                for k in range(max(i, j), columns):
                    total += lower[k, i] * lower[k, j]
                inverse[v, i, j] = total
        kept[v] = number
        fine[v] = use[0] and use[1]


def independent(left: Float[np.ndarray, "people columns"], raw: Float[np.ndarray, "people columns"]) -> list[int]:
    """Return the columns of `left` (what covariates leave of `raw`) that are not combinations of those before."""
    kept: list[int] = []
    basis = np.empty((left.shape[0], 0))
    for k in range(left.shape[1]):
        column = left[:, k] - basis @ (basis.T @ left[:, k])
        column = column - basis @ (basis.T @ column)
        size = float(column @ column)
        if size > _TOLERANCE * float(raw[:, k] @ raw[:, k]) and size > 0.0:
            kept.append(k)
            basis = np.column_stack([basis, column / np.sqrt(size)])
    return kept
