"""Kernels that more than one stage uses. Arrays in, arrays out."""

from brainlocus.numerics.design import Design, covariate_design, design_from_formula, formula_variables
from brainlocus.numerics.missingness import refuse_infinite, same_people
from brainlocus.numerics.multiplicity import benjamini_hochberg_q, bonferroni_p
from brainlocus.numerics.packed import count_packed, decode_packed, read_packed, select_people
from brainlocus.numerics.projection import Basis, covariate_basis, project_out
from brainlocus.numerics.tails import (
    neg_log10_p_from_chi2,
    neg_log10_p_from_t,
    neg_log10_p_from_z,
)
from brainlocus.numerics.transforms import rank_normal

__all__ = [
    "Basis",
    "Design",
    "benjamini_hochberg_q",
    "bonferroni_p",
    "count_packed",
    "covariate_basis",
    "covariate_design",
    "decode_packed",
    "design_from_formula",
    "formula_variables",
    "neg_log10_p_from_chi2",
    "neg_log10_p_from_t",
    "neg_log10_p_from_z",
    "project_out",
    "rank_normal",
    "read_packed",
    "refuse_infinite",
    "same_people",
    "select_people",
]
