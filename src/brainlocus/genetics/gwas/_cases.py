"""Compiled tests of single variants for single case-control traits: exact score, and the fit that was asked for.

Everything here is in float64 and in counts of the rarer allele; the caller turns signs. `fit_tests` goes through the
tests of one group of traits (traits observed in the same people) one after the other.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from brainlocus.genetics.gwas._newton import CONVERGED, cholesky, evaluate, maximise, solve_lower, solve_upper
from brainlocus.genetics.gwas.firth import firth_test
from brainlocus.genetics.gwas.saddlepoint import MIN_Z, two_tails

__all__ = [
    "BETA", "COLUMNS", "COPIES_CASES", "COPIES_CONTROLS", "ERROR", "METHOD", "N_CASES", "N_CONTROLS", "SCORE_Z",
    "STATUS", "TAILS", "Z", "fit_tests",
]  # fmt: skip

SCORE_Z, BETA, ERROR, Z, METHOD, STATUS, N_CASES, N_CONTROLS, COPIES_CASES, COPIES_CONTROLS = range(10)
TAILS = 10
"""Four columns of `saddlepoint.two_tails`."""
COLUMNS = 14

SCORE, LOGISTIC, FIRTH, FIRTH_APPROX, SPA = range(5)
"""Methods, by code."""
NONE, FIRTH_FALLBACK, ALWAYS_FIRTH, ALWAYS_FIRTH_APPROX, ALWAYS_SPA = range(5)
"""Corrections, by code."""
OK, SEPARATED, FAILED, COLLINEAR = range(4)
"""Why a test has no estimate, by code."""

PLAIN_ITERATIONS = 25
_EMPTY_CELL = 1e-6
"""Copies of an allele among cases or controls below which there are none (dosages carry rounding)."""
_MIN_VARIANCE = 1e-8
"""Share of a dosage's weighted variance that the covariates must leave."""


@njit(cache=True, nogil=True)
@no_type_check
def _load(counts, row, people, place, start, missing, mean, g, called):  # noqa: ANN001, ANN202
    """Fill the group's counts, its mean where there is no call; return how many there are without."""
    for i in range(people.size):
        g[i] = counts[row, people[i]]
        called[i] = True
    absent = 0
    for b in range(start[row], start[row + 1]):
        i = place[missing[b]]
        if i >= 0:
            g[i] = mean
            called[i] = False
            absent += 1
    return absent


@njit(cache=True, nogil=True)
@no_type_check
def _score(x, g, y, mu, lower):  # noqa: ANN001, ANN202
    """Return score, its variance, and L^-1 C'Wg; the variance is NaN for a dosage that the covariates make up."""
    n = g.size
    w_g = np.empty(n)
    score, total, squares, weight = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        w = mu[i] * (1.0 - mu[i])
        w_g[i] = w * g[i]
        score += g[i] * (y[i] - mu[i])
        total += w_g[i]
        squares += w_g[i] * g[i]
        weight += w
    v = solve_lower(lower, np.dot(x, w_g))
    variance = squares - np.dot(v, v)
    if not variance > _MIN_VARIANCE * (squares - total * total / weight) or not variance > 1e-14 * squares:
        variance = np.nan
    return score, variance, v


@njit(cache=True, nogil=True)
@no_type_check
def _residual_dosage(x, g, lower, v):  # noqa: ANN001, ANN202
    """Return g - C (C'WC)^-1 C'Wg."""
    return g - np.dot(solve_upper(lower, v), x)


@njit(cache=True, nogil=True)
@no_type_check
def _take_called(x, y, mu, offset, g, called, n_called):  # noqa: ANN001, ANN202
    """Return everything for the people with a call."""
    c = x.shape[0]
    x_, y_, mu_, offset_ = np.empty((c + 1, n_called)), np.empty(n_called), np.empty(n_called), np.empty(n_called)
    at = 0
    for i in range(g.size):
        if called[i]:
            for a in range(c):
                x_[a, at] = x[a, i]
            x_[c, at] = g[i]
            y_[at], mu_[at], offset_[at] = y[i], mu[i], offset[i]
            at += 1
    return x_, y_, mu_, offset_


