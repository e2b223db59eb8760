"""The field of magnetic dipoles: susceptibility in ppm to relative field change in ppm.

::

    field = F^-1 [ D F chi ],    D(k) = 1/3 - (k . b)^2 / |k|^2,    D(0) = 0

with b the main field's unit vector. The 1/3 is the Lorentz sphere; D(0) = 0 leaves out the mean, which depends on what
lies beyond the box.

References
----------
Salomir et al. (2003), Concepts Magn Reson B 19:26; Marques & Bowtell (2005), Concepts Magn Reson B 25:65.
"""

import itertools

import numpy as np
from jaxtyping import Float, Float32

from brainlocus.numerics.fourier import FourierBox, fast_length

__all__ = ["dipole_field", "dipole_kernel"]


def dipole_kernel(box: FourierBox, b0_direction: tuple[float, float, float]) -> Float32[np.ndarray, "x y z"]:
    """Return D on the box's half spectrum.

    On the planes of the Nyquist frequency of an oblique box, k and -k are one frequency but D differs between them; the
    mean over the signs of all Nyquist frequencies is taken, so that the operator is symmetric and a flipped image with
    its flipped main field has the flipped field.

    Parameters
    ----------
    b0_direction
        Unit vector along the voxel axes.
    """
    frequencies = box.frequencies()
    kernel = _kernel(frequencies, b0_direction)
    if np.count_nonzero(np.abs(b0_direction) > 1e-9) > 1:
        for axis, n in enumerate(box.padded):
            if n % 2 == 0:
                plane = tuple(slice(n // 2, n // 2 + 1) if a == axis else slice(None) for a in range(3))
                kernel[plane] = _mean_over_signs(box, plane, b0_direction)
    return np.asarray(kernel, dtype=np.float32)


def dipole_field(
    chi_ppm: Float[np.ndarray, "x y z"],
    voxel_size_mm: tuple[float, float, float],
    b0_direction: tuple[float, float, float],
    *,
    workers: int = 1,
) -> Float32[np.ndarray, "x y z"]:
    """Return the relative field change in ppm of a susceptibility map in ppm, in a box twice as large.

    Examples
    --------
    A voxel's field is positive along the main field and negative across it.

    >>> chi = np.zeros((9, 9, 9), dtype=np.float32)
    >>> chi[4, 4, 4] = 1.0
    >>> field = dipole_field(chi, (1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
    >>> bool(field[4, 4, 6] > 0 > field[6, 4, 4])
    True
    """
    x, y, z = (fast_length(2 * n) for n in chi_ppm.shape)
    doubled = FourierBox(chi_ppm.shape, (x, y, z), voxel_size_mm, workers)
    spectrum = doubled.forward(np.asarray(chi_ppm, dtype=np.float32))
    spectrum *= dipole_kernel(doubled, b0_direction)
    return np.ascontiguousarray(doubled.backward(spectrum))


def _mean_over_signs(
    box: FourierBox, plane: tuple[slice, ...], b0_direction: tuple[float, float, float]
) -> Float[np.ndarray, "x y z"]:
    total: Float[np.ndarray, "x y z"] | float = 0.0
    for signs in itertools.product((1.0, -1.0), repeat=3):
        signed = []
        for axis, (frequency, n) in enumerate(zip(box.frequencies(), box.padded, strict=True)):
            along = np.moveaxis(frequency.copy(), axis, 0)
            if n % 2 == 0:
                along[n // 2] *= signs[axis]
            along = along[plane[axis]]
            signed.append(np.moveaxis(along, 0, axis))
        total = total + _kernel((signed[0], signed[1], signed[2]), b0_direction) / 8
    return np.asarray(total)


def _kernel(
    frequencies: tuple[Float[np.ndarray, "x 1 1"], Float[np.ndarray, "1 y 1"], Float[np.ndarray, "1 1 z"]],
    b0_direction: tuple[float, float, float],
) -> Float[np.ndarray, "x y z"]:
    kx, ky, kz = frequencies
    squared = kx**2 + ky**2 + kz**2
    along = kx * b0_direction[0] + ky * b0_direction[1] + kz * b0_direction[2]
    with np.errstate(invalid="ignore"):
        kernel = 1 / 3 - along**2 / squared
    return np.asarray(np.where(squared == 0, 0.0, kernel))
