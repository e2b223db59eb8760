"""Maps of many people to a multi-scale structural-covariance atlas."""

from brainlocus.images.atlas.compare import adjusted_rand
from brainlocus.images.atlas.em import AtlasFit, fit_em, fit_em_peak_bytes, hoyer_sparsity, orthogonal_loss
from brainlocus.images.atlas.labels import atlas_parcellation, component_name

__all__ = [
    "AtlasFit",
    "adjusted_rand",
    "atlas_parcellation",
    "component_name",
    "fit_em",
    "fit_em_peak_bytes",
    "hoyer_sparsity",
    "orthogonal_loss",
]
