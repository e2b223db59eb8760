"""Transcriptome-wide association: predicted expression and thousands of phenotypes, and all that follows from it."""

from brainlocus.genetics.twas.instruments import Instruments
from brainlocus.genetics.twas.mendelian import (
    CausalEstimate,
    Estimator,
    Heterogeneity,
    causal_estimates,
    heterogeneity,
)
from brainlocus.genetics.twas.mr_jti import MR_JTI_CAUTION, MrJtiResult, MrJtiSettings, mr_jti

__all__ = [
    "MR_JTI_CAUTION",
    "CausalEstimate",
    "Estimator",
    "Heterogeneity",
    "Instruments",
    "MrJtiResult",
    "MrJtiSettings",
    "causal_estimates",
    "heterogeneity",
    "mr_jti",
]
