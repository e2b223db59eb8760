"""Individual disease signatures from imaging-derived phenotypes."""

from brainlocus.cohort.signatures.spare import (
    FittedHarmoniser,
    Harmoniser,
    SpareModel,
    SpareOptions,
    SparePerformance,
    SpareResult,
    apply_spare,
    cohens_d,
    held_out_splits,
    mean_scores,
    train_spare,
)

__all__ = [
    "FittedHarmoniser",
    "Harmoniser",
    "SpareModel",
    "SpareOptions",
    "SparePerformance",
    "SpareResult",
    "apply_spare",
    "cohens_d",
    "held_out_splits",
    "mean_scores",
    "train_spare",
]
