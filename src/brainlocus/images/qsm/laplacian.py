"""Laplacian unwrapping: the smooth phase whose Laplacian is that of the wrapped one.

Data flow::

    wrapped phase --curvature--> its true Laplacian --cosine transform, division, inverse--> unwrapped phase

The Laplacian of the true phase follows from the wrapped one in two ways. With w(.) wrapping to [-pi, pi] and D_a the
forward difference along axis a (voxel edge h_a)::

    differences   sum_a [ w(D_a phi)(x) - w(D_a phi)(x - e_a) ] / h_a^2        right where neighbours differ by < pi
    sine-cosine   cos(phi) L[sin(phi)] - sin(phi) L[cos(phi)]
                  = sum_a [ sin(D_a phi)(x) - sin(D_a phi)(x - e_a) ] / h_a^2  too small at steep phase

The identity behind the second line (sin(b - a) = cos a sin b - sin a cos b, the terms in sin a cos a cancel) makes both
a divergence of a flux between neighbours: w(d) in one, sin(d) in the other. Nothing flows through the faces of the
volume (Neumann), where the even cosine transform DCT-II turns the 7-point Laplacian into a product with

    sum_a (2 cos(pi n_a / N_a) - 2) / h_a^2,

so that a phase whose neighbours differ by less than pi is found exactly, up to a constant. Where phase is noise or
changes by more than pi between voxels the fluxes have a curl; the result is then the least-squares phase: smooth, *not*
equal to the input modulo 2 pi, and off by a mostly harmonic field, which background removal takes away. Use exact
unwrapping where absolute phase counts.

References
----------
Schofield & Zhu (2003), Opt Lett 28:1194; Li, Wu & Liu (2011), NeuroImage 55:1645; Ghiglia & Romero (1994), J Opt Soc
Am A 11:107 (least squares by the cosine transform).
"""

from typing import Literal, no_type_check

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float32
from numba import njit

from brainlocus.images.qsm.wrapping import wrap_angle
from brainlocus.numerics.cropping import bounding_box

__all__ = ["unwrap_laplacian"]

CROP_MARGIN_MM = 10.0
"""What is kept around a mask: the error's boundary conditions stay away from the tissue."""


def unwrap_laplacian(
    phase_rad: Float32[np.ndarray, "x y z"],
    voxel_size_mm: tuple[float, float, float],
    *,
    mask: Bool[np.ndarray, "x y z"] | None = None,
    flux: Literal["differences", "sine-cosine"] = "differences",
    workers: int = 1,
) -> Float32[np.ndarray, "x y z"]:
    """Return the unwrapped phase of one echo in rad, up to a smooth error and a constant.

    Parameters
    ----------
    phase_rad
        Wrapped, any range. Between a not finite voxel and its neighbours nothing flows, which bends the result a little
        next to it; the result has NaN there and nowhere else.
    mask
        Only crops: the volume is cut to the mask's bounding box and `CROP_MARGIN_MM` around it, the result is 0 beyond
        that box. None: the whole volume.
    flux
        See the module's text.
    workers
        Threads of the transforms.

    Raises
    ------
    ValueError
        The mask is empty.

    Notes
    -----
    The constant is chosen so that the mean over the box is the mean of the wrapped phase.

    Examples
    --------
    >>> ramp = np.arange(24, dtype=np.float32).reshape(-1, 1, 1) * np.ones((1, 3, 2), dtype=np.float32)
    >>> wrapped = np.angle(np.exp(1j * ramp)).astype(np.float32)
    >>> found = unwrap_laplacian(wrapped, (1.0, 1.0, 1.0))
    >>> bool(np.abs((found - found[0, 0, 0]) - (ramp - ramp[0, 0, 0])).max() < 1e-3)
    True
    """
    if mask is not None:
        if not mask.any():
            raise ValueError("Laplacian unwrapping: the mask is empty. Expected at least one voxel; check the mask.")
        x, y, z = (int(np.ceil(CROP_MARGIN_MM / h)) for h in voxel_size_mm)
        box = bounding_box(mask, (x, y, z))
        result = np.zeros(phase_rad.shape, dtype=np.float32)
        result[box] = unwrap_laplacian(np.ascontiguousarray(phase_rad[box]), voxel_size_mm, flux=flux, workers=workers)
        return result
    # No padding to fast lengths: an edge without flow is an edge that wants no difference, and would bend the result.
    curvature = np.zeros(phase_rad.shape, dtype=np.float32)
    squares = np.array([1 / h**2 for h in voxel_size_mm])
    _divergence(np.ascontiguousarray(phase_rad), squares, flux == "differences", curvature)
    spectrum = scipy.fft.dctn(curvature, type=2, overwrite_x=True, workers=workers)
    _divide_by_symbol(spectrum, *(_symbol(n, h) for n, h in zip(phase_rad.shape, voxel_size_mm, strict=True)))
    unwrapped = scipy.fft.idctn(spectrum, type=2, overwrite_x=True, workers=workers)
    finite = np.isfinite(phase_rad)
    if not finite.any():
        return np.full(phase_rad.shape, np.nan, dtype=np.float32)
    everywhere = bool(finite.all())
    seen, found = (phase_rad, unwrapped) if everywhere else (phase_rad[finite], unwrapped[finite])
    unwrapped += np.float32(np.mean(seen, dtype=np.float64) - np.mean(found, dtype=np.float64))
    if not everywhere:
        unwrapped[~finite] = np.nan
    return unwrapped


def _symbol(n: int, edge_mm: float) -> np.ndarray:
    return np.asarray((2 * np.cos(np.pi * np.arange(n) / n) - 2) / edge_mm**2, dtype=np.float32)


@njit(cache=True, nogil=True)
@no_type_check
def _flux(difference: np.float32, wrapped: bool) -> np.float32:
    if not np.isfinite(difference):
        return np.float32(0)
    if wrapped:
        return wrap_angle(difference)
    return np.float32(np.sin(difference))


@njit(cache=True, nogil=True)
@no_type_check
def _divergence(phase: np.ndarray, squares: np.ndarray, wrapped: bool, out: np.ndarray) -> None:
    """Add each flux to the voxel it leaves and take it from the voxel it enters."""
    nx, ny, nz = phase.shape
    sx, sy, sz = np.float32(squares[0]), np.float32(squares[1]), np.float32(squares[2])
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                here = phase[x, y, z]
                if x + 1 < nx:
                    flow = _flux(phase[x + 1, y, z] - here, wrapped) * sx
                    out[x, y, z] += flow
                    out[x + 1, y, z] -= flow
                if y + 1 < ny:
                    flow = _flux(phase[x, y + 1, z] - here, wrapped) * sy
                    out[x, y, z] += flow
                    out[x, y + 1, z] -= flow
                if z + 1 < nz:
                    flow = _flux(phase[x, y, z + 1] - here, wrapped) * sz
                    out[x, y, z] += flow
                    out[x, y, z + 1] -= flow


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _divide_by_symbol(spectrum: np.ndarray, along_x: np.ndarray, along_y: np.ndarray, along_z: np.ndarray) -> None:
    for x in range(along_x.size):
        for y in range(along_y.size):
            plane = along_x[x] + along_y[y]
            for z in range(along_z.size):
                spectrum[x, y, z] /= plane + along_z[z]
    spectrum[0, 0, 0] = 0
