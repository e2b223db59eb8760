"""Genotypes: counts, quality control, relationships, ancestry components."""

from brainlocus.genetics.genotypes.counts import GenotypeCounts, count_genotypes, counts_peak_bytes
from brainlocus.genetics.genotypes.grm import genetic_relationships, grm_peak_bytes, standardise
from brainlocus.genetics.genotypes.hwe import hwe_neg_log10_p
from brainlocus.genetics.genotypes.pca import PrincipalComponents, pca_peak_bytes, principal_components
from brainlocus.genetics.genotypes.qc import (
    PRESETS,
    FlowRow,
    QcResult,
    QcSettings,
    duplicate_variants,
    quality_control,
)

__all__ = [
    "PRESETS",
    "FlowRow",
    "GenotypeCounts",
    "PrincipalComponents",
    "QcResult",
    "QcSettings",
    "count_genotypes",
    "counts_peak_bytes",
    "duplicate_variants",
    "genetic_relationships",
    "grm_peak_bytes",
    "hwe_neg_log10_p",
    "pca_peak_bytes",
    "principal_components",
    "quality_control",
    "standardise",
]
