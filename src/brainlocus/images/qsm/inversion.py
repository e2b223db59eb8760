"""From the local field to susceptibility: one function, a settings class per method.

::

    F field = D F chi,    D(k) = 1/3 - (k . b)^2 / |k|^2

D is zero on a cone, so that chi has to be made unique: see the module of each method.

============== ======================================================== ==================
settings       method                                                   module
============== ======================================================== ==================
TkdSettings    truncated k-space division                               `tkd`
LsqrSettings   weighted least squares, stopped early                    `lsqr`
IlsqrSettings  the same, its streaks estimated and subtracted           `ilsqr`
TvSettings     total variation                                          `tv`
RtsSettings    rapid two-step                                           `rts`
NltvSettings   total variation with a nonlinear fidelity                `nltv`
============== ======================================================== ==================
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float32

from brainlocus.core.gradient_echo import Acquisition
from brainlocus.images.qsm.dipole_problem import DipoleProblem, Solution, prepare_dipole_problem
from brainlocus.images.qsm.ilsqr import IlsqrSettings, invert_ilsqr
from brainlocus.images.qsm.lsqr import LsqrSettings, invert_lsqr
from brainlocus.images.qsm.nltv import NltvSettings, invert_nltv
from brainlocus.images.qsm.rts import RtsSettings, invert_rts
from brainlocus.images.qsm.tkd import TkdSettings, invert_tkd
from brainlocus.images.qsm.tv import TvSettings, invert_tv

__all__ = ["INVERSIONS", "InversionSettings", "Susceptibility", "invert_dipole"]

InversionSettings: TypeAlias = TkdSettings | LsqrSettings | IlsqrSettings | TvSettings | RtsSettings | NltvSettings

INVERSIONS: dict[str, type[InversionSettings]] = {
    "tkd": TkdSettings,
    "lsqr": LsqrSettings,
    "ilsqr": IlsqrSettings,
    "tv": TvSettings,
    "rts": RtsSettings,
    "nltv": NltvSettings,
}
"""Settings by the name of the method."""


@dataclass(frozen=True, slots=True, eq=False)
class Susceptibility:
    """A susceptibility map, not yet referenced: its constant is arbitrary."""

    chi_ppm: Float32[np.ndarray, "x y z"]
    """0 outside the mask."""
    method: str
    """Name in `INVERSIONS`."""
    n_iterations: int
    """Of the last iterative step; 0 for truncated division."""
    converged: bool
    """Whether the stopping rule was met before the largest number of iterations."""
    change: float
    """What the stopping rule looked at last."""
    residual_ppm: float
    """Root mean square of field - D chi inside the mask, with the mean difference taken out; about the noise of the
    field where neither too much nor too little was regularised."""


def invert_dipole(
    local_field_ppm: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "mask_x mask_y mask_z"],
    acquisition: Acquisition | None = None,
    *,
    settings: InversionSettings,
    voxel_size_mm: Sequence[float] | None = None,
    b0_direction: Sequence[float] | None = None,
    weight: Float[np.ndarray, "weight_x weight_y weight_z"] | None = None,
    magnitude: Float[np.ndarray, "magnitude_x magnitude_y magnitude_z"] | None = None,
    workers: int = 1,
    namespace: Any = None,
    device: Any = None,
) -> Susceptibility:
    """Return the susceptibility map of a local field.

    Parameters
    ----------
    local_field_ppm
        Relative field of the sources inside the mask, finite there; what lies outside is not looked at.
    mask
        Where the field is known. At least one voxel.
    acquisition
        Gives voxel sizes and the main field's direction; or else give both of them.
    settings
        Chooses the method, and how.
    weight
        Reliability of the field, proportional to 1 / sd of its noise; only its ratios matter. Used by all methods
        with a fidelity in the image: lsqr, ilsqr, rts (first step), tv, nltv.
    magnitude
        For the methods with `edge_share` above 0: tv, nltv, and rts in its second step.
    workers
        Threads of the Fourier transforms. Results do not depend on it.
    namespace, device
        Array-API namespace (CuPy, PyTorch through array-api-compat) and its device; None: NumPy, scipy.fft and
        compiled passes. Both agree to rounding.

    Raises
    ------
    AlignmentError
        The images have different shapes.
    ValueError
        Empty mask, a field or weight that is not finite inside it, or a wrong geometry (see `prepare_dipole_problem`).

    Examples
    --------
    >>> from brainlocus.numerics import dipole_field
    >>> chi = np.zeros((24, 24, 24), dtype=np.float32)
    >>> chi[8:16, 8:16, 8:16] = 0.1
    >>> field = dipole_field(chi, (1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
    >>> brain = np.zeros(chi.shape, dtype=bool)
    >>> brain[2:-2, 2:-2, 2:-2] = True
    >>> found = invert_dipole(
    ...     field, brain, settings=TvSettings(), voxel_size_mm=(1.0, 1.0, 1.0), b0_direction=(0.0, 0.0, 1.0)
    ... )
    >>> inside, outside = found.chi_ppm[9:15, 9:15, 9:15].mean(), found.chi_ppm[3:6, 3:6, 3:6].mean()
    >>> round(float(inside - outside), 2)
    0.1
    """
    if acquisition is not None:
        voxel_size_mm, b0_direction = acquisition.voxel_size_mm, acquisition.b0_direction
    if voxel_size_mm is None or b0_direction is None:
        raise ValueError("Give the acquisition, or both voxel_size_mm and b0_direction.")
    problem = prepare_dipole_problem(
        local_field_ppm,
        mask,
        voxel_size_mm,
        b0_direction,
        padding_mm=settings.padding_mm,
        weight=weight,
        magnitude=magnitude,
        workers=workers,
        namespace=namespace,
        device=device,
    )
    method, solution = _invert(problem, settings)
    return Susceptibility(
        chi_ppm=problem.restore(solution.chi_ppm),
        method=method,
        n_iterations=solution.n_iterations,
        converged=solution.converged,
        change=solution.change,
        residual_ppm=_residual(problem, solution),
    )


def _invert(problem: DipoleProblem, settings: InversionSettings) -> tuple[str, Solution]:
    match settings:
        case TkdSettings():
            return "tkd", invert_tkd(problem, settings)
        case LsqrSettings():
            return "lsqr", invert_lsqr(problem, settings)
        case IlsqrSettings():
            return "ilsqr", invert_ilsqr(problem, settings)
        case TvSettings():
            return "tv", invert_tv(problem, settings)
        case RtsSettings():
            return "rts", invert_rts(problem, settings)
        case NltvSettings():
            return "nltv", invert_nltv(problem, settings)


def _residual(problem: DipoleProblem, solution: Solution) -> float:
    """Return the root mean square of field - D chi inside the mask; chi includes what a method put outside the mask."""
    box = problem.box
    model = problem.get_image(box.backward_padded(box.forward(problem.put(solution.chi_ppm)) * problem.kernel))
    field = problem.get_image(problem.field_ppm)
    difference = (field - model)[problem.mask].astype(np.float64)
    return float(difference.std())
