"""From a gradient-echo series to susceptibility and T2*: the stages in their order.

Data flow::

    GradientEcho, brain mask
      --remove_phase_offset-->     phase in proportion to the echo time
      --phase_reliability-->       mask 2: reliable phase only
      --unwrap, combine-->         total field (ppm) and its noise
      --remove_background_field--> local field, mask 3
      --invert_dipole-->           susceptibility (ppm), unreferenced
      --reference-->               susceptibility relative to fluid
    magnitude --fit_relaxation-->  R2*, T2*
    total field --through_slice_gradient--> what the field's slope across a slice adds to R2*

`QsmSettings` holds the choice of every stage. `PRESETS` has two: ``ukb`` follows the UK Biobank pipeline (Laplacian
unwrapping, V-SHARP, iLSQR); ``consensus`` is for accuracy (exact unwrapping after offset removal, echoes weighted by
their signal, background and inversion in one total-variation problem, which filters model and data alike).

References
----------
Wang et al. (2022), Nat Neurosci 25:818; QSM Consensus (2024), Magn Reson Med 91:1834.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32

from brainlocus.core.gradient_echo import Acquisition, GradientEcho
from brainlocus.images.qsm.background import BackgroundSettings, remove_background_field
from brainlocus.images.qsm.combination import remove_phase_offset
from brainlocus.images.qsm.dephasing import dephasing_rate, slice_axis, through_slice_gradient
from brainlocus.images.qsm.dipole_problem import prepare_dipole_problem
from brainlocus.images.qsm.echoes import EchoWeighting, FieldEstimate, combine_echoes, magnitude_noise
from brainlocus.images.qsm.ilsqr import IlsqrSettings
from brainlocus.images.qsm.inversion import INVERSIONS, InversionSettings, invert_dipole
from brainlocus.images.qsm.lbv import LbvSettings
from brainlocus.images.qsm.masks import refine_mask, reliable_voxels
from brainlocus.images.qsm.parabola import ParabolaSettings
from brainlocus.images.qsm.pdf import PdfSettings
from brainlocus.images.qsm.referencing import Reference, clean_csf, find_csf, reference
from brainlocus.images.qsm.relaxation import RelaxationSettings, fit_relaxation
from brainlocus.images.qsm.reliability import ReliabilityMethod, phase_reliability
from brainlocus.images.qsm.resharp import ResharpSettings
from brainlocus.images.qsm.single_step import SingleStepSettings, invert_single_step
from brainlocus.images.qsm.unwrapping import unwrap_series
from brainlocus.images.qsm.vsharp import SharpSettings, VSharpSettings
from brainlocus.numerics.dipole import dipole_field

__all__ = [
    "BACKGROUND_SETTINGS",
    "INVERSION_SETTINGS",
    "PRESETS",
    "REFERENCES",
    "QsmMaps",
    "QsmSettings",
    "Tissue",
    "reconstruct",
    "reconstruct_peak_bytes",
]

BACKGROUND_SETTINGS: dict[str, type[BackgroundSettings]] = {
    "vsharp": VSharpSettings,
    "sharp": SharpSettings,
    "resharp": ResharpSettings,
    "pdf": PdfSettings,
    "lbv": LbvSettings,
}
"""Settings of the background removals by name."""

SMALL_SPHERE_MM = 10.0
"""Below this the one-step inversion loses contrast of whole nuclei; a brain has room for 25 mm."""

REFERENCES = ("csf", "whole-brain", "white-matter", "none")
"""References that are no region of the segmentation."""

INVERSION_SETTINGS: dict[str, type[InversionSettings | SingleStepSettings]] = {
    **INVERSIONS,
    "single-step": SingleStepSettings,
}
"""Settings of the inversions by name."""


@dataclass(frozen=True, slots=True)
class QsmSettings:
    """One choice for every stage."""

    unwrapping: Literal["laplacian", "romeo"] = "laplacian"
    remove_offset: bool = True
    """Remove the phase at echo time 0; needs two echoes. Exact unwrapping of several echoes needs it."""
    bipolar: bool = False
    """The readout's direction alternates from echo to echo."""
    reliability: ReliabilityMethod = "coherence"
    reliability_radius_mm: float = 2.0
    reliability_thresholds: tuple[float, ...] = (0.7, 0.6)
    """Of the first echo, the second ...; the last one holds for all further echoes."""
    weighting: EchoWeighting = "phase"
    t2star_s: float = 0.040
    """For the weights ``phase`` and ``frequency``."""
    background: BackgroundSettings | tuple[BackgroundSettings, ...] = field(default_factory=VSharpSettings)
    """Ignored by the one-step inversion, which needs none."""
    inversion: InversionSettings | SingleStepSettings = field(default_factory=IlsqrSettings)
    reference: str = "csf"
    """``csf``, ``whole-brain``, ``white-matter``, ``none``, or the name of a region of the segmentation."""
    reference_statistic: Literal["mean", "median"] = "mean"
    reference_fallback: Literal["none", "whole-brain"] = "none"
    """What to refer to where the region is too small."""
    relaxation: RelaxationSettings = field(default_factory=RelaxationSettings)

    def __post_init__(self) -> None:
        if not self.reliability_thresholds:
            raise ValueError("reliability_thresholds: expected one number an echo or one for all, found none.")
        if any(not 0 <= t <= 1 for t in self.reliability_thresholds):
            raise ValueError(
                f"reliability_thresholds: expected numbers from 0 to 1, found {list(self.reliability_thresholds)}."
            )
        for name in ("reliability_radius_mm", "t2star_s"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}: expected a number above 0, found {getattr(self, name)}.")

    def thresholds(self, n_echoes: int) -> tuple[float, ...]:
        """Return one threshold an echo."""
        given = self.reliability_thresholds
        return tuple(given[min(echo, len(given) - 1)] for echo in range(n_echoes))


