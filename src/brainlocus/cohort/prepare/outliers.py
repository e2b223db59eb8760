"""Outliers by distance from the median.

A value is removed where ``|x - median| > 6 MAD``, with ``MAD = median |x - median|`` unscaled: the published rule
for UK Biobank imaging phenotypes. Where more than half of the values are equal the MAD is 0 and nothing is removed.

References
----------
Alfaro-Almagro et al. (2021), NeuroImage 224:117002; Smith et al. (2021), Nat. Neurosci. 24:737.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

__all__ = ["Outliers", "remove_outliers"]

WARN_SHARE = 0.02
"""On skewed data the rule removes 10-30 %; above this share a transform should come first."""


@dataclass(frozen=True, slots=True, eq=False)
class Outliers:
    """Values without outliers, and what was removed."""

    values: Float64[np.ndarray, "samples traits"]
    """NaN where a value was removed or missing."""
    n_removed: Int[np.ndarray, " traits"]
    zero_mad: Bool[np.ndarray, " traits"]
    """More than half of the values are equal: nothing was removed."""
    excessive: Bool[np.ndarray, " traits"]
    """More than 2 % were removed: transform first."""


def remove_outliers(values: Float[np.ndarray, "samples traits"], *, mads: float = 6.0, scale: float = 1.0) -> Outliers:
    """Set values farther than `mads` median absolute deviations from the median to NaN.

    Parameters
    ----------
    values
        NaN is missing and stays so.
    scale
        1 leaves the MAD unscaled (the published rule); 1.4826 makes it a robust standard deviation.

    Raises
    ------
    ValueError
        `mads` or `scale` is not positive.

    Examples
    --------
    >>> remove_outliers(np.array([[1.0], [2.0], [3.0], [4.0], [50.0]])).n_removed.tolist()
    [1]
    """
    if not (mads > 0 and scale > 0):
        raise ValueError(f"mads and scale must be positive, got {mads} and {scale}.")
    kept = np.array(values, dtype=np.float64)
    present = ~np.isnan(kept)
    some = present.any(axis=0)
    mad = np.zeros(kept.shape[1])
    distance = np.full(kept.shape, np.nan)
    distance[:, some] = np.abs(kept[:, some] - np.nanmedian(kept[:, some], axis=0))
    mad[some] = np.nanmedian(distance[:, some], axis=0)
    zero = some & (mad == 0)
    # NaN compares as false: missing values are not counted as outliers.
    far = (distance > mads * scale * mad) & ~zero
    kept[far] = np.nan
    n_removed = far.sum(axis=0).astype(np.int64)
    return Outliers(kept, n_removed, zero, n_removed > WARN_SHARE * present.sum(axis=0))
