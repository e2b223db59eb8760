"""Background removal by projection onto dipole fields (PDF): the part of the field that outside sources can explain.

::

    min over chi, 0 in the mask, of  || W (f - D chi) ||^2        local = f - D chi

with D the dipole convolution, W the weight (inverse standard deviation of the field) inside the mask and 0 outside.
Local sources are almost orthogonal to the fields of outside ones, which makes the projection work; conjugate gradients
on the normal equations stop early, which regularises it.

References
----------
Liu et al. (2011), NMR Biomed 24:1129.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from brainlocus.images.qsm.local_field import STAGE, LocalField, check_field, crop_to_mask, peel
from brainlocus.numerics import FourierBox, dipole_kernel
from brainlocus.numerics.conjugate_gradient import conjugate_gradient

__all__ = ["PdfSettings", "outside_operator", "remove_pdf"]

Operator = Callable[[Float32[np.ndarray, "..."]], Float32[np.ndarray, "..."]]


@dataclass(frozen=True, slots=True)
class PdfSettings:
    """Choices of PDF."""

    tolerance: float = 1e-3
    """Of the normal equations' residual. The 0.1 of Liu (2011) stops after 3 iterations, with twenty times the error:
    the right-hand side is nearly all rim (docs/stages/qsm/background.md)."""
    max_iterations: int = 50
    peel: int = 1
    """Layers of voxels (six-neighbour erosion) taken off the mask first: where voxels are thick, dipoles on the voxel
    grid cannot reproduce the steep field at the rim, and what they lack spreads."""
    padding_mm: float = 20.0
    """Room around the mask's bounding box in which sources may lie."""


def remove_pdf(
    field_ppm: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    voxel_size_mm: tuple[float, float, float],
    b0_direction: tuple[float, float, float],
    settings: PdfSettings,
    *,
    weight: Float32[np.ndarray, "x y z"] | None = None,
    workers: int = 1,
) -> LocalField:
    """Return the field that no source outside the (peeled) mask explains, in that mask.

    Parameters
    ----------
    field_ppm
        Total field; read inside the mask only.
    mask
        Where the field is known.
    voxel_size_mm
        Edges of a voxel.
    b0_direction
        Unit vector of the main field along the voxel axes.
    settings
        Where sources may lie and when to stop.
    weight
        Inverse standard deviation of the field, in any unit; finite and at least 0 in the mask. None: equal.
    workers
        Threads of a transform.

    Raises
    ------
    ValueError
        An empty mask, a field that is not finite in it, or a weight that is negative, not finite or 0 everywhere.

    References
    ----------
    Liu et al. (2011), NMR Biomed 24:1129.
    """
    check_field(field_ppm, mask)
    cropped = crop_to_mask(field_ppm, peel(mask, settings.peel))
    squared = _squared_weight(weight, cropped.mask, cropped.box)
    # Padding on either side: sources lie all around the mask.
    box = FourierBox.around(cropped.mask.shape, voxel_size_mm, 2 * settings.padding_mm, workers=workers)
    field_of, source_of = outside_operator(box, cropped.mask, b0_direction)
    solution = conjugate_gradient(
        lambda chi: source_of(squared * field_of(chi)),
        source_of(squared * cropped.field_ppm),
        tolerance=settings.tolerance,
        max_iterations=settings.max_iterations,
    )
    local = cropped.field_ppm - field_of(solution.x)
    return cropped.restore(local, cropped.mask, solution.n_iterations, solution.converged)


def outside_operator(
    box: FourierBox, mask: Bool[np.ndarray, "x y z"], b0_direction: tuple[float, float, float]
) -> tuple[Operator, Operator]:
    """Return the operator from sources outside the mask (in the padded box) to the field inside, and its adjoint."""
    kernel = dipole_kernel(box, b0_direction)
    outside = np.ones(box.padded, dtype=bool)
    outside[tuple(slice(0, n) for n in mask.shape)] = ~mask

    def field_of(chi: Float32[np.ndarray, "a b c"]) -> Float32[np.ndarray, "x y z"]:
        spectrum = box.forward(np.where(outside, chi, np.float32(0)))
        return np.where(mask, box.backward(spectrum * kernel), np.float32(0))

    def source_of(field: Float32[np.ndarray, "x y z"]) -> Float32[np.ndarray, "a b c"]:
        spectrum = box.forward(np.where(mask, field, np.float32(0)))
        return np.where(outside, box.backward_padded(spectrum * kernel), np.float32(0))

    return field_of, source_of


def _squared_weight(
    weight: Float32[np.ndarray, "i j k"] | None, mask: Bool[np.ndarray, "x y z"], box: tuple[slice, slice, slice]
) -> Float32[np.ndarray, "x y z"]:
    """Return the squared weight, its mean square in the mask at 1, 0 outside the mask."""
    if weight is None:
        return mask.astype(np.float32)
    inside = weight[box][mask]
    size = float(np.sqrt(np.mean(np.square(inside, dtype=np.float64)))) if np.isfinite(inside).all() else 0.0
    if not (size > 0 and inside.min() >= 0):
        raise ValueError(f"{STAGE}: expected a weight that is finite and at least 0 in the mask, and not 0 everywhere.")
    squared = np.zeros(mask.shape, dtype=np.float32)
    squared[mask] = (inside / size) ** 2
    return squared
