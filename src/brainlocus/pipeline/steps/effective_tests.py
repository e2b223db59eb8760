"""``cohort effective-tests``: how many independent tests correlated traits amount to."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from brainlocus.cohort.associate import (
    EffectiveTests,
    effective_tests,
    prepare_effective,
    sidak_level,
    simulate_smallest_p,
)
from brainlocus.core import ResultTable, SchemaError
from brainlocus.io import write_results
from brainlocus.numerics import design_from_formula
from brainlocus.pipeline.config import CommaList, InputPath, Positional, StepConfig
from brainlocus.pipeline.people import choose_traits, formula_columns, join_participants, read_people
from brainlocus.pipeline.step import Context, Step, StepResult
from brainlocus.pipeline.steps.prepare import sentinel_warnings

__all__ = ["COHORT_EFFECTIVE_TESTS", "CohortEffectiveTestsConfig"]

BLOCK = 500
"""Predictors drawn together; fixed, so that the draws depend on the seed alone."""
GENOME_WIDE = 5e-8


class CohortEffectiveTestsConfig(StepConfig):
    """Settings of ``cohort effective-tests``."""

    table: Annotated[InputPath, Positional()] = Field(description="Table of people x traits, as they are tested")
    traits: CommaList = Field((), description="Columns to count, names or patterns (C32_*); all numeric by default")
    confounds: str = Field("", description="Formula of the covariates of the tests: 'age + I(age**2) + sex + C(site)'")
    participants: InputPath | None = Field(None, description="Table with the confounds, when TABLE has them not")
    na_values: CommaList = Field((), description="Values that mean missing, besides NA and empty cells, such as -9999")
    predictors: int = Field(20_000, ge=1_000, description="Random predictors to draw")
    level: float = Field(0.05, gt=0, le=0.5, description="Family-wise level to keep")


def cohort_effective_tests(config: CohortEffectiveTestsConfig, out: Path, context: Context) -> StepResult:
    """Count effective tests by simulation and by the rules from eigenvalues."""
    joined = join_participants(read_people(config.table, config.na_values), config.participants, config.na_values)
    used = formula_columns(config.confounds)
    if not len(joined.table.samples):
        raise SchemaError(f"{config.table}: expected people, found a table without rows.")
    names = choose_traits(joined.table, config.traits, besides=used)
    for line in sentinel_warnings(joined.people, [*names, *sorted(used & set(joined.people.names))]):
        context.progress.say(line)
    covariates = design_from_formula(config.confounds, joined.people)
    design = prepare_effective(joined.table.matrix(names), covariates=covariates.matrix)
    starts = range(0, config.predictors, BLOCK)
    smallest = [
        simulate_smallest_p(design, min(BLOCK, config.predictors - start), context.rng(k))
        for k, start in enumerate(context.progress.track(starts, "Drawing", len(starts)))
    ]
    found = effective_tests(design, np.concatenate(smallest), level=config.level)
    write_results(_rows(found), out)
    skipped = [name for name, tested in zip(names, design.tested, strict=True) if not tested]
    counts: dict[str, Any] = {
        **joined.counts,
        "people_without_confounds": int((~covariates.complete).sum()),
        "traits": len(names),
        "not_tested": skipped,
        "complete": design.loadings is not None,
        "predictors": found.n_predictors,
        "alpha": found.alpha,
        "effective_tests": found.simulated,
        "correlations_moved_by": design.shifted,
    }
    return StepResult(counts, n_failed=len(skipped), summary=(*_summary(found, skipped), *joined.dropped))


def _rows(found: EffectiveTests) -> ResultTable:
    rules = ("simulation", "bonferroni", "nyholt", "li_ji", "galwey", "gao")
    tests = np.array([found.simulated, found.n_traits, found.nyholt, found.li_ji, found.galwey, found.gao])
    levels = np.array([sidak_level(value, found.level) for value in tests])
    levels[1] = found.level / found.n_traits
    simulated = np.array([rule == "simulation" for rule in rules])
    return ResultTable(
        {
            "rule": np.array(rules, dtype=np.str_),
            "effective_tests": tests,
            "effective_tests_standard_error": np.where(simulated, found.standard_error, np.nan),
            "effective_tests_lower": np.where(simulated, found.lower, np.nan),
            "effective_tests_upper": np.where(simulated, found.upper, np.nan),
            "test_level": levels,
        }
    )


def _summary(found: EffectiveTests, skipped: list[str]) -> tuple[str, ...]:
    lines = [
        f"{found.n_traits} traits are {found.simulated:.1f} effective tests (95 % {found.lower:.1f} to "
        f"{found.upper:.1f}, {found.n_predictors:,} predictors): level {found.alpha:.3g} of one test keeps "
        f"{found.level:g} of all",
        f"Rules: Nyholt {found.nyholt:.1f}, Li & Ji {found.li_ji:.1f}, Galwey {found.galwey:.1f}, Gao {found.gao:.0f}",
        f"Genome-wide for all of these traits: p <= {GENOME_WIDE / found.simulated:.3g} ({GENOME_WIDE:g} over the "
        "effective tests)",
    ]
    if skipped:
        shown = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        lines.append(f"{len(skipped)} traits are not tested, as they do not vary beyond the confounds: {shown}")
    return tuple(lines)


COHORT_EFFECTIVE_TESTS = Step(
    "cohort effective-tests",
    "Count the independent tests that correlated traits amount to.",
    CohortEffectiveTestsConfig,
    cohort_effective_tests,
)
