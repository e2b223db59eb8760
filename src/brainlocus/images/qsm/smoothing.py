"""Gaussian smoothing of complex images in physical units."""

from typing import no_type_check

import numpy as np
from jaxtyping import Complex64
from numba import njit

__all__ = ["smooth_complex", "smooth_phase"]

REACH = 6.0
"""The Gaussian is cut at this many standard deviations, 1.5e-8 of its peak: below single precision."""


def smooth_complex(
    image: Complex64[np.ndarray, "x y z"], voxel_size_mm: tuple[float, float, float], sigma_mm: float
) -> Complex64[np.ndarray, "x y z"]:
    """Return the image convolved with a Gaussian of standard deviation `sigma_mm`, zeros around it.

    One product with a banded matrix along each axis: at sizes of a few hundred voxels dense products beat transforms
    and recursive filters, need no padding and are exact. Only the argument of the result is meant to be used where
    zeros reach in: it is then a normalised convolution, for the weights that it lacks are real.
    """
    smooth = np.ascontiguousarray(image)
    if sigma_mm <= 0:
        return smooth.copy()
    nx, ny, nz = image.shape
    along_x, along_y, along_z = (_gaussian(n, h, sigma_mm) for n, h in zip((nx, ny, nz), voxel_size_mm, strict=True))
    pairs = np.matmul(along_x, smooth.view(np.float32).reshape(nx, ny * nz * 2))
    # y first, so that it takes one large product and not one for each x.
    pairs = np.ascontiguousarray(pairs.reshape(nx, ny, nz * 2).transpose(1, 0, 2))
    pairs = np.matmul(along_y, pairs.reshape(ny, nx * nz * 2))
    # Real and imaginary parts alternate along z; as complex numbers both are summed over z at once.
    smooth = np.matmul(pairs.view(np.complex64).reshape(ny * nx, nz), along_z.astype(np.complex64))
    return np.ascontiguousarray(smooth.reshape(ny, nx, nz).transpose(1, 0, 2))


def smooth_phase(
    vector: Complex64[np.ndarray, "x y z"], voxel_size_mm: tuple[float, float, float], sigma_mm: float
) -> Complex64[np.ndarray, "x y z"]:
    """Return a vector whose argument is the smooth phase of weighted unit vectors, extrapolated to where they are 0.

    A Gaussian alone bends the phase towards the inside at the rim of the weights, where it sees one side only: by a
    third of a radian for 0.05 rad/mm. So the mean gradient is taken out first, and what the smooth phase leaves is
    smoothed once more and added (Tukey's twicing).
    """
    residual = vector.copy()
    ramps = []
    for axis, n in enumerate(vector.shape):
        step = np.angle(np.vdot(np.delete(vector, n - 1, axis), np.delete(vector, 0, axis))) if n > 1 else 0.0
        shape = [1, 1, 1]
        shape[axis] = n
        ramps.append(np.exp(1j * step * np.arange(n)).astype(np.complex64).reshape(shape))
    for ramp in ramps:
        residual *= ramp.conj()
    smooth = smooth_complex(residual, voxel_size_mm, sigma_mm)
    _to_unit(smooth.ravel())
    _times_conjugate(residual.ravel(), smooth.ravel())
    smooth *= smooth_complex(residual, voxel_size_mm, sigma_mm)
    for ramp in ramps:
        smooth *= ramp
    return smooth


@njit(cache=True, nogil=True)
@no_type_check
def _to_unit(vector: np.ndarray) -> None:
    for voxel in range(vector.size):
        length = np.sqrt(vector[voxel].real ** 2 + vector[voxel].imag ** 2)
        vector[voxel] = vector[voxel] / length if length > 0 else np.complex64(1)


@njit(cache=True, nogil=True)
@no_type_check
def _times_conjugate(vector: np.ndarray, turn: np.ndarray) -> None:
    for voxel in range(vector.size):
        vector[voxel] *= turn[voxel].conjugate()


def _gaussian(n: int, edge_mm: float, sigma_mm: float) -> np.ndarray:
    apart = (np.arange(n)[:, None] - np.arange(n)[None, :]) * edge_mm / sigma_mm
    weights = np.where(np.abs(apart) <= REACH, np.exp(-0.5 * apart**2), 0.0)
    return np.asarray(weights * edge_mm / (sigma_mm * np.sqrt(2 * np.pi)), dtype=np.float32)
