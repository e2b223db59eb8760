"""Point-wise passes of the ADMM engine on the processor: each reads and writes every array once.

Periodic forward differences; x is the slowest axis. See `admm.py` for the formulas.
"""

from typing import no_type_check

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
TINY = 1e-20
NEWTON_STEPS = 4


@njit(inline="always", **_OPTIONS)
@no_type_check
def _relax(gradient: float, split: float, flipped: float, relaxation: float) -> float:
    """Return the new sum of relaxed gradient and dual, from the last sum t and 2 z - t."""
    return split + relaxation * (gradient - np.float32(0.5) * (split + flipped))


@njit(inline="always", **_OPTIONS)
@no_type_check
def _voxel(
    cx: float,
    cy: float,
    cz: float,
    c: float,
    hx: float,
    hy: float,
    hz: float,
    t: np.ndarray,
    w: np.ndarray,
    i: int,
    j: int,
    k: int,
    threshold: float,
    relaxation: float,
    isotropic: bool,
) -> None:
    tx = _relax((cx - c) * hx, t[0, i, j, k], w[0, i, j, k], relaxation)
    ty = _relax((cy - c) * hy, t[1, i, j, k], w[1, i, j, k], relaxation)
    tz = _relax((cz - c) * hz, t[2, i, j, k], w[2, i, j, k], relaxation)
    one, two = np.float32(1), np.float32(2)
    if isotropic:
        size = np.sqrt(tx * tx + ty * ty + tz * tz)
        sx = max(one - threshold / max(size, np.float32(TINY)), np.float32(0))
        sy = sx
        sz = sx
    else:
        sx = max(one - threshold / max(abs(tx), np.float32(TINY)), np.float32(0))
        sy = max(one - threshold / max(abs(ty), np.float32(TINY)), np.float32(0))
        sz = max(one - threshold / max(abs(tz), np.float32(TINY)), np.float32(0))
    t[0, i, j, k] = tx
    t[1, i, j, k] = ty
    t[2, i, j, k] = tz
    w[0, i, j, k] = (two * sx - one) * tx
    w[1, i, j, k] = (two * sy - one) * ty
    w[2, i, j, k] = (two * sz - one) * tz


@njit(**_OPTIONS)
@no_type_check
def shrink_gradient(
    chi: np.ndarray,
    t: np.ndarray,
    w: np.ndarray,
    threshold: np.ndarray,
    per_mm: tuple[float, float, float],
    relaxation: float,
    isotropic: bool,
) -> None:
    """Add the relaxed gradient to the dual (into t) and shrink: w = 2 z - t."""
    nx, ny, nz = chi.shape
    hx, hy, hz = per_mm
    for i in range(nx):
        ip = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            jp = j + 1 if j + 1 < ny else 0
            for k in range(nz - 1):
                _voxel(
                    chi[ip, j, k],
                    chi[i, jp, k],
                    chi[i, j, k + 1],
                    chi[i, j, k],
                    hx,
                    hy,
                    hz,
                    t,
                    w,
                    i,
                    j,
                    k,
                    threshold[i, j, k],
                    relaxation,
                    isotropic,
                )
            k = nz - 1
            _voxel(
                chi[ip, j, k],
                chi[i, jp, k],
                chi[i, j, 0],
                chi[i, j, k],
                hx,
                hy,
                hz,
                t,
                w,
                i,
                j,
                k,
                threshold[i, j, k],
                relaxation,
                isotropic,
            )


@njit(**_OPTIONS)
@no_type_check
def gather(
    chi: np.ndarray,
    w: np.ndarray,
    keep: np.ndarray,
    held: np.ndarray,
    out: np.ndarray,
    rho: float,
    sigma: float,
    per_mm: tuple[float, float, float],
    relaxation: float,
) -> None:
    """Write rho grad^T w + sigma (p - q), after the step of the support's split: held = p + q, p = keep held."""
    nx, ny, nz = chi.shape
    hx, hy, hz = rho * per_mm[0], rho * per_mm[1], rho * per_mm[2]
    two, one = np.float32(2), np.float32(1)
    for i in range(nx):
        im = i - 1 if i > 0 else nx - 1
        for j in range(ny):
            jm = j - 1 if j > 0 else ny - 1
            out[i, j, 0] = (w[2, i, j, nz - 1] - w[2, i, j, 0]) * hz
            for k in range(1, nz):
                out[i, j, k] = (w[2, i, j, k - 1] - w[2, i, j, k]) * hz
            for k in range(nz):
                m = keep[i, j, k]
                h = held[i, j, k] + relaxation * (chi[i, j, k] - m * held[i, j, k])
                held[i, j, k] = h
                out[i, j, k] += (
                    (w[0, im, j, k] - w[0, i, j, k]) * hx
                    + (w[1, i, jm, k] - w[1, i, j, k]) * hy
                    + sigma * (two * m - one) * h
                )


