"""Mendelian randomisation read literally: loops over variants, and a search for the weighted median."""

import numpy as np

from tests.reference.elastic_net import naive_elastic_net


def naive_ivw(x, y, s):
    top = bottom = 0.0
    for xi, yi, si in zip(x, y, s, strict=True):
        top += xi * yi / si**2
        bottom += xi * xi / si**2
    b = top / bottom
    q = sum(((yi - b * xi) / si) ** 2 for xi, yi, si in zip(x, y, s, strict=True))
    fixed = bottom**-0.5
    return b, fixed, fixed * max(1.0, (q / (len(x) - 1)) ** 0.5), q


def naive_weighted_median(ratios, weights):
    """Burgess's function of the ratios' cumulative share of weight, crossed at one half."""
    order = sorted(range(len(ratios)), key=lambda k: ratios[k])
    total, before, places = sum(weights), 0.0, []
    for k in order:
        places.append((before + weights[k] / 2) / total)
        before += weights[k]
    ranked = [ratios[k] for k in order]
    if places[0] >= 0.5:
        return ranked[0]
    for k in range(1, len(ranked)):
        if places[k] >= 0.5:
            share = (0.5 - places[k - 1]) / (places[k] - places[k - 1])
            return ranked[k - 1] + share * (ranked[k] - ranked[k - 1])
    return ranked[-1]


def _standard(column):
    return (column - np.mean(column)) / np.std(column, ddof=1)


def _lasso(x, y, penalty, factor):
    """The lasso of centred, rescaled columns; coefficients per column as given."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    varies = scale > 1e-12
    z = np.where(varies, (x - mean) / np.where(varies, scale, 1), 0.0)
    b = naive_elastic_net(z, y - y.mean(), penalty, 1.0, factor=factor, tolerance=1e-12)
    b = np.where(varies, b / np.where(varies, scale, 1), 0.0)
    return b, y.mean() - b @ mean


def _lambdas(x, y, factor):
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    free = z[:, factor == 0]
    rest = (y - y.mean()) - free @ np.linalg.lstsq(free, y - y.mean(), rcond=None)[0]
    scaled = factor * factor.size / factor.sum()
    first = max(abs(z[:, j] @ rest) / len(y) / scaled[j] for j in np.flatnonzero(factor))
    return first * (1e-4 if len(y) > factor.size else 1e-2) ** (np.arange(100) / 99)


def naive_mr_jti(eqtl, gwas, p, ld, *, bootstrap, folds, repeats, alpha, rng):
    """twas.md 5.1, step by step; lambda is sought among the first 40 of the path, which must hold it."""
    order = np.argsort(p, kind="stable")
    eqtl, gwas, p, ld = eqtl[order], gwas[order], p[order], ld[order]
    n, q = len(p), int(np.sum(p < 0.05))
    x = np.column_stack([_standard(c) for c in [eqtl, ld, *np.eye(n)[:q]]])
    y, factor = _standard(gwas), np.r_[0.0, 0.0, np.ones(q)]
    lambdas = _lambdas(x, y, factor)[:40]
    errors = np.zeros(40)
    for _ in range(repeats):
        fold = rng.permutation(np.arange(n) % folds)
        for k in range(folds):
            for i, penalty in enumerate(lambdas):
                b, b0 = _lasso(x[fold != k], y[fold != k], penalty, factor)
                errors[i] += np.mean((y[fold == k] - b0 - x[fold == k] @ b) ** 2)
    best = lambdas[np.argmin(errors)]
    assert best > lambdas[-1]
    raw, b0 = _lasso(x, y, best, factor)
    b = np.where(np.abs(raw) < 1 / (2 + q), 0, raw)
    fitted = b0 + x @ raw
    residual = y - fitted - np.mean(y - fitted)
    draws = []
    for row in rng.integers(0, n, (bootstrap, n)):
        star = fitted + residual[row]
        path = _lambdas(x, star, factor)
        if best >= path[0]:
            found = _lasso(x, star, path[0], factor)[0]
        else:
            after = np.flatnonzero(path < best)[0]
            share = (best - path[after]) / (path[after - 1] - path[after])
            found = share * _lasso(x, star, path[after - 1], factor)[0]
            found = found + (1 - share) * _lasso(x, star, path[after], factor)[0]
        draws.append(np.where(np.abs(found) < 1 / (2 + q), 0, found))
    draws = np.array(draws)
    low, high = np.quantile(draws, alpha / 2, axis=0), np.quantile(draws, 1 - alpha / 2, axis=0)
    return {
        "penalty": best,
        "coefficient": b,
        "estimate": draws.mean(axis=0),
        "lower": 2 * b - high,
        "upper": 2 * b - low,
        "percentile_lower": low,
        "percentile_upper": high,
        "selection_frequency": (draws != 0).mean(axis=0),
    }
