"""Background removal by the mean-value property: V-SHARP, and SHARP as its single-radius form.

Data flow::

    field, mask --per radius r, largest first--> g = (delta - S_r) * field  where the ball of r lies in the mask
    g --divide by the largest kernel--> local field

With S_r the mean over a ball of radius r, H_r = delta - S_r, and M_r = {x: share of the ball in mask > 0.999}, each
voxel takes g(x) = (H_r field)(x) from the largest r with x in M_r. The background is harmonic in the mask, so H_r takes
it away; what H_r did to the local field is undone once, by the largest kernel R::

    F(local) = F(g) / F(H_R)  where |F(H_R)| > t,  0 elsewhere

The share of a ball is counted in voxels (rounded to whole numbers), not as a float32 mean near 1.

References
----------
Schweser et al. (2011), NeuroImage 54:2789; Wu et al. (2012), Magn Reson Med 67:137. `harmonic_degree`: see `spheres`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from brainlocus.images.qsm.local_field import STAGE, LocalField, check_field, crop_to_mask
from brainlocus.images.qsm.spheres import ball_spectrum, inside_ball
from brainlocus.numerics import FourierBox

__all__ = [
    "SharpSettings",
    "VSharpSettings",
    "ball_shells",
    "check_radius",
    "radii_mm",
    "remove_sharp",
    "remove_vsharp",
]


@dataclass(frozen=True, slots=True)
class VSharpSettings:
    """Choices of V-SHARP."""

    max_radius_mm: float = 12.0
    """UK Biobank's (Wang 2022)."""
    min_radius_mm: float | None = None
    """None: the largest voxel edge, the least that reaches every neighbour. A larger one erodes more."""
    step_mm: float = 1.0
    threshold: float = 0.05
    """Spectrum of the largest kernel below which a frequency is given up."""
    harmonic_degree: int = 0
    """0: plain balls. 2 or 4: weights that keep the mean-value property on voxels that are not cubes."""
    mask_share: float = 0.999
    """A ball fits where more than this share of its voxels lies in the mask. Below 1, balls of over 1,000 voxels count
    a few voxels beyond the rim as a field of 0, off by parts per thousand of the background there."""


@dataclass(frozen=True, slots=True)
class SharpSettings:
    """Choices of SHARP: V-SHARP with one radius."""

    radius_mm: float = 6.0
    threshold: float = 0.05
    harmonic_degree: int = 0
    mask_share: float = 0.999


def remove_vsharp(
    field_ppm: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    voxel_size_mm: tuple[float, float, float],
    settings: VSharpSettings,
    *,
    workers: int = 1,
) -> LocalField:
    """Return the local field of V-SHARP, in the union of the masks of all radii.

    Parameters
    ----------
    field_ppm
        Total field; read inside the mask only.
    mask
        Where the field is known.
    voxel_size_mm
        Edges of a voxel; balls are drawn in mm.
    settings
        Radii, threshold and weights.
    workers
        Threads of a transform.

    Raises
    ------
    ValueError
        A smallest radius below the largest voxel edge (its ball would be one voxel along that axis and its rim 0), an
        empty mask, a field that is not finite in it, a mask in which no ball fits, or a negative threshold.

    References
    ----------
    Wu et al. (2012), Magn Reson Med 67:137.
    """
    check_field(field_ppm, mask)
    if not settings.threshold >= 0:
        raise ValueError(f"{STAGE}: expected a V-SHARP threshold of at least 0, found {settings.threshold:g}.")
    cropped = crop_to_mask(field_ppm, mask)
    radii = radii_mm(settings.max_radius_mm, settings.min_radius_mm, settings.step_mm, voxel_size_mm)
    padding = radii[0] + max(voxel_size_mm)
    box = FourierBox.around(cropped.mask.shape, voxel_size_mm, padding, workers=workers)
    shells = ball_shells(cropped.mask, box, radii, settings.mask_share)
    spectrum = box.forward(cropped.field_ppm)
    high_passed = np.zeros_like(cropped.field_ppm)
    for radius, shell in shells.items():
        mean = box.backward(spectrum * ball_spectrum(box, radius, settings.harmonic_degree))
        high_passed[shell] = cropped.field_ppm[shell] - mean[shell]
    kernel = 1 - ball_spectrum(box, max(shells), settings.harmonic_degree)
    kept = np.abs(kernel) > settings.threshold
    inverse = np.divide(np.float32(1), kernel, out=np.zeros_like(kernel), where=kept)
    local = box.backward(box.forward(high_passed) * inverse)
    valid = np.logical_or.reduce(list(shells.values()))
    return cropped.restore(local, valid, 0, True)


