"""Naive training of expression models: every fold fitted for itself, every sample a row, loops and all."""

import math

import numpy as np

from brainlocus.genetics.twas.folds import draw_folds, gene_rng


def naive_standardised_fit(x, y, weights, lam, mixing, *, ridge_by_sd=False):
    """Return intercept and coefficients of x as given, of one weighted elastic net at one lambda."""
    w = weights / weights.sum()
    mean, y_mean = w @ x, w @ y
    sd = np.sqrt(w @ (x - mean) ** 2)
    used = np.flatnonzero(sd > 1e-5)
    z = (x[:, used] - mean[used]) / sd[used]
    r = y - y_mean
    l1, l2 = lam * mixing, lam * (1 - mixing)
    if ridge_by_sd:
        l2 /= math.sqrt(w @ r**2)
    b = np.zeros(used.size)
    for _ in range(20_000):
        largest = 0.0
        for j in range(used.size):
            partial = r + z[:, j] * b[j]
            c = float(w @ (z[:, j] * partial))
            new = math.copysign(max(abs(c) - l1, 0.0), c) / (1.0 + l2)
            largest = max(largest, abs(new - b[j]))
            r = partial - z[:, j] * new
            b[j] = new
        if largest < 1e-13:
            break
    beta = np.zeros(x.shape[1])
    beta[used] = b / sd[used]
    return y_mean - mean @ beta, beta


def naive_lambdas(x, y, mixing):
    """Return the path of an outcome: 100 points down from where everything is 0."""
    n, m = x.shape
    z = (x - x.mean(0)) / x.std(0)
    largest = max(abs(float(z[:, j] @ (y - y.mean()))) for j in range(m)) / (n * mixing)
    ratio = 1e-4 if n > m else 1e-2
    return np.exp(np.linspace(np.log(largest), np.log(largest * ratio), 100))


def naive_cross_validation(x, y, weights, folds, lambdas, mixing, **options):
    """Return the weighted mean squared error of each lambda and the out-of-fold predictions at each."""
    predictions = np.zeros((len(lambdas), y.size))
    for fold in sorted(set(folds.tolist())):
        held = folds == fold
        for k, lam in enumerate(lambdas):
            b0, b = naive_standardised_fit(x[~held], y[~held], weights[~held], lam, mixing, **options)
            predictions[k, held] = b0 + x[held] @ b
    errors = [float((weights * (y - p) ** 2).sum() / weights.sum()) for p in predictions]
    return np.array(errors), predictions


def naive_nested(x, y, gene, seed, *, mixing=0.5, n_folds=10, n_outer=5):
    """Return r and R2 of every outer fold, lambda chosen within the others."""
    rng = gene_rng(seed, gene)
    outer = draw_folds(y.size, n_outer, rng)
    found = []
    for k in range(n_outer):
        train, test = np.flatnonzero(outer != k), np.flatnonzero(outer == k)
        inner = draw_folds(train.size, n_folds, rng)
        lambdas = naive_lambdas(x[train], y[train], mixing)
        errors, _ = naive_cross_validation(x[train], y[train], np.ones(train.size), inner, lambdas, mixing)
        b0, b = naive_standardised_fit(x[train], y[train], np.ones(train.size), lambdas[errors.argmin()], mixing)
        p = b0 + x[test] @ b
        r = 0.0 if np.ptp(p) < 1e-12 else float(np.corrcoef(p, y[test])[0, 1])
        found.append((r, 1 - float(((y[test] - p) ** 2).sum() / (y[test] ** 2).sum()), test.size))
    return found


def naive_jti_grid(x, expression, target, similarity, dnase, donor_folds, lambdas, mixing, powers=(1, 4, 16, 64)):
    """Return r in the target tissue of every pair of powers, with a row for every sample."""
    found = {}
    for a in powers:
        for b in powers:
            rows = [
                (donor, tissue, similarity[tissue] ** a * dnase[tissue] ** b)
                for tissue in range(expression.shape[0])
                for donor in range(expression.shape[1])
                if not np.isnan(expression[tissue, donor]) and similarity[tissue] ** a * dnase[tissue] ** b >= 0.1
            ]
            donors = np.array([d for d, _, _ in rows])
            tissues = np.array([t for _, t, _ in rows])
            w = np.array([v for _, _, v in rows])
            y = expression[tissues, donors]
            errors, predictions = naive_cross_validation(x[donors], y, w, donor_folds[donors], lambdas, mixing)
            best = int(errors.argmin())
            mine = tissues == target
            r = float(np.corrcoef(predictions[best, mine], y[mine])[0, 1])
            _, beta = naive_standardised_fit(x[donors], y, w, lambdas[best], mixing)
            found[a, b] = (r, lambdas[best], beta)
    return found
