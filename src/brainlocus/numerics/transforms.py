"""Rank-based transforms.

References
----------
Blom (1958), Statistical Estimates and Transformed Beta-Variables; McCaw et al. (2020), Biometrics 76:1262.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

__all__ = ["rank_normal"]

BLOM = 3.0 / 8.0


def rank_normal(values: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    """Return ``Phi^-1((rank - 3/8) / (n + 1/4))`` with average ranks for ties; NaN stays NaN.

    Examples
    --------
    >>> rank_normal(np.array([3.0, np.nan, 1.0, 2.0])).round(3).tolist()
    [0.869, nan, -0.869, 0.0]
    """
    from scipy.stats import rankdata  # half a second of imports that most commands do not need

    result = np.full(values.shape, np.nan)
    present = ~np.isnan(values)
    n_present = int(present.sum())
    if n_present:
        result[present] = ndtri((rankdata(values[present]) - BLOM) / (n_present + 1.0 - 2.0 * BLOM))
    return result
