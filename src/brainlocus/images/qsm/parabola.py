"""A part of the field with the same Laplacian everywhere: c |x|^2, which no background removal can take away.

Background removals rest on the background being harmonic. What varies as |x|^2 is not: the phase offset of transmit and
receive coils where it was not removed (its Laplacian follows the tissue's conductivity), or a shim written as a general
second-order polynomial. Over a head even a small c is large: 1.5e-5 ppm/mm^2 make 54 ppb at 60 mm, ten times the local
field, and end up in the susceptibility map as a slow trend from ventricles to cortex.

Over a ball with weights w around x, harmonic fields average to their value at x and c |x|^2 to c s more, with
s = sum w |d|^2. So, over all x where the ball lies in the mask::

    c = mean[ (S_r f)(x) - f(x) ] / s

Local fields hardly count: their balls' differences average out over the mask.

The formula is ours; for the mean-value property see `vsharp`. Phase and conductivity: Voigt et al. (2011), Magn Reson
Med 66:456.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

from brainlocus.images.qsm.local_field import Cropped, LocalField, check_field, crop_to_mask
from brainlocus.images.qsm.spheres import ball_spectrum, ball_weights
from brainlocus.images.qsm.vsharp import ball_shells, check_radius
from brainlocus.numerics import FourierBox

__all__ = ["ParabolaSettings", "parabola_coefficient", "remove_parabola"]


@dataclass(frozen=True, slots=True)
class ParabolaSettings:
    """Choices of the parabola."""

    radius_mm: float = 16.0
    """Of the ball; halved until it fits into the mask."""


def remove_parabola(
    field_ppm: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    voxel_size_mm: tuple[float, float, float],
    settings: ParabolaSettings,
    *,
    workers: int = 1,
) -> LocalField:
    """Return the field less c |x|^2, with x counted from the mask's middle; the mask stays.

    Parameters
    ----------
    field_ppm
        Total field; read inside the mask only.
    mask
        Where the field is known.
    voxel_size_mm
        Edges of a voxel.
    settings
        Size of the ball.
    workers
        Threads of a transform.

    Raises
    ------
    ValueError
        An empty mask, a field that is not finite in it, a radius below the largest voxel edge, or a mask in which no
        ball fits.
    """
    check_field(field_ppm, mask)
    cropped = crop_to_mask(field_ppm, mask)
    coefficient = parabola_coefficient(cropped, voxel_size_mm, settings.radius_mm, workers=workers)
    parabola = coefficient * _squared_distance(cropped.mask.shape, voxel_size_mm)
    local = cropped.field_ppm - parabola.astype(np.float32)
    return cropped.restore(local, cropped.mask, 0, True)


def parabola_coefficient(
    cropped: Cropped, voxel_size_mm: tuple[float, float, float], radius_mm: float, *, workers: int = 1
) -> float:
    """Return c in ppm/mm^2.

    Raises
    ------
    ValueError
        As `remove_parabola`.
    """
    check_radius(radius_mm, voxel_size_mm)
    radii = [radius_mm]
    while radii[-1] / 2 > max(voxel_size_mm):
        radii.append(radii[-1] / 2)
    box = FourierBox.around(cropped.mask.shape, voxel_size_mm, radius_mm + max(voxel_size_mm), workers=workers)
    # Balls that lie in the mask to the last voxel: at the rim the field is large and its zeros outside would count.
    radius, fits = next(iter(ball_shells(cropped.mask, box, tuple(radii), 1.0).items()))
    mean = box.backward(box.forward(cropped.field_ppm) * ball_spectrum(box, radius, 4))
    weights = ball_weights(voxel_size_mm, radius, 4)
    spread = float((weights * _squared_distance(weights.shape, voxel_size_mm)).sum())
    return float((mean - cropped.field_ppm)[fits].mean(dtype=np.float64)) / spread


def _squared_distance(
    shape: tuple[int, int, int], voxel_size_mm: tuple[float, float, float]
) -> Float[np.ndarray, "x y z"]:
    """Return the squared distance in mm from the image's middle."""
    x, y, z = np.ix_(*((np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, voxel_size_mm, strict=True)))
    return np.asarray(x**2 + y**2 + z**2)
