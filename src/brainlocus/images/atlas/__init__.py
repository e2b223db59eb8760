"""Maps of many people to a multi-scale structural-covariance atlas."""

from brainlocus.images.atlas.active import ACTIVE_EXPONENT, ActiveSet, hard_active
from brainlocus.images.atlas.annotate import (
    BILATERAL,
    MIN_FRACTION,
    Annotation,
    Laterality,
    annotate_parcels,
    annotate_parcels_peak_bytes,
)
from brainlocus.images.atlas.blocks import checked_norms
from brainlocus.images.atlas.coarse import cell_images, coarse_start, grid_cells, unit_prototypes
from brainlocus.images.atlas.em import AtlasFit, fit_em, fit_em_peak_bytes, hoyer_sparsity, orthogonal_loss
from brainlocus.images.atlas.fit_step import FitStep, Report
from brainlocus.images.atlas.hierarchy import (
    LOOSE,
    AtlasTree,
    ScaleLink,
    ScaleParcels,
    grow_tree,
    link_scales,
    link_scales_peak_bytes,
)
from brainlocus.images.atlas.iterations import MuOptions
from brainlocus.images.atlas.labels import atlas_parcellation, component_name
from brainlocus.images.atlas.multiplicative import fit_mu, fit_mu_peak_bytes, initial_weights
from brainlocus.images.atlas.nested import (
    NESTED_EXPONENT,
    SplitAtlas,
    hard_atlas,
    own_weights,
    parents_of,
    soften_inside,
    split_atlas,
)
from brainlocus.images.atlas.refine import KEPT, RefinedFit, refine_soft
from brainlocus.images.atlas.reproducibility import (
    FitAgreement,
    compare_fits,
    compare_fits_peak_bytes,
    match_components,
    unit_components,
)
from brainlocus.images.atlas.soft import Quality, SoftFit, hard_quality, relative
from brainlocus.images.atlas.starts import nndsvd_start
from brainlocus.images.atlas.stochastic import BatchOptions, EpochState, Weights, fit_batches, fit_batches_peak_bytes
from brainlocus.numerics.partitions import adjusted_rand

__all__ = [
    "ACTIVE_EXPONENT",
    "BILATERAL",
    "KEPT",
    "LOOSE",
    "MIN_FRACTION",
    "NESTED_EXPONENT",
    "ActiveSet",
    "Annotation",
    "AtlasFit",
    "AtlasTree",
    "BatchOptions",
    "EpochState",
    "FitAgreement",
    "FitStep",
    "Laterality",
    "MuOptions",
    "Quality",
    "RefinedFit",
    "Report",
    "ScaleLink",
    "ScaleParcels",
    "SoftFit",
    "SplitAtlas",
    "Weights",
    "adjusted_rand",
    "annotate_parcels",
    "annotate_parcels_peak_bytes",
    "atlas_parcellation",
    "cell_images",
    "checked_norms",
    "coarse_start",
    "compare_fits",
    "compare_fits_peak_bytes",
    "component_name",
    "fit_batches",
    "fit_batches_peak_bytes",
    "fit_em",
    "fit_em_peak_bytes",
    "fit_mu",
    "fit_mu_peak_bytes",
    "grid_cells",
    "grow_tree",
    "hard_active",
    "hard_atlas",
    "hard_quality",
    "hoyer_sparsity",
    "initial_weights",
    "link_scales",
    "link_scales_peak_bytes",
    "match_components",
    "nndsvd_start",
    "orthogonal_loss",
    "own_weights",
    "parents_of",
    "refine_soft",
    "relative",
    "soften_inside",
    "split_atlas",
    "unit_components",
    "unit_prototypes",
]
