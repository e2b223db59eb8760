"""The weighted Laplacian of iLSQR in one pass on the processor."""

from typing import no_type_check

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
@no_type_check
def weighted_laplacian(
    image: np.ndarray,
    wx: np.ndarray,
    wy: np.ndarray,
    wz: np.ndarray,
    out: np.ndarray,
    per_mm_squared: tuple[float, float, float],
) -> None:
    """Write sum_a d_a^T W_a^2 d_a image: periodic forward differences, per mm."""
    nx, ny, nz = image.shape
    hx, hy, hz = per_mm_squared
    for i in range(nx):
        im = i - 1 if i > 0 else nx - 1
        ip = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            jm = j - 1 if j > 0 else ny - 1
            jp = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                km = k - 1 if k > 0 else nz - 1
                kp = k + 1 if k + 1 < nz else 0
                c = image[i, j, k]
                out[i, j, k] = (
                    hx * (wx[im, j, k] * (c - image[im, j, k]) - wx[i, j, k] * (image[ip, j, k] - c))
                    + hy * (wy[i, jm, k] * (c - image[i, jm, k]) - wy[i, j, k] * (image[i, jp, k] - c))
                    + hz * (wz[i, j, km] * (c - image[i, j, km]) - wz[i, j, k] * (image[i, j, kp] - c))
                )
