"""Features of the epigenome, or of any omics layer, against traits: one regression each, and what follows from all."""

from brainlocus.cohort.associate.epigenome.cells import CellProportions, estimate_cells
from brainlocus.cohort.associate.epigenome.features import (
    STATUS,
    FeatureScan,
    Outcome,
    scan_features,
    scan_features_bytes,
)
from brainlocus.cohort.associate.epigenome.inflation import (
    EmpiricalNull,
    corrected_z,
    fit_empirical_null,
    inflation,
)
from brainlocus.cohort.associate.epigenome.methylation import Winsorised, beta_values, m_values, winsorise
from brainlocus.cohort.associate.epigenome.moderated import Moderated, VariancePrior, fit_variance_prior, moderate
from brainlocus.cohort.associate.epigenome.regions import (
    Candidates,
    Parts,
    candidate_regions,
    n_region_tests,
    pairwise_correlation,
    shrink_region,
)
from brainlocus.cohort.associate.epigenome.surrogates import (
    MOST_FEATURES,
    Surrogates,
    VariableFeatures,
    add_surrogates,
    start_surrogates,
    surrogate_variables,
)

__all__ = [
    "MOST_FEATURES",
    "STATUS",
    "Candidates",
    "CellProportions",
    "EmpiricalNull",
    "FeatureScan",
    "Moderated",
    "Outcome",
    "Parts",
    "Surrogates",
    "VariableFeatures",
    "VariancePrior",
    "Winsorised",
    "add_surrogates",
    "beta_values",
    "candidate_regions",
    "corrected_z",
    "estimate_cells",
    "fit_empirical_null",
    "fit_variance_prior",
    "inflation",
    "m_values",
    "moderate",
    "n_region_tests",
    "pairwise_correlation",
    "scan_features",
    "scan_features_bytes",
    "shrink_region",
    "start_surrogates",
    "surrogate_variables",
    "winsorise",
]
