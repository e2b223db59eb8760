"""``signature train`` and ``signature apply``: disease signatures from features of people.

``train`` writes to OUT: ``model.json`` and ``model.npz`` (no pickle), ``scores.parquet`` (held-out decision values, one
row a person and repeat), ``performance.json``, ``pattern.tsv``, ``scores.png`` and ``pattern.png``.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from brainlocus._version import __version__
from brainlocus.cohort.harmonise import CombatOptions
from brainlocus.cohort.signatures import SpareModel, SpareOptions, SpareResult, apply_spare, mean_scores, train_spare
from brainlocus.core import FormatError, PhenotypeTable, ResultTable, SchemaError
from brainlocus.io import write_results
from brainlocus.numerics import Design, design_from_formula
from brainlocus.pipeline.config import CommaList, InputPath, Positional, StepConfig
from brainlocus.pipeline.figures.cohort import draw_pattern, draw_scores
from brainlocus.pipeline.models import (
    ComBatHarmoniser,
    FittedComBat,
    SavedCombat,
    check_formula_is_stateless,
    combat_arrays,
    combat_from_arrays,
    design_with_smooth,
    read_arrays,
    smooth_options,
    write_arrays,
)
from brainlocus.pipeline.people import (
    batch_labels,
    choose_traits,
    formula_columns,
    join_participants,
    read_people,
    two_classes,
)
from brainlocus.pipeline.step import Context, Estimate, Step, StepResult

__all__ = ["SIGNATURE_APPLY", "SIGNATURE_TRAIN", "SignatureApplyConfig", "SignatureTrainConfig"]

_FORMAT, _VERSION = "brainlocus-signature", 1


class SignatureTrainConfig(StepConfig):
    """Settings of ``signature train``."""

    features: Annotated[InputPath, Positional()] = Field(description="Table of people x features")
    diagnosis: str = Field(description="Column with the two classes; the larger value is the patient")
    patient: str | None = Field(None, description="Level of patients, when the diagnosis is text")
    participants: InputPath | None = Field(None, description="Table with diagnosis, covariates and batch")
    traits: CommaList = Field((), description="Columns to use, names or patterns (C32_*); all numeric by default")
    covariates: str = Field("", description="Formula whose effect in controls is taken from everyone: 'age + sex'")
    batch: str | None = Field(None, description="Column of the site: harmonise with ComBat inside every training set")
    preserve: str | None = Field(None, description="Formula that ComBat preserves; that of --covariates by default")
    smooth: CommaList = Field(
        (),
        description="Covariates that ComBat preserves as curves (ComBat-GAM), with the outermost knots if wished: age "
        "or age:5:97",
    )
    repeats: int = Field(100, ge=2, description="Stratified hold-outs")
    test_share: float = Field(0.2, gt=0, lt=0.9, description="Share of people held out each time")
    inner_folds: int = Field(10, ge=2, description="Folds that choose C inside a training set")


class SignatureApplyConfig(StepConfig):
    """Settings of ``signature apply``."""

    model: Annotated[InputPath, Positional()] = Field(description="Folder of signature train")
    features: Annotated[InputPath, Positional()] = Field(description="Table of people x features")
    participants: InputPath | None = Field(None, description="Table with covariates and batch")


def _check(config: SignatureTrainConfig) -> str:
    """Return the formula that ComBat preserves."""
    preserve = config.preserve if config.preserve is not None else config.covariates
    for formula, option in ((config.covariates, "--covariates"), (preserve, "--preserve")):
        check_formula_is_stateless(formula, option)
        if config.diagnosis in formula_columns(formula):
            raise SchemaError(
                f"{option}: the formula contains the diagnosis {config.diagnosis!r}, which would leak the answer into "
                "the features. Remove it."
            )
    if config.smooth and config.batch is None:
        raise SchemaError("--smooth preserves curves while sites are taken out; give the column of the site, --batch.")
    if config.diagnosis in [term.covariate for term in smooth_options(config.smooth)]:
        raise SchemaError(
            f"--smooth: {config.diagnosis!r} is the diagnosis, which would leak the answer into the features. Remove "
            "it."
        )
    return preserve if config.batch is not None else ""


def _train_options(config: SignatureTrainConfig) -> SpareOptions:
    return SpareOptions(repeats=config.repeats, test_share=config.test_share, inner_folds=config.inner_folds)


def signature_train(config: SignatureTrainConfig, out: Path, context: Context) -> StepResult:
    """Train a signature and judge it on held-out people."""
    preserve = _check(config)
    joined = join_participants(read_people(config.features), config.participants)
    aside = {config.diagnosis, *([config.batch] if config.batch else [])}
    smooth = smooth_options(config.smooth)
    curved = [term.covariate for term in smooth]
    aside |= formula_columns(config.covariates, preserve) | set(curved)
    names = choose_traits(joined.table, config.traits, besides=aside)
    diagnosis = two_classes(joined.people, config.diagnosis, patient=config.patient)
    covariates = design_from_formula(config.covariates, joined.people)
    kept = design_with_smooth(preserve, curved, joined.people)
    batch = batch_labels(joined.people, config.batch) if config.batch else None
    values = joined.table.matrix(names)
    usable = ~np.isnan(values).any(axis=1) & ~np.isnan(diagnosis) & covariates.complete & kept.complete
    if batch is not None:
        usable &= batch != ""
    if not usable.any():
        raise SchemaError("No person has every feature, covariate and a diagnosis; impute or use fewer columns.")
    repeats = context.progress.track(range(config.repeats), "Training", config.repeats)
    next(repeats)

    def advance(_: int) -> None:
        next(repeats, None)

    result = train_spare(
        values[usable],
        diagnosis[usable].astype(np.int64),
        generator=context.rng(0),
        covariates=covariates.matrix[usable],
        batch=batch[usable] if batch is not None else None,
        harmoniser=ComBatHarmoniser(CombatOptions(smooth=smooth), kept.names) if batch is not None else None,
        preserved=kept.matrix[usable],
        options=_train_options(config),
        progress=advance,
    )
    ids = joined.table.samples.ids[usable]
    labels = diagnosis[usable].astype(np.int64)
    _write_model(config, result, names, covariates, kept, preserve, out)
    summary = _write_scores(result, ids, labels, names, out)
    performance = result.performance.summary()
    counts = {
        **joined.counts,
        "participants_used": int(usable.sum()),
        "participants_incomplete": int((~usable).sum()),
        "patients": int(labels.sum()),
        "features": len(names),
        "solver_limit_reached": result.n_unsettled,
        "balanced_accuracy": performance["balanced_accuracy"]["mean"],
    }
    if counts["participants_incomplete"]:
        summary = (*summary, f"{counts['participants_incomplete']} people left out: a feature or covariate is missing")
    return StepResult(counts, summary=summary)


def _write_scores(
    result: SpareResult, ids: np.ndarray, labels: np.ndarray, names: list[str], out: Path
) -> tuple[str, ...]:
    write_results(
        ResultTable(
            {
                "participant_id": ids[result.row],
                "repeat": result.repeat,
                "score": result.score,
                "diagnosis": labels[result.row],
            }
        ),
        out / "scores.parquet",
    )
    figures = result.performance
    performance: dict[str, Any] = {
        **figures.summary(),
        "n_train": figures.n_train,
        "n_test": figures.n_test,
        "repeats": int(figures.auc.size),
        "costs": result.costs.tolist(),
        "solver_limit_reached": result.n_unsettled,
        "note": "Figures are of held-out people; standard_error is Nadeau and Bengio's, sd is over repeats.",
    }
    (out / "performance.json").write_text(json.dumps(performance, indent=1) + "\n")
    rows = "".join(
        f"{name}\t{weight:.8g}\t{part:.8g}\n"
        for name, weight, part in zip(names, result.model.weights, result.pattern, strict=True)
    )
    (out / "pattern.tsv").write_text(f"feature\tweight\tpattern\n{rows}")
    score, times = mean_scores(result, ids.size)
    seen = times > 0
    accuracy, area = performance["balanced_accuracy"], performance["auc"]
    title = f"balanced accuracy {accuracy['mean']:.3f} ± {accuracy['standard_error']:.3f}, AUC {area['mean']:.3f}"
    draw_scores(score[seen], labels[seen].astype(np.int64), title, out / "scores.png")
    draw_pattern(result.pattern, names, out / "pattern.png")
    effect = performance["cohens_d"]
    return (f"Held out: {title}, Cohen's d {effect['mean']:.2f}",)


def _write_model(
    config: SignatureTrainConfig,
    result: SpareResult,
    names: list[str],
    covariates: Design,
    kept: Design,
    preserve: str,
    out: Path,
) -> None:
    model = result.model
    arrays = {
        "weights": model.weights,
        "centre": model.centre,
        "spread": model.spread,
        "covariate_effects": model.covariate_effects,
        "pattern": result.pattern,
    }
    meta: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "brainlocus": __version__,
        "features": names,
        "diagnosis": config.diagnosis,
        "intercept": model.intercept,
        "cost": model.cost,
        "covariates": config.covariates,
        "covariate_levels": {k: list(v) for k, v in covariates.levels.items()},
        "combat": None,
    }
    if isinstance(model.harmoniser, FittedComBat) and config.batch is not None:
        saved = SavedCombat(model.harmoniser.model, config.batch, preserve, dict(kept.levels))
        meta["combat"], combat = combat_arrays(saved)
        arrays |= {f"combat_{name}": array for name, array in combat.items()}
    write_arrays(meta, arrays, out / "model.npz")
    (out / "model.json").write_text(json.dumps(meta, indent=1) + "\n")


def _read_model(folder: Path) -> tuple[dict[str, Any], SpareModel, SavedCombat | None]:
    path = folder / "model.npz" if folder.is_dir() else folder
    meta, arrays = read_arrays(path)
    if meta.get("format") != _FORMAT or meta.get("version") != _VERSION:
        raise FormatError(
            f"{path}: expected a {_FORMAT} of version {_VERSION}, found {meta.get('format')!r} version "
            f"{meta.get('version')}. Train it with: brainlocus signature train"
        )
    saved = None
    if meta["combat"] is not None:
        combat = {name.removeprefix("combat_"): a for name, a in arrays.items() if name.startswith("combat_")}
        saved = combat_from_arrays(meta["combat"], combat)
    model = SpareModel(
        weights=arrays["weights"],
        intercept=float(meta["intercept"]),
        centre=arrays["centre"],
        spread=arrays["spread"],
        covariate_effects=arrays["covariate_effects"],
        cost=float(meta["cost"]),
        harmoniser=FittedComBat(saved.model) if saved is not None else None,
    )
    return meta, model, saved


def signature_apply(config: SignatureApplyConfig, out: Path, context: Context) -> StepResult:  # noqa: ARG001
    """Score new people."""
    meta, model, saved = _read_model(config.model)
    joined = join_participants(read_people(config.features), config.participants)
    levels = {k: tuple(v) for k, v in meta["covariate_levels"].items()}
    covariates = design_from_formula(meta["covariates"], joined.people, levels=levels)
    kept, batch = _harmonising_inputs(saved, joined.people)
    score = apply_spare(
        model,
        joined.table.select(meta["features"]).matrix(),
        covariates=covariates.matrix,
        batch=batch,
        preserved=kept,
    )
    write_results(ResultTable({"participant_id": joined.table.samples.ids, "score": score}), out)
    n_missing = int(np.isnan(score).sum())
    counts = {**joined.counts, "without_score": n_missing}
    return StepResult(counts, n_failed=n_missing, summary=(f"{score.size} people, {n_missing} without a score",))


def _harmonising_inputs(
    saved: SavedCombat | None, people: PhenotypeTable
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if saved is None:
        return None, None
    return saved.design(people).matrix, batch_labels(people, saved.batch)


def _estimate(config: SignatureTrainConfig, _memory_bytes: int) -> Estimate:
    return Estimate(1 << 29, 0.2 * config.repeats * config.inner_folds, "about 1,000 people and 200 features")


SIGNATURE_TRAIN = Step(
    "signature train",
    "Train a disease signature and judge it on held-out people.",
    SignatureTrainConfig,
    signature_train,
    out="folder",
    estimate=_estimate,
)
SIGNATURE_APPLY = Step(
    "signature apply", "Score new people with a trained signature.", SignatureApplyConfig, signature_apply
)
