"""Level 1 of whole-genome ridge regression for cases and controls.

With ``eta = o + W'b`` the log-odds, o those of the covariates alone (logistic regression without penalty, once) and W
the predictions of level 0, the coefficients of a fold minimise over the others' people::

    -sum y eta - log(1 + exp(eta)) + lambda |b|^2 / 2          lambda = 3 / pi^2  L (1 - h) / h

The factor is the residual variance of the logistic distribution, pi^2 / 3, which takes the place of 1 of a trait in
unit variance. Newton's method, each penalty from the solution of the larger one before it; the penalty with the least
negative log likelihood of the people left out is chosen.

A ridge shrinks, so that log-odds predicted for people left out are too near 0: ``y`` regressed on them has a slope
above 1, and ``mu (1 - mu)`` is larger than the squared residuals, which makes a score test conservative (linear
regression takes its variance from the residuals and is spared). Each chromosome's predictions are therefore multiplied
by that slope s, of ``logit P(y = 1) = a + t o + s eta``: three numbers learned from everyone, none about a variant.

References
----------
Mbatchou et al. (2021), Nature Genetics 53:1097, 10.1038/s41588-021-00870-7; le Cessie & van Houwelingen (1992),
Applied Statistics 41:191 (logistic ridge regression); Cox (1958), Biometrika 45:562 (calibration slope).
"""

from itertools import pairwise

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float32

__all__ = ["LOGISTIC_VARIANCE", "calibration_slope", "covariate_log_odds", "negative_log_likelihood", "stack_cases"]

LOGISTIC_VARIANCE = np.pi**2 / 3.0
"""Variance of the standard logistic distribution."""

_MAX_STEPS = 30
_STEP_TOLERANCE = 1e-6
"""Largest change of the log-odds of anyone at which Newton's method stops, in float64."""
_SINGLE_TOLERANCE = 1e-5
"""The same, per unit of the largest log-odds, where they are float32 sums over columns."""
_MAX_LOG_ODDS = 15.0
"""Covariates that predict someone's status with odds beyond exp(15) tell cases from controls apart."""


def negative_log_likelihood(status: Float[np.ndarray, " samples"], log_odds: Float[np.ndarray, " samples"]) -> float:
    """Return ``sum log(1 + exp(eta)) - y eta``."""
    return float(np.logaddexp(0.0, log_odds).sum() - status @ log_odds)


def covariate_log_odds(
    basis: Float[np.ndarray, "samples rank"], status: Float[np.ndarray, " samples"]
) -> Float[np.ndarray, " samples"] | None:
    """Return everyone's log-odds given the covariates by logistic regression; None where it does not converge."""
    b = np.zeros(basis.shape[1])
    for _ in range(_MAX_STEPS):
        eta = basis @ b
        if np.abs(eta).max() > _MAX_LOG_ODDS:
            return None
        mu = 1.0 / (1.0 + np.exp(-eta))
        step = np.linalg.solve((basis.T * (mu * (1.0 - mu))) @ basis, basis.T @ (status - mu))
        b = b + step
        if np.abs(basis @ step).max() < _STEP_TOLERANCE:
            return np.asarray(basis @ b)
    return None


def calibration_slope(
    status: Float[np.ndarray, " samples"],
    covariates: Float[np.ndarray, " samples"],
    predicted: Float[np.ndarray, " samples"],
) -> float:
    """Return what predicted log-odds must be multiplied by to be calibrated; at least 0, and 1 where it is not known.

    Parameters
    ----------
    covariates
        Log-odds of the covariates alone.
    predicted
        Log-odds of the genome, of people left out of what predicts them.
    """
    spread = np.ptp(predicted)
    if not spread > 0.0:
        return 1.0
    columns = [np.ones(status.size), predicted / spread]
    if np.ptp(covariates) > _STEP_TOLERANCE:
        columns.append(covariates)
    x = np.stack(columns, axis=1)
    b = np.zeros(x.shape[1])
    for _ in range(_MAX_STEPS):
        eta = x @ b
        if np.abs(eta).max() > 2.0 * _MAX_LOG_ODDS:
            return 1.0
        mu = 1.0 / (1.0 + np.exp(-eta))
        step = np.linalg.lstsq((x.T * (mu * (1.0 - mu))) @ x, x.T @ (status - mu), rcond=None)[0]
        b = b + step
        if np.abs(x @ step).max() < _STEP_TOLERANCE:
            return max(float(b[1] / spread), 0.0)
    return 1.0


