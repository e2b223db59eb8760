"""Background removals on simulated heads: time, what they keep, and what their error does to regions' susceptibility.

Input: the true total field plus the errors that a scan's noise and dephasing leave in a field combined from both echoes
(exact unwrapping and phase offset taken for granted), in the brain mask less the voxels whose phase is incoherent
(methods/qsm.md section 5). Every local field goes through the same plain inversion, and so does the true local field,
with the same errors and in the whole mask, as what a perfect removal would give. Regions: medians of 20 nuclei against
the mean of the lateral ventricles, in ppb. Means of three seeds, with the smallest and largest.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.images.qsm.background import BackgroundSettings, remove_background_field
from brainlocus.images.qsm.lbv import LbvSettings
from brainlocus.images.qsm.local_field import LocalField
from brainlocus.images.qsm.parabola import ParabolaSettings
from brainlocus.images.qsm.pdf import PdfSettings
from brainlocus.images.qsm.resharp import ResharpSettings
from brainlocus.images.qsm.spheres import ball_spectrum
from brainlocus.images.qsm.vsharp import VSharpSettings
from brainlocus.numerics import FourierBox, dipole_kernel
from brainlocus.simulate.head import SimulatedHead, simulate_head

GRIDS = ("1.5mm", "ukb")
SEEDS = (0, 1, 2)
T2STAR_S = 0.04
COHERENCE = (0.7, 0.6)

WIDE = VSharpSettings(max_radius_mm=25.0, step_mm=2.0, harmonic_degree=4, mask_share=1.0)
METHODS: dict[str, list[BackgroundSettings]] = {
    "V-SHARP 12 mm (ukb)": [VSharpSettings()],
    "parabola, V-SHARP 12 mm, weighted balls": [
        ParabolaSettings(),
        VSharpSettings(harmonic_degree=4, mask_share=1.0),
    ],
    "parabola, V-SHARP 25 mm, weighted balls": [ParabolaSettings(), WIDE],
    "parabola, RESHARP 6 mm, weighted balls": [ParabolaSettings(), ResharpSettings(harmonic_degree=4)],
    "PDF": [PdfSettings()],
    "parabola, PDF, tolerance 0.1": [ParabolaSettings(), PdfSettings(tolerance=0.1)],
    "parabola, PDF (consensus)": [ParabolaSettings(), PdfSettings()],
    "parabola, LBV": [ParabolaSettings(), LbvSettings()],
}


@dataclass(frozen=True, slots=True)
class Score:
    """One method on one head."""

    seconds: float
    kept: float
    """Share of the brain mask."""
    field_own: float
    """NRMSE of the local field in the method's own mask, %."""
    field_core: float
    """The same in the brain mask eroded by 5 mm, the same for all methods."""
    slope: float
    r: float
    error_ppb: float
    """Mean absolute error of the regions."""


def run() -> list[Measurement]:
    return [row for grid in GRIDS for row in rows_of(grid)]


def rows_of(grid: str, seeds: tuple[int, ...] = SEEDS) -> list[Measurement]:
    scores: dict[str, list[Score]] = {"true local field": [], **{name: [] for name in METHODS}}
    for seed in seeds:
        head = simulate_head(grid, seed=seed)
        errors, mask = field_errors(head)
        perfect = np.where(mask, head.local_field_ppm + errors, np.float32(0))
        scores["true local field"].append(score(head, LocalField(perfect, mask, 0, True), 0.0))
        for name, settings in METHODS.items():
            found, seconds = cpu_seconds(
                lambda s=settings, h=head, e=errors, m=mask: remove_background_field(
                    h.total_field_ppm + e, m, h.acquisition, settings=s, workers=2
                )
            )
            scores[name].append(score(head, found, seconds))
    return [row(f"{grid}: {name}", found) for name, found in scores.items()]


def row(name: str, scores: list[Score]) -> Measurement:
    def mean(field: str) -> float:
        return float(np.mean([getattr(s, field) for s in scores]))

    errors = [s.error_ppb for s in scores]
    note = (
        f"{min(errors):.1f}-{max(errors):.1f}; slope {mean('slope'):.2f}, r {mean('r'):.3f}; field NRMSE "
        f"{mean('field_own'):.0f} own, {mean('field_core'):.0f} core; kept {100 * mean('kept'):.0f} %; "
        f"{mean('seconds'):.1f} s CPU"
    )
    return Measurement(name, mean("error_ppb"), "ppb", 12.0, note)


