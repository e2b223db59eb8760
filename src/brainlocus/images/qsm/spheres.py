"""Averages over balls of physical radius: the mean-value property of harmonic fields on a voxel grid.

A harmonic field equals its mean over any ball around a point. A ball of voxels keeps this only in part: where voxels
are not cubes, or the ball holds few of them, x^2 - z^2 has a mean that is not 0. `ball_weights` therefore offers,
besides equal weights, the weights nearest to equal ones for which all harmonic polynomials up to a given degree average
exactly to their value at the centre::

    min ||w - 1/n||^2   subject to   sum w = 1,   sum w h = 0   for h = x^2 - z^2, y^2 - z^2, x^4 - 6 x^2 y^2 + y^4, ...

Odd polynomials, and those odd along any axis, average to 0 by the ball's mirror symmetry.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32

from brainlocus.numerics import FourierBox

__all__ = ["ball_spectrum", "ball_weights", "inside_ball"]


def inside_ball(voxel_size_mm: tuple[float, float, float], radius_mm: float) -> Bool[np.ndarray, "x y z"]:
    """Return the voxels whose centre lies within `radius_mm` of the middle one's, in the smallest box around them."""
    x, y, z = _offsets(voxel_size_mm, radius_mm)
    return np.asarray(x**2 + y**2 + z**2 <= (radius_mm * (1 + 1e-6)) ** 2)


def ball_weights(
    voxel_size_mm: tuple[float, float, float], radius_mm: float, harmonic_degree: int = 0
) -> Float[np.ndarray, "x y z"]:
    """Return weights of a ball's voxels that sum to 1, in the smallest box that holds the ball.

    Parameters
    ----------
    voxel_size_mm
        Edges of a voxel.
    radius_mm
        Largest distance of a voxel's centre from the middle.
    harmonic_degree
        0: equal weights. 2 or 4: harmonic polynomials up to that degree (and the next, odd one) average exactly. The
        degree is lowered where the ball is too small to do so with positive weights.

    Raises
    ------
    ValueError
        Another degree.
    """
    if harmonic_degree not in (0, 2, 4):
        raise ValueError(f"Expected a harmonic degree of 0, 2 or 4, found {harmonic_degree}.")
    inside = inside_ball(voxel_size_mm, radius_mm)
    x, y, z = np.broadcast_arrays(*_offsets(voxel_size_mm, radius_mm))
    squares = np.stack([axis[inside] for axis in (x, y, z)]) ** 2 / radius_mm**2
    weights = np.zeros(inside.shape)
    for degree in range(harmonic_degree, -1, -2):
        candidate = _nearest_equal(_harmonics(squares, degree))
        if candidate.min() > 0:
            break
    weights[inside] = candidate
    return weights


def ball_spectrum(
    box: FourierBox, radius_mm: float, harmonic_degree: int = 0, *, counts: bool = False
) -> Float32[np.ndarray, "x y z"]:
    """Return the real half spectrum of a ball's weights centred at the box's origin; `counts`: of ones instead."""
    if counts:
        weights = inside_ball(box.voxel_size_mm, radius_mm).astype(np.float32)
    else:
        weights = ball_weights(box.voxel_size_mm, radius_mm, harmonic_degree).astype(np.float32)
    if any(n > m for n, m in zip(weights.shape, box.padded, strict=True)):
        raise ValueError(
            f"A ball of {radius_mm:g} mm spans {weights.shape} voxels, more than the padded box's {box.padded}: "
            "expected padding of at least the radius."
        )
    kernel = np.zeros(box.padded, dtype=np.float32)
    kernel[tuple(slice(0, n) for n in weights.shape)] = weights
    kernel = np.roll(kernel, [-(n // 2) for n in weights.shape], axis=(0, 1, 2))
    return np.ascontiguousarray(box.forward(kernel).real)


def _offsets(
    voxel_size_mm: tuple[float, float, float], radius_mm: float
) -> tuple[Float[np.ndarray, "x 1 1"], Float[np.ndarray, "1 y 1"], Float[np.ndarray, "1 1 z"]]:
    x, y, z = (
        np.arange(-reach, reach + 1) * h
        for h, reach in ((h, int(np.floor(radius_mm * (1 + 1e-6) / h))) for h in voxel_size_mm)
    )
    return x[:, None, None], y[None, :, None], z[None, None, :]


def _harmonics(squares: Float[np.ndarray, "3 voxels"], degree: int) -> Float[np.ndarray, "rows voxels"]:
    """Return a row of ones and the harmonic polynomials up to `degree` that are even along every axis."""
    x, y, z = squares
    rows = [np.ones_like(x)]
    if degree >= 2:
        rows += [x - z, y - z]
    if degree >= 4:
        rows += [a * a - 6 * a * b + b * b for a, b in ((x, y), (y, z), (z, x))]
    return np.stack(rows)


def _nearest_equal(rows: Float[np.ndarray, "rows voxels"]) -> Float[np.ndarray, " voxels"]:
    """Return the weights nearest to equal ones with sum 1 and a zero mean of every further row."""
    equal = np.full(rows.shape[1], 1 / rows.shape[1])
    wanted = np.zeros(rows.shape[0])
    wanted[0] = 1.0
    return np.asarray(equal - np.linalg.pinv(rows) @ (rows @ equal - wanted))
