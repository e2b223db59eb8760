"""Maps of many people to a multi-scale structural-covariance atlas."""

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
from brainlocus.numerics.partitions import adjusted_rand

__all__ = [
    "LOOSE",
    "AtlasFit",
    "AtlasTree",
    "ScaleLink",
    "ScaleParcels",
    "adjusted_rand",
    "atlas_parcellation",
    "component_name",
    "fit_em",
    "fit_em_peak_bytes",
    "grow_tree",
    "hoyer_sparsity",
    "link_scales",
    "link_scales_peak_bytes",
    "orthogonal_loss",
]
