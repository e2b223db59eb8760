"""A smooth rest of the background, taken away as a polynomial of low order fitted inside the mask."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float32

from brainlocus.images.qsm.local_field import STAGE, LocalField, check_field, crop_to_mask

__all__ = ["PolynomialSettings", "remove_polynomial"]


@dataclass(frozen=True, slots=True)
class PolynomialSettings:
    """Choices of the polynomial."""

    order: int = 2
    """Largest sum of exponents. High orders take local fields of large structures away, too."""


def remove_polynomial(
    field_ppm: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    voxel_size_mm: tuple[float, float, float],
    settings: PolynomialSettings,
) -> LocalField:
    """Return the field less its least-squares polynomial in the mask.

    Raises
    ------
    ValueError
        An empty mask, a field that is not finite in it, a negative order, or fewer voxels than coefficients.
    """
    check_field(field_ppm, mask)
    exponents = [e for e in product(range(settings.order + 1), repeat=3) if sum(e) <= settings.order]
    n_voxels = int(mask.sum())
    if settings.order < 0 or n_voxels < len(exponents):
        raise ValueError(
            f"{STAGE}: expected an order of at least 0 and a mask of at least as many voxels as the polynomial has "
            f"coefficients, found order {settings.order} ({len(exponents)} coefficients) and {n_voxels} voxels."
        )
    cropped = crop_to_mask(field_ppm, mask)
    axes = []
    for h, index in zip(voxel_size_mm, np.nonzero(cropped.mask), strict=True):
        position = (index - index.mean()) * h
        axes.append((position / max(float(np.abs(position).max()), h)).astype(np.float64))
    powers = [np.vander(axis, settings.order + 1, increasing=True).T for axis in axes]
    values = cropped.field_ppm[cropped.mask].astype(np.float64)
    terms = np.stack([powers[0][i] * powers[1][j] * powers[2][k] for i, j, k in exponents])
    coefficients = np.linalg.lstsq(terms @ terms.T, terms @ values, rcond=1e-12)[0]
    local = np.zeros_like(cropped.field_ppm)
    local[cropped.mask] = values - coefficients @ terms
    return cropped.restore(local, cropped.mask, 0, True)
