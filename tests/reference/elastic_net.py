"""Elastic net read literally: cyclic coordinate descent on the residual, one column at a time."""

import numpy as np


def naive_elastic_net(x, y, penalty, mixing, *, factor=None, weights=None, tolerance=1e-13, passes=200_000):
    """Minimise 1/2 sum w (y - xb)^2 + penalty * sum v [(1 - a)/2 b^2 + a |b|] for centred x and y."""
    n, p = x.shape
    w = np.full(n, 1 / n) if weights is None else np.asarray(weights) / np.sum(weights)
    v = np.ones(p) if factor is None else np.asarray(factor) * p / np.sum(factor)
    y = y - np.sum(w * y)
    b = np.zeros(p)
    for _ in range(passes):
        largest = 0.0
        for j in range(p):
            square = np.sum(w * x[:, j] ** 2)
            if square == 0:
                continue
            rest = y - x @ b + x[:, j] * b[j]
            pull = np.sum(w * x[:, j] * rest)
            new = np.sign(pull) * max(abs(pull) - penalty * mixing * v[j], 0.0)
            new /= square + penalty * (1 - mixing) * v[j]
            largest = max(largest, abs(new - b[j]))
            b[j] = new
        if largest < tolerance:
            return b
    raise AssertionError("the naive descent did not converge")


def objective(x, y, b, penalty, mixing, *, factor=None, weights=None):
    n, p = x.shape
    w = np.full(n, 1 / n) if weights is None else np.asarray(weights) / np.sum(weights)
    v = np.ones(p) if factor is None else np.asarray(factor) * p / np.sum(factor)
    y = y - np.sum(w * y)
    loss = 0.0
    for i in range(n):
        loss += 0.5 * w[i] * (y[i] - np.dot(x[i], b)) ** 2
    penalties = 0.0
    for j in range(p):
        penalties += v[j] * ((1 - mixing) / 2 * b[j] ** 2 + mixing * abs(b[j]))
    return loss + penalty * penalties
