"""Traits against everything measured in the same people."""

from brainlocus.cohort.associate.peaks import find_peaks
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
from brainlocus.cohort.associate.voxelwise import (
    TargetGroup,
    VoxelwiseDesign,
    VoxelwiseMaps,
    VoxelwiseSums,
    add_voxelwise,
    finish_voxelwise,
    prepare_voxelwise,
    start_voxelwise,
    voxels_at_once,
    voxelwise_bytes,
)

__all__ = [
    "Interval",
    "PhenomeDesign",
    "PhenomeScan",
    "Reliability",
    "TargetGroup",
    "VoxelwiseDesign",
    "VoxelwiseMaps",
    "VoxelwiseSums",
    "add_voxelwise",
    "find_peaks",
    "finish_voxelwise",
    "measure_reliability",
    "phenome_results",
    "prepare_phenome",
    "prepare_voxelwise",
    "reliability_results",
    "scan_phenome",
    "scan_phenome_peak_bytes",
    "start_voxelwise",
    "voxels_at_once",
    "voxelwise_bytes",
]
