"""Traits against everything measured in the same people."""

from brainlocus.cohort.associate.effective_tests import (
    EffectiveDesign,
    EffectiveTests,
    effective_tests,
    prepare_effective,
    sidak_level,
    simulate_smallest_p,
)
from brainlocus.cohort.associate.peaks import find_peaks
from brainlocus.cohort.associate.permutation import (
    narrow_group,
    permutable_residuals,
    permuted_bytes,
    permuted_largest,
    permuted_rows,
)
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
from brainlocus.cohort.associate.tfce import FaceNeighbours, enhance_clusters, face_neighbours
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
    "EffectiveDesign",
    "EffectiveTests",
    "FaceNeighbours",
    "Interval",
    "PhenomeDesign",
    "PhenomeScan",
    "Reliability",
    "TargetGroup",
    "VoxelwiseDesign",
    "VoxelwiseMaps",
    "VoxelwiseSums",
    "add_voxelwise",
    "effective_tests",
    "enhance_clusters",
    "face_neighbours",
    "find_peaks",
    "finish_voxelwise",
    "measure_reliability",
    "narrow_group",
    "permutable_residuals",
    "permuted_bytes",
    "permuted_largest",
    "permuted_rows",
    "phenome_results",
    "prepare_effective",
    "prepare_phenome",
    "prepare_voxelwise",
    "reliability_results",
    "scan_phenome",
    "scan_phenome_peak_bytes",
    "sidak_level",
    "simulate_smallest_p",
    "start_voxelwise",
    "voxels_at_once",
    "voxelwise_bytes",
]
