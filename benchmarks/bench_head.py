"""The simulated head: its fields, its time and memory, and how hard its inversion is (thresholded division)."""

import resource

import numpy as np

from benchmarks.measure import Measurement, cpu_seconds
from benchmarks.qsm_scores import score_map
from brainlocus.numerics.dipole import dipole_kernel
from brainlocus.numerics.fourier import FourierBox
from brainlocus.simulate import SimulatedHead, simulate_head

THRESHOLD = 0.15


def run(grids: tuple[str, ...] = ("1.5mm", "ukb"), seeds: tuple[int, ...] = (0, 1, 2)) -> list[Measurement]:
    rows: list[Measurement] = []
    for grid in grids:
        for seed in seeds:
            head, seconds = cpu_seconds(lambda g=grid, s=seed: simulate_head(g, seed=s, workers=2))
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            inside = head.brain_mask
            total, local = head.total_field_ppm[inside], head.local_field_ppm[inside]
            note = f"largest {1000 * np.abs(total).max():.0f} ppb; local {1000 * _rms(local):.2f} ppb RMS"
            rows.append(Measurement(f"{grid}, seed {seed}: total field, RMS", 1000 * _rms(total), "ppb", None, note))
            rows.append(Measurement(f"{grid}, seed {seed}: CPU", seconds, "s", None, f"{memory:.1f} GiB so far"))
            scores = score_map(
                _divide(head), head.chi_ppm, inside,
                voxel_size_mm=head.acquisition.voxel_size_mm, labels=head.labels,
            )  # fmt: skip
            assert scores.regions is not None
            note = (
                f"detrended {scores.detrended:.1f}, HFEN {scores.hfen:.1f}, regions: slope {scores.regions.slope:.2f}, "
                f"error {scores.regions.mean_absolute_error_ppb:.1f} ppb"
            )
            rows.append(Measurement(f"{grid}, seed {seed}: thresholded division, NRMSE", scores.nrmse, "%", None, note))
    return rows


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


def _divide(head: SimulatedHead) -> np.ndarray:
    """Return the true local field with noise, divided by the dipole kernel where that is above the threshold."""
    field = head.noisy_local_field()
    box = FourierBox.around(field.shape, head.acquisition.voxel_size_mm, 20.0, workers=2)
    kernel = dipole_kernel(box, head.acquisition.b0_direction)
    small = np.abs(kernel) < THRESHOLD
    kernel[small] = np.where(kernel[small] < 0, -THRESHOLD, THRESHOLD)
    return box.backward(box.forward(field) / kernel) * head.brain_mask
