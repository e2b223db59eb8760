"""Quantitative susceptibility mapping: phase to field to local field to susceptibility, and T2*."""

from brainlocus.images.qsm.background import BackgroundSettings, remove_background_field
from brainlocus.images.qsm.combination import Combination, combine_channels, remove_phase_offset
from brainlocus.images.qsm.dephasing import (
    correct_r2star,
    dephasing_rate,
    gradient_confound,
    slice_axis,
    through_slice_gradient,
)
from brainlocus.images.qsm.echoes import FieldEstimate, combine_echoes
from brainlocus.images.qsm.inversion import InversionSettings, Susceptibility, invert_dipole
from brainlocus.images.qsm.masks import magnitude_mask, refine_mask
from brainlocus.images.qsm.reconstruct import (
    BACKGROUND_SETTINGS,
    INVERSION_SETTINGS,
    PRESETS,
    REFERENCES,
    QsmMaps,
    QsmSettings,
    Tissue,
    reconstruct,
    reconstruct_peak_bytes,
)
from brainlocus.images.qsm.referencing import Reference, find_csf, reference
from brainlocus.images.qsm.relaxation import RelaxationFit, fit_relaxation
from brainlocus.images.qsm.reliability import phase_reliability
from brainlocus.images.qsm.single_step import SingleStep, SingleStepSettings, invert_single_step
from brainlocus.images.qsm.unwrapping import residual_wraps, unwrap_series
from brainlocus.images.qsm.weighting import susceptibility_weighting

__all__ = [
    "BACKGROUND_SETTINGS",
    "INVERSION_SETTINGS",
    "PRESETS",
    "REFERENCES",
    "BackgroundSettings",
    "Combination",
    "FieldEstimate",
    "InversionSettings",
    "QsmMaps",
    "QsmSettings",
    "Reference",
    "RelaxationFit",
    "SingleStep",
    "SingleStepSettings",
    "Susceptibility",
    "Tissue",
    "combine_channels",
    "combine_echoes",
    "correct_r2star",
    "dephasing_rate",
    "find_csf",
    "fit_relaxation",
    "gradient_confound",
    "invert_dipole",
    "invert_single_step",
    "magnitude_mask",
    "phase_reliability",
    "reconstruct",
    "reconstruct_peak_bytes",
    "reference",
    "refine_mask",
    "remove_background_field",
    "remove_phase_offset",
    "residual_wraps",
    "slice_axis",
    "susceptibility_weighting",
    "through_slice_gradient",
    "unwrap_series",
]
