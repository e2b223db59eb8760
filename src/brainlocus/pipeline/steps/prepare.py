"""``cohort prepare``: a table of people in, the same table with traits fit for association out."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from brainlocus.cohort.prepare import (
    ConfoundRole,
    ConfoundSet,
    ConfoundSetOptions,
    Explained,
    Prepared,
    PrepareOptions,
    PrepareReport,
    prepare_table,
    suspected_sentinels,
)
from brainlocus.core import PhenotypeTable, SchemaError, quantitative_table
from brainlocus.io import check_table_name, write_table
from brainlocus.pipeline.config import CommaList, InputPath, OutputPath, Positional, StepConfig
from brainlocus.pipeline.confound_roles import read_roles
from brainlocus.pipeline.figures.cohort import draw_explained, draw_groups, draw_shapes
from brainlocus.pipeline.people import (
    Joined,
    choose_traits,
    formula_columns,
    join_participants,
    outlier_mads,
    read_people,
    report_folder,
    write_report_table,
)
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["COHORT_PREPARE", "CohortPrepareConfig", "sentinel_warnings"]

SHOWN = 5
"""Names in a message; all are in the manifest."""
CHANCE = 0.05
"""Probability of a kept column of noise above which there is a warning."""


class CohortPrepareConfig(StepConfig):
    """Settings of ``cohort prepare``."""

    table: Annotated[InputPath, Positional()] = Field(description="Table of people x measures")
    traits: CommaList = Field((), description="Columns to prepare, names or patterns (C32_*); all numeric by default")
    confounds: str = Field("", description="Formula of what to regress out: 'age + I(age**2) + sex + C(site)'")
    confound_set: Literal["small", "ukb"] | None = Field(
        None,
        description="Make confounds of columns with roles, as UK Biobank's imaging studies do: small (age, sex, head "
        "size, motion, site, date) or ukb (all, non-linear, crossed and drift); ukb if only --confound-roles is given",
    )
    confound_roles: InputPath | None = Field(
        None, description="File that gives each confound its role (.toml: age = 'column'; or .tsv: column, role, type)"
    )
    min_variance: float = Field(
        0.0075, gt=0, lt=1, description="Share of any one trait that a non-linear or crossed confound must explain"
    )
    confounds_out: OutputPath | None = Field(None, description="Write the columns of the confound set as a table")
    participants: InputPath | None = Field(None, description="Table with the confounds, when TABLE has them not")
    na_values: CommaList = Field((), description="Values that mean missing, besides NA and empty cells, such as -9999")
    outliers: str = Field("mad:6", description="mad:K removes values beyond K unscaled MADs; none keeps all")
    normalise: Literal["rank", "quantile", "none"] = Field("rank", description="Normal scores of each trait")
    int_twice: bool = Field(False, description="Rank residuals again and regress again")
    min_people: int = Field(40, ge=3, description="Traits with fewer values are left empty")
    min_cases: int = Field(10, ge=1, description="So are traits of two values with fewer people in the smaller class")
    report: OutputPath | None = Field(None, description="Folder for figures and before/after statistics")


def cohort_prepare(config: CohortPrepareConfig, out: Path, context: Context) -> StepResult:
    """Clean, normalise and deconfound traits."""
    options = _options(config)
    roles = read_roles(config.confound_roles) if config.confound_roles is not None else ()
    joined = join_participants(read_people(config.table, config.na_values), config.participants, config.na_values)
    besides = formula_columns(config.confounds) | {item.column for item in roles}
    traits = choose_traits(joined.table, config.traits, besides=besides)
    prepared = prepare_table(
        joined.table, traits, confounds=config.confounds, confound_table=joined.people, roles=roles, options=options
    )
    for line in _warnings(config, joined, prepared, roles, besides):
        context.progress.say(line)
    write_table(prepared.table, out)
    with report_folder(config.report) as folder:
        if folder is not None:
            _write_report(prepared, folder)
    built = prepared.confounds
    if config.confounds_out is not None and built is not None:
        write_table(quantitative_table(joined.people.samples, built.names, built.matrix), config.confounds_out)
    counts = {**joined.counts, **_counts(prepared)}
    summary = (*_summary(config, prepared, counts), *joined.dropped)
    return StepResult(counts, n_failed=len(counts["without_result"]), summary=summary)


def _options(config: CohortPrepareConfig) -> PrepareOptions:
    if config.confound_set is not None and config.confound_roles is None:
        raise SchemaError(
            '--confound-set: expected --confound-roles too, a file that says which column is what: age = "age", site = '
            '"centre", head_motion = ["motion_rest", "motion_task"].'
        )
    if config.confounds_out is not None:
        if config.confound_roles is None:
            raise SchemaError("--confounds-out writes the columns of --confound-set; give --confound-roles too.")
        check_table_name(config.confounds_out)
    if config.int_twice and config.normalise != "rank":
        raise SchemaError(f"--int-twice ranks twice: expected --normalise rank, found {config.normalise}.")
    return PrepareOptions(
        outlier_mads=outlier_mads(config.outliers),
        normalise=config.normalise,
        min_people=config.min_people,
        min_cases=config.min_cases,
        int_twice=config.int_twice,
        confound_set=ConfoundSetOptions(config.confound_set or "ukb", config.min_variance),
    )


def sentinel_warnings(table: PhenotypeTable, names: list[str]) -> list[str]:
    """Return a warning for each numeric column whose only negative value is more than 5 % of it."""
    numeric = [name for name in dict.fromkeys(names) if table.column(name).kind != "categorical"]
    return [
        f"Warning: {item.value:g} is the only negative value of {item.column} ({item.count:,} people) and was taken as "
        f"a number; if it means missing, give --na-values {item.value:g}."
        for item in suspected_sentinels(table.matrix(numeric), numeric)
    ]


def _warnings(
    config: CohortPrepareConfig,
    joined: Joined,
    prepared: Prepared,
    roles: tuple[ConfoundRole, ...],
    besides: set[str],
) -> list[str]:
    report = prepared.report
    lines = sentinel_warnings(joined.people, [*report.traits, *sorted(besides & set(joined.people.names))])
    flagged = [name for name, much in zip(report.traits, report.excessive, strict=True) if much]
    if flagged:
        lines.append(
            f"Warning: the outlier rule removes more than 2 % of {_some(flagged)}; they are skewed: transform them "
            "first (logarithm, ranks) or use --outliers none."
        )
    tied = [name for name, many in zip(report.traits, report.many_ties, strict=True) if many]
    if tied:
        lines.append(
            f"Warning: more than 20 % of the values are tied in {_some(tied)}; their normal scores are steps, not a "
            "normal distribution."
        )
    if report.close:
        pairs = [f"{item.confound} with {item.trait} ({item.r:.2f})" for item in report.close]
        lines.append(f"Warning: confounds correlated beyond 0.9 with a trait: {_some(pairs)}; little of it is left.")
    if report.halved:
        lines.append(f"Warning: confounds explain more than half of {_some(report.halved)}.")
    if roles and (config.confound_set or "ukb") == "ukb":
        lines += _chance(report, config.min_variance)
    return lines


def _chance(report: PrepareReport, min_variance: float) -> list[str]:
    """Return a warning where noise would be kept for its largest r2 with one of the traits."""
    from scipy.stats import chi2

    people, tested = int(report.n_after.max(initial=0)), int((report.n_after > 0).sum())
    if not people or not tested:
        return []
    probability = -np.expm1(tested * np.log1p(-chi2.sf(people * min_variance, 1)))
    if probability <= CHANCE:
        return []
    enough = chi2.isf(-np.expm1(np.log1p(-CHANCE) / tested), 1) / people
    return [
        f"Warning: with {people:,} people and {tested:,} traits, a column of noise is kept with probability "
        f"{probability:.2f}; --min-variance {enough:.3g} makes that 0.05."
    ]


def _some(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _counts(prepared: Prepared) -> dict[str, Any]:
    report = prepared.report

    def chosen(flags: np.ndarray) -> list[str]:
        return [name for name, flag in zip(report.traits, flags, strict=True) if flag]

    counts: dict[str, Any] = {
        "traits": len(report.traits),
        "outliers": int(report.n_outliers.sum()),
        "excessive_outliers": chosen(report.excessive),
        "zero_mad": chosen(report.zero_mad),
        "many_ties": chosen(report.many_ties),
        "without_result": {n: why for n, why in zip(report.traits, report.reason, strict=True) if why},
        "people_without_confounds": report.n_without_confounds,
        "dropped_confounds": list(report.dropped_confounds),
        "close_confounds": [[item.confound, item.trait, round(item.r, 6)] for item in report.close],
        "more_than_half_explained": list(report.halved),
    }
    if prepared.confounds is not None:
        counts["confound_set"] = _set_counts(prepared.confounds, report.groups)
    return counts


def _set_counts(built: ConfoundSet, groups: Explained | None) -> dict[str, Any]:
    names, sizes = np.unique(np.asarray(built.groups, dtype=np.str_), return_counts=True)
    found: dict[str, Any] = {
        "columns": len(built.names),
        "rank": built.basis.rank - 1,
        "columns_of_group": {str(name): int(size) for name, size in zip(names, sizes, strict=True)},
        "candidates": int(built.screening.keep.size),
        "candidates_kept": int(built.screening.keep.sum()),
        "by_chance": (built.basis.rank - 1) / max(int(built.complete.sum()) - 1, 1),
        "values_replaced": built.replaced,
    }
    if groups is not None and np.isfinite(groups.total).any():
        found["mean_variance_explained"] = float(np.nanmean(groups.total))
    return found


def _summary(config: CohortPrepareConfig, prepared: Prepared, counts: dict[str, Any]) -> tuple[str, ...]:
    report = prepared.report
    lines = [f"{counts['participants']} people, {counts['traits']} traits, {counts['outliers']} outliers removed"]
    if prepared.confounds is not None:
        about = counts["confound_set"]
        explained = about.get("mean_variance_explained", float("nan"))
        lines.append(
            f"Confound set {config.confound_set or 'ukb'}: {about['columns']} columns of rank {about['rank']}, "
            f"{about['candidates_kept']} of {about['candidates']} non-linear and crossed ones kept; they explain "
            f"{100 * explained:.1f} % of a trait on average ({100 * about['by_chance']:.1f} % is what as many columns "
            "of noise would)"
        )
    if config.confounds or prepared.confounds is not None:
        lines.append(
            f"{report.n_without_confounds} people lack a confound; dropped confounds: "
            f"{', '.join(report.dropped_confounds) or 'none'}"
        )
    return tuple(lines)


def _write_report(prepared: Prepared, folder: Path) -> None:
    report = prepared.report
    write_report_table(
        {
            "trait": report.traits,
            "n_before": report.n_before,
            "n_outliers": report.n_outliers,
            "n_after": report.n_after,
            "zero_mad": report.zero_mad,
            "excessive_outliers": report.excessive,
            "tied_share": report.ties,
            "many_ties": report.many_ties,
            "variance_explained": report.explained,
            "skewness_before": report.skewness_before,
            "skewness_after": report.skewness_after,
            "kurtosis_before": report.kurtosis_before,
            "kurtosis_after": report.kurtosis_after,
            "reason": report.reason,
        },
        folder / "traits.tsv",
    )
    draw_shapes(report.skewness_before, report.skewness_after, "skewness", folder / "skewness.png")
    draw_shapes(report.kurtosis_before, report.kurtosis_after, "excess kurtosis", folder / "kurtosis.png")
    if report.confounds:
        draw_explained(report.explained, folder / "explained.png")
    if prepared.confounds is not None and report.groups is not None:
        _write_set(prepared.confounds, report.groups, report.traits, folder)


def _write_set(built: ConfoundSet, groups: Explained, traits: tuple[str, ...], folder: Path) -> None:
    """Write the columns of the set, what became of the candidates, and the variance by group."""
    write_report_table({"column": built.names, "group": built.groups}, folder / "confounds.tsv")
    tried = built.screening
    write_report_table(
        {"column": tried.names, "group": tried.groups, "largest_r2": tried.largest, "mean_r2": tried.mean,
         "kept": tried.keep},
        folder / "candidates.tsv",
    )  # fmt: skip
    n_groups = len(groups.groups)
    write_report_table(
        {
            "trait": np.repeat(np.asarray(traits, dtype=np.str_), n_groups + 1),
            "group": np.tile(np.asarray(["all", *groups.groups], dtype=np.str_), len(traits)),
            "marginal": np.vstack([groups.total, groups.marginal]).T.ravel(),
            "unique": np.vstack([groups.total, groups.unique]).T.ravel(),
        },
        folder / "explained.tsv",
    )
    draw_groups(groups.groups, groups.marginal, groups.unique, groups.total, folder / "groups.png")


COHORT_PREPARE = Step(
    "cohort prepare",
    "Clean, normalise and deconfound measures of people.",
    CohortPrepareConfig,
    cohort_prepare,
)
