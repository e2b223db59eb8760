"""Genotypes: counts, quality control, relationships, linkage disequilibrium, ancestry components."""

from brainlocus.genetics.genotypes.counts import GenotypeCounts, count_genotypes, counts_peak_bytes
from brainlocus.genetics.genotypes.grm import genetic_relationships, grm_peak_bytes
from brainlocus.genetics.genotypes.hwe import hwe_neg_log10_p, hwe_x_neg_log10_p
from brainlocus.genetics.genotypes.kinship import (
    DEGREES,
    KinshipPairs,
    degree_of,
    kinship_pairs,
    kinship_peak_bytes,
)
from brainlocus.genetics.genotypes.pca import (
    LOCAL_SHARE,
    PrincipalComponents,
    local_shares,
    pca_peak_bytes,
    principal_components,
)
from brainlocus.genetics.genotypes.project import project_people
from brainlocus.genetics.genotypes.prune import PruneSettings, prune_variants
from brainlocus.genetics.genotypes.qc import (
    PRESETS,
    FlowRow,
    QcResult,
    QcSettings,
    duplicate_variants,
    quality_control,
)
from brainlocus.genetics.genotypes.relatives import unrelated_people
from brainlocus.genetics.genotypes.sexes import SexCounts, count_by_sex

__all__ = [
    "DEGREES",
    "LOCAL_SHARE",
    "PRESETS",
    "FlowRow",
    "GenotypeCounts",
    "KinshipPairs",
    "PrincipalComponents",
    "PruneSettings",
    "QcResult",
    "QcSettings",
    "SexCounts",
    "count_by_sex",
    "count_genotypes",
    "counts_peak_bytes",
    "degree_of",
    "duplicate_variants",
    "genetic_relationships",
    "grm_peak_bytes",
    "hwe_neg_log10_p",
    "hwe_x_neg_log10_p",
    "kinship_pairs",
    "kinship_peak_bytes",
    "local_shares",
    "pca_peak_bytes",
    "principal_components",
    "project_people",
    "prune_variants",
    "quality_control",
    "unrelated_people",
]