@njit(**_OPTIONS)
@no_type_check
def relax_model(
    model: np.ndarray,
    v: np.ndarray,
    s: np.ndarray,
    out: np.ndarray,
    field: np.ndarray,
    weight: np.ndarray,
    mu: float,
    relaxation: float,
    radians: float,
) -> tuple[float, float]:
    """Write t, the relaxed model plus its dual; return the weighted sum of f - t, and of the weights.

    The weights are those of the offset that is best once v is: W^2 mu / (W^2 + mu).
    """
    total = 0.0
    weights = 0.0
    for n in range(model.size):
        t = relaxation * model[n] + (np.float32(1) - relaxation) * v[n] + s[n]
        out[n] = t
        if weight[n] > 0:
            share = np.float64(weight[n] / (weight[n] + mu))
            difference = field[n] - t
            if radians > 0:
                difference = np.sin(radians * difference) / radians
            total += share * np.float64(difference)
            weights += share
    return total, weights


@njit(**_OPTIONS)
@no_type_check
def fit_linear(
    v: np.ndarray, s: np.ndarray, out: np.ndarray, field: np.ndarray, offset: float, weight: np.ndarray, mu: float
) -> None:
    """Step of the fidelity's split: v = argmin W^2 (v + offset - f)^2 + mu (v - t)^2; t becomes v - s."""
    for n in range(v.size):
        t = out[n]
        fitted = (weight[n] * (field[n] - offset) + mu * t) / (weight[n] + mu)
        s[n] = t - fitted
        v[n] = fitted
        out[n] = np.float32(2) * fitted - t


@njit(**_OPTIONS)
@no_type_check
def fit_nonlinear(
    v: np.ndarray,
    s: np.ndarray,
    out: np.ndarray,
    field: np.ndarray,
    offset: float,
    weight: np.ndarray,
    mu: float,
    radians: float,
) -> None:
    """Step of the fidelity's split: v = argmin 2 W^2 (1 - cos c (v + offset - f)) / c^2 + mu (v - t)^2, by Newton."""
    for n in range(v.size):
        t = out[n]
        fitted = t
        if weight[n] > 0:
            fitted = v[n]
            for _ in range(NEWTON_STEPS):
                angle = radians * (fitted + offset - field[n])
                slope = weight[n] * np.sin(angle) / radians + mu * (fitted - t)
                fitted -= slope / (weight[n] * max(np.cos(angle), np.float32(0)) + mu)
        s[n] = t - fitted
        v[n] = fitted
        out[n] = np.float32(2) * fitted - t


@njit(**_OPTIONS)
@no_type_check
def solve_spectrum(
    gathered: np.ndarray, fitted: np.ndarray, kernel: np.ndarray, inverse: np.ndarray, mu: float
) -> None:
    """Solve for the spectrum of chi, into `gathered`; write that of D chi into `fitted`."""
    for n in range(gathered.size):
        d = kernel[n]
        x = (gathered[n] + (mu * d) * fitted[n]) * inverse[n]
        gathered[n] = x
        fitted[n] = d * x


@njit(**_OPTIONS)
@no_type_check
def solve_known_spectrum(gathered: np.ndarray, known: np.ndarray, inverse: np.ndarray) -> None:
    """Solve for the spectrum of chi where the fidelity is a known spectrum, into `gathered`."""
    for n in range(gathered.size):
        gathered[n] = (gathered[n] + known[n]) * inverse[n]


@njit(**_OPTIONS)
@no_type_check
def change_and_size(new: np.ndarray, old: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """Return the sums of squares of new - old and of new inside the mask."""
    change = 0.0
    size = 0.0
    for n in range(new.size):
        if inside[n] > 0:
            difference = np.float64(new[n] - old[n])
            change += difference * difference
            size += np.float64(new[n]) * np.float64(new[n])
    return change, size
