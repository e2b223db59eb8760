"""Genome-wide association: genotypes x phenotypes -> results, thousands of traits at once."""

from brainlocus.genetics.gwas.linear import (
    STATUS,
    LinearDesign,
    LinearScan,
    TraitGroup,
    peak_bytes,
    prepare_linear,
    scan_linear,
)
from brainlocus.genetics.gwas.replicate import join_replication
from brainlocus.genetics.gwas.scan import (
    QQ_BIN_WIDTH,
    FullScan,
    ScanPlan,
    ScanResult,
    ScanSettings,
    ShardResult,
    expand_full,
    full_results,
    lambda_gc,
    merge_shards,
    prepare_scan,
    scan,
    scan_shard,
    shard_bounds,
)

__all__ = [
    "QQ_BIN_WIDTH",
    "STATUS",
    "FullScan",
    "LinearDesign",
    "LinearScan",
    "ScanPlan",
    "ScanResult",
    "ScanSettings",
    "ShardResult",
    "TraitGroup",
    "expand_full",
    "full_results",
    "join_replication",
    "lambda_gc",
    "merge_shards",
    "peak_bytes",
    "prepare_linear",
    "prepare_scan",
    "scan",
    "scan_linear",
    "scan_shard",
    "shard_bounds",
]
