"""Two tables of the same people: modes in which they vary together, judged on held-out people."""

from brainlocus.cohort.multivariate.cca import PLS, RidgeCca, check_unregularised, ridge_grid
from brainlocus.cohort.multivariate.cross_validation import (
    HeldOut,
    PairedTables,
    choose_penalty,
    cross_validate_modes,
    held_out_interval,
    out_of_fold,
)
from brainlocus.cohort.multivariate.folds import FoldPlan, Split, group_folds, plan_folds
from brainlocus.cohort.multivariate.inference import (
    Exchange,
    FinalModel,
    PermutationTest,
    Resampled,
    check_exchange,
    fit_everyone,
    permutation_shares,
    permute_modes,
    resample_modes,
    with_loadings,
)
from brainlocus.cohort.multivariate.model import FittedModes, Method, Penalty, column_correlations, mode_correlations
from brainlocus.cohort.multivariate.neighbours import neighbour_blocks
from brainlocus.cohort.multivariate.parallel_ica import (
    LinkedModes,
    ParallelIca,
    StableComponents,
    count_components,
    fit_parallel_ica,
    linked_modes,
    stable_components,
)
from brainlocus.cohort.multivariate.preparation import Standardised, standardise
from brainlocus.cohort.multivariate.reduced_rank import DEFAULT_THRESHOLDS, SparseReducedRank
from brainlocus.cohort.multivariate.sparse_cca import SparseCca, check_bounds, sparse_grid

__all__ = [
    "DEFAULT_THRESHOLDS",
    "PLS",
    "Exchange",
    "FinalModel",
    "FittedModes",
    "FoldPlan",
    "HeldOut",
    "LinkedModes",
    "Method",
    "PairedTables",
    "ParallelIca",
    "Penalty",
    "PermutationTest",
    "Resampled",
    "RidgeCca",
    "SparseCca",
    "SparseReducedRank",
    "Split",
    "StableComponents",
    "Standardised",
    "check_bounds",
    "check_exchange",
    "check_unregularised",
    "choose_penalty",
    "column_correlations",
    "count_components",
    "cross_validate_modes",
    "fit_everyone",
    "fit_parallel_ica",
    "group_folds",
    "held_out_interval",
    "linked_modes",
    "mode_correlations",
    "neighbour_blocks",
    "out_of_fold",
    "permutation_shares",
    "permute_modes",
    "plan_folds",
    "resample_modes",
    "ridge_grid",
    "sparse_grid",
    "stable_components",
    "standardise",
    "with_loadings",
]
