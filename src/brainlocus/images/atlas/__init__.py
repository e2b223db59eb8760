"""Maps of many people to a multi-scale structural-covariance atlas."""

from brainlocus.images.atlas.annotate import (
    BILATERAL,
    MIN_FRACTION,
    Annotation,
    Laterality,
    annotate_parcels,
    annotate_parcels_peak_bytes,
)
from brainlocus.images.atlas.em import AtlasFit, fit_em, fit_em_peak_bytes, hoyer_sparsity, orthogonal_loss
from brainlocus.images.atlas.hierarchy import (
    LOOSE,
    AtlasTree,
    ScaleLink,
    ScaleParcels,
    grow_tree,
    link_scales,
    link_scales_peak_bytes,
)
from brainlocus.images.atlas.labels import atlas_parcellation, component_name
from brainlocus.images.atlas.reproducibility import (
    FitAgreement,
    compare_fits,
    compare_fits_peak_bytes,
    match_components,
    unit_components,
)
from brainlocus.numerics.partitions import adjusted_rand

__all__ = [
    "BILATERAL",
    "LOOSE",
    "MIN_FRACTION",
    "Annotation",
    "AtlasFit",
    "AtlasTree",
    "FitAgreement",
    "Laterality",
    "ScaleLink",
    "ScaleParcels",
    "adjusted_rand",
    "annotate_parcels",
    "annotate_parcels_peak_bytes",
    "atlas_parcellation",
    "compare_fits",
    "compare_fits_peak_bytes",
    "component_name",
    "fit_em",
    "fit_em_peak_bytes",
    "grow_tree",
    "hoyer_sparsity",
    "link_scales",
    "link_scales_peak_bytes",
    "match_components",
    "orthogonal_loss",
    "unit_components",
]
