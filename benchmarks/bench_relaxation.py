"""R2* of a simulated head on UK Biobank's grid: what through-slice gradients add, and what the model takes off again.

For each range of |g| (Hz a slice) in the brain: the mean excess of the two-echo R2* over the truth, the model's, and
that of a slice of three points, which is what the simulation has.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.images.qsm.dephasing import dephasing_rate, small_gradient_rate, through_slice_gradient
from brainlocus.images.qsm.relaxation import RelaxationSettings, fit_relaxation
from brainlocus.simulate import head_settings, simulate_head

EDGES_HZ = (0.0, 5.0, 10.0, 20.0, 30.0, 45.0)


def run(grid: str = "ukb", seeds: tuple[int, ...] = (0, 1, 2)) -> list[Measurement]:
    rows: list[Measurement] = []
    for seed in seeds:
        head = simulate_head(grid, seed=seed, workers=2)
        times = head.acquisition.echo_time_s
        magnitude = head.series.magnitude
        fit, seconds = cpu_seconds(
            lambda m=magnitude, h=head, t=times: fit_relaxation(m, t, h.brain_mask, sigma=h.sigma)
        )
        field = head.total_field_ppm * np.float32(head.acquisition.hz_per_ppm)
        gradient, more = cpu_seconds(lambda f=field, h=head: through_slice_gradient(f, h.brain_mask, axis=2))
        rate, most = cpu_seconds(lambda g=gradient, t=times: dephasing_rate(g, t))
        points = dephasing_rate(gradient, times, sub_slices=3)
        excess = fit.r2star - head.r2star
        size = np.abs(gradient)
        for low, high in pairwise(EDGES_HZ):
            with np.errstate(invalid="ignore"):
                inside = np.isfinite(excess) & np.isfinite(rate) & (size >= low) & (size < high)
            first = float(small_gradient_rate(gradient[inside], (times[0], times[-1])).mean())
            note = (
                f"seed {seed}, n {int(inside.sum())}: sinc {rate[inside].mean():.2f}, three points "
                f"{points[inside].mean():.2f}, first order {first:.2f}; left after sinc "
                f"{(excess - rate)[inside].mean():.2f}, after three points {(excess - points)[inside].mean():.2f}"
            )
            rows.append(
                Measurement(
                    f"R2* excess at |g| {low:g} to {high:g} Hz", float(excess[inside].mean()), "1/s", None, note
                )
            )
        both = np.isfinite(excess) & np.isfinite(rate) & (size < 20)
        model = float(np.corrcoef(excess[both], rate[both])[0, 1])
        plain = float(np.corrcoef(excess[both], size[both])[0, 1])
        rows.append(Measurement("correlation of excess and dR below 20 Hz", model, "", None, f"with |g| {plain:.2f}"))
        everywhere = np.isfinite(excess) & np.isfinite(rate)
        model = float(np.corrcoef(excess[everywhere], rate[everywhere])[0, 1])
        plain = float(np.corrcoef(excess[everywhere], size[everywhere])[0, 1])
        rows.append(Measurement("correlation of excess and dR", model, "", None, f"with |g| {plain:.2f}"))
        rows.append(
            Measurement("two-echo fit, CPU", seconds, "s", None, f"{grid}, {int(head.brain_mask.sum()):,} voxels")
        )
        rows.append(Measurement("gradient and dR, CPU", more + most, "s", None, grid))
        rows.extend(_methods(head.signal[0], head.r2star, head.brain_mask, head.sigma, seed))
    rows.extend(_within_slices())
    return rows


def _within_slices(seed: int = 0) -> list[Measurement]:
    """Compare the excess with the slope inside each slice, known from the same head simulated in fine slices."""
    settings = head_settings("ukb-small")
    thick = simulate_head(settings, seed=seed, workers=2)
    x, y, z = settings.shape
    thin_voxel = (settings.voxel_size_mm[0], settings.voxel_size_mm[1], settings.voxel_size_mm[2] / 3)
    fine = replace(settings, shape=(x, y, 3 * z), voxel_size_mm=thin_voxel, slices_averaged=1)
    thin = simulate_head(fine, seed=seed, workers=2)
    times, hz = thick.acquisition.echo_time_s, np.float32(thick.acquisition.hz_per_ppm)
    fit = fit_relaxation(np.abs(thick.signal), times, thick.brain_mask)
    excess = fit.r2star - thick.r2star
    across = through_slice_gradient(thick.total_field_ppm * hz, thick.brain_mask, axis=2)
    field = (thin.total_field_ppm * hz).reshape(x, y, z, 3)
    exact = dephasing_rate((field[..., 2] - field[..., 0]) * np.float32(1.5), times, sub_slices=3)
    rows = []
    for low, high in pairwise(EDGES_HZ):
        with np.errstate(invalid="ignore"):
            inside = np.isfinite(excess) & np.isfinite(exact) & (np.abs(across) >= low) & (np.abs(across) < high)
        found = excess[inside]
        left = float((found - exact[inside]).mean())
        note = (
            f"excess {found.mean():.2f}, correlation {np.corrcoef(found, exact[inside])[0, 1]:.3f}; ukb-small, no noise"
        )
        rows.append(Measurement(f"left after the slope within slices, {low:g} to {high:g} Hz", left, "1/s", None, note))
    return rows


def _methods(first: np.ndarray, r2star: np.ndarray, mask: np.ndarray, sigma: float, seed: int) -> list[Measurement]:
    """Five echoes of pure decay: error of both fits."""
    times = (0.005, 0.010, 0.015, 0.020, 0.025)
    rng = np.random.default_rng(seed)
    clean = np.abs(first) * np.exp(np.float32(0.0094) * r2star)
    noise = rng.standard_normal((2, len(times), *mask.shape), dtype=np.float32) * np.float32(sigma)
    echoes = np.stack([clean * np.exp(-np.float32(time) * r2star) for time in times])
    magnitude = np.hypot(echoes + noise[0], noise[1])
    rows = []
    for method in ("log-linear", "arlo"):
        fit, seconds = cpu_seconds(
            lambda m=method: fit_relaxation(magnitude, times, mask, sigma=sigma, settings=RelaxationSettings(m))
        )
        error = (fit.r2star - r2star)[mask]
        found = np.isfinite(error)
        note = f"seed {seed}: bias {error[found].mean():.3f} 1/s, {seconds:.2f} s CPU, NaN {int((~found).sum())}"
        rows.append(
            Measurement(
                f"five echoes, {method}, RMS error", float(np.sqrt(np.mean(error[found] ** 2))), "1/s", None, note
            )
        )
    return rows
