"""Neighbouring columns that go together: blocks of variants in linkage disequilibrium, for summaries of loadings."""

import numpy as np
from jaxtyping import Float64, Int, Shaped

__all__ = ["neighbour_blocks"]


def neighbour_blocks(
    columns: Float64[np.ndarray, "people columns"], chromosome: Shaped[np.ndarray, " columns"], *, r2: float = 0.2
) -> Int[np.ndarray, " columns"]:
    """Return the block of every column, from 1: it goes on while the next column is on the chromosome and has r2.

    Parameters
    ----------
    columns
        Standardised (mean 0, mean square 1), in the order of position.

    Examples
    --------
    >>> a, b = np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, 1.0, -1.0, -1.0])
    >>> neighbour_blocks(np.column_stack([a, a, b, b]), np.array(["1", "1", "1", "2"])).tolist()
    [1, 1, 2, 3]
    """
    if not columns.shape[1]:
        return np.empty(0, dtype=np.int64)
    r = np.einsum("ij,ij->j", columns[:, 1:], columns[:, :-1]) / columns.shape[0]
    breaks = (r * r < r2) | (chromosome[1:] != chromosome[:-1])
    return np.concatenate([[1], 1 + np.cumsum(breaks)]).astype(np.int64)
