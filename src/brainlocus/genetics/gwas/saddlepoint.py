r"""Saddlepoint p-values of the logistic score test: right in the tails where cases or alleles are few.

The score of a variant is ``S = sum g~ (y - mu)``, with ``mu`` the probabilities without the variant and ``g~`` its
dosage with the covariates projected out. Under the null its cumulant generating function and tails are::

    K(s) = sum ln(1 - mu + mu e^(g~ s)) - s sum g~ mu          K'(s) = u
    w = sign(s) sqrt(2 (s u - K(s)))      v = s sqrt(K''(s))    P(S > u) = 1 - Phi(w + ln(v / w) / w)

The two-sided p is ``P(S > |u|) + P(S < -|u|)``. A tail beyond the largest possible score has probability 0; at the
largest score itself it is the probability of that one outcome. Near the centre (|z| below 2) the formula is singular,
and the normal tail serves.

References
----------
Barndorff-Nielsen (1990), J. R. Stat. Soc. B 52:485; Dey et al. (2017), 10.1016/j.ajhg.2017.05.014.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy.special import log_ndtr

from brainlocus.genetics.gwas._cases import MIN_Z, two_tails
from brainlocus.numerics.tails import neg_log10_p_from_z

__all__ = ["neg_log10_of_tails", "saddlepoint_neg_log10_p"]


def saddlepoint_neg_log10_p(
    residual_dosage: Float[np.ndarray, " samples"],
    probability: Float[np.ndarray, " samples"],
    score: float,
) -> float:
    """Return -log10 of the two-sided p-value of a score.

    Parameters
    ----------
    residual_dosage
        g~: the dosage with the covariates projected out.
    probability
        mu: each person's probability of being a case without the variant, within (0, 1).
    score
        ``sum g~ (y - mu)``.

    References
    ----------
    Dey et al. (2017), Am. J. Hum. Genet. 101:37.

    Examples
    --------
    >>> carriers = np.repeat([1.0, 0.0], [20, 980]) - 0.02
    >>> cases = np.concatenate([np.ones(5), np.zeros(15), np.ones(15), np.zeros(965)])  # 5 of 20 carriers, else 15
    >>> score = float(carriers @ (cases - 0.02))
    >>> round(saddlepoint_neg_log10_p(carriers, np.full(1000, 0.02), score), 2)  # the normal tail says 13.3
    5.01
    """
    sd = math.sqrt(float(residual_dosage**2 @ (probability * (1.0 - probability))))
    if not abs(score) > MIN_Z * sd:
        return float(neg_log10_p_from_z(np.array([score / sd]))[0])
    eta = np.log(probability) - np.log1p(-probability)
    tails = two_tails(np.ascontiguousarray(residual_dosage, dtype=np.float64), eta, probability, abs(float(score)))
    return float(neg_log10_of_tails(np.array([tails]))[0])


def neg_log10_of_tails(tails: Float[np.ndarray, "tests 4"]) -> Float[np.ndarray, " tests"]:
    """Return -log10 p of what `two_tails` gives: deviates of the upper and lower tail, or logarithms where known."""
    upper = np.where(np.isnan(tails[:, 2]), log_ndtr(-tails[:, 0]), tails[:, 2])
    lower = np.where(np.isnan(tails[:, 3]), log_ndtr(tails[:, 1]), tails[:, 3])
    return np.asarray(-np.minimum(np.logaddexp(upper, lower), 0.0) / math.log(10.0))
