"""Background removal by the regularised mean-value property: RESHARP, with one radius or as many as V-SHARP.

::

    min over l of  sum_r || P_r H_r (f - l) ||^2 + lambda || l ||^2

H_r = delta - S_r takes harmonic fields away; P_r are the voxels for which r is the largest ball that fits into the
mask. With one radius this is RESHARP. With more, every voxel of V-SHARP's mask is used and each is undone by its *own*
kernel, where V-SHARP divides all by the largest. Solved by conjugate gradients on the normal equations::

    (sum_r H_r P_r H_r + lambda) l = sum_r H_r P_r H_r f

References
----------
Sun & Wilman (2014), Magn Reson Med 71:1151.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from brainlocus.images.qsm.local_field import STAGE, LocalField, check_field, crop_to_mask
from brainlocus.images.qsm.spheres import ball_spectrum
from brainlocus.images.qsm.vsharp import ball_shells, radii_mm
from brainlocus.numerics import FourierBox
from brainlocus.numerics.conjugate_gradient import conjugate_gradient

__all__ = ["ResharpSettings", "remove_resharp", "sharp_normal"]


@dataclass(frozen=True, slots=True)
class ResharpSettings:
    """Choices of RESHARP."""

    max_radius_mm: float = 6.0
    min_radius_mm: float | None = 6.0
    """As `max_radius_mm`: one radius. None: down to the largest voxel edge."""
    step_mm: float = 3.0
    """Between radii; each radius costs two transforms an iteration."""
    regularisation: float = 1e-3
    """lambda, in units of the squared kernel (at most about 1)."""
    tolerance: float = 1e-2
    """Of the residual relative to the right-hand side."""
    max_iterations: int = 60
    harmonic_degree: int = 0
    """0: plain balls. 2 or 4: weights that keep the mean-value property on voxels that are not cubes."""
    mask_share: float = 0.999
    """As in V-SHARP."""


def remove_resharp(
    field_ppm: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    voxel_size_mm: tuple[float, float, float],
    settings: ResharpSettings,
    *,
    workers: int = 1,
) -> LocalField:
    """Return the local field of RESHARP, in the voxels where a ball fits.

    Parameters
    ----------
    field_ppm
        Total field; read inside the mask only.
    mask
        Where the field is known.
    voxel_size_mm
        Edges of a voxel; balls are drawn in mm.
    settings
        Radii, regularisation and when to stop.
    workers
        Threads of a transform.

    Raises
    ------
    ValueError
        A radius below the largest voxel edge, an empty mask, a field that is not finite in it, a mask in which no ball
        fits, or a negative regularisation.

    References
    ----------
    Sun & Wilman (2014), Magn Reson Med 71:1151.
    """
    check_field(field_ppm, mask)
    if not settings.regularisation >= 0:
        raise ValueError(
            f"{STAGE}: expected a RESHARP regularisation of at least 0, found {settings.regularisation:g}."
        )
    radii = radii_mm(settings.max_radius_mm, settings.min_radius_mm, settings.step_mm, voxel_size_mm)
    cropped = crop_to_mask(field_ppm, mask)
    box = FourierBox.around(cropped.mask.shape, voxel_size_mm, radii[0] + max(voxel_size_mm), workers=workers)
    shells = ball_shells(cropped.mask, box, radii, settings.mask_share)
    normal = sharp_normal(box, cropped.mask, shells, settings.harmonic_degree)
    weight = np.float32(settings.regularisation)
    solution = conjugate_gradient(
        lambda image: normal(image) + weight * image,
        normal(cropped.field_ppm),
        tolerance=settings.tolerance,
        max_iterations=settings.max_iterations,
    )
    valid = np.logical_or.reduce(list(shells.values()))
    return cropped.restore(solution.x, valid, solution.n_iterations, solution.converged)


def sharp_normal(
    box: FourierBox,
    mask: Bool[np.ndarray, "x y z"],
    shells: dict[float, Bool[np.ndarray, "x y z"]],
    harmonic_degree: int,
) -> Callable[[Float32[np.ndarray, "x y z"]], Float32[np.ndarray, "x y z"]]:
    """Return the operator sum_r H_r P_r H_r on images that are 0 outside the mask."""
    kernels = {radius: 1 - ball_spectrum(box, radius, harmonic_degree) for radius in shells}

    def apply(image: Float32[np.ndarray, "x y z"]) -> Float32[np.ndarray, "x y z"]:
        spectrum = box.forward(image)
        total = np.zeros_like(spectrum)
        for radius, shell in shells.items():
            filtered = np.where(shell, box.backward(spectrum * kernels[radius]), np.float32(0))
            total += box.forward(filtered) * kernels[radius]
        return np.where(mask, box.backward(total), np.float32(0))

    return apply
