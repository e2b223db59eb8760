"""Site effects out of features: ComBat as a model that is fitted here and applied there."""

from brainlocus.cohort.harmonise.combat import (
    CombatModel,
    CombatOptions,
    Harmonised,
    apply_combat,
    fit_combat,
)
from brainlocus.cohort.harmonise.sites import SiteEffects, mean_of_known, site_effects

__all__ = [
    "CombatModel",
    "CombatOptions",
    "Harmonised",
    "SiteEffects",
    "apply_combat",
    "fit_combat",
    "mean_of_known",
    "site_effects",
]