def score(head: SimulatedHead, found: LocalField, seconds: float) -> Score:
    brain, own = head.brain_mask, found.mask
    voxel = head.acquisition.voxel_size_mm
    core = own & (ndimage.distance_transform_edt(brain, sampling=voxel) > 5)
    chi = plain_inversion(found, head)
    regions = np.array([r for r in region_values(head, chi, own)])
    slope = float(np.polyfit(regions[:, 1], regions[:, 0], 1)[0])
    return Score(
        seconds,
        float(own.sum() / brain.sum()),
        nrmse(found.local_field_ppm[own], head.local_field_ppm[own]),
        nrmse(found.local_field_ppm[core], head.local_field_ppm[core]),
        slope,
        float(np.corrcoef(regions.T)[0, 1]),
        float(1e3 * np.abs(regions[:, 0] - regions[:, 1]).mean()),
    )


def nrmse(found: np.ndarray, truth: np.ndarray) -> float:
    """Percent; each less its own mean (methods/qsm.md section 15)."""
    return float(100 * np.std(found.astype(float) - truth) / np.std(truth.astype(float)))


def region_values(head: SimulatedHead, chi: np.ndarray, mask: np.ndarray) -> list[tuple[float, float]]:
    """Found and true median of each nucleus less the mean of the ventricles; half of it must lie in the mask."""
    labels, names = head.labels.labels, {name: label for label, name in head.labels.names.items()}
    fluid = (labels == names["lateral_ventricles"]) & mask
    values = []
    for name, label in names.items():
        region = (labels == label) & mask
        if name.startswith(("left_", "right_")) and region.sum() >= 0.5 * (labels == label).sum():
            values.append(tuple(float(np.median(c[region]) - c[fluid].mean(dtype=float)) for c in (chi, head.chi_ppm)))
    return values


def field_errors(head: SimulatedHead) -> tuple[np.ndarray, np.ndarray]:
    """Return what noise and dephasing add to the combined field in ppm, and the mask less incoherent voxels."""
    acquisition, series = head.acquisition, head.series
    times = np.array(acquisition.echo_time_s)
    weights = times * np.exp(-times / T2STAR_S)
    rad_per_ppm = 2 * np.pi * acquisition.hz_per_ppm
    total = np.zeros(acquisition.shape)
    mask = head.brain_mask.copy()
    box = FourierBox.around(mask.shape, acquisition.voxel_size_mm, 4.0, workers=2)
    ball = ball_spectrum(box, 2.0, counts=True)
    n_neighbours = np.maximum(box.backward(box.forward(mask.astype(np.float32)) * ball), 1)
    for time, weight, phase, least in zip(times, weights, series.phase_rad, COHERENCE, strict=True):
        expected = rad_per_ppm * time * head.total_field_ppm + head.phase_offset_rad
        total += weight * np.angle(np.exp(1j * (phase - expected)))
        parts = [np.where(head.brain_mask, part(phase), np.float32(0)) for part in (np.cos, np.sin)]
        mask &= np.hypot(*(box.backward(box.forward(part) * ball) for part in parts)) / n_neighbours >= least
    largest = ndimage.label(mask)[0]
    mask = largest == 1 + int(np.argmax(np.bincount(largest.ravel())[1:]))
    return (total / (rad_per_ppm * (weights * times).sum())).astype(np.float32), mask


def plain_inversion(
    local: LocalField, head: SimulatedHead, regularisation: float = 2e-4, n_iterations: int = 30
) -> np.ndarray:
    """Total variation by ADMM as in methods/qsm.md section 9: no weights, no mask in the fidelity."""
    acquisition = head.acquisition
    crop = ndimage.find_objects(local.mask.astype(np.int8))[0]
    field = local.local_field_ppm[crop]
    box = FourierBox.around(field.shape, acquisition.voxel_size_mm, 16.0, workers=2)
    kernel, rho = dipole_kernel(box, acquisition.b0_direction), 100 * regularisation
    denominator = kernel**2 + np.float32(rho) * box.gradient_energy().astype(np.float32)
    denominator[0, 0, 0] = 1
    data = kernel * box.forward(field)
    split = [np.zeros(box.padded, np.float32) for _ in range(3)]
    dual = [np.zeros(box.padded, np.float32) for _ in range(3)]
    sizes = [np.float32(h) for h in box.voxel_size_mm]
    for _ in range(n_iterations):
        divergence = np.zeros(box.padded, np.float32)
        for axis, h in enumerate(sizes):
            difference = split[axis] - dual[axis]
            divergence += (np.roll(difference, 1, axis) - difference) / h
        chi = box.backward_padded((data + np.float32(rho) * box.forward(divergence)) / denominator)
        for axis, h in enumerate(sizes):
            step = (np.roll(chi, -1, axis) - chi) / h + dual[axis]
            split[axis] = step - np.clip(step, -regularisation / rho, regularisation / rho)
            dual[axis] = step - split[axis]
    whole = np.zeros(local.mask.shape, np.float32)
    whole[crop] = box.crop(chi)
    return np.where(local.mask, whole, np.float32(0))
