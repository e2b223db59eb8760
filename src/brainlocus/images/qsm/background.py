"""Background-field removal: one entrance to every method.

The field of sources outside the mask (air, bone, shim) is harmonic inside it; the local field, of sources inside, is
not. All methods use that, in different ways, and leave the local field with a harmonic rest of their own.

A sequence of settings runs one method after another, each on the field and mask that the one before it left, as in LBV
followed by V-SHARP.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from brainlocus.core.gradient_echo import Acquisition
from brainlocus.images.qsm.lbv import LbvSettings, remove_lbv
from brainlocus.images.qsm.local_field import LocalField
from brainlocus.images.qsm.parabola import ParabolaSettings, remove_parabola
from brainlocus.images.qsm.pdf import PdfSettings, remove_pdf
from brainlocus.images.qsm.polynomial import PolynomialSettings, remove_polynomial
from brainlocus.images.qsm.resharp import ResharpSettings, remove_resharp
from brainlocus.images.qsm.vsharp import SharpSettings, VSharpSettings, remove_sharp, remove_vsharp

__all__ = ["BackgroundSettings", "remove_background_field"]

BackgroundSettings = (
    VSharpSettings | SharpSettings | ResharpSettings | PdfSettings | LbvSettings | ParabolaSettings | PolynomialSettings
)
"""The settings of one method say which it is."""


def remove_background_field(
    field_ppm: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "i j k"],
    acquisition: Acquisition,
    *,
    settings: BackgroundSettings | Sequence[BackgroundSettings],
    weight: Float32[np.ndarray, "x y z"] | None = None,
    workers: int = 1,
) -> LocalField:
    """Return the field of the sources inside a mask.

    Parameters
    ----------
    field_ppm
        Total field; read inside the mask only, so NaN outside does not matter.
    mask
        Where the field is known and reliable.
    acquisition
        Voxel sizes and direction of the main field.
    settings
        Of one method, or of several to run in that order; iterations are then summed.
    weight
        Inverse standard deviation of the field, in any unit; PDF alone uses it.
    workers
        Threads of a Fourier transform; results do not depend on them.

    Raises
    ------
    ValueError
        An empty mask, one too small for the method, a field that is not finite in it, shapes that differ, or settings
        that do not suit the voxel size. The message names the stage.

    Examples
    --------
    A linear field has no sources inside the mask.

    >>> from brainlocus.core.volumes import Grid
    >>> acquisition = Acquisition.of(Grid((24, 24, 24), np.eye(4)), (0.02,), 3.0)
    >>> field = np.broadcast_to(np.linspace(0, 1, 24, dtype=np.float32), (24, 24, 24))
    >>> mask = np.zeros((24, 24, 24), dtype=bool)
    >>> mask[2:-2, 2:-2, 2:-2] = True
    >>> local = remove_background_field(field, mask, acquisition, settings=SharpSettings(radius_mm=4.0))
    >>> bool(np.abs(local.local_field_ppm).max() < 1e-5), int(local.mask.sum())
    (True, 1728)
    """
    steps = list(settings) if isinstance(settings, Sequence) else [settings]
    if not steps:
        raise ValueError("Background-field removal: expected at least one method's settings, found none.")
    if not field_ppm.shape == mask.shape == acquisition.shape:
        raise ValueError(
            f"Background-field removal: the field has shape {field_ppm.shape}, the mask {mask.shape}, the acquisition "
            f"{acquisition.shape}; expected the same."
        )
    n_iterations, converged = 0, True
    for step in steps:
        result = _remove(field_ppm, mask, acquisition, step, weight, workers)
        field_ppm, mask = result.local_field_ppm, result.mask
        n_iterations += result.n_iterations
        converged &= result.converged
    return LocalField(field_ppm, mask, n_iterations, converged)


def _remove(
    field_ppm: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    acquisition: Acquisition,
    settings: BackgroundSettings,
    weight: Float32[np.ndarray, "x y z"] | None,
    workers: int,
) -> LocalField:
    size = acquisition.voxel_size_mm
    match settings:
        case VSharpSettings():
            return remove_vsharp(field_ppm, mask, size, settings, workers=workers)
        case SharpSettings():
            return remove_sharp(field_ppm, mask, size, settings, workers=workers)
        case ResharpSettings():
            return remove_resharp(field_ppm, mask, size, settings, workers=workers)
        case PdfSettings():
            return remove_pdf(field_ppm, mask, size, acquisition.b0_direction, settings, weight=weight, workers=workers)
        case LbvSettings():
            return remove_lbv(field_ppm, mask, size, settings)
        case ParabolaSettings():
            return remove_parabola(field_ppm, mask, size, settings, workers=workers)
        case PolynomialSettings():
            return remove_polynomial(field_ppm, mask, size, settings)
