"""Susceptibility from wrapped phase to regions: accuracy, time and memory of the presets, and where errors arise.

Input: `simulate_head` as scanned: two echoes of wrapped, noisy, coil-combined phase with a phase offset, and the true
brain mask and ventricles. Regions: medians of 20 nuclei against the ventricles' mean, ppb, beside the truth's in the
same voxels. Means of three seeds, with the smallest and largest.

The ladder starts at the true local field and adds one thing that a real scan has at a time, with the same inversion.
"""

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.measure import Measurement, cpu_seconds, wall_seconds
from benchmarks.qsm_scores import nrmse, region_scores
from brainlocus.images.qsm import PRESETS, SingleStepSettings, Tissue, invert_dipole, reconstruct
from brainlocus.images.qsm.background import BackgroundSettings, remove_background_field
from brainlocus.images.qsm.dipole_problem import prepare_dipole_problem
from brainlocus.images.qsm.parabola import ParabolaSettings
from brainlocus.images.qsm.pdf import PdfSettings
from brainlocus.images.qsm.single_step import invert_single_step
from brainlocus.images.qsm.tv import TvSettings, published_tv_settings
from brainlocus.images.qsm.vsharp import VSharpSettings
from brainlocus.simulate.head import SimulatedHead, simulate_head

GRIDS = ("1.5mm", "ukb")
SEEDS = (0, 1, 2)
NOISE_PPM = 0.00115
TARGETS = {"consensus": {"regions": 12.0}, "ukb": {"wall": 90.0}}

Map = tuple[np.ndarray, np.ndarray]
"""Susceptibility and where it holds."""


def _score(head: SimulatedHead, chi: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    regions = region_scores(chi, head.chi_ppm, mask, head.labels)
    return {
        "regions": regions.mean_absolute_error_ppb,
        "slope": regions.slope,
        "r": regions.r,
        "nrmse": nrmse(chi, head.chi_ppm, mask),
        "kept": 100 * mask.sum() / head.brain_mask.sum(),
    }


def _preset(head: SimulatedHead, name: str) -> dict[str, float]:
    ventricles = next(label for label, called in head.labels.names.items() if called == "lateral_ventricles")
    tissue = Tissue(ventricles=head.labels.labels == ventricles)
    series = head.series
    (maps, wall), cpu = cpu_seconds(
        lambda: wall_seconds(lambda: reconstruct(series, head.brain_mask, PRESETS[name], tissue=tissue, workers=2))
    )
    return {**_score(head, maps.chi_ppm, maps.mask), "cpu": cpu, "wall": wall}


def _total(head: SimulatedHead) -> np.ndarray:
    noise = np.random.default_rng(head.seed + 7).normal(0, NOISE_PPM, head.brain_mask.shape)
    return (head.total_field_ppm + noise).astype(np.float32)


def _two_steps(head: SimulatedHead, field_ppm: np.ndarray, *steps: BackgroundSettings) -> Map:
    mask = head.brain_mask
    if steps:
        local = remove_background_field(field_ppm, mask, head.acquisition, settings=steps, workers=2)
        field_ppm, mask = local.local_field_ppm, local.mask
    found = invert_dipole(field_ppm, mask, head.acquisition, settings=TvSettings(), workers=2)
    return found.chi_ppm, mask


def _published(head: SimulatedHead, field_ppm: np.ndarray) -> Map:
    found = invert_dipole(field_ppm, head.brain_mask, head.acquisition, settings=published_tv_settings(), workers=2)
    return found.chi_ppm, head.brain_mask


def _one_step(head: SimulatedHead, field_ppm: np.ndarray, *, parabola: bool) -> Map:
    mask, acquisition = head.brain_mask, head.acquisition
    if parabola:
        field_ppm = remove_background_field(
            field_ppm, mask, acquisition, settings=ParabolaSettings(), workers=2
        ).local_field_ppm
    problem = prepare_dipole_problem(field_ppm, mask, acquisition.voxel_size_mm, acquisition.b0_direction, workers=2)
    found = invert_single_step(problem, SingleStepSettings())
    return found.chi_ppm, found.mask


LADDER: dict[str, Callable[[SimulatedHead], Map]] = {
    "true local field, published total variation": lambda h: _published(h, h.noisy_local_field()),
    "true local field": lambda h: _two_steps(h, h.noisy_local_field()),
    "true local field through V-SHARP": lambda h: _two_steps(h, h.noisy_local_field(), VSharpSettings()),
    "true total field, V-SHARP": lambda h: _two_steps(h, _total(h), VSharpSettings()),
    "true total field, parabola, V-SHARP": lambda h: _two_steps(h, _total(h), ParabolaSettings(), VSharpSettings()),
    "true total field, parabola, PDF": lambda h: _two_steps(h, _total(h), ParabolaSettings(), PdfSettings()),
    "true total field, one step": lambda h: _one_step(h, _total(h), parabola=False),
    "true total field, parabola, one step": lambda h: _one_step(h, _total(h), parabola=True),
}


def _rows(name: str, scores: list[dict[str, float]], target: dict[str, float]) -> Iterator[Measurement]:
    units = {"regions": "ppb", "slope": "", "r": "", "nrmse": "%", "kept": "%", "cpu": "s", "wall": "s"}
    for key, unit in units.items():
        if key in scores[0]:
            values = [score[key] for score in scores]
            spread = f"{min(values):.3g} to {max(values):.3g}"
            yield Measurement(f"{name}: {key}", float(np.mean(values)), unit, target.get(key), spread)


def run() -> list[Measurement]:
    """Return the table of docs/stages/qsm/accuracy.md."""
    found: list[Measurement] = []
    for grid in GRIDS:
        scores: dict[str, list[dict[str, float]]] = {}
        for seed in SEEDS:
            head = simulate_head(grid, seed=seed, workers=2)
            if seed == SEEDS[0]:
                reconstruct(head.series, head.brain_mask, PRESETS["ukb"], workers=2)  # compiles
            for preset in PRESETS:
                scores.setdefault(f"{grid}, preset {preset}", []).append(_preset(head, preset))
            for rung, function in LADDER.items():
                scores.setdefault(f"{grid}, {rung}", []).append(_score(head, *function(head)))
        for name, values in scores.items():
            preset = name.rpartition("preset ")[2] if "preset" in name else ""
            found += _rows(name, values, TARGETS.get(preset, {}))
    return found
