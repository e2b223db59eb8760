r"""Compiled maximum of a logistic likelihood, plain or with Firth's penalty.

With ``eta = X b + offset``, ``mu = 1 / (1 + exp(-eta))``, ``w = mu (1 - mu)``::

    l(b)  = sum y eta - ln(1 + exp(eta))            U_r  = sum (y - mu) x_r                      I = X'WX
    l*(b) = l(b) + ln det I / 2                     U*_r = sum (y - mu + h (1/2 - mu)) x_r       h = w x'I^-1 x

Steps are ``I^-1 U``, halved until the likelihood rises. Matrices are columns x people, so that loops run along people.

References
----------
McCullagh & Nelder (1989), Generalized Linear Models, 2.5; Firth (1993), Biometrika 80:27; Heinze & Schemper (2002),
Stat. Med. 21:2409, eq. 2-3.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit

__all__ = [
    "CONVERGED",
    "NOT_CONVERGED",
    "cholesky",
    "evaluate",
    "exp_negative",
    "maximise",
    "solve_lower",
    "solve_upper",
]

CONVERGED, NOT_CONVERGED = 0, 1

_STEP_TOLERANCE = 1e-8
_LAST_STEP = 1e-6
_SLOW = 0.25
"""An old information that shortens steps by less than to a quarter is replaced."""
_ROUNDING = 1e-11
"""Relative fall of a likelihood that is taken for rounding."""
_MAX_HALVINGS = 30
_NULL_PIVOT = 1e-13
"""Share of its diagonal element below which a pivot is a column that the others make up. Separation is no such case:
25 steps shrink the weights of the separated people to about 1e-11."""
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ROUND = 6755399441055744.0
"""1.5 * 2^52: added to a number, it leaves its nearest integer in the low bits."""
_CHUNK = 512
"""Factors of 1 to 2 multiplied before a logarithm is taken: their product stays below 2^512."""


@njit(cache=True, nogil=True, fastmath={"contract"})
@no_type_check
def exp_negative(x, out):  # noqa: ANN001, ANN202
    """Fill `out` with exp(x) for x <= 0, to 2e-16; below -708 as at -708 (1e-308).

    ``x = k ln 2 + r``; exp(r) by its Taylor polynomial of degree 13 (error below 1e-17 for |r| <= ln 2 / 2), 2^k by its
    bits. A loop without calls, which the compiler turns into vector instructions.
    """
    n = x.size
    bits = out.view(np.int64)
    rest = np.empty(n)
    for i in range(n):
        value = max(x[i], -708.0)
        rounded = value * _LOG2_E + _ROUND
        out[i] = rounded
        k = rounded - _ROUND
        rest[i] = (value - k * _LN2_HIGH) - k * _LN2_LOW
    for i in range(n):
        bits[i] = (bits[i] + 1023) << 52
    for i in range(n):
        r = rest[i]
        p = 1.0 / 6227020800.0
        p = p * r + 1.0 / 479001600.0
        p = p * r + 1.0 / 39916800.0
        p = p * r + 1.0 / 3628800.0
        p = p * r + 1.0 / 362880.0
        p = p * r + 1.0 / 40320.0
        p = p * r + 1.0 / 5040.0
        p = p * r + 1.0 / 720.0
        p = p * r + 1.0 / 120.0
        p = p * r + 1.0 / 24.0
        p = p * r + 1.0 / 6.0
        p = p * r + 0.5
        p = p * r + 1.0
        p = p * r + 1.0
        out[i] *= p


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
@no_type_check
def evaluate(eta, y, mu, w):  # noqa: ANN001, ANN202
    """Fill mu and w = mu (1 - mu) and return the log-likelihood; `eta` is left as it is."""
    n = eta.size
    for i in range(n):
        w[i] = -abs(eta[i])
    exp_negative(w, mu)
    log_likelihood = 0.0
    for start in range(0, n, _CHUNK):
        product, linear = 1.0, 0.0
        for i in range(start, min(start + _CHUNK, n)):
            product *= 1.0 + mu[i]
            linear += y[i] * eta[i] - max(eta[i], 0.0)
        log_likelihood += linear - math.log(product)
    for i in range(n):
        small = mu[i]
        inverse = 1.0 / (1.0 + small)
        mu[i] = inverse if eta[i] >= 0.0 else small * inverse
        w[i] = small * inverse * inverse
    return log_likelihood


@njit(cache=True, nogil=True)
@no_type_check
def cholesky(matrix, lower):  # noqa: ANN001, ANN202
    """Fill `lower` with the Cholesky factor; a null pivot gives a zero column, which the solvers pass over."""
    p = matrix.shape[0]
    lower[:] = 0.0
    for c in range(p):
        pivot = matrix[c, c]
        for d in range(c):
            pivot -= lower[c, d] * lower[c, d]
        if not pivot > _NULL_PIVOT * matrix[c, c]:
            continue
        root = math.sqrt(pivot)
        lower[c, c] = root
        for e in range(c + 1, p):
            value = matrix[e, c]
            for d in range(c):
                value -= lower[e, d] * lower[c, d]
            lower[e, c] = value / root


@njit(cache=True, nogil=True)
@no_type_check
def solve_lower(lower, b):  # noqa: ANN001, ANN202
    """Return L^-1 b with the leading block of L; null pivots give 0."""
    x = b.copy()
    for c in range(b.size):
        if lower[c, c] == 0.0:
            x[c] = 0.0
            continue
        for d in range(c):
            x[c] -= lower[c, d] * x[d]
        x[c] /= lower[c, c]
    return x


@njit(cache=True, nogil=True)
@no_type_check
def solve_upper(lower, b):  # noqa: ANN001, ANN202
    """Return L'^-1 b with the leading block of L; null pivots give 0."""
    x = b.copy()
    for c in range(b.size - 1, -1, -1):
        if lower[c, c] == 0.0:
            x[c] = 0.0
            continue
        for d in range(c + 1, b.size):
            x[c] -= lower[d, c] * x[d]
        x[c] /= lower[c, c]
    return x


