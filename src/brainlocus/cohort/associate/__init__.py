"""Traits against everything measured in the same people."""

from brainlocus.cohort.associate.boundaries import (
    boundary_share,
    correlation,
    gradient_magnitude,
    mirror_places,
    symmetry_r,
)
from brainlocus.cohort.associate.clusters import (
    Clusters,
    find_clusters,
    largest_cluster,
)
from brainlocus.cohort.associate.comparison import (
    Agreement,
    Difference,
    agreement,
    bland_altman_coordinates,
    correlation_difference,
    measure_correlation,
)
from brainlocus.cohort.associate.effective_tests import (
    EffectiveDesign,
    EffectiveTests,
    effective_tests,
    prepare_effective,
    sidak_level,
    simulate_smallest_p,
)
from brainlocus.cohort.associate.peaks import (
    find_peaks,
)
from brainlocus.cohort.associate.permutation import (
    PermutedLargest,
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
    phenome_rows,
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
from brainlocus.cohort.associate.tfce import (
    FaceNeighbours,
    enhance_clusters,
    face_neighbours,
)
from brainlocus.cohort.associate.voxel_scores import (
    VoxelScores,
    score_voxels,
    score_voxels_bytes,
)
from brainlocus.cohort.associate.voxelwise import (
    TargetGroup,
    VoxelwiseDesign,
    VoxelwiseMaps,
    VoxelwiseSums,
    add_voxelwise,
    finish_voxelwise,
    prepare_one_sample,
    prepare_voxelwise,
    start_voxelwise,
    voxel_means,
    voxels_at_once,
    voxelwise_bytes,
)

__all__ = [
    "Agreement",
    "Clusters",
    "Difference",
    "EffectiveDesign",
    "EffectiveTests",
    "FaceNeighbours",
    "Interval",
    "PermutedLargest",
    "PhenomeDesign",
    "PhenomeScan",
    "Reliability",
    "TargetGroup",
    "VoxelScores",
    "VoxelwiseDesign",
    "VoxelwiseMaps",
    "VoxelwiseSums",
    "add_voxelwise",
    "agreement",
    "bland_altman_coordinates",
    "boundary_share",
    "correlation",
    "correlation_difference",
    "effective_tests",
    "enhance_clusters",
    "face_neighbours",
    "find_clusters",
    "find_peaks",
    "finish_voxelwise",
    "gradient_magnitude",
    "largest_cluster",
    "measure_correlation",
    "measure_reliability",
    "mirror_places",
    "narrow_group",
    "permutable_residuals",
    "permuted_bytes",
    "permuted_largest",
    "permuted_rows",
    "phenome_results",
    "phenome_rows",
    "prepare_effective",
    "prepare_one_sample",
    "prepare_phenome",
    "prepare_voxelwise",
    "reliability_results",
    "scan_phenome",
    "scan_phenome_peak_bytes",
    "score_voxels",
    "score_voxels_bytes",
    "sidak_level",
    "simulate_smallest_p",
    "start_voxelwise",
    "symmetry_r",
    "voxel_means",
    "voxels_at_once",
    "voxelwise_bytes",
]
