"""Naive REML: the restricted likelihood by dense matrix inverses."""

import numpy as np
from scipy.optimize import minimize_scalar


def naive_restricted_log_likelihood(y, x, grm, h):
    """Return the profiled restricted log-likelihood of Patterson & Thompson (1971) at V = h A + (1 - h) I.

    The constant is that of the complement of X: -1/2 ln |X'X| is added back.
    """
    n, c = x.shape
    v = h * grm + (1 - h) * np.eye(n)
    inverse = np.linalg.inv(v)
    xvx = x.T @ inverse @ x
    p = inverse - inverse @ x @ np.linalg.inv(xvx) @ x.T @ inverse
    nu = n - c
    s2 = y @ p @ y / nu
    log_det = np.linalg.slogdet(v)[1] + np.linalg.slogdet(xvx)[1] - np.linalg.slogdet(x.T @ x)[1]
    return -0.5 * (nu * np.log(s2) + log_det + nu * (1 + np.log(2 * np.pi))), s2, p


def naive_reml(y, x, grm):
    """Return h2, its standard error (expected information) and the log-likelihood by brute maximisation."""
    found = minimize_scalar(
        lambda h: -naive_restricted_log_likelihood(y, x, grm, h)[0],
        bounds=(0, 1 - 1e-6),
        method="bounded",
        options={"xatol": 1e-10},
    )
    h = found.x
    value, s2, _ = naive_restricted_log_likelihood(y, x, grm, h)
    sg2, se2 = h * s2, (1 - h) * s2
    v = np.linalg.inv(sg2 * grm + se2 * np.eye(len(y)))
    p = v - v @ x @ np.linalg.inv(x.T @ v @ x) @ x.T @ v
    parts = [grm, np.eye(len(y))]
    information = np.array([[0.5 * np.trace(p @ a @ p @ b) for b in parts] for a in parts])
    slope = np.array([se2, -sg2]) / (sg2 + se2) ** 2
    return h, np.sqrt(slope @ np.linalg.inv(information) @ slope), value
