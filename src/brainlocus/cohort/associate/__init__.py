"""Traits against everything measured in the same people."""

from brainlocus.cohort.associate.phenome import (
    PhenomeDesign,
    PhenomeScan,
    phenome_results,
    prepare_phenome,
    scan_phenome,
    scan_phenome_peak_bytes,
)
from brainlocus.cohort.associate.reliability import (
    Interval,
    Reliability,
    measure_reliability,
    reliability_results,
)

__all__ = [
    "Interval",
    "PhenomeDesign",
    "PhenomeScan",
    "Reliability",
    "measure_reliability",
    "phenome_results",
    "prepare_phenome",
    "reliability_results",
    "scan_phenome",
    "scan_phenome_peak_bytes",
]
