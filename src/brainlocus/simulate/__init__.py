"""Cohorts with planted truth: genomes, people and maps; and scans of a head."""

from brainlocus.simulate.genomes import SimulatedChromosome, simulate_chromosome
from brainlocus.simulate.head import (
    HEAD_PRESETS,
    HeadSettings,
    SimulatedChannels,
    SimulatedHead,
    head_settings,
    simulate_head,
)
from brainlocus.simulate.maps import MapModel, grey_matter_template, map_model, plant_regions, simulate_map
from brainlocus.simulate.people import (
    CausalPlan,
    CohortTruth,
    achievable_balanced_accuracy,
    draw_people,
    participants_table,
    phenotype_table,
    plan_causal_variants,
)

__all__ = [
    "HEAD_PRESETS",
    "CausalPlan",
    "CohortTruth",
    "HeadSettings",
    "MapModel",
    "SimulatedChannels",
    "SimulatedChromosome",
    "SimulatedHead",
    "achievable_balanced_accuracy",
    "draw_people",
    "grey_matter_template",
    "head_settings",
    "map_model",
    "participants_table",
    "phenotype_table",
    "plan_causal_variants",
    "plant_regions",
    "simulate_chromosome",
    "simulate_head",
    "simulate_map",
]
