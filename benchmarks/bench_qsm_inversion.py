"""Dipole inversions of the simulated head from its true local field with 1.15 ppb of noise (methods/qsm.md 16).

Every method at its defaults on three grids and three seeds: scores as mean and standard deviation over the seeds,
least CPU and wall-clock seconds of the seeds (compiled kernels warm), and the arrays that a method adds at its peak.
"""

import tracemalloc

import numpy as np

from benchmarks.measure import Measurement, cpu_seconds, wall_seconds
from benchmarks.qsm_scores import MapScores, score_map
from brainlocus.images.qsm.inversion import INVERSIONS, InversionSettings, Susceptibility, invert_dipole
from brainlocus.images.qsm.tv import published_tv_settings
from brainlocus.simulate import SimulatedHead, simulate_head

GRIDS = ("1.5mm", "1mm", "ukb")
SEEDS = (0, 1, 2)
WORKERS = 2
TARGETS = {("tv", "1mm"): 33.0, ("tv", "ukb"): 34.0, ("ilsqr", "1.5mm"): 44.0}
SECONDS = {"tkd": 2.0, "tv": 60.0, "ilsqr": 60.0}
"""Asked of wall-clock seconds on two free cores, UK Biobank's grid."""
METHODS: dict[str, InversionSettings] = {
    **{name: settings() for name, settings in INVERSIONS.items()},
    "tv as published": published_tv_settings(),
}


def run() -> list[Measurement]:
    warm = simulate_head("3mm", seed=0)
    for settings in METHODS.values():
        _inverted(warm.noisy_local_field(), warm, settings)
    return [row for grid in GRIDS for row in of_grid(grid)]


def of_grid(grid: str) -> list[Measurement]:
    """Return the rows of one grid."""
    scores: dict[str, list[MapScores]] = {name: [] for name in METHODS}
    costs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in METHODS}
    for seed in SEEDS:
        head = simulate_head(grid, seed=seed, workers=WORKERS)
        field = head.noisy_local_field()
        for name, settings in METHODS.items():
            found, cost = _measured(field, head, settings)
            costs[name].append(cost)
            scores[name].append(_scores(found, head))
    return [row for name in METHODS for row in _rows(grid, name, scores[name], costs[name])]


def _measured(
    field: np.ndarray, head: SimulatedHead, settings: InversionSettings
) -> tuple[Susceptibility, tuple[float, float, float]]:
    """Return the map, CPU and wall-clock seconds, and MiB of arrays at the peak."""
    tracemalloc.start()
    (found, wall), cpu = cpu_seconds(lambda: wall_seconds(lambda: _inverted(field, head, settings)))
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return found, (cpu, wall, peak)


def _inverted(field: np.ndarray, head: SimulatedHead, settings: InversionSettings) -> Susceptibility:
    return invert_dipole(field, head.brain_mask, head.acquisition, settings=settings, workers=WORKERS)


def _scores(found: Susceptibility, head: SimulatedHead) -> MapScores:
    return score_map(
        found.chi_ppm,
        head.chi_ppm,
        head.brain_mask,
        voxel_size_mm=head.acquisition.voxel_size_mm,
        labels=head.labels,
    )


def _rows(grid: str, name: str, scores: list[MapScores], costs: list[tuple[float, float, float]]) -> list[Measurement]:
    def over_seeds(what: str, unit: str, values: list[float], target: float | None = None) -> Measurement:
        spread = f"± {np.std(values, ddof=1):.2f} over {len(values)} seeds"
        return Measurement(f"{grid} {name}: {what}", float(np.mean(values)), unit, target, spread)

    regions = [s.regions for s in scores if s.regions is not None]
    cpu, wall, peak = (min(column) for column in zip(*costs, strict=True))
    return [
        over_seeds("NRMSE", "%", [s.nrmse for s in scores], TARGETS.get((name, grid))),
        over_seeds("detrended", "%", [s.detrended for s in scores]),
        over_seeds("HFEN", "%", [s.hfen for s in scores]),
        over_seeds("region slope", "", [r.slope for r in regions]),
        over_seeds("region mean absolute error", "ppb", [r.mean_absolute_error_ppb for r in regions]),
        Measurement(f"{grid} {name}: CPU time", cpu, "s"),
        Measurement(
            f"{grid} {name}: wall-clock time, {WORKERS} workers",
            wall,
            "s",
            SECONDS.get(name) if grid == "ukb" else None,
        ),
        Measurement(f"{grid} {name}: peak of arrays", peak, "MiB"),
    ]
