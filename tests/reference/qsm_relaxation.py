"""Decay rates read literally: one voxel at a time, by a general minimiser or by the two-echo formula."""

import numpy as np
from scipy.optimize import curve_fit

__all__ = ["naive_exponential", "naive_line", "naive_ratio", "naive_sub_slices"]


def naive_ratio(first: float, second: float, echo_time_s: tuple[float, float]) -> float:
    """Return ln(M1 / M2) / (TE2 - TE1), NaN unless M1 > M2 > 0."""
    if not (first > second > 0):
        return float("nan")
    return float(np.log(first / second) / (echo_time_s[1] - echo_time_s[0]))


def naive_exponential(values: np.ndarray, times: np.ndarray) -> float:
    """Return the rate of the exponential that is nearest to the magnitudes."""
    guess = (values[0], np.log(values[0] / values[-1]) / (times[-1] - times[0]))
    found, _ = curve_fit(lambda t, a, rate: a * np.exp(-rate * t), times, values, p0=guess, xtol=1e-12, ftol=1e-12)
    return float(found[1])


def naive_line(values: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """Return the rate, and its standard error for noise of 1, of a line through ln M weighted by M^2."""
    design = np.stack([np.ones(len(times)), -times], axis=1)
    weight = np.diag(values**2)
    normal = design.T @ weight @ design
    return float(np.linalg.solve(normal, design.T @ weight @ np.log(values))[1]), float(
        np.sqrt(np.linalg.inv(normal)[1, 1])
    )


def naive_sub_slices(gradient_hz: float, time: float, n: int) -> float:
    """Return |mean of exp(2 pi i f TE)| over n fields, equally spaced over one slice."""
    return float(abs(np.mean([np.exp(2j * np.pi * gradient_hz * k / n * time) for k in range(n)])))