PRESETS: dict[str, QsmSettings] = {
    "ukb": QsmSettings(),
    "consensus": QsmSettings(unwrapping="romeo", weighting="snr", inversion=SingleStepSettings()),
}
"""`QsmSettings` by name. Constants of ``ukb``: Wang et al. 2022 (methods/qsm.md section 2)."""


@dataclass(frozen=True, slots=True, eq=False)
class Tissue:
    """What a segmentation says, on the series' grid; all optional."""

    ventricles: Bool[np.ndarray, "x y z"] | None = None
    choroid_plexus: Bool[np.ndarray, "x y z"] | None = None
    white_matter: Bool[np.ndarray, "x y z"] | None = None
    region: Bool[np.ndarray, "x y z"] | None = None
    """The region that `QsmSettings.reference` names, if it names one."""


@dataclass(frozen=True, slots=True, eq=False)
class _Inverted:
    """From total field to susceptibility."""

    local_field_ppm: Float32[np.ndarray, "x y z"]
    chi_ppm: Float32[np.ndarray, "x y z"]
    mask: Bool[np.ndarray, "x y z"]
    residual_ppm: Float32[np.ndarray, "x y z"]
    counts: dict[str, float]
    flags: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class QsmMaps:
    """Everything that came out, on the series' grid."""

    acquisition: Acquisition
    brain: Bool[np.ndarray, "x y z"]
    """Mask 1: as given, less voxels without a finite signal."""
    reliable: Bool[np.ndarray, "x y z"]
    """Mask 2."""
    mask: Bool[np.ndarray, "x y z"]
    """Mask 3: where susceptibility is known."""
    reliability: Float32[np.ndarray, "echoes x y z"]
    total_field: FieldEstimate
    local_field_ppm: Float32[np.ndarray, "x y z"]
    """0 outside the mask; of the one-step inversion: the field of its map."""
    chi_ppm: Float32[np.ndarray, "x y z"]
    """Unreferenced, 0 outside the mask."""
    residual_ppm: Float32[np.ndarray, "x y z"]
    """Local field less the field of the map, mean 0; of the one-step inversion both filtered. 0 outside the mask."""
    reference: Reference | None
    """None where none was asked for."""
    reference_region: Bool[np.ndarray, "x y z"]
    reference_name: str
    """``csf (given)``, ``csf (found by R2*)``, ``whole-brain`` ..."""
    r2star: Float32[np.ndarray, "x y z"] | None
    """1/s; None for a single echo. NaN where it is not known."""
    t2star_s: Float32[np.ndarray, "x y z"] | None
    gradient_hz: Float32[np.ndarray, "x y z"] | None
    """Through-slice change of the total field in Hz a slice; None where no exactly unwrapped field is at hand."""
    dephasing_rate: Float32[np.ndarray, "x y z"] | None
    """What that gradient adds to R2*, 1/s."""
    counts: dict[str, float]
    """Numbers for the quality report."""
    flags: tuple[str, ...]
    """What deserves a look, in words."""
    failures: tuple[str, ...]
    """What makes the result unfit for use without one."""

    @property
    def referenced_ppm(self) -> Float32[np.ndarray, "x y z"]:
        """Susceptibility relative to the reference; unreferenced where none was asked for."""
        return self.chi_ppm if self.reference is None else self.reference.chi_ppm


