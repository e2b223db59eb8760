"""Maps of many people to a multi-scale structural-covariance atlas."""

from brainlocus.images.atlas.blocks import checked_norms
from brainlocus.images.atlas.compare import adjusted_rand
from brainlocus.images.atlas.em import AtlasFit, fit_em, fit_em_peak_bytes, hoyer_sparsity, orthogonal_loss
from brainlocus.images.atlas.hierarchy import SplitAtlas, split_atlas
from brainlocus.images.atlas.iterations import MuOptions
from brainlocus.images.atlas.labels import atlas_parcellation, component_name
from brainlocus.images.atlas.multiplicative import fit_mu, fit_mu_peak_bytes, initial_weights
from brainlocus.images.atlas.refine import RefinedFit, refine_soft
from brainlocus.images.atlas.soft import Quality, SoftFit, hard_quality, relative
from brainlocus.images.atlas.starts import nndsvd_start
from brainlocus.images.atlas.stochastic import BatchOptions, EpochState, fit_batches, fit_batches_peak_bytes

__all__ = [
    "AtlasFit",
    "BatchOptions",
    "EpochState",
    "MuOptions",
    "Quality",
    "RefinedFit",
    "SoftFit",
    "SplitAtlas",
    "adjusted_rand",
    "atlas_parcellation",
    "checked_norms",
    "component_name",
    "fit_batches",
    "fit_batches_peak_bytes",
    "fit_em",
    "fit_em_peak_bytes",
    "fit_mu",
    "fit_mu_peak_bytes",
    "hard_quality",
    "hoyer_sparsity",
    "initial_weights",
    "nndsvd_start",
    "orthogonal_loss",
    "refine_soft",
    "relative",
    "split_atlas",
]