@njit(cache=True, nogil=True)
@no_type_check
def _wald_or_ratio(beta, error, chi2, wald):  # noqa: ANN001, ANN202
    """Return the signed root of the test's chi-square."""
    if wald:
        return beta / error
    return np.sqrt(chi2) if beta >= 0.0 else -np.sqrt(chi2)


@njit(cache=True, nogil=True)
@no_type_check
def _logistic(x, y, offset, gamma, likelihood, lower, score, variance, v, wald, out):  # noqa: ANN001, ANN202
    """Fill beta, standard error and z of the plain fit; return whether there is one."""
    c = gamma.size
    # One Newton step from the null model; the factor of its information has that of the covariates as leading block.
    b, factor = np.empty(c + 1), np.zeros((c + 1, c + 1))
    b[c] = score / variance
    b[:c] = gamma - b[c] * solve_upper(lower, v)
    factor[:c, :c] = lower
    factor[c, :c] = v
    factor[c, c] = np.sqrt(variance)
    status, value, at_top = maximise(x, y, offset, b, c + 1, False, PLAIN_ITERATIONS, np.inf, factor)
    if status != CONVERGED or at_top[c, c] == 0.0:
        return False
    out[BETA], out[ERROR] = b[c], 1.0 / at_top[c, c]
    out[Z] = _wald_or_ratio(b[c], out[ERROR], max(2.0 * (value - likelihood), 0.0), wald)
    out[METHOD] = LOGISTIC
    return True


@njit(cache=True, nogil=True)
@no_type_check
def _firth(x, y, offset, gamma, wald, out):  # noqa: ANN001, ANN202
    b = np.zeros(gamma.size + 1)
    b[: gamma.size] = gamma
    status, error, chi2, _ = firth_test(x, y, offset, b)
    if status != CONVERGED:
        return False
    out[BETA], out[ERROR] = b[gamma.size], error
    out[Z] = _wald_or_ratio(b[gamma.size], error, chi2, wald)
    out[METHOD] = FIRTH
    return True


@njit(cache=True, nogil=True)
@no_type_check
def _firth_approx(residual, y, offset, wald, out):  # noqa: ANN001, ANN202
    """One penalised coefficient over the covariates' penalised effects; by ratio, the error is |beta| / sqrt(chi2)."""
    b = np.zeros(1)
    status, error, chi2, _ = firth_test(residual.reshape((1, residual.size)), y, offset, b)
    if status != CONVERGED:
        return False
    out[BETA] = b[0]
    out[Z] = _wald_or_ratio(b[0], error, chi2, wald)
    out[ERROR] = error if wald or chi2 == 0.0 else abs(b[0]) / np.sqrt(chi2)
    out[METHOD] = FIRTH_APPROX
    return True


@njit(cache=True, nogil=True)
@no_type_check
def _spa(residual, mu, score, variance, out):  # noqa: ANN001, ANN202
    """Fill the tails; the effect is that of the score. Beta's error follows from them (|beta| / |z|)."""
    eta = np.empty(mu.size)
    for i in range(mu.size):
        eta[i] = np.log(mu[i]) - np.log1p(-mu[i])
    out[TAILS : TAILS + 4] = two_tails(residual, eta, mu, abs(score))
    out[BETA] = score / variance
    out[METHOD] = SPA


@njit(cache=True, nogil=True)
@no_type_check
def _count(g, y, called, out):  # noqa: ANN001, ANN202
    """Fill people with a call and copies, by status; return whether an allele is absent from cases or controls."""
    n_cases = n_called = 0
    in_cases, in_all = 0.0, 0.0
    for i in range(g.size):
        if called[i]:
            n_called += 1
            in_all += g[i]
            if y[i] > 0.0:
                n_cases += 1
                in_cases += g[i]
    n_controls, in_controls = n_called - n_cases, in_all - in_cases
    out[N_CASES], out[N_CONTROLS], out[COPIES_CASES], out[COPIES_CONTROLS] = n_cases, n_controls, in_cases, in_controls
    fewest = min(min(in_cases, 2.0 * n_cases - in_cases), min(in_controls, 2.0 * n_controls - in_controls))
    return fewest < _EMPTY_CELL


