"""Raw measures to traits fit for association: outliers, normal scores, confounds."""

from brainlocus.cohort.prepare.checks import CloseConfound, Sentinel, suspected_sentinels
from brainlocus.cohort.prepare.confound_set import (
    ConfoundSet,
    ConfoundSetOptions,
    Screening,
    build_confound_set,
    svd_basis,
)
from brainlocus.cohort.prepare.confounds import Deconfounded, deconfound
from brainlocus.cohort.prepare.explained import Explained, explained_by_group
from brainlocus.cohort.prepare.normalise import (
    QuantileMap,
    apply_quantile_map,
    fit_quantile_map,
    normalise,
    standardise,
)
from brainlocus.cohort.prepare.outliers import Outliers, remove_outliers
from brainlocus.cohort.prepare.roles import ConfoundRole, check_roles, confound_role
from brainlocus.cohort.prepare.table import Prepared, PrepareOptions, PrepareReport, prepare_table

__all__ = [
    "CloseConfound",
    "ConfoundRole",
    "ConfoundSet",
    "ConfoundSetOptions",
    "Deconfounded",
    "Explained",
    "Outliers",
    "PrepareOptions",
    "PrepareReport",
    "Prepared",
    "QuantileMap",
    "Screening",
    "Sentinel",
    "apply_quantile_map",
    "build_confound_set",
    "check_roles",
    "confound_role",
    "deconfound",
    "explained_by_group",
    "fit_quantile_map",
    "normalise",
    "prepare_table",
    "remove_outliers",
    "standardise",
    "suspected_sentinels",
    "svd_basis",
]
