"""Cohorts with planted truth: genomes, people and maps; scans of a head; GWAS that genes change; methylation."""

from brainlocus.simulate.epigenome import CELLS, EpigenomePlan, SimulatedEpigenome, simulate_epigenome
from brainlocus.simulate.expression import (
    ExpressionStudy,
    ExpressionStudyPlan,
    annotate_phenotypes,
    draw_scans,
    plan_expression_study,
)
from brainlocus.simulate.genomes import SimulatedChromosome, simulate_chromosome
from brainlocus.simulate.head import (
    HEAD_PRESETS,
    HeadSettings,
    SimulatedChannels,
    SimulatedHead,
    head_peak_bytes,
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
    "CELLS",
    "HEAD_PRESETS",
    "CausalPlan",
    "CohortTruth",
    "EpigenomePlan",
    "ExpressionStudy",
    "ExpressionStudyPlan",
    "HeadSettings",
    "MapModel",
    "SimulatedChannels",
    "SimulatedChromosome",
    "SimulatedEpigenome",
    "SimulatedHead",
    "achievable_balanced_accuracy",
    "annotate_phenotypes",
    "draw_people",
    "draw_scans",
    "grey_matter_template",
    "head_peak_bytes",
    "head_settings",
    "map_model",
    "participants_table",
    "phenotype_table",
    "plan_causal_variants",
    "plan_expression_study",
    "plant_regions",
    "simulate_chromosome",
    "simulate_epigenome",
    "simulate_head",
    "simulate_map",
]
