"""``cohort harmonise``: a table of people in, the same table without the effects of sites out."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from brainlocus.cohort.harmonise import (
    CombatOptions,
    SiteEffects,
    apply_combat,
    fit_combat,
    mean_of_known,
    preserved_columns,
    site_effects,
)
from brainlocus.core import AlignmentError, PhenotypeTable, SampleIndex, SchemaError
from brainlocus.io import write_table
from brainlocus.numerics import design_from_formula
from brainlocus.pipeline.config import CommaList, InputPath, OutputPath, Positional, StepConfig
from brainlocus.pipeline.figures.cohort import draw_curves, draw_sites
from brainlocus.pipeline.genomes import read_list
from brainlocus.pipeline.models import (
    SavedCombat,
    check_formula_is_stateless,
    design_with_smooth,
    read_combat,
    smooth_options,
    write_combat,
)
from brainlocus.pipeline.people import (
    batch_labels,
    choose_traits,
    formula_columns,
    join_participants,
    read_people,
    report_folder,
    write_report_table,
)
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["COHORT_HARMONISE", "CohortHarmoniseConfig"]


class CohortHarmoniseConfig(StepConfig):
    """Settings of ``cohort harmonise``."""

    table: Annotated[InputPath, Positional()] = Field(description="Table of people x measures")
    batch: str = Field("site", description="Column of the site or scanner")
    preserve: str = Field("", description="Formula of what must not be removed: 'age + sex'")
    smooth: CommaList = Field(
        (),
        description="Covariates preserved as curves (ComBat-GAM), with the outermost knots if wished: age or age:5:97",
    )
    traits: CommaList = Field((), description="Columns to harmonise, names or patterns; all numeric by default")
    participants: InputPath | None = Field(None, description="Table with batch and covariates, when TABLE has them not")
    reference: str | None = Field(None, description="Site that stays as it is")
    eb: bool = Field(True, description="Shrink site effects towards priors over traits")
    mean_only: bool = Field(False, description="Correct means only, not spreads")
    fit_on: InputPath | None = Field(
        None, description="List of participants to fit on, such as a training set; everyone is harmonised"
    )
    model: OutputPath | None = Field(None, description="Write the fitted model (.npz) here")
    apply: InputPath | None = Field(None, description="Apply this model instead of fitting one")
    nuisance: str = Field(
        "", description="Formula taken out before site effects are reported; what is preserved if empty"
    )
    unknown: Literal["error", "estimate", "nan"] = Field("error", description="People of sites the model has not")
    report: OutputPath | None = Field(None, description="Folder for figures and before/after statistics")


def _fit(config: CohortHarmoniseConfig, people: PhenotypeTable, table: PhenotypeTable) -> SavedCombat:
    check_formula_is_stateless(config.preserve, "--preserve")
    smooth = smooth_options(config.smooth)
    curved = [term.covariate for term in smooth]
    besides = {config.batch, *curved} | formula_columns(config.preserve)
    traits = choose_traits(table, config.traits, besides=besides)
    if config.fit_on is not None:
        chosen = _listed(table.samples, config.fit_on)
        people, table = people.take(chosen), table.take(chosen)
    design = design_with_smooth(config.preserve, curved, people)
    _check_complete(people, design.complete, _preserved_text(config.preserve, curved))
    model = fit_combat(
        table.matrix(traits),
        batch_labels(people, config.batch),
        covariates=design.matrix,
        feature_names=traits,
        covariate_names=design.names,
        options=CombatOptions(eb=config.eb, mean_only=config.mean_only, reference=config.reference, smooth=smooth),
    )
    return SavedCombat(model, config.batch, config.preserve, dict(design.levels))


def _listed(samples: SampleIndex, path: Path) -> SampleIndex:
    listed = set(read_list(path, "participant_id"))
    inside = np.array([i in listed for i in samples.ids.tolist()], dtype=bool)
    if not inside.any():
        raise AlignmentError(
            f"--fit-on {path}: none of its {len(listed)} participants ({', '.join(sorted(listed)[:3])}, ...) is among "
            f"the {len(samples)} of the table ({', '.join(samples.ids[:3].tolist())}, ...). Ids are compared as exact "
            "strings."
        )
    return samples.take(inside)


def _preserved_text(formula: str, smooth: list[str]) -> str:
    return " + ".join([*([formula] if formula else []), *(f"smooth {name}" for name in smooth)])


def _check_complete(people: PhenotypeTable, complete: np.ndarray, formula: str) -> None:
    lacking = people.samples.ids[~complete]
    if lacking.size:
        shown = ", ".join(repr(str(i)) for i in lacking[:5])
        raise SchemaError(
            f"{lacking.size} people lack a variable of {formula!r}: {shown}. Remove them or complete the table."
        )


def _share_below(p: Float64[np.ndarray, " features"], level: float) -> float:
    return mean_of_known(np.where(np.isnan(p), np.nan, (p < level).astype(np.float64)))


def _summary(effects: SiteEffects) -> dict[str, float]:
    return {
        "mean_eta2": effects.mean_eta2,
        "share_location_p_below_0.05": _share_below(effects.p_location, 0.05),
        "share_spread_p_below_0.05": _share_below(effects.p_spread, 0.05),
    }


def _write_site_report(
    saved: SavedCombat, before: SiteEffects, after: SiteEffects, meta: dict[str, Any], folder: Path
) -> None:
    header = [
        "feature", "eta2_before", "eta2_after", "p_location_before", "p_location_after", "p_spread_before",
        "p_spread_after",
    ]  # fmt: skip
    columns: list[Any] = [
        saved.model.feature_names, before.eta2, after.eta2, before.p_location, after.p_location, before.p_spread,
        after.p_spread,
    ]  # fmt: skip
    for term in saved.model.smooth:
        header += [f"edf_{term.covariate}", f"weight_{term.covariate}"]
        columns += [term.edf, term.weight]
        draw_curves(term, saved.model.sigma, folder / f"curves_{term.covariate.replace('/', '_')}.png")
    write_report_table(dict(zip(header, columns, strict=True)), folder / "features.tsv")
    (folder / "sites.json").write_text(json.dumps(meta, indent=1) + "\n")
    draw_sites(before.eta2, after.eta2, folder / "sites.png")


def cohort_harmonise(config: CohortHarmoniseConfig, out: Path, context: Context) -> StepResult:
    """Fit or apply ComBat or ComBat-GAM."""
    joined = join_participants(read_people(config.table), config.participants)
    if config.apply is not None and config.model is not None:
        raise SchemaError("--apply uses a model and --model writes one; give one of the two.")
    if config.apply is not None and config.fit_on is not None:
        raise SchemaError("--apply uses a model and --fit-on fits one; give one of the two.")
    saved = read_combat(config.apply) if config.apply is not None else _fit(config, joined.people, joined.table)
    names = saved.model.feature_names
    values = joined.table.select(names).matrix()
    design = saved.design(joined.people)
    _check_complete(
        joined.people, design.complete, _preserved_text(saved.formula, [t.covariate for t in saved.model.smooth])
    )
    batch = batch_labels(joined.people, saved.batch)
    harmonised = apply_combat(
        saved.model, values, batch, covariates=design.matrix, covariate_names=design.names, unknown=config.unknown
    )
    write_table(joined.table.replace_values(names, harmonised.values), out)
    nuisance = preserved_columns(saved.model, design.matrix, covariate_names=design.names)
    if config.nuisance:
        given = design_from_formula(config.nuisance, joined.people)
        _check_complete(joined.people, given.complete, config.nuisance)
        nuisance = given.matrix
    before = _effects(values, batch, nuisance)
    after = _effects(harmonised.values, batch, nuisance)
    for note in (*(saved.model.notes if config.apply is None else ()), *harmonised.notes):
        context.progress.say(f"Note: {note}")
    for covariate, count in harmonised.extrapolated:
        low, high = next(t.extent for t in saved.model.smooth if t.covariate == covariate)
        context.progress.say(
            f"Warning: {count} people have {covariate} outside {low:g} to {high:g}, where the model was fitted; its "
            "curves are continued as straight lines."
        )
    counts: dict[str, Any] = {
        **joined.counts,
        "traits": len(names),
        "sites": {str(s): int(n) for s, n in zip(*np.unique(batch, return_counts=True), strict=True)},
        "estimated_sites": list(harmonised.estimated_sites),
        "missing_sites": list(harmonised.missing_sites),
        "passed_through": list(saved.model.passed_through),
        "notes": [*saved.model.notes, *harmonised.notes],
    }
    if saved.model.smooth:
        counts["smooth"] = {
            term.covariate: {"from": term.extent[0], "to": term.extent[1], "median_edf": float(np.median(term.edf))}
            for term in saved.model.smooth
        }
        counts["extrapolated"] = dict(harmonised.extrapolated)
    if config.fit_on is not None:
        counts["people_fitted"] = int(saved.model.site_counts.sum())
    empty = [name for name, column in zip(names, harmonised.values.T, strict=True) if np.isnan(column).all()]
    counts["without_values"] = empty
    summary = [f"{len(batch)} people, {len(counts['sites'])} sites, {len(names)} traits", *joined.dropped]
    if empty:
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        summary.append(f"{len(empty)} traits have no value: {shown}")
    if before is not None and after is not None:
        counts |= {"before": _summary(before), "after": _summary(after)}
        summary.append(f"Mean site eta^2: {before.mean_eta2:.4f} before, {after.mean_eta2:.4f} after")
    with report_folder(config.report) as folder:
        if folder is not None and before is not None and after is not None:
            _write_site_report(saved, before, after, {k: counts[k] for k in ("before", "after", "sites")}, folder)
    if config.model is not None:
        write_combat(saved, config.model)
    return StepResult(counts, n_failed=len(empty), summary=tuple(summary))


def _effects(
    values: Float64[np.ndarray, "samples features"],
    batch: np.ndarray,
    covariates: Float64[np.ndarray, "samples columns"],
) -> SiteEffects | None:
    """Return the site effects, None where one site alone is at hand (a model applied to one new site)."""
    return site_effects(values, batch, covariates=covariates) if np.unique(batch).size > 1 else None


COHORT_HARMONISE = Step(
    "cohort harmonise",
    "Take the effects of sites out of measures (ComBat, ComBat-GAM).",
    CohortHarmoniseConfig,
    cohort_harmonise,
)
