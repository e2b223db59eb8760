"""Transcriptome-wide association: predicted expression and thousands of phenotypes, and all that follows from it."""

from brainlocus.genetics.twas.alignment import AlignedGwas, AlignmentRules, ModelSnps, align_gwas, unite_snps
from brainlocus.genetics.twas.cis import CisDosage, cis_dosage, cis_window, usable_variants
from brainlocus.genetics.twas.diagnosis import explain_no_overlap, genome_build_of, id_style
from brainlocus.genetics.twas.folds import draw_folds, gene_rng
from brainlocus.genetics.twas.jti import JtiModel, JtiSettings, check_similarity, tissue_weights, train_jti
from brainlocus.genetics.twas.spredixcan import (
    GeneWeights,
    PhenotypeBlock,
    TissueModel,
    prepare_tissue,
    scan_genes,
    scan_genes_peak_bytes,
    turn_block,
    weigh_genes,
)
from brainlocus.genetics.twas.statistics import GwasStatistics, gwas_statistics
from brainlocus.genetics.twas.training import (
    ElasticNetModel,
    ElasticNetSettings,
    adjust_expression,
    train_elastic_net,
)

__all__ = [
    "AlignedGwas",
    "AlignmentRules",
    "CisDosage",
    "ElasticNetModel",
    "ElasticNetSettings",
    "GeneWeights",
    "GwasStatistics",
    "JtiModel",
    "JtiSettings",
    "ModelSnps",
    "PhenotypeBlock",
    "TissueModel",
    "adjust_expression",
    "align_gwas",
    "check_similarity",
    "cis_dosage",
    "cis_window",
    "draw_folds",
    "explain_no_overlap",
    "gene_rng",
    "genome_build_of",
    "gwas_statistics",
    "id_style",
    "prepare_tissue",
    "scan_genes",
    "scan_genes_peak_bytes",
    "tissue_weights",
    "train_elastic_net",
    "train_jti",
    "turn_block",
    "unite_snps",
    "usable_variants",
    "weigh_genes",
]
