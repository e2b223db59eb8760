"""Transcriptome-wide association: predicted expression and thousands of phenotypes, and all that follows from it."""

from brainlocus.genetics.twas.alignment import AlignedGwas, AlignmentRules, ModelSnps, align_gwas, unite_snps
from brainlocus.genetics.twas.diagnosis import explain_no_overlap, genome_build_of, id_style
from brainlocus.genetics.twas.spredixcan import (
    GeneWeights,
    PhenotypeBlock,
    TissueModel,
    prepare_tissue,
    scan_genes,
    scan_genes_peak_bytes,
    weigh_genes,
)
from brainlocus.genetics.twas.statistics import GwasStatistics, gwas_statistics

__all__ = [
    "AlignedGwas",
    "AlignmentRules",
    "GeneWeights",
    "GwasStatistics",
    "ModelSnps",
    "PhenotypeBlock",
    "TissueModel",
    "align_gwas",
    "explain_no_overlap",
    "genome_build_of",
    "gwas_statistics",
    "id_style",
    "prepare_tissue",
    "scan_genes",
    "scan_genes_peak_bytes",
    "unite_snps",
    "weigh_genes",
]
