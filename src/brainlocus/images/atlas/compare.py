"""Agreement of two atlases of the same voxels.

References
----------
Hubert & Arabie (1985), J. Classif. 2:193.
"""

import numpy as np
from jaxtyping import Int

__all__ = ["adjusted_rand"]


def adjusted_rand(first: Int[np.ndarray, " voxels"], second: Int[np.ndarray, " voxels"]) -> float:
    """Return the adjusted Rand index of two labellings: 1 when equal up to names, about 0 by chance.

    Every label counts as a class, 0 included: leave out the background first where it should not.

    Examples
    --------
    >>> adjusted_rand(np.array([1, 1, 2, 2]), np.array([7, 7, 3, 3]))
    1.0
    """
    _, rows = np.unique(first, return_inverse=True)
    _, columns = np.unique(second, return_inverse=True)
    n_columns = int(columns.max(initial=0)) + 1
    _, joint = np.unique(rows.astype(np.int64) * n_columns + columns, return_counts=True)

    def pairs(counts: Int[np.ndarray, " classes"]) -> float:
        return float((counts.astype(np.float64) * (counts - 1.0) / 2.0).sum())

    together = pairs(joint)
    in_rows, in_columns = pairs(np.bincount(rows)), pairs(np.bincount(columns))
    everything = first.size * (first.size - 1.0) / 2.0
    chance = in_rows * in_columns / everything if everything else 0.0
    largest = (in_rows + in_columns) / 2.0
    return 1.0 if largest == chance else (together - chance) / (largest - chance)
