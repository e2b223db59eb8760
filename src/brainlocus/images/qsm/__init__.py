"""Quantitative susceptibility mapping: phase to field to local field to susceptibility, and T2*."""

from brainlocus.images.qsm.background import BackgroundSettings, remove_background_field
from brainlocus.images.qsm.combination import Combination, OffsetRemoval, combine_channels, remove_phase_offset
from brainlocus.images.qsm.dephasing import (
    DephasingSettings,
    GradientConfound,
    correct_r2star,
    dephasing_rate,
    gradient_confound,
    slice_axis,
    through_slice_gradient,
)
from brainlocus.images.qsm.dipole_problem import DipoleProblem, prepare_dipole_problem
from brainlocus.images.qsm.echoes import FieldEstimate, combine_echoes
from brainlocus.images.qsm.ilsqr import IlsqrSettings
from brainlocus.images.qsm.inversion import InversionSettings, Susceptibility, invert_dipole
from brainlocus.images.qsm.lbv import LbvSettings
from brainlocus.images.qsm.local_field import LocalField
from brainlocus.images.qsm.lsqr import LsqrSettings
from brainlocus.images.qsm.masks import RefinedMask, magnitude_mask, refine_mask
from brainlocus.images.qsm.nltv import NltvSettings
from brainlocus.images.qsm.parabola import ParabolaSettings
from brainlocus.images.qsm.pdf import PdfSettings
from brainlocus.images.qsm.polynomial import PolynomialSettings
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
from brainlocus.images.qsm.referencing import Reference, clean_csf, find_csf, reference
from brainlocus.images.qsm.relaxation import RelaxationFit, RelaxationSettings, fit_relaxation
from brainlocus.images.qsm.reliability import phase_reliability
from brainlocus.images.qsm.resharp import ResharpSettings
from brainlocus.images.qsm.rts import RtsSettings
from brainlocus.images.qsm.single_step import SingleStep, SingleStepSettings, invert_single_step
from brainlocus.images.qsm.tkd import TkdSettings
from brainlocus.images.qsm.tv import TvSettings
from brainlocus.images.qsm.unwrapping import residual_wraps, unwrap_series
from brainlocus.images.qsm.vsharp import SharpSettings, VSharpSettings
from brainlocus.images.qsm.weighting import WeightedImage, WeightingSettings, susceptibility_weighting

__all__ = [
    "BACKGROUND_SETTINGS",
    "INVERSION_SETTINGS",
    "PRESETS",
    "REFERENCES",
    "BackgroundSettings",
    "Combination",
    "DephasingSettings",
    "DipoleProblem",
    "FieldEstimate",
    "GradientConfound",
    "IlsqrSettings",
    "InversionSettings",
    "LbvSettings",
    "LocalField",
    "LsqrSettings",
    "NltvSettings",
    "OffsetRemoval",
    "ParabolaSettings",
    "PdfSettings",
    "PolynomialSettings",
    "QsmMaps",
    "QsmSettings",
    "Reference",
    "RefinedMask",
    "RelaxationFit",
    "RelaxationSettings",
    "ResharpSettings",
    "RtsSettings",
    "SharpSettings",
    "SingleStep",
    "SingleStepSettings",
    "Susceptibility",
    "Tissue",
    "TkdSettings",
    "TvSettings",
    "VSharpSettings",
    "WeightedImage",
    "WeightingSettings",
    "clean_csf",
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
    "prepare_dipole_problem",
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
