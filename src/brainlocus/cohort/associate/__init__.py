"""Traits against everything measured in the same people."""

from brainlocus.cohort.associate.phenome import (
    PhenomeDesign,
    PhenomeScan,
    phenome_results,
    prepare_phenome,
    scan_phenome,
    scan_phenome_peak_bytes,
)

__all__ = [
    "PhenomeDesign",
    "PhenomeScan",
    "phenome_results",
    "prepare_phenome",
    "scan_phenome",
    "scan_phenome_peak_bytes",
]