@njit(cache=True, nogil=True)
@no_type_check
def _add_leverage(xt, lower, w, mu, work, residual):  # noqa: ANN001, ANN202
    """Add ``h (1/2 - mu)`` to the residuals; h is w times the squared length of L^-1 x."""
    p, n = xt.shape
    leverage = np.zeros(n)
    for a in range(p):
        if lower[a, a] == 0.0:
            work[a] = 0.0
            continue
        inverse = 1.0 / lower[a, a]
        row = work[a]
        x = xt[a]
        for i in range(n):
            row[i] = x[i]
        for b in range(a):
            factor = lower[a, b]
            other = work[b]
            for i in range(n):
                row[i] -= factor * other[i]
        for i in range(n):
            row[i] *= inverse
            leverage[i] += row[i] * row[i]
    for i in range(n):
        residual[i] += w[i] * leverage[i] * (0.5 - mu[i])


@njit(cache=True, nogil=True)
@no_type_check
def maximise(xt, y, offset, b, n_free, penalised, max_iterations, step_cap, factor):  # noqa: ANN001, ANN202
    """Maximise over the first `n_free` coefficients of `b`, in place; the others stay, and count in the penalty.

    `factor` is the Cholesky factor of an information near that of the start (or of no rows), which serves for the
    first steps of a plain likelihood. Only a step with the information of its own place ends the search, and it is
    below 1e-6: by quadratic convergence the next one would be below 1e-11.

    Returns status, log-likelihood (with its penalty), and the Cholesky factor of the information at the maximum.
    """
    p, n = xt.shape
    eta, mu, w, residual = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    work = np.empty((p, n))
    information, lower = np.empty((p, p)), np.zeros((p, p))
    fresh = factor.shape[0] != p or penalised
    if not fresh:
        lower[:] = factor
    before = b.copy()
    best, last, value = -np.inf, np.inf, -np.inf
    halvings = iteration = 0
    status = NOT_CONVERGED
    while True:
        np.dot(b, xt, eta)
        for i in range(n):
            eta[i] += offset[i]
        value = evaluate(eta, y, mu, w)
        if fresh:
            for a in range(p):
                for i in range(n):
                    work[a, i] = xt[a, i] * w[i]
            np.dot(work, xt.T, information)
            cholesky(information, lower)
        if penalised:
            for a in range(p):
                if lower[a, a] > 0.0:
                    value += math.log(lower[a, a])
        if best > -np.inf and not value >= best - _ROUNDING * (1.0 + abs(best)):
            if halvings == _MAX_HALVINGS:
                break
            halvings += 1
            b[:] = 0.5 * (b + before)
            fresh = True
            continue
        halvings = 0
        for i in range(n):
            residual[i] = y[i] - mu[i]
        if penalised:
            _add_leverage(xt, lower, w, mu, work, residual)
        gradient = np.dot(xt[:n_free], residual)
        step = solve_upper(lower, solve_lower(lower, gradient))
        largest = np.abs(step).max() if n_free else 0.0
        if fresh and largest < (_STEP_TOLERANCE if penalised else _LAST_STEP):
            b[:n_free] += step
            value += 0.5 * np.dot(gradient, step)
            status = CONVERGED
            break
        if iteration == max_iterations or not largest < np.inf:
            break
        if largest > step_cap:
            step *= step_cap / largest
        best = value
        before[:] = b
        b[:n_free] += step
        iteration += 1
        shrinking = min(largest / last, 0.1)
        expected = largest * largest if fresh else largest * shrinking
        fresh = penalised or expected < _LAST_STEP or (not fresh and largest > _SLOW * last)
        last = largest
    return status, value, lower
