"""Signal lost to field gradients through a slice, and what it does to R2*.

A field that changes by g Hz from one slice to the next (linearly, in slices with sharp edges that touch) turns the
signal within a slice by up to 2 pi g TE, and its sum shrinks to

::

    A(TE) = |sinc(g TE)|,    sinc(x) = sin(pi x) / (pi x)
    R2*_apparent = R2* + dR,    dR = (ln A(TE1) - ln A(TE2)) / (TE2 - TE1) ~ (pi^2 / 6) g^2 (TE1 + TE2)

The signal vanishes at g TE = 1; beyond 0.9 at the last echo dR is NaN. g is taken from the field *with* its background,
unwrapped exactly: what dephases a slice is the whole field, and Laplacian unwrapping bends it.

References
----------
Fernandez-Seara & Wehrli (2000), Magn Reson Med 44:358; Hernando et al. (2012), Magn Reson Med 68:830.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from brainlocus.core import Parcellation
from brainlocus.numerics.orientation import slice_axis

__all__ = [
    "DephasingSettings",
    "GradientConfound",
    "attenuation",
    "correct_r2star",
    "dephasing_rate",
    "gradient_confound",
    "slice_axis",
    "small_gradient_rate",
    "through_slice_gradient",
]


@dataclass(frozen=True, slots=True)
class DephasingSettings:
    """Where the model is believed."""

    largest_cycles: float = 0.9
    """Largest |g| times the last echo time that has a dR; the signal vanishes at 1."""
    largest_gradient_hz: float = 20.0
    """Largest |g| in Hz a slice up to which R2* is corrected; above, the model is off by more than a tenth."""

    def __post_init__(self) -> None:
        if not 0 < self.largest_cycles < 1 or not self.largest_gradient_hz > 0:
            raise ValueError(f"Expected largest_cycles between 0 and 1 and largest_gradient_hz above 0, found {self}.")


@dataclass(frozen=True, slots=True, eq=False)
class GradientConfound:
    """What to regress from a region's T2* or R2* (not from its susceptibility)."""

    names: tuple[str, ...]
    rate: Float[np.ndarray, " regions"]
    """Median dR, 1/s; NaN without a voxel."""
    gradient_hz: Float[np.ndarray, " regions"]
    """Median |g|, Hz a slice."""
    squared_gradient_hz2: Float[np.ndarray, " regions"]
    """Median g^2."""
    n_voxels: Int[np.ndarray, " regions"]
    """Voxels of the region with a gradient."""
    n_lost: Int[np.ndarray, " regions"]
    """Of these, voxels without a dR: their signal is (nearly) gone."""


def through_slice_gradient(
    field_hz: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], *, axis: int
) -> Float32[np.ndarray, "x y z"]:
    """Return the change of the field from one slice to the next, in Hz.

    Central differences; one-sided where only one neighbour lies in the mask; NaN outside it and where neither does.

    Parameters
    ----------
    field_hz
        Unwrapped exactly, background included; finite in the mask.
    axis
        Across the slices; see `slice_axis`.

    Raises
    ------
    ValueError
        The axis is not 0, 1 or 2.

    Examples
    --------
    >>> field = np.array([0.0, 1.0, 4.0, 9.0]).reshape(1, 1, 4)
    >>> through_slice_gradient(field, field >= 0, axis=2).ravel().tolist()
    [1.0, 2.0, 4.0, 5.0]
    """
    if axis not in (0, 1, 2):
        raise ValueError(f"Expected a slice axis of 0, 1 or 2, found {axis}.")
    field, inside = np.moveaxis(field_hz, axis, 2), np.moveaxis(mask, axis, 2)
    step = np.diff(np.where(inside, field, 0.0), axis=2)
    both = inside[:, :, 1:] & inside[:, :, :-1]
    total = np.zeros(inside.shape)
    count = np.zeros(inside.shape, dtype=np.int8)
    for slices in (slice(1, None), slice(None, -1)):  # the step from below, and the step to above
        total[:, :, slices] += np.where(both, step, 0.0)
        count[:, :, slices] += both
    gradient = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(gradient, 2, axis))


def attenuation(
    gradient_hz: Float[np.ndarray, "..."], echo_time_s: float, *, sub_slices: int | None = None
) -> Float[np.ndarray, "..."]:
    """Return A, the share of the signal that is left at an echo time.

    Parameters
    ----------
    sub_slices
        None: a continuous slice, |sinc(g TE)|. A number n: the slice is the mean of n points, as in a simulation with n
        fine slices: |sin(pi g TE) / (n sin(pi g TE / n))|, which falls more slowly.

    Examples
    --------
    >>> attenuation(np.array([0.0, 25.0, 50.0]), 0.02).round(3).tolist()
    [1.0, 0.637, 0.0]
    """
    cycles = np.asarray(gradient_hz, dtype=np.float64) * echo_time_s
    if sub_slices is None:
        return np.asarray(np.abs(np.sinc(cycles)))
    offsets = (np.arange(sub_slices) - (sub_slices - 1) / 2) / sub_slices
    return np.asarray(np.abs(sum(np.cos(2 * np.pi * cycles * offset) for offset in offsets)) / sub_slices)


