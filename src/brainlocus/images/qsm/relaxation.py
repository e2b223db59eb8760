"""R2* and T2* of a multi-echo series: how fast each voxel's signal decays.

::

    M(TE) = M0 exp(-R2* TE),    T2* = 1 / R2*

Two echoes give R2* = ln(M1 / M2) / (TE2 - TE1). More echoes are fitted on a line of ln M, weighted by M^2 (the inverse
variance of ln M), which for two echoes is the same; or by ARLO, which regresses the signal's fall over three echoes on
its integral there, and so needs no logarithm.

Near the noise floor magnitudes no longer fall (they are Rician), so echoes below `RelaxationSettings.floor` standard
deviations of the noise are left out, with all that follow them.

References
----------
Pei et al. (2015), Magn Reson Med 73:843 (ARLO); Gudbjartsson & Patz (1995), Magn Reson Med 34:910.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int8

__all__ = ["RELAXATION_METHODS", "RelaxationFit", "RelaxationSettings", "fit_relaxation"]

RELAXATION_METHODS = ("log-linear", "arlo")


@dataclass(frozen=True, slots=True)
class RelaxationSettings:
    """How decays are fitted."""

    method: str = "log-linear"
    """One of `RELAXATION_METHODS`; with fewer than three echoes in use both are the ratio of two echoes."""
    floor: float = 3.0
    """Echoes whose magnitude is below this many standard deviations of the noise are left out."""

    def __post_init__(self) -> None:
        if self.method not in RELAXATION_METHODS:
            raise ValueError(f"Expected a method among {', '.join(RELAXATION_METHODS)}; found {self.method!r}.")
        if not self.floor >= 0:
            raise ValueError(f"Expected a floor from 0 up, found {self.floor}.")


@dataclass(frozen=True, slots=True, eq=False)
class RelaxationFit:
    """Decay rates, voxel by voxel."""

    r2star: Float32[np.ndarray, "x y z"]
    """1/s; NaN outside the mask, where fewer than two echoes could be used, and where the signal does not fall."""
    t2star_s: Float32[np.ndarray, "x y z"]
    """1 / R2*, NaN where that is."""
    standard_error: Float32[np.ndarray, "x y z"]
    """Of R2*, 1/s, to first order in the noise; NaN where R2* is, or where the noise is neither given nor estimable."""
    n_echoes: Int8[np.ndarray, "x y z"]
    """Echoes in use; 0 outside the mask."""
    n_not_falling: int
    """Voxels of the mask with two or more echoes that do not fall: NaN, not 0 and not infinity."""
    n_too_few: int
    """Voxels of the mask with fewer than two echoes above the floor."""


def fit_relaxation(
    magnitude: Float32[np.ndarray, "echoes x y z"],
    echo_time_s: tuple[float, ...],
    mask: Bool[np.ndarray, "x y z"],
    *,
    sigma: float | None = None,
    settings: RelaxationSettings | None = None,
) -> RelaxationFit:
    """Fit one decay rate to each voxel of a mask.

    Parameters
    ----------
    magnitude
        In common units over the echoes; values that are not finite or not above 0 end the echoes in use.
    sigma
        Noise of the real and imaginary parts, in the magnitude's unit. Without it no echo is below the floor, and the
        standard error comes from the residuals of the fit, if there are three echoes or more.

    Raises
    ------
    ValueError
        Fewer than two echoes, as many times as echoes are not given, or times that do not increase.

    Examples
    --------
    >>> echoes = np.exp(-20.0 * np.array([0.01, 0.02, 0.03], dtype=np.float32)).reshape(3, 1, 1, 1)
    >>> fit = fit_relaxation(echoes, (0.01, 0.02, 0.03), np.ones((1, 1, 1), dtype=bool))
    >>> round(float(fit.r2star[0, 0, 0]), 3), round(float(fit.t2star_s[0, 0, 0]), 3)
    (20.0, 0.05)
    """
    settings = settings or RelaxationSettings()
    times = np.asarray(echo_time_s, dtype=np.float64)
    if len(times) < 2 or len(times) != magnitude.shape[0] or not (np.diff(times) > 0).all():
        raise ValueError(
            f"Expected two or more echoes with increasing echo times, found {magnitude.shape[0]} echoes and times "
            f"{list(echo_time_s)}. R2* of a single echo is not defined."
        )
    echoes = magnitude[:, mask].astype(np.float64)
    used = _used(echoes, 0.0 if sigma is None else settings.floor * sigma)
    echoes[~used] = 0.0
    count = used.sum(axis=0)
    rate, spread = _log_linear(echoes, used, times)
    variance = _residual_variance(echoes, used, times, rate) if sigma is None else np.full(count.shape, sigma**2)
    if settings.method == "arlo" and len(times) > 2:
        rate = np.where(count > 2, _arlo(echoes, used, times), rate)
    falling = (count >= 2) & (rate > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(variance / spread)
        decay = 1 / rate
    return RelaxationFit(
        r2star=_filled(np.where(falling, rate, np.nan), mask),
        t2star_s=_filled(np.where(falling, decay, np.nan), mask),
        standard_error=_filled(np.where(falling, error, np.nan), mask),
        n_echoes=_counted(count, mask),
        n_not_falling=int(((count >= 2) & ~falling).sum()),
        n_too_few=int((count < 2).sum()),
    )


def _used(echoes: Float[np.ndarray, "echoes voxels"], floor: float) -> Bool[np.ndarray, "echoes voxels"]:
    """Return which echoes come before the first that is not a number, not above 0, or below the floor."""
    with np.errstate(invalid="ignore"):
        good = np.isfinite(echoes) & (echoes > 0) & (echoes >= floor)
    return np.logical_and.accumulate(good, axis=0)


def _log_linear(
    echoes: Float[np.ndarray, "echoes voxels"],
    used: Bool[np.ndarray, "echoes voxels"],
    times: Float[np.ndarray, " echoes"],
) -> tuple[Float[np.ndarray, " voxels"], Float[np.ndarray, " voxels"]]:
    """Return -sum w (t - t_w) ln M / S and S = sum w (t - t_w)^2, w = M^2, t_w the weighted mean time.

    The variance of the rate is sigma^2 / S.
    """
    weight = echoes**2
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(used, np.log(np.where(used, echoes, 1.0)), 0.0)
        centred = times[:, None] - (weight * times[:, None]).sum(axis=0) / weight.sum(axis=0)
        spread = (weight * centred**2).sum(axis=0)
        return -(weight * centred * logs).sum(axis=0) / spread, spread


def _residual_variance(
    echoes: Float[np.ndarray, "echoes voxels"],
    used: Bool[np.ndarray, "echoes voxels"],
    times: Float[np.ndarray, " echoes"],
    rate: Float[np.ndarray, " voxels"],
) -> Float[np.ndarray, " voxels"]:
    """Return the noise variance sum w (ln M - fit)^2 / (n - 2); NaN below three echoes."""
    weight = echoes**2
    with np.errstate(divide="ignore", invalid="ignore"):
        line = np.where(used, np.log(np.where(used, echoes, 1.0)) + rate * times[:, None], 0.0)
        residual = line - (weight * line).sum(axis=0) / weight.sum(axis=0)
        dof = used.sum(axis=0) - 2
        return np.where(dof > 0, (weight * residual**2).sum(axis=0) / np.maximum(dof, 1), np.nan)


def _arlo(
    echoes: Float[np.ndarray, "echoes voxels"],
    used: Bool[np.ndarray, "echoes voxels"],
    times: Float[np.ndarray, " echoes"],
) -> Float[np.ndarray, " voxels"]:
    """Return R2* = (sum s d + b d^2) / (sum s^2 + b s d) over triples of neighbouring echoes.

    s is the integral of the signal over a triple (the parabola through it: Simpson's rule, here for any spacing), d its
    fall from the first to the last echo, and b the last echo's weight in the integral; s = d T2* for an exponential.
    """
    above = np.zeros(echoes.shape[1])
    below = np.zeros(echoes.shape[1])
    for first in range(len(times) - 2):
        one, two = np.diff(times[first : first + 3])
        whole = one + two
        weights = whole / 6 * np.array([2 - two / one, whole**2 / (one * two), 2 - one / two])
        triple = echoes[first : first + 3]
        integral = weights @ triple
        fall = triple[0] - triple[2]
        whole_triple = used[first + 2]
        above += np.where(whole_triple, integral * fall + weights[2] * fall**2, 0.0)
        below += np.where(whole_triple, integral**2 + weights[2] * integral * fall, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return above / below


def _filled(values: Float[np.ndarray, " voxels"], mask: Bool[np.ndarray, "x y z"]) -> Float32[np.ndarray, "x y z"]:
    image = np.full(mask.shape, np.nan, dtype=np.float32)
    image[mask] = values
    return image


def _counted(values: Int[np.ndarray, " voxels"], mask: Bool[np.ndarray, "x y z"]) -> Int8[np.ndarray, "x y z"]:
    image = np.zeros(mask.shape, dtype=np.int8)
    image[mask] = values
    return image
