r"""ACAT: one p-value from several that may depend on each other in any way (the aggregated Cauchy association test).

With weights w_i >= 0::

    T = sum_i w_i tan(pi (1/2 - p_i)) / sum_i w_i        p = 1/2 - arctan(T) / pi

Both are written so that small p lose nothing: ``tan(pi (1/2 - p)) = 1 / tan(pi p)``, which is ``1 / (pi p)`` for p
below 1e-16, and ``1/2 - arctan(T) / pi`` is the angle of the point (T, 1) over pi, which is ``1 / (pi T)`` for T above
1e15. Where 1 / p has no double, the sum is taken relative to its largest term.

References
----------
Liu et al. (2019), 10.1016/j.ajhg.2019.01.002.
"""

import numpy as np
from jaxtyping import Float, Float64

__all__ = ["acat"]

_STRONGEST = 300.0
"""-log10 p from which 1 / (pi p) is taken relative to the strongest."""
_SMALL = 16.0
"""-log10 p from which tan(pi p) is pi p to all digits."""


def acat(
    neg_log10_p: Float[np.ndarray, "tests combined"], weights: Float[np.ndarray, "tests combined"] | None = None
) -> Float64[np.ndarray, " combined"]:
    """Return -log10 of the combined p of every column.

    Parameters
    ----------
    neg_log10_p
        NaN: no test, not counted. Infinite: p is 0, and so is the result. 0: p is 1, replaced by 1 - 1 / (tests of the
        column), or kept where it is the only one.
    weights
        Not negative; equal by default. A column whose tests all have weight 0 has no result.

    Returns
    -------
    array
        NaN where there is no test.

    Raises
    ------
    ValueError
        A p outside [0, 1]; a column with both p = 0 and p = 1; a weight that is negative or not finite; a column whose
        weights are all 0.

    Examples
    --------
    >>> acat(-np.log10(np.array([[0.01, 1e-20], [0.5, np.nan]]))).round(3).tolist()
    [1.699, 20.0]
    """
    strength = np.asarray(neg_log10_p, dtype=np.float64)
    known = ~np.isnan(strength)
    if (strength < 0).any():
        raise ValueError(f"Expected -log10 p of 0 or more, found {np.nanmin(strength)}.")
    if weights is not None and not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("Expected finite weights of 0 or more, found one that is not.")
    weight = np.where(known, 1.0 if weights is None else weights, 0.0)
    total, count = weight.sum(axis=0), known.sum(axis=0)
    if ((total <= 0) & (count > 0)).any():
        raise ValueError(f"Column {int(np.flatnonzero((total <= 0) & (count > 0))[0])} has weights of 0 only.")
    zero, one = np.isposinf(strength), strength == 0
    if (zero.any(axis=0) & one.any(axis=0)).any():
        first = int(np.flatnonzero(zero.any(axis=0) & one.any(axis=0))[0])
        raise ValueError(f"Column {first} has both p = 0 and p = 1, which contradict each other.")
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(one & (count > 1), 1.0 - 1.0 / count, 10.0**-strength)
        share = weight / total
        # 1 / p has no double above 1e308: those columns are taken care of below.
        tangent = np.where(strength > _SMALL, 10.0 ** np.minimum(strength, _STRONGEST) / np.pi, 1 / np.tan(np.pi * p))
        mean = np.where(weight > 0, share * tangent, 0.0).sum(axis=0)
        result = -np.log10(np.arctan2(1.0, mean) / np.pi)
        strongest = np.where(weight > 0, np.where(known, strength, 0.0), 0.0).max(axis=0, initial=0.0)
        far = (strongest > _STRONGEST) & np.isfinite(strongest)
        relative = np.where(weight > 0, share * 10.0 ** np.minimum(strength - strongest, 0.0), 0.0).sum(axis=0)
        result = np.where(far, strongest + np.log10(relative), result)
    result = np.where(np.isposinf(strongest), np.inf, result)
    alone = (count == 1) & one.any(axis=0)
    return np.where(count == 0, np.nan, np.where(alone, 0.0, np.maximum(result, 0.0)))
