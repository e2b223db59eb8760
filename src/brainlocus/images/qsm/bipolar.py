"""Readouts of alternating direction: the phase that changes its sign from echo to echo.

Odd echoes carry +g and even ones -g, g a mostly linear phase along the readout axis. After the removal of the offset
(which g entered)::

    A = phi_1 + phi_3 - k phi_2,    k = (TE_1 + TE_3) / TE_2
    m = TE_1 / (TE_2 - TE_1),       f = (2 - k) m - k
    odd echoes: phi - A m / f,      even echoes: phi - A (m + 1) / f

The field cancels in A. Its first part phi_1 + phi_3 - 2 phi_2 is right modulo 2 pi; what k differs from 2 needs phi_2
unwrapped. A is smoothed as a unit vector, then unwrapped; its constant lies within [-pi, pi], for g vanishes near the
middle of the field of view.

References
----------
Eckstein, Dymerska et al. (2018), Magn Reson Med 79:2996.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from brainlocus.core.gradient_echo import GradientEcho
from brainlocus.images.qsm.region_growing import unwrap_region_growing
from brainlocus.images.qsm.romeo_weights import romeo_weights
from brainlocus.images.qsm.smoothing import smooth_phase
from brainlocus.images.qsm.wrapping import wrap_phase

__all__ = ["correct_bipolar"]


def correct_bipolar(
    series: GradientEcho, mask: Bool[np.ndarray, "x y z"], *, smoothing_mm: float = 8.0
) -> GradientEcho:
    """Return a series without its alternating phase; the offset must have been removed before.

    Raises
    ------
    ValueError
        Fewer than three echoes, where the alternating phase cannot be told from a field gradient; or an empty mask.
    """
    times = series.acquisition.echo_time_s
    if len(times) < 3:
        raise ValueError(
            f"Bipolar correction: expected three echoes or more, found {len(times)}. With two, the alternating phase "
            "cannot be told from a field gradient; leave it uncorrected."
        )
    inside = mask & series.valid
    k = (times[0] + times[2]) / times[1]
    m = times[0] / (times[1] - times[0])
    f = (2 - k) * m - k
    first, second, third = series.phase_rad[:3]
    angle = first + third - 2 * second
    beyond = k - 2
    if abs(beyond - round(beyond)) > 1e-6:
        edges = romeo_weights(second, inside, magnitude=series.magnitude[1])
        second = unwrap_region_growing(second, inside, edges)
    angle -= np.float32(beyond) * second
    weight = np.where(inside, series.magnitude[1], np.float32(0))
    smooth = smooth_phase(weight * np.exp(1j * angle), series.acquisition.voxel_size_mm, smoothing_mm)
    alternating = unwrap_region_growing(np.angle(smooth), inside)
    phase = series.phase_rad.copy()
    for echo in range(len(times)):
        share = (m if echo % 2 == 0 else m + 1) / f
        phase[echo] = np.where(inside, wrap_phase(phase[echo] - np.float32(share) * alternating), phase[echo])
    return replace(series, phase_rad=phase)
