r"""Compiled tests of cases against controls: likelihoods and their maxima, Firth's penalty, saddlepoint tails.

All in one module, for the cache of compiled code looks at the file of the function that is called from Python, not at
those of the functions that it calls: after an edit elsewhere, old code would go on running.

With ``eta = X b + offset``, ``mu = 1 / (1 + exp(-eta))``, ``w = mu (1 - mu)``::

    l(b)  = sum y eta - ln(1 + exp(eta))            U_r  = sum (y - mu) x_r                      I = X'WX
    l*(b) = l(b) + ln det I / 2                     U*_r = sum (y - mu + h (1/2 - mu)) x_r       h = w x'I^-1 x

Steps are ``I^-1 U`` (with the weights ``w (1 + h)`` where leverages are large, as in the data augmentation of Kosmidis
& Firth), halved until the likelihood rises. Matrices are columns x people, so that loops run along people.

`fit_tests` goes through the tests of one group of traits (traits observed in the same people) one after the other, in
float64 and in counts of the rarer allele; the caller turns signs.

References
----------
McCullagh & Nelder (1989), Generalized Linear Models, 2.5; Firth (1993), Biometrika 80:27; Heinze & Schemper (2002),
Stat. Med. 21:2409, eq. 2-3; Kosmidis & Firth (2021), Biometrika 108:71.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit

__all__ = [
    "BETA", "COLLINEAR", "COLUMNS", "CONVERGED", "COPIES_CASES", "COPIES_CONTROLS", "ERROR", "FAILED",
    "JEFFREYS", "METHOD", "MIN_Z", "N_CASES", "N_CONTROLS", "SCORE_Z",
    "SEPARATED", "STATUS", "TAILS", "Z", "cholesky", "evaluate", "exp_negative", "firth_test", "fit_tests", "maximise",
    "two_tails", "weighted_products",
]  # fmt: skip

CONVERGED, NOT_CONVERGED = 0, 1

_STEP_TOLERANCE = 1e-8
_LAST_STEP = 1e-6
_LEVERAGE = 0.1
"""Leverage above which the steps of a penalised fit take ``X'W(1 + H)X``, the curvature of the score with h held, for
the information: with a person of leverage 1 steps by the information alone would go to and fro for ever."""
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
_PEOPLE = 4096
"""People whose columns are multiplied with one another before the next ones are read: they stay in the caches."""
_CHUNK = 512
"""Factors of 1 to 2 multiplied before a logarithm is taken: their product stays below 2^512."""
PLAIN_ITERATIONS, FIRTH_ITERATIONS = 25, 50
JEFFREYS = 0.5
"""Share of ln det I that Firth's penalty is: Jeffreys' prior."""
MAX_STEP = 5.0
"""Largest change of a coefficient in one step; the likelihood can be flat far from its top."""
MIN_Z = 2.0
"""Below this |z| the normal tail is as good, and the saddlepoint formula divides by a w near 0 (Dey et al. 2017)."""
_TAIL_TOLERANCE = 1e-10
"""Of K'(s) = u, in standard deviations of the score."""
_TAIL_ITERATIONS = 200
_FAR = 600.0
"""g~ s at which e^(g~ s) leaves no difference from its limit."""

SCORE_Z, BETA, ERROR, Z, METHOD, STATUS, N_CASES, N_CONTROLS, COPIES_CASES, COPIES_CONTROLS = range(10)
TAILS = 10
"""Four columns of `two_tails`."""
COLUMNS = 14

SCORE, LOGISTIC, FIRTH, FIRTH_APPROX, SPA = range(5)
"""Methods, by code."""
NONE, FIRTH_FALLBACK, ALWAYS_FIRTH, ALWAYS_FIRTH_APPROX, ALWAYS_SPA = range(5)
"""Corrections, by code."""
OK, SEPARATED, FAILED, COLLINEAR = range(4)
"""Why a test has no estimate, by code."""

_EMPTY_CELL = 1e-6
"""Copies of an allele among cases or controls below which there are none (dosages carry rounding)."""
_MIN_VARIANCE = 1e-8
"""Share of a dosage's weighted variance that the covariates must leave."""


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


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
@no_type_check
def weighted_products(xt, w, out):  # noqa: ANN001, ANN202
    """Fill the lower triangle of ``X'WX`` (and some of the upper): two columns by two, weights on the fly.

    Three times as fast as a matrix product for the ten to twenty columns there are: half of the work, and no copy.
    """
    p, n = xt.shape
    out[:] = 0.0
    first, second = np.empty(min(n, _PEOPLE)), np.empty(min(n, _PEOPLE))
    for start in range(0, n, _PEOPLE):
        stop = min(start + _PEOPLE, n)
        size = stop - start
        weights = w[start:stop]
        for a in range(0, p, 2):
            pair = a + 1 < p
            left, right = xt[a, start:stop], xt[a + 1 if pair else a, start:stop]
            for i in range(size):
                first[i] = left[i] * weights[i]
                second[i] = right[i] * weights[i]
            for b in range(0, a + 1, 2):
                other, next_other = xt[b, start:stop], xt[b + 1 if b + 1 < p else b, start:stop]
                s, t, u, v = 0.0, 0.0, 0.0, 0.0
                for i in range(size):
                    s += first[i] * other[i]
                    t += first[i] * next_other[i]
                    u += second[i] * other[i]
                    v += second[i] * next_other[i]
                out[a, b] += s
                if b + 1 < p:
                    out[a, b + 1] += t
                if pair:
                    out[a + 1, b] += u
                    if b + 1 < p:
                        out[a + 1, b + 1] += v


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
    """Add ``h (1/2 - mu)`` to the residuals and turn w into w (1 + h); return the largest h.

    h is w times the squared length of L^-1 x.
    """
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
    largest = 0.0
    for i in range(n):
        h = w[i] * leverage[i]
        residual[i] += h * (0.5 - mu[i])
        w[i] *= 1.0 + h
        largest = max(largest, h)
    return largest


