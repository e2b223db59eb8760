"""Cohorts with planted truth: genomes, people and maps."""

from brainlocus.simulate.genomes import SimulatedChromosome, simulate_chromosome
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
    "CausalPlan",
    "CohortTruth",
    "MapModel",
    "SimulatedChromosome",
    "achievable_balanced_accuracy",
    "draw_people",
    "grey_matter_template",
    "map_model",
    "participants_table",
    "phenotype_table",
    "plan_causal_variants",
    "plant_regions",
    "simulate_chromosome",
    "simulate_map",
]
