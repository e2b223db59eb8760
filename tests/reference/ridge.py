"""Naive whole-genome ridge regression: the two levels read literally, one person set, one solve after another."""

import numpy as np


def standardise(dosage, covariates):
    """Return variants x people: missing calls at the mean, covariates regressed out, variance 1."""
    n = dosage.shape[1]
    c = np.column_stack([np.ones(n), covariates])
    rank = np.linalg.matrix_rank(c)
    rows = []
    for g in dosage.astype(float):
        g = np.where(np.isnan(g), np.nanmean(g), g)
        r = g - c @ np.linalg.lstsq(c, g, rcond=None)[0]
        rows.append(r / np.sqrt(r @ r / (n - rank)) if r @ r > 1e-8 * ((g - g.mean()) ** 2).sum() else 0 * r)
    return np.array(rows)


def standardise_trait(y, covariates):
    """Return the residual of the people who have it in variance 1, zero for the others; and its length."""
    has = ~np.isnan(y)
    c = np.column_stack([np.ones(has.sum()), covariates[has]])
    r = y[has] - c @ np.linalg.lstsq(c, y[has], rcond=None)[0]
    scale = np.sqrt(r @ r / (has.sum() - np.linalg.matrix_rank(c)))
    out = np.zeros(y.size)
    out[has] = r / scale
    return out, scale


def ridge(x, y, penalty):
    """Return the coefficients of people x columns."""
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)


def splits(folds, loo):
    """Yield (who is predicted, who is learned from)."""
    if loo:
        for i in range(folds.size):
            yield np.arange(folds.size) == i, np.arange(folds.size) != i
    else:
        for f in np.unique(folds):
            yield folds == f, folds != f


def naive_level0(x, y, folds, penalties, *, loo=False):
    """Return penalties x people: each person predicted by a ridge that has not seen them."""
    out = np.zeros((len(penalties), y.size))
    for r, penalty in enumerate(penalties):
        for test, train in splits(folds, loo):
            out[r, test] = x[:, test].T @ ridge(x[:, train].T, y[train], penalty)
    return out


def naive_level1(w, y, observed, chromosome, folds, heritabilities, *, loo=False):
    """Return {chromosome: prediction without its columns}, the whole prediction, and the errors of the penalties."""
    w, y, folds = w[:, observed], y[observed], folds[observed]
    w = np.array([(v - v.mean()) / v.std() if v.std() > 0 else 0 * v for v in w])
    errors, best = [], None
    for h in heritabilities:
        penalty = w.shape[0] * (1 - h) / h
        whole = np.zeros(y.size)
        loco = {c: np.zeros(y.size) for c in np.unique(chromosome)}
        for test, train in splits(folds, loo):
            b = ridge(w[:, train].T, y[train], penalty)
            whole[test] = w[:, test].T @ b
            for c in loco:
                loco[c][test] = w[chromosome != c][:, test].T @ b[chromosome != c]
        errors.append(((y - whole) ** 2).sum())
        if errors[-1] == min(errors):
            best = (loco, whole)
    return *best, np.array(errors)


def naive_logistic_ridge(x, y, offset, penalty):
    """Return the coefficients that minimise -log likelihood + penalty |b|^2 / 2, by plain Newton steps."""
    b = np.zeros(x.shape[1])
    for _ in range(100):
        mu = 1 / (1 + np.exp(-(offset + x @ b)))
        step = np.linalg.solve((x.T * (mu * (1 - mu))) @ x + penalty * np.eye(b.size), x.T @ (y - mu) - penalty * b)
        b = b + step
        if np.abs(step).max() < 1e-12:
            break
    return b
