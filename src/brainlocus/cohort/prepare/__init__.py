"""Raw measures to traits fit for association: outliers, normal scores, confounds."""

from brainlocus.cohort.prepare.confounds import Deconfounded, deconfound
from brainlocus.cohort.prepare.normalise import (
    QuantileMap,
    apply_quantile_map,
    fit_quantile_map,
    normalise,
    standardise,
)
from brainlocus.cohort.prepare.outliers import Outliers, remove_outliers
from brainlocus.cohort.prepare.table import Prepared, PrepareOptions, PrepareReport, prepare_table

__all__ = [
    "Deconfounded",
    "Outliers",
    "PrepareOptions",
    "PrepareReport",
    "Prepared",
    "QuantileMap",
    "apply_quantile_map",
    "deconfound",
    "fit_quantile_map",
    "normalise",
    "prepare_table",
    "remove_outliers",
    "standardise",
]
