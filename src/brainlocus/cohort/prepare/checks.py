"""What a user should know of traits before trusting what was made of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

__all__ = ["CloseConfound", "Sentinel", "close_confounds", "suspected_sentinels", "tied_share"]

SENTINEL_SHARE = 0.05
CLOSE_R = 0.9


@dataclass(frozen=True, slots=True)
class Sentinel:
    """A negative value that may mean missing."""

    column: str
    value: float
    count: int


@dataclass(frozen=True, slots=True)
class CloseConfound:
    """A confound that is nearly the trait."""

    confound: str
    trait: str
    r: float


def suspected_sentinels(values: Float[np.ndarray, "samples columns"], names: Sequence[str]) -> tuple[Sentinel, ...]:
    """Return the columns whose only negative value makes up more than 5 % of what they have.

    Examples
    --------
    >>> suspected_sentinels(np.array([[-9.0], [3.0], [0.0], [4.0]]), ["score"])
    (Sentinel(column='score', value=-9.0, count=1),)
    """
    found = []
    for k, name in enumerate(names):
        column = values[:, k]
        known = column[~np.isnan(column)]
        negative = known[known < 0]
        if negative.size > SENTINEL_SHARE * known.size and negative.size < known.size and np.ptp(negative) == 0:
            found.append(Sentinel(name, float(negative[0]), int(negative.size)))
    return tuple(found)


def tied_share(values: Float[np.ndarray, " samples"]) -> float:
    """Return the share of values that another person has too; 0 without values.

    Examples
    --------
    >>> tied_share(np.array([1.0, 2.0, 2.0, np.nan, 4.0]))
    0.5
    """
    known = values[~np.isnan(values)]
    if not known.size:
        return 0.0
    _, counts = np.unique(known, return_counts=True)
    return float(counts[counts > 1].sum() / known.size)


def close_confounds(
    confounds: Float[np.ndarray, "samples confounds"],
    confound_names: Sequence[str],
    traits: Float[np.ndarray, "samples traits"],
    trait_names: Sequence[str],
) -> tuple[CloseConfound, ...]:
    """Return the pairs whose correlation, over the people who have both, is beyond 0.9 in size."""
    found = []
    for k, name in enumerate(confound_names):
        r = _correlations(np.asarray(confounds[:, k], dtype=np.float64), np.asarray(traits, dtype=np.float64))
        found += [CloseConfound(name, trait_names[int(j)], float(r[j])) for j in np.flatnonzero(np.abs(r) > CLOSE_R)]
    return tuple(found)


def _correlations(
    one: Float64[np.ndarray, " samples"], many: Float64[np.ndarray, "samples traits"]
) -> Float64[np.ndarray, " traits"]:
    """Return Pearson's r with every column, pairwise; NaN where it is not defined."""
    both = ~np.isnan(many) & ~np.isnan(one)[:, None]
    n = both.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = np.where(both, one[:, None] - np.where(both, one[:, None], 0.0).sum(axis=0) / n, 0.0)
        y = np.where(both, many - np.where(both, many, 0.0).sum(axis=0) / n, 0.0)
        return np.asarray((x * y).sum(axis=0) / np.sqrt((x * x).sum(axis=0) * (y * y).sum(axis=0)))
