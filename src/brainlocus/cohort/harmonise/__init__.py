"""Site effects out of features: ComBat and ComBat-GAM as a model that is fitted here and applied there."""

from brainlocus.cohort.harmonise.combat import (
    CombatModel,
    CombatOptions,
    Harmonised,
    apply_combat,
    fit_combat,
    preserved_columns,
)
from brainlocus.cohort.harmonise.sites import SiteEffects, mean_of_known, site_effects
from brainlocus.cohort.harmonise.smooth import SmoothOptions, SmoothTerm, smooth_effect

__all__ = [
    "CombatModel",
    "CombatOptions",
    "Harmonised",
    "SiteEffects",
    "SmoothOptions",
    "SmoothTerm",
    "apply_combat",
    "fit_combat",
    "mean_of_known",
    "preserved_columns",
    "site_effects",
    "smooth_effect",
]
