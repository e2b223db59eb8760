"""Formulas of multivariate association read literally."""

import numpy as np
from scipy.linalg import eigh


def residuals(values, covariates, train):
    """Columns minus the training regression on intercept and covariates, divided by the training SD."""
    design = np.column_stack([np.ones(len(values)), covariates])
    out = np.empty_like(values)
    for j in range(values.shape[1]):
        slope, *_ = np.linalg.lstsq(design[train], values[train, j], rcond=None)
        rest = values[:, j] - design @ slope
        out[:, j] = rest / np.sqrt((rest[train] ** 2).mean())
    return out


def ridge_cca(x, y, share_x, share_y, n_modes):
    """Weights and the objective, from the generalised eigenproblem in the columns."""
    n = len(x)
    s_xx = (1 - share_x) * x.T @ x / n + share_x * np.eye(x.shape[1])
    s_yy = (1 - share_y) * y.T @ y / n + share_y * np.eye(y.shape[1])
    s_xy = x.T @ y / n
    values, b = eigh(s_xy.T @ np.linalg.solve(s_xx, s_xy), s_yy)
    b = b[:, ::-1][:, :n_modes]
    strength = np.sqrt(np.maximum(values[::-1][:n_modes], 0))
    return np.linalg.solve(s_xx, s_xy @ b) / strength, b, strength


def soft_to_bound(a, bound):
    """Soft thresholding to a 1-norm by bisection (Witten et al. 2009, algorithm 3)."""
    unit = a / np.linalg.norm(a)
    if np.abs(unit).sum() <= bound:
        return unit
    low, high = 0.0, np.abs(unit).max()
    for _ in range(80):
        middle = (low + high) / 2
        thin = np.sign(unit) * np.maximum(np.abs(unit) - middle, 0)
        if not thin.any() or np.abs(thin).sum() / np.linalg.norm(thin) <= bound:
            high = middle
        else:
            low = middle
    thin = np.sign(unit) * np.maximum(np.abs(unit) - low, 0)
    return thin / np.linalg.norm(thin)


def sparse_cca(x, y, bound_x, bound_y, n_modes, *, deflation="pmd", steps=150):
    """PMD of the whole matrix X'Y, mode by mode."""
    u_all, v_all = [], []
    x, y = x.copy(), y.copy()
    k = x.T @ y
    for _ in range(n_modes):
        v = soft_to_bound(np.linalg.svd(k)[2][0], bound_y)
        for _ in range(steps):
            u = soft_to_bound(k @ v, bound_x)
            v = soft_to_bound(k.T @ u, bound_y)
        u = soft_to_bound(k @ v, bound_x)
        u_all.append(u)
        v_all.append(v)
        if deflation == "pmd":
            k = k - (u @ k @ v) * np.outer(u, v)
        else:
            t = x @ u
            x = x - np.outer(t, t @ x) / (t @ t)
            y = y - np.outer(t, t @ y) / (t @ t)
            k = x.T @ y
    return np.array(u_all).T, np.array(v_all).T


def reduced_rank(x, y, rank):
    """Coefficients of Y on X of a given rank, in closed form."""
    full, *_ = np.linalg.lstsq(x, y, rcond=None)
    _, _, v = np.linalg.svd(x @ full, full_matrices=False)
    return full @ v[:rank].T @ v[:rank]