@njit(cache=True, nogil=True)
@no_type_check
def fit_tests(  # noqa: ANN202
    counts, people, place, start, missing, means,  # noqa: ANN001
    rows, columns, exact,  # noqa: ANN001
    x, cases, mu, offsets, gammas, lowers, likelihoods, penalised_offsets,  # noqa: ANN001
    correction, wald, least_z,  # noqa: ANN001
):  # fmt: skip
    """Return one row of `COLUMNS` numbers per test (row of `counts`, trait of the group).

    `x` is columns x people; `mu`, `offsets`, `penalised_offsets`, `cases` are traits x people (or one row that serves
    all). A test whose exact |score z| is below `least_z` stays a score test. `exact` leaves people without a call out.
    """
    n, c = people.size, x.shape[0]
    result = np.full((rows.size, COLUMNS), np.nan)
    full = np.empty((c + 1, n))
    full[:c] = x
    called = np.ones(n, dtype=np.bool_)
    y = np.empty(n)
    absent, loaded = 0, -1
    for t in range(rows.size):
        out, row, k = result[t], rows[t], columns[t]
        if row != loaded:
            absent = _load(counts, row, people, place, start, missing, means[row], full[c], called)
            loaded = row
        for i in range(n):
            y[i] = cases[k, i]
        empty_cell = _count(full[c], y, called, out)
        score, variance, v = _score(x, full[c], y, mu[k], lowers[k])
        out[METHOD], out[STATUS] = SCORE, OK
        if not variance > 0.0:
            out[STATUS] = COLLINEAR
            continue
        out[SCORE_Z] = score / np.sqrt(variance)
        out[BETA], out[ERROR], out[Z] = score / variance, 1.0 / np.sqrt(variance), out[SCORE_Z]
        floor = max(least_z, MIN_Z) if correction == ALWAYS_SPA else least_z
        if not abs(out[SCORE_Z]) >= floor:
            continue
        offset = offsets[min(k, offsets.shape[0] - 1)]
        matrix, y_, mu_, offset_ = full, y, mu[k], offset
        gamma, lower, likelihood = gammas[k], lowers[k], likelihoods[k]
        penalised = correction == ALWAYS_FIRTH_APPROX
        known = penalised_offsets[k] if penalised else offset
        out[BETA], out[ERROR], out[Z] = np.nan, np.nan, np.nan
        if exact[t] and absent > 0:
            matrix, y_, known, offset_ = _take_called(x, y, known, offset, full[c], called, n - absent)
            gamma = gamma.copy()
            null = np.ascontiguousarray(matrix[:c])
            status, likelihood, _ = maximise(
                null, y_, offset_, gamma, c, False, PLAIN_ITERATIONS, np.inf, np.zeros((0, 0))
            )
            if status != CONVERGED:
                out[STATUS] = FAILED
                continue
            mu_, w = np.empty(y_.size), np.empty(y_.size)
            evaluate(np.dot(gamma, null) + offset_, y_, mu_, w)
            lower = np.empty((c, c))
            cholesky(np.dot(null * w, null.T), lower)
            score, variance, v = _score(null, matrix[c], y_, mu_, lower)
            if not variance > 0.0:
                out[STATUS] = COLLINEAR
                continue
        done = False
        if correction == ALWAYS_SPA:
            residual = _residual_dosage(matrix[:c], matrix[c], lower, v)
            _spa(residual, mu_, score, variance, out)
            done = True
        elif correction == ALWAYS_FIRTH_APPROX:
            residual = _residual_dosage(matrix[:c], matrix[c], lower, v)
            done = _firth_approx(residual, y_, known, wald, out)
        elif correction == ALWAYS_FIRTH:
            done = _firth(matrix, y_, offset_, gamma, wald, out)
        elif correction == FIRTH_FALLBACK:
            done = not empty_cell and _logistic(
                matrix, y_, offset_, gamma, likelihood, lower, score, variance, v, wald, out
            )
            if not done:
                done = _firth(matrix, y_, offset_, gamma, wald, out)
        elif not empty_cell:
            done = _logistic(matrix, y_, offset_, gamma, likelihood, lower, score, variance, v, wald, out)
        if not done:
            out[METHOD] = FIRTH if correction != NONE else LOGISTIC
            out[STATUS] = SEPARATED if correction == NONE and empty_cell else FAILED
    return result
