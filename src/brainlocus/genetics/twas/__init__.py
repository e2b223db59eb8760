"""Transcriptome-wide association: predicted expression and thousands of phenotypes, and all that follows from it."""

from brainlocus.genetics.twas.replication import (
    HemispherePairs,
    TissueMerge,
    TissuePair,
    annotated_hemispheres,
    external_replication,
    internal_replication,
    match_hemispheres,
    pair_tissue,
)

__all__ = [
    "HemispherePairs",
    "TissueMerge",
    "TissuePair",
    "annotated_hemispheres",
    "external_replication",
    "internal_replication",
    "match_hemispheres",
    "pair_tissue",
]
