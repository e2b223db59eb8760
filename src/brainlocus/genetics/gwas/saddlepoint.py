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
from typing import no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit
from scipy.special import log_ndtr

from brainlocus.genetics.gwas._newton import evaluate
from brainlocus.numerics.tails import neg_log10_p_from_z

__all__ = ["MIN_Z", "saddlepoint_neg_log10_p"]

MIN_Z = 2.0
"""Below this |z| the normal tail is as good, and the saddlepoint formula divides by a w near 0 (Dey et al. 2017)."""
_TOLERANCE = 1e-10
"""Of K'(s) = u, in standard deviations of the score."""
_MAX_ITERATIONS = 200
_FAR = 600.0
"""g~ s at which e^(g~ s) leaves no difference from its limit."""


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


@njit(cache=True, nogil=True)
@no_type_check
def two_tails(g, eta, mu, u):  # noqa: ANN001, ANN202
    """Return the normal deviates of P(S > u) and P(S < -u), then their logarithms where these are known exactly."""
    upper, upper_log = _tail(g, eta, mu, u)
    lower, lower_log = _tail(g, eta, mu, -u)
    return upper, lower, upper_log, lower_log


@njit(cache=True, nogil=True)
@no_type_check
def _tail(g, eta, mu, u):  # noqa: ANN001, ANN202
    """Return the deviate w + ln(v / w) / w, or NaN and the logarithm of the tail at the end of what S can be."""
    n = g.size
    sign = 1.0 if u > 0.0 else -1.0
    end, single, variance, widest, mean = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        toward = sign * g[i]
        end += toward * (1.0 - mu[i]) if toward > 0.0 else -toward * mu[i]
        if toward > 0.0:
            single += math.log(mu[i])
        elif toward < 0.0:
            single += math.log1p(-mu[i])
        variance += g[i] * g[i] * mu[i] * (1.0 - mu[i])
        widest = max(widest, abs(g[i]))
        mean += g[i] * mu[i]
    sd = math.sqrt(variance)
    if abs(u) > end + _TOLERANCE * sd:
        return np.nan, -np.inf
    if abs(u) > end - _TOLERANCE * sd:
        return np.nan, single
    nobody, tilted, p, w = np.zeros(n), np.empty(n), np.empty(n), np.empty(n)
    at_zero = evaluate(eta, nobody, p, w)
    # K' rises: keep the solution between `near` and `far`, and halve where Newton leaves them.
    near, far = 0.0, sign * _FAR / widest * 2.0
    s = u / variance
    slope = curvature = cumulant = 0.0
    for _ in range(_MAX_ITERATIONS):
        for i in range(n):
            tilted[i] = eta[i] + g[i] * s
        cumulant = at_zero - evaluate(tilted, nobody, p, w) - s * mean
        slope, curvature = -mean, 0.0
        for i in range(n):
            slope += g[i] * p[i]
            curvature += g[i] * g[i] * w[i]
        if abs(slope - u) <= _TOLERANCE * sd or abs(far - near) <= 1e-14 * abs(far):
            break
        if (slope < u) == (sign > 0.0):
            near = s
        else:
            far = s
        step = s + (u - slope) / curvature if curvature > 0.0 else np.inf
        s = step if (step - near) * (step - far) < 0.0 else 0.5 * (near + far)
    w_root = sign * math.sqrt(max(2.0 * (s * u - cumulant), 0.0))
    v = s * math.sqrt(curvature)
    if w_root == 0.0 or not v / w_root > 0.0:
        return np.nan, single
    return w_root + math.log(v / w_root) / w_root, np.nan
