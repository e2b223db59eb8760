"""Genome-wide association: genotypes x phenotypes -> results, thousands of traits at once."""

from brainlocus.genetics.gwas.linear import STATUS, LinearDesign, TraitGroup, prepare_linear
from brainlocus.genetics.gwas.linear_scan import LinearMethod, LinearScan, scan_linear
from brainlocus.genetics.gwas.method import BlockResult, CallBlock, ScanDesign, ScanSettings, Tallies
from brainlocus.genetics.gwas.replicate import join_replication
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
    "FullScan",
    "LinearDesign",
    "LinearMethod",
    "LinearScan",
    "ScanDesign",
    "ScanPlan",
    "ScanResult",
    "ScanSettings",
    "ShardResult",
    "Tallies",
    "TraitGroup",
    "expand_full",
    "full_results",
    "join_replication",
    "lambda_gc",
    "merge_shards",
    "prepare_linear",
    "prepare_scan",
    "scan",
    "scan_linear",
    "scan_peak_bytes",
    "scan_shard",
    "shard_bounds",
]
