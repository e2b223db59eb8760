"""Gaussian smoothing of complex images in physical units."""

import numpy as np
from jaxtyping import Complex64

__all__ = ["smooth_complex"]

REACH = 6.0
"""The Gaussian is cut at this many standard deviations, 1.5e-8 of its peak: below single precision."""


def smooth_complex(
    image: Complex64[np.ndarray, "x y z"], voxel_size_mm: tuple[float, float, float], sigma_mm: float
) -> Complex64[np.ndarray, "x y z"]:
    """Return the image convolved with a Gaussian of standard deviation `sigma_mm`, zeros around it.

    One product with a banded matrix along each axis: at sizes of a few hundred voxels dense products beat transforms
    and recursive filters, need no padding and are exact. Only the argument of the result is meant to be used where zeros
    reach in: it is then a normalised convolution, for the weights that it lacks are real.
    """
    smooth = np.ascontiguousarray(image)
    if sigma_mm <= 0:
        return smooth.copy()
    nx, ny, nz = image.shape
    along_x, along_y, along_z = (_gaussian(n, h, sigma_mm) for n, h in zip((nx, ny, nz), voxel_size_mm, strict=True))
    pairs = np.matmul(along_x, smooth.view(np.float32).reshape(nx, ny * nz * 2))
    pairs = np.matmul(along_y, pairs.reshape(nx, ny, nz * 2))
    # Real and imaginary parts alternate along z; as complex numbers both are summed over z at once.
    smooth = np.matmul(pairs.view(np.complex64).reshape(nx * ny, nz), along_z.astype(np.complex64))
    return np.ascontiguousarray(smooth.reshape(nx, ny, nz))


def _gaussian(n: int, edge_mm: float, sigma_mm: float) -> np.ndarray:
    apart = (np.arange(n)[:, None] - np.arange(n)[None, :]) * edge_mm / sigma_mm
    weights = np.where(np.abs(apart) <= REACH, np.exp(-0.5 * apart**2), 0.0)
    return np.asarray(weights * edge_mm / (sigma_mm * np.sqrt(2 * np.pi)), dtype=np.float32)
