"""Naive case-control association: literal likelihoods, maximised by scipy; literal tails, by enumeration."""

import numpy as np
from scipy import optimize, stats


def log_likelihood(b, x, y, offset, *, penalised=False):
    """Return l(b), or l*(b) with half the log-determinant of the information (Heinze & Schemper 2002, eq. 2)."""
    eta = x @ b + offset
    value = float(y @ eta - np.logaddexp(0.0, eta).sum())
    if penalised:
        mu = 1.0 / (1.0 + np.exp(-eta))
        value += 0.5 * np.linalg.slogdet((x * (mu * (1.0 - mu))[:, None]).T @ x)[1]
    return value


def maximum(x, y, offset, *, penalised=False, fixed_last=False):
    """Return coefficients and likelihood; with `fixed_last` the last coefficient stays 0."""
    zeros = np.zeros(int(fixed_last))
    free = x.shape[1] - zeros.size

    def negative(b):
        return -log_likelihood(np.concatenate([b, zeros]), x, y, offset, penalised=penalised)

    start = np.zeros(free)
    for method in ("BFGS", "Nelder-Mead", "BFGS"):
        options = {"gtol": 1e-10} if method == "BFGS" else {"xatol": 1e-10, "fatol": 1e-13, "maxiter": 20_000}
        start = optimize.minimize(negative, start, method=method, options=options).x
    return np.concatenate([start, zeros]), -negative(start)


def information(b, x, offset):
    eta = x @ b + offset
    mu = 1.0 / (1.0 + np.exp(-eta))
    return (x * (mu * (1.0 - mu))[:, None]).T @ x


def naive_test(dosage, cases, covariates, *, offset=None, penalised=False):
    """Return beta, its standard error and the likelihood-ratio chi-square of ``cases ~ 1 + covariates + dosage``."""
    offset = np.zeros(cases.size) if offset is None else offset
    x = np.column_stack([np.ones(cases.size), covariates, dosage])
    b, value = maximum(x, cases, offset, penalised=penalised)
    if penalised:
        _, null = maximum(x, cases, offset, penalised=True, fixed_last=True)
    else:
        _, null = maximum(x[:, :-1], cases, offset)
    error = np.sqrt(np.linalg.inv(information(b, x, offset))[-1, -1])
    return b[-1], error, 2.0 * (value - null)


def naive_score(dosage, cases, covariates, *, offset=None):
    """Return score, variance, dosage residual and null probabilities, with dense matrices."""
    offset = np.zeros(cases.size) if offset is None else offset
    c = np.column_stack([np.ones(cases.size), covariates])
    b, _ = maximum(c, cases, offset)
    mu = 1.0 / (1.0 + np.exp(-(c @ b + offset)))
    w = np.diag(mu * (1.0 - mu))
    residual = dosage - c @ np.linalg.solve(c.T @ w @ c, c.T @ w @ dosage)
    return dosage @ (cases - mu), residual @ w @ residual, residual, mu


def naive_approximate_firth(dosage, cases, covariates):
    """Return beta, information-based error and chi-square of one penalised coefficient on the residual dosage."""
    _, _, residual, _ = naive_score(dosage, cases, covariates)
    c = np.column_stack([np.ones(cases.size), covariates])
    b, _ = maximum(c, cases, np.zeros(cases.size), penalised=True)
    x, offset = residual[:, None], c @ b
    beta, value = maximum(x, cases, offset, penalised=True)
    null = log_likelihood(np.zeros(1), x, cases, offset, penalised=True)
    return beta[0], 1.0 / np.sqrt(information(beta, x, offset)[0, 0]), 2.0 * (value - null)


def exact_two_groups_p(n_carriers, n_others, probability, carrier_cases, other_cases):
    """Return the two-sided mid-p of the score of carriers against others, both binomial with one probability.

    The score with the intercept projected out is ``A (1 - f) - B f`` with f the share of carriers.
    """
    share = n_carriers / (n_carriers + n_others)
    a, b = np.arange(n_carriers + 1)[:, None], np.arange(n_others + 1)[None, :]
    mass = stats.binom.pmf(a, n_carriers, probability) * stats.binom.pmf(b, n_others, probability)
    score = a * (1.0 - share) - b * share
    seen = abs(carrier_cases * (1.0 - share) - other_cases * share)
    beyond, tied = np.abs(score) > seen + 1e-9, np.abs(np.abs(score) - seen) <= 1e-9
    return mass[beyond].sum() + 0.5 * mass[tied].sum()
