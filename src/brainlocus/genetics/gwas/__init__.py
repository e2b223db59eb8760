"""Genome-wide association: genotypes x phenotypes -> results, thousands of traits at once."""

from brainlocus.genetics.gwas.chromosomes import HalvedMales, chromosome_classes, normal_build, x_frequency
from brainlocus.genetics.gwas.firth import FirthFit, fit_firth
from brainlocus.genetics.gwas.linear import STATUS, LinearDesign, TraitGroup, prepare_linear
from brainlocus.genetics.gwas.linear_scan import LinearMethod, LinearScan, scan_linear
from brainlocus.genetics.gwas.loco import RidgeFit, predict_genome, stack_peak_bytes, stack_predictions
from brainlocus.genetics.gwas.logistic import LogisticDesign, LogisticSettings, prepare_logistic
from brainlocus.genetics.gwas.logistic_scan import LogisticMethod
from brainlocus.genetics.gwas.method import BlockResult, CallBlock, ScanDesign, ScanSettings, Tallies
from brainlocus.genetics.gwas.replicate import join_replication
from brainlocus.genetics.gwas.ridge import (
    RidgeBlock,
    RidgeDesign,
    RidgeSettings,
    assign_folds,
    block_peak_bytes,
    fit_block,
    prepare_ridge,
    ridge_blocks,
)
from brainlocus.genetics.gwas.saddlepoint import saddlepoint_neg_log10_p
from brainlocus.genetics.gwas.scan import (
    FullScan,
    ScanPlan,
    ScanResult,
    ShardResult,
    expand_full,
    full_results,
    merge_shards,
    prepare_scan,
    scan,
    scan_peak_bytes,
    scan_shard,
    shard_bounds,
)
from brainlocus.genetics.gwas.tallies import QQ_BIN_WIDTH, lambda_gc

__all__ = [
    "QQ_BIN_WIDTH",
    "STATUS",
    "BlockResult",
    "CallBlock",
    "FirthFit",
    "FullScan",
    "HalvedMales",
    "LinearDesign",
    "LinearMethod",
    "LinearScan",
    "LogisticDesign",
    "LogisticMethod",
    "LogisticSettings",
    "RidgeBlock",
    "RidgeDesign",
    "RidgeFit",
    "RidgeSettings",
    "ScanDesign",
    "ScanPlan",
    "ScanResult",
    "ScanSettings",
    "ShardResult",
    "Tallies",
    "TraitGroup",
    "assign_folds",
    "block_peak_bytes",
    "chromosome_classes",
    "expand_full",
    "fit_block",
    "fit_firth",
    "full_results",
    "join_replication",
    "lambda_gc",
    "merge_shards",
    "normal_build",
    "predict_genome",
    "prepare_linear",
    "prepare_logistic",
    "prepare_ridge",
    "prepare_scan",
    "ridge_blocks",
    "saddlepoint_neg_log10_p",
    "scan",
    "scan_linear",
    "scan_peak_bytes",
    "scan_shard",
    "shard_bounds",
    "stack_peak_bytes",
    "stack_predictions",
    "x_frequency",
]
