"""Kernels that more than one stage uses. Arrays in, arrays out.

A module is imported when one of its names is first used: compiled kernels and SciPy take longer to import than many a
command takes to run.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brainlocus.numerics.counts import neg_log10_p_from_binomial, neg_log10_p_from_hypergeometric
    from brainlocus.numerics.cropping import bounding_box
    from brainlocus.numerics.design import Design, covariate_design, design_from_formula, formula_variables
    from brainlocus.numerics.dipole import dipole_field, dipole_kernel
    from brainlocus.numerics.elastic_net import (
        elastic_net_path,
        elastic_net_path_columns,
        elastic_net_paths,
        lambda_path,
        standardise_columns,
    )
    from brainlocus.numerics.elastic_net_cv import cross_validate
    from brainlocus.numerics.fourier import FourierBox, fast_length
    from brainlocus.numerics.masked import PatternSystem, masked_residuals, pattern_systems
    from brainlocus.numerics.missingness import refuse_infinite, same_people
    from brainlocus.numerics.multiplicity import (
        benjamini_hochberg_q,
        benjamini_yekutieli_q,
        bonferroni_p,
        holm_p,
        scoped,
    )
    from brainlocus.numerics.orientation import ras_axes, slice_axis, to_ras
    from brainlocus.numerics.packed import count_packed, decode_packed, read_packed, select_people
    from brainlocus.numerics.partitions import (
        adjusted_mutual_information,
        adjusted_rand,
        joint_counts,
        rand_of_counts,
    )
    from brainlocus.numerics.permutation import (
        family_wise_p,
        flip_people,
        freedman_lane_r,
        permutation_rows,
        permute_people,
        tail_p,
    )
    from brainlocus.numerics.projection import Basis, covariate_basis, project_out
    from brainlocus.numerics.resample import map_points, resample_labels, resample_map, resample_mask
    from brainlocus.numerics.tails import (
        neg_log10_p_from_chi2,
        neg_log10_p_from_t,
        neg_log10_p_from_z,
        z_from_neg_log10_p,
    )
    from brainlocus.numerics.transforms import rank_normal

__all__ = [
    "Basis",
    "Design",
    "FourierBox",
    "PatternSystem",
    "adjusted_mutual_information",
    "adjusted_rand",
    "benjamini_hochberg_q",
    "benjamini_yekutieli_q",
    "bonferroni_p",
    "bounding_box",
    "count_packed",
    "covariate_basis",
    "covariate_design",
    "cross_validate",
    "decode_packed",
    "design_from_formula",
    "dipole_field",
    "dipole_kernel",
    "elastic_net_path",
    "elastic_net_path_columns",
    "elastic_net_paths",
    "family_wise_p",
    "fast_length",
    "flip_people",
    "formula_variables",
    "freedman_lane_r",
    "holm_p",
    "joint_counts",
    "lambda_path",
    "map_points",
    "masked_residuals",
    "neg_log10_p_from_binomial",
    "neg_log10_p_from_chi2",
    "neg_log10_p_from_hypergeometric",
    "neg_log10_p_from_t",
    "neg_log10_p_from_z",
    "pattern_systems",
    "permutation_rows",
    "permute_people",
    "project_out",
    "rand_of_counts",
    "rank_normal",
    "ras_axes",
    "read_packed",
    "refuse_infinite",
    "resample_labels",
    "resample_map",
    "resample_mask",
    "same_people",
    "scoped",
    "select_people",
    "slice_axis",
    "standardise_columns",
    "tail_p",
    "to_ras",
    "z_from_neg_log10_p",
]

_MODULES = {
    "counts": ("neg_log10_p_from_binomial", "neg_log10_p_from_hypergeometric"),
    "cropping": ("bounding_box",),
    "design": ("Design", "covariate_design", "design_from_formula", "formula_variables"),
    "dipole": ("dipole_field", "dipole_kernel"),
    "elastic_net": (
        "elastic_net_path",
        "elastic_net_path_columns",
        "elastic_net_paths",
        "lambda_path",
        "standardise_columns",
    ),
    "elastic_net_cv": ("cross_validate",),
    "fourier": ("FourierBox", "fast_length"),
    "masked": ("PatternSystem", "masked_residuals", "pattern_systems"),
    "missingness": ("refuse_infinite", "same_people"),
    "multiplicity": ("benjamini_hochberg_q", "benjamini_yekutieli_q", "bonferroni_p", "holm_p", "scoped"),
    "orientation": ("ras_axes", "slice_axis", "to_ras"),
    "packed": ("count_packed", "decode_packed", "read_packed", "select_people"),
    "partitions": ("adjusted_mutual_information", "adjusted_rand", "joint_counts", "rand_of_counts"),
    "permutation": ("family_wise_p", "flip_people", "freedman_lane_r", "permutation_rows", "permute_people", "tail_p"),
    "projection": ("Basis", "covariate_basis", "project_out"),
    "resample": ("map_points", "resample_labels", "resample_map", "resample_mask"),
    "tails": ("neg_log10_p_from_chi2", "neg_log10_p_from_t", "neg_log10_p_from_z", "z_from_neg_log10_p"),
    "transforms": ("rank_normal",),
}


def __getattr__(name: str) -> object:
    """Import the module that has an exported name."""
    for module, names in _MODULES.items():
        if name in names:
            value: object = getattr(import_module(f"brainlocus.numerics.{module}"), name)
            return value
    raise AttributeError(f"module 'brainlocus.numerics' has no attribute {name!r}")
