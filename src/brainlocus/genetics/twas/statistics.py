"""z and beta of GWAS rows, from whatever statistics a file has.

Three ways, the order of which is a choice that changes results: z as given; ``z = beta / standard_error``; or from p
and the sign of the effect, ``z = sign * Phi^-1(1 - p / 2)``, which loses digits where p was rounded or is 0.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from brainlocus.numerics import z_from_neg_log10_p

__all__ = ["GwasStatistics", "Precedence", "gwas_statistics"]

Precedence = Literal["beta", "p"]
"""Which way is tried after z: ``beta`` (beta and standard error, then p and sign) or ``p`` (the other way round, as
S-PrediXcan does)."""

_SMALLEST_P = 50.0
"""-log10 of the p that replaces p = 0 where the smallest positive p of the file is not below it."""


@dataclass(frozen=True, slots=True, eq=False)
class GwasStatistics:
    """z and beta of every row."""

    z: Float[np.ndarray, " rows"]
    """NaN: no usable statistic."""
    beta: Float[np.ndarray, " rows"] | None
    """None: the file has no effects."""
    source: str
    """``z``, ``beta / standard_error`` or ``p and sign``."""
    counts: dict[str, int] = field(default_factory=dict)
    """Rows that have no z, by reason, and rows whose p of 0 was replaced."""


def gwas_statistics(
    *,
    z: Float[np.ndarray, " rows"] | None,
    beta: Float[np.ndarray, " rows"] | None,
    standard_error: Float[np.ndarray, " rows"] | None,
    neg_log10_p: Float[np.ndarray, " rows"] | None,
    sign: Float[np.ndarray, " rows"] | None,
    precedence: Precedence = "beta",
    replace_zero_p: bool = False,
) -> GwasStatistics:
    """Return z and beta.

    Parameters
    ----------
    z, beta, standard_error, neg_log10_p, sign
        Columns of the file, None where it has none; NaN is missing, an infinite `neg_log10_p` is p = 0.
    precedence
        Which way comes after z.
    replace_zero_p
        Take the smallest positive p (at most 1e-50) for p = 0, as S-PrediXcan does; by default such rows have no z.

    Raises
    ------
    ValueError
        Not enough columns for any way.
    """
    signs = np.sign(beta) if beta is not None else (np.sign(sign) if sign is not None else None)
    ways = {
        "beta": beta is not None and standard_error is not None,
        "p": neg_log10_p is not None and signs is not None,
    }
    way = "z" if z is not None else next((w for w in (precedence, "beta", "p") if ways[w]), "")
    if way == "z":
        assert z is not None  # noqa: S101 - of the choice above
        return _counted(z, beta, "z", np.zeros(z.size, dtype=bool), "z_missing")
    if way == "beta":
        assert beta is not None and standard_error is not None  # noqa: PT018, S101
        bad = ~(standard_error > 0) & ~np.isnan(standard_error)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(standard_error > 0, beta / standard_error, np.nan)
        return _counted(found, beta, "beta / standard_error", bad, "standard_error_not_positive")
    if way == "p":
        assert neg_log10_p is not None and signs is not None  # noqa: PT018, S101
        return _from_p(neg_log10_p, signs, beta, replace_zero=replace_zero_p)
    raise ValueError("A GWAS needs z, beta with its standard error, or p with a sign.")


def _counted(
    z: Float[np.ndarray, " rows"],
    beta: Float[np.ndarray, " rows"] | None,
    source: str,
    bad: Bool[np.ndarray, " rows"],
    reason: str,
) -> GwasStatistics:
    usable = np.where(np.isfinite(z), z, np.nan)
    counts = {reason: int(bad.sum())} if bad.any() else {}
    missing = int((np.isnan(usable) & ~bad).sum())
    if missing:
        counts["statistic_missing"] = missing
    return GwasStatistics(usable, beta, source, counts)


def _from_p(
    neg_log10_p: Float[np.ndarray, " rows"],
    signs: Float[np.ndarray, " rows"],
    beta: Float[np.ndarray, " rows"] | None,
    *,
    replace_zero: bool,
) -> GwasStatistics:
    zero = np.isposinf(neg_log10_p)
    counts: dict[str, int] = {}
    strength = np.where(zero, np.nan, neg_log10_p)
    if zero.any() and replace_zero:
        largest = float(np.nanmax(strength)) if np.isfinite(strength).any() else 0.0
        strength = np.where(zero, max(largest, _SMALLEST_P), strength)
        counts["p_zero_replaced"] = int(zero.sum())
    dropped = np.zeros(zero.size, dtype=bool) if replace_zero else zero
    found = _counted(signs * z_from_neg_log10_p(strength), beta, "p and sign", dropped, "p_zero")
    return GwasStatistics(found.z, beta, found.source, {**counts, **found.counts})