def _with_signal(series: GradientEcho, brain: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Return the voxels of a brain mask that have a finite, non-zero signal in every echo.

    Raises
    ------
    ValueError
        None has.
    """
    inside = brain & series.valid & (series.magnitude > 0).all(axis=0)
    if not inside.any():
        raise ValueError(
            f"Brain mask: none of its {int(brain.sum())} voxels has a signal in every echo. Check that mask and series "
            "belong together."
        )
    return np.asarray(inside)


def reconstruct(
    series: GradientEcho,
    brain: Bool[np.ndarray, "x y z"],
    settings: QsmSettings,
    *,
    tissue: Tissue | None = None,
    offset_removed: bool = False,
    workers: int = 1,
) -> QsmMaps:
    """Return the maps of one series.

    Parameters
    ----------
    brain
        Mask 1, from brain extraction.
    tissue
        Regions to refer to; the ventricles are found by R2* where they are not given.
    offset_removed
        The phase is in proportion to the echo time already, as after `combine_channels`.
    workers
        Threads of a Fourier transform; results do not depend on them.

    Raises
    ------
    ValueError
        A mask is empty, or gets empty at a stage, which is named; or several echoes are to be unwrapped exactly with
        their phase offset in place.
    """
    acquisition = series.acquisition
    n_echoes = len(acquisition.echo_time_s)
    flags: list[str] = []
    failures: list[str] = []
    brain = _with_signal(series, brain)
    noise = magnitude_noise(series.magnitude[-1], brain, acquisition.voxel_size_mm)
    if settings.remove_offset and n_echoes > 1 and not offset_removed:
        removal = remove_phase_offset(series, brain, bipolar=settings.bipolar)
        series = removal.series
        offset_removed = True
        if removal.status == "bipolar not corrected":
            flags.append("Two echoes of alternating readouts: their phase difference cannot be corrected.")
    if settings.unwrapping == "romeo" and n_echoes > 1 and not offset_removed:
        raise ValueError(
            "remove_offset: exact unwrapping of several echoes needs the phase in proportion to the echo time. Remove "
            "the offset, or unwrap by the Laplacian."
        )
    if n_echoes == 1:
        flags.append("A single echo: no offset removal, no T2*.")
    reliability = phase_reliability(
        series, brain, method=settings.reliability, radius_mm=settings.reliability_radius_mm
    )
    thresholds = settings.thresholds(n_echoes)
    refined = refine_mask(brain, reliability, thresholds, acquisition.voxel_size_mm)
    if refined.status == "much removed":
        failures.append(f"Phase reliability kept {refined.share_kept:.0%} of the brain mask, expected 70 % or more.")
    total = _total_field(series, refined.mask, settings, noise, workers)
    inverted = _susceptibility(total, refined.mask, acquisition, settings, workers)
    flags += inverted.flags
    counts = inverted.counts
    mask = inverted.mask & reliable_voxels(reliability, thresholds)
    relaxation = None
    gradient = rate = None
    if n_echoes > 1:
        relaxation = fit_relaxation(
            series.magnitude, acquisition.echo_time_s, brain, sigma=noise, settings=settings.relaxation
        )
        counts["voxels_not_decaying"] = float(relaxation.n_not_falling)
        counts["voxels_below_noise"] = float(relaxation.n_too_few)
        gradient, rate = _dephasing(series, brain, refined.mask, total, settings, offset_removed, workers)
    if not mask.any():
        raise ValueError("Mask 3: no voxel is left after background removal and phase reliability.")
    r2star = None if relaxation is None else relaxation.r2star
    region, name = _reference_region(settings, tissue or Tissue(), mask, acquisition, r2star)
    referenced = _referenced(settings, inverted.chi_ppm, region, mask, acquisition, name)
    if referenced is not None and referenced[0].status != "ok":
        failures.append(
            f"Reference {name}: {referenced[0].n_voxels} voxels, expected 50 and 300 mm3 or more; no referenced map."
        )
    elif referenced is not None and referenced[1] != name:
        flags.append(f"Reference {name} was too small; {referenced[1]} was taken instead.")
    counts |= {
        "brain_voxels": float(brain.sum()),
        "reliable_voxels": float(refined.mask.sum()),
        "mask_voxels": float(mask.sum()),
        "share_reliable": refined.share_kept,
        "largest_hole_mm3": max(refined.large_holes_mm3, default=0.0),
        "noise": total.noise_sd,
        "oblique_degrees": acquisition.oblique_degrees,
        "field_noise_ppb": 1e3 * float(np.median(total.standard_deviation_ppm[refined.mask])),
    }
    zero = np.float32(0)
    return QsmMaps(
        acquisition=acquisition,
        brain=brain,
        reliable=refined.mask,
        mask=mask,
        reliability=reliability,
        total_field=total,
        local_field_ppm=np.where(mask, inverted.local_field_ppm, zero),
        chi_ppm=np.where(mask, inverted.chi_ppm, zero),
        residual_ppm=np.where(mask, inverted.residual_ppm, zero),
        reference=None if referenced is None else referenced[0],
        reference_region=region & mask,
        reference_name=name if referenced is None else referenced[1],
        r2star=r2star,
        t2star_s=None if relaxation is None else relaxation.t2star_s,
        gradient_hz=gradient,
        dephasing_rate=rate,
        counts=counts,
        flags=tuple(flags),
        failures=tuple(failures),
    )


def reconstruct_peak_bytes(shape: tuple[int, int, int], n_echoes: int) -> int:
    """Return the largest memory of `reconstruct` besides the series, for a brain that fills its image.

    Counted in images of single precision. Measured in fresh processes on 128 x 144 x 48 voxels that are all brain: 68
    (``ukb``) and 84 (``consensus``) for two echoes, 89 and 94 for five, 54 to 61 for other inversions and background
    removals. A brain that fills half of its image takes about two thirds of that.
    """
    voxels = int(np.prod(shape))
    return 4 * voxels * (72 + 7 * n_echoes)


def _total_field(
    series: GradientEcho, mask: Bool[np.ndarray, "x y z"], settings: QsmSettings, noise: float, workers: int
) -> FieldEstimate:
    unwrapped = unwrap_series(series, mask, method=settings.unwrapping, workers=workers)
    return combine_echoes(
        unwrapped, series, mask, weighting=settings.weighting, t2star_s=settings.t2star_s, noise_sd=noise
    )


def _susceptibility(
    total: FieldEstimate,
    reliable: Bool[np.ndarray, "x y z"],
    acquisition: Acquisition,
    settings: QsmSettings,
    workers: int,
) -> "_Inverted":
    size, direction = acquisition.voxel_size_mm, acquisition.b0_direction
    weight = _weight(total, reliable)
    notes: list[str] = []
    if isinstance(settings.inversion, SingleStepSettings):
        field_ppm = total.field_ppm
        if settings.inversion.remove_parabola:
            first = ParabolaSettings()
            field_ppm = remove_background_field(
                field_ppm, reliable, acquisition, settings=first, workers=workers
            ).local_field_ppm
        problem = prepare_dipole_problem(
            field_ppm, reliable, size, direction,
            padding_mm=settings.inversion.padding_mm, weight=weight, workers=workers,
        )  # fmt: skip
        one = invert_single_step(problem, settings.inversion)
        chi, mask, residual = one.chi_ppm, one.mask & reliable, one.residual_ppm
        local = dipole_field(chi, size, direction, workers=workers)
        steps = {"inversion": (one.n_iterations, one.converged)}
        if one.largest_radius_mm < SMALL_SPHERE_MM:
            notes.append(
                f"No sphere of more than {one.largest_radius_mm:g} mm fits into the mask: larger structures come out "
                "too weak. --background pdf --inversion tv needs no spheres."
            )
    else:
        background = remove_background_field(
            total.field_ppm, reliable, acquisition, settings=settings.background, weight=weight, workers=workers
        )
        local, mask = background.local_field_ppm, background.mask
        found = invert_dipole(local, mask, acquisition, settings=settings.inversion, weight=weight, workers=workers)
        chi = found.chi_ppm
        residual = local - dipole_field(chi, size, direction, workers=workers)
        residual -= np.float32(residual[mask].mean(dtype=np.float64))
        steps = {
            "background": (background.n_iterations, background.converged),
            "inversion": (found.n_iterations, found.converged),
        }
    counts: dict[str, float] = {f"{name}_iterations": float(n) for name, (n, _) in steps.items()}
    notes += [
        f"The {name} stopped after {n} iterations, before its tolerance."
        for name, (n, converged) in steps.items()
        if not converged
    ]
    return _Inverted(local, chi, mask, residual, counts, notes)


def _weight(total: FieldEstimate, mask: Bool[np.ndarray, "x y z"]) -> Float32[np.ndarray, "x y z"]:
    """Return 1 / standard deviation of the field, bounded by five times its median so that no voxel rules."""
    deviation = total.standard_deviation_ppm
    usable = mask & np.isfinite(deviation) & (deviation > 0)
    if not usable.any():
        return mask.astype(np.float32)
    weight = np.zeros(mask.shape, dtype=np.float32)
    weight[usable] = 1 / deviation[usable]
    return np.minimum(weight, np.float32(5 * np.median(weight[usable])))


def _dephasing(
    series: GradientEcho,
    brain: Bool[np.ndarray, "x y z"],
    reliable: Bool[np.ndarray, "x y z"],
    total: FieldEstimate,
    settings: QsmSettings,
    offset_removed: bool,
    workers: int,
) -> tuple[Float32[np.ndarray, "x y z"] | None, Float32[np.ndarray, "x y z"] | None]:
    """Return the through-slice gradient of an exactly unwrapped total field, and what it adds to R2*."""
    if not offset_removed:
        return None, None
    acquisition = series.acquisition
    if settings.unwrapping == "romeo":
        field_ppm, known = total.field_ppm, reliable
    else:
        first = replace(
            series,
            phase_rad=series.phase_rad[:1],
            magnitude=series.magnitude[:1],
            acquisition=replace(acquisition, echo_time_s=acquisition.echo_time_s[:1]),
        )
        unwrapped = unwrap_series(first, brain, method="romeo", workers=workers)[0]
        field_ppm = unwrapped / np.float32(2 * np.pi * acquisition.echo_time_s[0] * acquisition.hz_per_ppm)
        known = brain
    axis = slice_axis(acquisition.voxel_size_mm)
    gradient = through_slice_gradient(field_ppm * np.float32(acquisition.hz_per_ppm), known, axis=axis)
    return gradient, dephasing_rate(gradient, acquisition.echo_time_s)


def _reference_region(
    settings: QsmSettings,
    tissue: Tissue,
    mask: Bool[np.ndarray, "x y z"],
    acquisition: Acquisition,
    r2star: Float32[np.ndarray, "x y z"] | None,
) -> tuple[Bool[np.ndarray, "x y z"], str]:
    size = acquisition.voxel_size_mm
    if settings.reference == "csf" and tissue.ventricles is not None:
        return clean_csf(tissue.ventricles, size, r2star, tissue.choroid_plexus), "csf (given)"
    if settings.reference == "csf" and r2star is not None:
        return find_csf(r2star, mask, size), "csf (found by R2*)"
    if settings.reference == "whole-brain":
        return mask, "whole-brain"
    if settings.reference == "white-matter" and tissue.white_matter is not None:
        return tissue.white_matter, "white-matter"
    if settings.reference not in REFERENCES and tissue.region is not None:
        return tissue.region, settings.reference
    return np.zeros(mask.shape, dtype=bool), settings.reference


def _referenced(
    settings: QsmSettings,
    chi: Float32[np.ndarray, "x y z"],
    region: Bool[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    acquisition: Acquisition,
    name: str,
) -> tuple[Reference, str] | None:
    """Return the referenced map and what it refers to; None where no reference was asked for."""
    if settings.reference == "none":
        return None
    volume = acquisition.grid.voxel_volume_mm3
    statistic = settings.reference_statistic
    found = reference(chi, region, mask, voxel_volume_mm3=volume, statistic=statistic)
    if found.status == "ok" or settings.reference_fallback == "none":
        return found, name
    return reference(chi, mask, mask, voxel_volume_mm3=volume, statistic=statistic), "whole-brain"