@njit(cache=True, nogil=True)
@no_type_check
def maximise(xt, y, offset, b, n_free, penalty, factor):  # noqa: ANN001, ANN202
    """Maximise over the first `n_free` coefficients of `b`, in place; the others stay, and count in the penalty.

    `penalty` is the share of ln det I that is added: 1/2 for Firth's, 0 for the plain likelihood (a number, for each
    constant truth value would be compiled on its own).
    `factor` is the Cholesky factor of an information near that of the start (or of no rows), which serves for the
    first steps of a plain likelihood. Only a step with the information of its own place ends the search, and it is
    below 1e-6: by quadratic convergence the next one would be below 1e-11.

    Returns status, log-likelihood (with its penalty), and the Cholesky factor of the information at the maximum.
    """
    p, n = xt.shape
    penalised = penalty > 0.0
    max_iterations = FIRTH_ITERATIONS if penalised else PLAIN_ITERATIONS
    eta, mu, w, residual = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    work = np.empty((p if penalised else 0, n))
    information, lower, augmented = np.empty((p, p)), np.zeros((p, p)), np.zeros((p, p))
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
            weighted_products(xt, w, information)
            cholesky(information, lower)
        if penalised:
            for a in range(p):
                if lower[a, a] > 0.0:
                    value += 2.0 * penalty * math.log(lower[a, a])
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
        curvature = lower
        if penalised and _add_leverage(xt, lower, w, mu, work, residual) > _LEVERAGE:
            weighted_products(xt, w, information)
            cholesky(information, augmented)
            curvature = augmented
        gradient = np.dot(xt[:n_free], residual)
        step = solve_upper(curvature, solve_lower(curvature, gradient))
        largest = np.abs(step).max() if n_free else 0.0
        if fresh and largest < (_STEP_TOLERANCE if penalised else _LAST_STEP):
            b[:n_free] += step
            value += 0.5 * np.dot(gradient, step)
            status = CONVERGED
            break
        if iteration == max_iterations or not largest < np.inf:
            break
        if largest > MAX_STEP:
            step *= MAX_STEP / largest
        best = value
        before[:] = b
        b[:n_free] += step
        iteration += 1
        shrinking = min(largest / last, 0.1)
        expected = largest * largest if fresh else largest * shrinking
        fresh = penalised or expected < _LAST_STEP or (not fresh and largest > _SLOW * last)
        last = largest
    return status, value, lower


@njit(cache=True, nogil=True)
@no_type_check
def firth_test(xt, y, offset, b):  # noqa: ANN001, ANN202
    """Fit in place from `b`; return status, standard error and likelihood ratio of the last column, and l*."""
    p = xt.shape[0]
    null = b.copy()
    null[p - 1] = 0.0
    null_status, null_value, _ = maximise(xt, y, offset, null, p - 1, JEFFREYS, np.zeros((0, 0)))
    status, value, lower = maximise(xt, y, offset, b, p, JEFFREYS, np.zeros((0, 0)))
    pivot = lower[p - 1, p - 1]
    if pivot == 0.0:
        return 1, np.nan, np.nan, value
    return max(status, null_status), 1.0 / pivot, max(2.0 * (value - null_value), 0.0), value


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
    if abs(u) > end + _TAIL_TOLERANCE * sd:
        return np.nan, -np.inf
    if abs(u) > end - _TAIL_TOLERANCE * sd:
        return np.nan, single
    nobody, tilted, p, w = np.zeros(n), np.empty(n), np.empty(n), np.empty(n)
    at_zero = evaluate(eta, nobody, p, w)
    # K' rises: keep the solution between `near` and `far`, and halve where Newton leaves them.
    near, far = 0.0, sign * _FAR / widest * 2.0
    s = u / variance
    slope = curvature = cumulant = 0.0
    for _ in range(_TAIL_ITERATIONS):
        for i in range(n):
            tilted[i] = eta[i] + g[i] * s
        cumulant = at_zero - evaluate(tilted, nobody, p, w) - s * mean
        slope, curvature = -mean, 0.0
        for i in range(n):
            slope += g[i] * p[i]
            curvature += g[i] * g[i] * w[i]
        if abs(slope - u) <= _TAIL_TOLERANCE * sd or abs(far - near) <= 1e-14 * abs(far):
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
    status, value, at_top = maximise(x, y, offset, b, c + 1, 0.0, factor)
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
            status, likelihood, _ = maximise(null, y_, offset_, gamma, c, 0.0, np.zeros((0, 0)))
            if status != CONVERGED:
                out[STATUS] = FAILED
                continue
            mu_, w = np.empty(y_.size), np.empty(y_.size)
            evaluate(np.dot(gamma, null) + offset_, y_, mu_, w)
            lower = np.empty((c, c))
            products = np.empty((c, c))
            weighted_products(null, w, products)
            cholesky(products, lower)
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