def dephasing_rate(
    gradient_hz: Float[np.ndarray, "x y z"],
    echo_time_s: tuple[float, ...],
    *,
    settings: DephasingSettings | None = None,
    sub_slices: int | None = None,
) -> Float32[np.ndarray, "x y z"]:
    """Return dR in 1/s, what a through-slice gradient adds to R2*.

    Of more than two echoes it is the slope of the line through -ln A(TE), weighted by A^2: as R2* is
    fitted, but for the decay itself.

    Parameters
    ----------
    gradient_hz
        Hz a slice; NaN stays NaN.
    sub_slices
        See `attenuation`.

    Returns
    -------
    array
        NaN where |g| times the last echo time is above `DephasingSettings.largest_cycles`.

    Raises
    ------
    ValueError
        Fewer than two echo times, or not increasing.

    Examples
    --------
    >>> gradient = np.array([10.0, 50.0]).reshape(1, 1, 2)
    >>> [round(float(rate), 2) for rate in dephasing_rate(gradient, (0.0094, 0.020)).ravel()]
    [4.92, nan]
    """
    settings = settings or DephasingSettings()
    _check_times(echo_time_s)
    times = np.asarray(echo_time_s, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        valid = np.abs(gradient_hz) * times[-1] <= settings.largest_cycles
    kept = gradient_hz[valid].astype(np.float64)
    left = np.stack([attenuation(kept, time, sub_slices=sub_slices) for time in times])
    weight = left**2
    centred = times[:, None] - (weight * times[:, None]).sum(axis=0) / weight.sum(axis=0)
    rate = np.full(gradient_hz.shape, np.nan, dtype=np.float32)
    rate[valid] = -(weight * centred * np.log(left)).sum(axis=0) / (weight * centred**2).sum(axis=0)
    return rate


def small_gradient_rate(
    gradient_hz: Float[np.ndarray, "..."], echo_time_s: tuple[float, float]
) -> Float[np.ndarray, "..."]:
    """Return (pi^2 / 6) g^2 (TE1 + TE2), the first term of dR for two echoes: below 15 Hz and 20 ms within a fifth.

    Raises
    ------
    ValueError
        The echo times do not increase.
    """
    _check_times(echo_time_s)
    return np.asarray(np.pi**2 / 6 * np.asarray(gradient_hz, dtype=np.float64) ** 2 * sum(echo_time_s))


def correct_r2star(
    r2star: Float32[np.ndarray, "x y z"],
    rate: Float32[np.ndarray, "x y z"],
    gradient_hz: Float32[np.ndarray, "x y z"],
    *,
    settings: DephasingSettings | None = None,
) -> Float32[np.ndarray, "x y z"]:
    """Return R2* - dR where the model holds; NaN where it does not, or where nothing above 0 is left.

    Examples
    --------
    >>> r2star, rate, gradient = (np.full((1, 1, 1), v, dtype=np.float32) for v in (25.0, 5.0, 10.0))
    >>> correct_r2star(r2star, rate, gradient).item()
    20.0
    """
    settings = settings or DephasingSettings()
    corrected = r2star - rate
    with np.errstate(invalid="ignore"):
        believed = (np.abs(gradient_hz) <= settings.largest_gradient_hz) & (corrected > 0)
    return np.where(believed, corrected, np.float32(np.nan))


def gradient_confound(
    gradient_hz: Float32[np.ndarray, "x y z"], rate: Float32[np.ndarray, "x y z"], regions: Parcellation
) -> GradientConfound:
    """Return the gradient's medians over regions.

    A voxel without dR has lost its signal: in the median of dR it counts as infinitely fast, so that the worst regions
    do not look best; a region that has lost half of its voxels has no median.
    """
    flat = regions.labels.ravel()
    order = np.argsort(flat, kind="stable")
    labels = sorted(regions.names)
    starts = np.searchsorted(flat, labels, side="left", sorter=order)
    ends = np.searchsorted(flat, labels, side="right", sorter=order)
    gradient, rates = gradient_hz.ravel(), rate.ravel()
    rows = []
    for start, end in zip(starts, ends, strict=True):
        voxels = order[start:end]
        voxels = voxels[np.isfinite(gradient[voxels])]
        g = np.abs(gradient[voxels].astype(np.float64))
        lost = int(np.isnan(rates[voxels]).sum())
        if not len(voxels):
            rows.append((np.nan, np.nan, np.nan, 0, 0))
            continue
        middle = float(np.median(np.where(np.isnan(rates[voxels]), np.inf, rates[voxels]).astype(np.float64)))
        median = float(np.median(g))
        rows.append((middle if np.isfinite(middle) else np.nan, median, float(np.median(g**2)), len(voxels), lost))
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    return GradientConfound(
        names=tuple(regions.names[label] for label in labels),
        rate=np.array(columns[0], dtype=np.float64),
        gradient_hz=np.array(columns[1], dtype=np.float64),
        squared_gradient_hz2=np.array(columns[2], dtype=np.float64),
        n_voxels=np.array(columns[3], dtype=np.int64),
        n_lost=np.array(columns[4], dtype=np.int64),
    )


def _check_times(echo_time_s: tuple[float, ...]) -> None:
    if len(echo_time_s) < 2 or not (np.diff(echo_time_s) > 0).all():
        raise ValueError(f"Expected two or more increasing echo times, found {list(echo_time_s)}.")