def remove_sharp(
    field_ppm: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    voxel_size_mm: tuple[float, float, float],
    settings: SharpSettings,
    *,
    workers: int = 1,
) -> LocalField:
    """Return the local field of SHARP, in the mask eroded by its one ball; arguments as `remove_vsharp`.

    Raises
    ------
    ValueError
        As `remove_vsharp`.

    References
    ----------
    Schweser et al. (2011), NeuroImage 54:2789.
    """
    one = VSharpSettings(
        max_radius_mm=settings.radius_mm,
        min_radius_mm=settings.radius_mm,
        threshold=settings.threshold,
        harmonic_degree=settings.harmonic_degree,
        mask_share=settings.mask_share,
    )
    return remove_vsharp(field_ppm, mask, voxel_size_mm, one, workers=workers)


def radii_mm(
    largest: float, smallest: float | None, step: float, voxel_size_mm: tuple[float, float, float]
) -> tuple[float, ...]:
    """Return the radii from the largest down; the smallest is always the last.

    Raises
    ------
    ValueError
        Radii out of order or below the largest voxel edge, or a step that is not positive.
    """
    smallest = max(voxel_size_mm) if smallest is None else smallest
    check_radius(smallest, voxel_size_mm)
    if not (largest >= smallest and step > 0):
        raise ValueError(
            f"{STAGE}: expected a largest radius of at least the smallest and a positive step, found {largest:g} mm, "
            f"{smallest:g} mm and {step:g} mm."
        )
    radii = [largest - step * i for i in range(int(np.floor((largest - smallest) / step + 1e-6)) + 1)]
    if radii[-1] - smallest > 1e-6:
        radii.append(smallest)
    return tuple(radii)


def check_radius(radius_mm: float, voxel_size_mm: tuple[float, float, float]) -> None:
    """Check that a ball reaches the next voxel along every axis.

    Raises
    ------
    ValueError
        It does not: the ball would be flat, or one voxel, for which field minus mean is 0.
    """
    if not radius_mm >= max(voxel_size_mm) * (1 - 1e-6):
        raise ValueError(
            f"{STAGE}: a radius of {radius_mm:g} mm is below the largest voxel edge, {max(voxel_size_mm):g} mm: the "
            "ball would hold no neighbour along that axis. Take a radius of at least that edge."
        )


def ball_shells(
    mask: Bool[np.ndarray, "x y z"], box: FourierBox, radii: tuple[float, ...], mask_share: float = 0.999
) -> dict[float, Bool[np.ndarray, "x y z"]]:
    """Return, for each radius that fits anywhere, the voxels for which it is the largest that fits.

    A ball fits where more than `mask_share` of its voxels lie in the mask (all of them, for 1), counted in whole
    voxels.

    Parameters
    ----------
    mask
        In its bounding box, the shape of `box`.
    radii
        From the largest down.
    mask_share
        Above 0, at most 1.

    Raises
    ------
    ValueError
        No radius fits anywhere, or a share that is none.
    """
    if not 0 < mask_share <= 1:
        raise ValueError(f"{STAGE}: expected a share of a ball above 0 and at most 1, found {mask_share:g}.")
    spectrum = box.forward(mask.astype(np.float32))
    free = mask.copy()
    shells: dict[float, Bool[np.ndarray, "x y z"]] = {}
    for radius in radii:
        ball = inside_ball(box.voxel_size_mm, radius)
        if any(n > m for n, m in zip(ball.shape, box.padded, strict=True)):
            continue
        n_ball = int(np.count_nonzero(ball))
        n_least = min(n_ball, int(np.floor(mask_share * n_ball)) + 1)
        n_inside = box.backward(spectrum * ball_spectrum(box, radius, counts=True))
        shell = free & (n_inside > n_least - 0.5)
        if shell.any():
            shells[radius] = shell
            free &= ~shell
    if not shells:
        raise ValueError(
            f"{STAGE}: no ball of {radii[-1]:g} mm fits into the mask of {int(mask.sum())} voxels (bounding box "
            f"{mask.shape}). Take a larger mask or a smaller radius."
        )
    return shells