def stack_cases(
    w: Float32[np.ndarray, "columns samples"],
    status: Float[np.ndarray, " samples"],
    offset: Float[np.ndarray, " samples"],
    bounds: list[int],
    penalties: list[float],
    members: Float[np.ndarray, "chromosomes columns"],
) -> tuple[Float[np.ndarray, "chromosomes samples"], Float[np.ndarray, " penalties"]]:
    """Return each chromosome's part of the log-odds at the best penalty, and the losses of all penalties.

    Parameters
    ----------
    w
        Predictions of level 0 in unit variance.
    status
        1 case, 0 control.
    offset
        Log-odds of the covariates.
    bounds
        Fold f is the people ``bounds[f]`` up to but not including ``bounds[f + 1]``.
    penalties
        For a trait in unit variance; divided by the logistic variance here.
    members
        1 where a column belongs to a chromosome.
    """
    folds = [slice(first, last) for first, last in pairwise(bounds)]
    order = np.argsort(penalties)[::-1]
    betas = np.zeros((len(penalties), len(folds), w.shape[0]))
    losses = np.zeros(len(penalties))
    for f, part in enumerate(folds):
        train = np.r_[0 : part.start, part.stop : w.shape[1]]
        others = w[:, train]
        beta = np.zeros(w.shape[0])
        for r in order.tolist():
            beta = _logistic_ridge(others, status[train], offset[train], penalties[r] / LOGISTIC_VARIANCE, beta)
            betas[r, f] = beta
            predicted = (beta.astype(np.float32) @ w[:, part]).astype(np.float64)
            losses[r] += negative_log_likelihood(status[part], offset[part] + predicted)
    best = int(np.argmin(losses))
    parts = np.empty((members.shape[0], status.size))
    for f, part in enumerate(folds):
        parts[:, part] = (members * betas[best, f]).astype(np.float32) @ w[:, part]
    return parts, losses


def _logistic_ridge(
    w: Float32[np.ndarray, "columns samples"],
    status: Float[np.ndarray, " samples"],
    offset: Float[np.ndarray, " samples"],
    penalty: float,
    start: Float[np.ndarray, " columns"],
) -> Float[np.ndarray, " columns"]:
    """Return the penalised coefficients by Newton's method with halved steps, from the given start."""

    def log_odds(b: Float[np.ndarray, " columns"]) -> Float[np.ndarray, " samples"]:
        return np.asarray(offset + (b.astype(np.float32) @ w).astype(np.float64))

    beta, eta = start, log_odds(start)
    loss = negative_log_likelihood(status, eta) + 0.5 * penalty * float(beta @ beta)
    for _ in range(_MAX_STEPS):
        mu = 1.0 / (1.0 + np.exp(-eta))
        gradient = (w @ (status - mu).astype(np.float32)).astype(np.float64) - penalty * beta
        root = np.sqrt(mu * (1.0 - mu)).astype(np.float32)
        scaled = w * root
        hessian = (scaled @ scaled.T).astype(np.float64)
        hessian[np.diag_indices_from(hessian)] += penalty
        step = np.asarray(scipy.linalg.solve(hessian, gradient, assume_a="pos", check_finite=False))
        for _ in range(_MAX_STEPS):
            proposed, moved = beta + step, log_odds(beta + step)
            value = negative_log_likelihood(status, moved) + 0.5 * penalty * float(proposed @ proposed)
            if value <= loss * (1.0 + 1e-7):
                break
            step = step / 2.0
        change = float(np.abs(moved - eta).max())
        beta, eta, loss = proposed, moved, value
        if change < _SINGLE_TOLERANCE * max(1.0, float(np.abs(eta).max())):
            break
    return beta
