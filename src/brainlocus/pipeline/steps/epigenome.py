"""``associate epigenome``: features of the epigenome, or of another omics layer, against traits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from pydantic import Field, model_validator

from brainlocus.cohort.associate import VoxelwiseDesign, prepare_voxelwise
from brainlocus.cohort.associate.epigenome import (
    MOST_FEATURES,
    Surrogates,
    add_surrogates,
    beta_values,
    estimate_cells,
    scan_features_bytes,
    start_surrogates,
    surrogate_variables,
)
from brainlocus.core import (
    AlignmentError,
    PhenotypeTable,
    ResultTable,
    SampleIndex,
    SchemaError,
    shared_samples,
)
from brainlocus.core.text import text_array
from brainlocus.io import FeatureMatrix, open_features, write_results
from brainlocus.io.tables import ResultWriter
from brainlocus.numerics import design_from_formula
from brainlocus.pipeline.config import CommaList, CommaPaths, InputPath, OutputPath, Positional, StepConfig
from brainlocus.pipeline.epigenome_results import (
    RegionCandidates,
    TraitTests,
    find_candidates,
    finish_trait,
    gather_residuals,
    needed_features,
    region_table,
    result_rows,
    trait_histogram,
    trait_row,
)
from brainlocus.pipeline.epigenome_scan import Kind, Preparation, Preparer, ScanSource, Spool, scan_all
from brainlocus.pipeline.epigenome_tables import (
    Places,
    read_cell_reference,
    read_feature_numbers,
    read_places,
)
from brainlocus.pipeline.figures.epigenome import draw_components, draw_volcano
from brainlocus.pipeline.figures.gwas import Panel, draw_manhattan, draw_qq
from brainlocus.pipeline.figures.gwas_points import power_text, qq_curve_of_tests
from brainlocus.pipeline.genomes import read_list, require_memory
from brainlocus.pipeline.people import choose_traits, formula_columns, read_people, report_folder
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["ASSOCIATE_EPIGENOME", "AssociateEpigenomeConfig"]

_LARGEST_BLOCK = 2_048
_SMALLEST_BLOCK = 32
_OVERHEAD = 16 << 20
"""Buffers of the reader and the writer, and what the allocator keeps of blocks that are done."""
_BYTES_PER_FEATURE = 900
"""Names, places, and the tests of one trait with their corrections, while they are made and written."""
_ROUNDED = 1e-3
"""Proportions of cells that sum to 1 within this are all there are, rounded."""
_PEOPLE = 32
"""Copies of a table's numbers while it is read and aligned, in bytes a cell."""
TISSUE = (
    "Blood is not brain: an association in blood says little of the same CpG in the brain, unless the two are "
    "correlated (--blood-brain)."
)


class AssociateEpigenomeConfig(StepConfig):
    """Settings of ``associate epigenome``."""

    methylation: Annotated[InputPath, Positional()] = Field(
        description="Matrix of CpGs (or proteins, transcripts ...) and people: .tsv, .csv, .parquet or .npy"
    )
    traits: Annotated[InputPath, Positional()] = Field(description="Table of traits")
    columns: CommaList = Field((), description="Traits, names or patterns; every numeric column by default")
    covariates: str = Field("", description="Formula of covariates: 'age + sex + smoking + C(plate)'")
    participants: InputPath | None = Field(None, description="Table with the covariates; TRAITS by default")
    cells: InputPath | None = Field(None, description="Table of cell proportions; its columns are covariates")
    cell_reference: InputPath | None = Field(
        None, description="Betas of pure cells, CpGs x cell types: proportions are estimated and are covariates"
    )
    kind: Kind = Field("beta", description="What the numbers are: beta is analysed as M, m and other as they are")
    keep_betas: bool = Field(False, description="Analyse betas as they are")
    rows: Literal["auto", "features", "people"] = Field(
        "auto", description="What a row of METHYLATION is; found by the ids"
    )
    feature_names: InputPath | None = Field(None, description="Names of the features of a .npy matrix, one a line")
    participant_ids: InputPath | None = Field(None, description="Participants of a .npy matrix, one a line")
    detection_p: InputPath | None = Field(None, description="Detection p-values, a matrix like METHYLATION")
    detection_limit: float = Field(0.01, gt=0, le=1, description="Values with a larger detection p are missing")
    exclude: CommaPaths = Field((), description="Lists of features to leave out: cross-reactive, with SNPs, on X and Y")
    winsorise: str = Field("tukey:3", description="tukey:K: values K interquartile ranges from the quartiles; none")
    surrogates: str = Field("0", description="Surrogate variables as covariates: auto (parallel analysis), or how many")
    direction: Literal["feature", "trait"] = Field(
        "feature", description="What is the outcome: feature (CpG ~ trait + covariates) or trait (trait ~ CpG + ...)"
    )
    moderated: bool = Field(True, description="Moderate the variances of features (limma)")
    empirical_null: bool = Field(False, description="Correct bias and inflation by an empirical null (bacon)")
    min_share: float = Field(0.5, gt=0, le=1, description="Share of a trait's people that a feature needs")
    min_people: int = Field(10, ge=3, description="People that a trait and a feature need")
    hits: float = Field(1.0, gt=0, le=1, description="Write tests with p of at most this; 1 writes all")
    level: float = Field(9e-8, gt=0, lt=1, description="Level of significance: 9e-8 for EPIC, 2.4e-7 for 450k")
    annotation: InputPath | None = Field(None, description="Table feature, chromosome, position, gene")
    blood_brain: InputPath | None = Field(None, description="Table feature, r: correlation in blood and brain")
    region_level: float = Field(0.05, gt=0, lt=1, description="p below which a feature is of a candidate region")
    region_gap: int = Field(500, ge=1, description="Largest distance of neighbours in a region, in bases")
    figures: int = Field(6, ge=0, description="Traits that are drawn, those with the smallest p first")
    report: OutputPath | None = Field(
        None, description="Folder for the tables of traits, regions and failures, and the figures"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "AssociateEpigenomeConfig":
        if self.cells is not None and self.cell_reference is not None:
            raise ValueError("--cells and --cell-reference both give cell proportions; expected one of them")
        if self.keep_betas and self.kind != "beta":
            raise ValueError(f"--keep-betas goes with --kind beta, found --kind {self.kind}")
        if self.cell_reference is not None and self.kind == "other":
            raise ValueError("--cell-reference needs methylation (--kind beta or m), found --kind other")
        _reach(self.winsorise)
        _number_of_surrogates(self.surrogates)
        return self


def _reach(text: str) -> float:
    if text == "none":
        return 0.0
    found = re.fullmatch(r"tukey:(\d+(?:\.\d+)?)", text)
    if found is None or not float(found[1]) > 0:
        raise ValueError(f"--winsorise: expected none or tukey:K with K above 0, such as tukey:3, found {text!r}")
    return float(found[1])


def _number_of_surrogates(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal():
        raise ValueError(f"--surrogates: expected auto or a number, found {text!r}")
    return int(text)


@dataclass(slots=True, eq=False)
class _Study:
    """Who is analysed, and with which covariates."""

    source: ScanSource
    names: list[str]
    traits: Float64[np.ndarray, "people traits"]
    covariates: Float64[np.ndarray, "people covariates"]
    covariate_names: list[str]
    counts: dict[str, Any]
    cells: ResultTable | None = None
    surrogates: Surrogates | None = None
    notes: list[str] = field(default_factory=list)


def _study(config: AssociateEpigenomeConfig, context: Context) -> _Study:
    """Read the tables, bring people together by id, and leave out those without covariates."""
    traits = read_people(config.traits)
    people = traits if config.participants is None else read_people(config.participants)
    cells = None if config.cells is None else read_people(config.cells)
    tables = [("traits", traits), ("covariates", people), *([("cells", cells)] if cells is not None else [])]
    matrix = _open(config, config.methylation, [t.samples for _, t in tables])
    shared = shared_samples(
        matrix.samples, *(t.samples for _, t in tables), names=("methylation", *(n for n, _ in tables))
    )
    used = formula_columns(config.covariates)
    names = choose_traits(traits, config.columns, besides=used, option="--columns")
    counts: dict[str, Any] = {
        "participants_methylation": len(matrix.samples),
        **{f"participants_{n}": len(t.samples) for n, t in tables},
        "participants": len(shared),
        "rows_of_methylation": matrix.rows,
    }
    design = design_from_formula(config.covariates, people.take(shared))
    covariates, covariate_names = [design.matrix], list(design.names)
    if cells is not None:
        proportions, chosen, left_out = _free_cells(cells.take(shared))
        covariates.append(proportions)
        covariate_names += chosen
        counts["cell_type_left_out"] = left_out
    values = traits.take(shared).matrix(names)
    whole = np.hstack(covariates)
    kept = np.isfinite(whole).all(axis=1) & ~np.isnan(values).all(axis=1)
    counts["people_without_covariates"] = int((~np.isfinite(whole).all(axis=1)).sum())
    if not kept.any():
        raise SchemaError(f"None of the {len(shared)} people in all tables has a trait and all covariates.")
    rows = np.flatnonzero(kept)
    source = _source(config, matrix, shared.take(rows), context, (whole.shape[1], len(names)))
    study = _Study(source, names, values[rows], whole[rows], covariate_names, counts)
    layout = "features in rows" if matrix.rows == "features" else "people in rows"
    context.progress.say(
        f"{config.methylation.name}: {layout}, {len(matrix.samples)} people, {len(shared)} of them in every table, "
        f"{rows.size} analysed"
    )
    return study


def _free_cells(cells: PhenotypeTable) -> tuple[Float64[np.ndarray, "people cells"], list[str], str]:
    """Return cell proportions without the last where all of them sum to 1, but for rounding, and its name.

    Rounded proportions would otherwise bring a covariate that is their rounding error.
    """
    chosen = choose_traits(cells, (), besides=set(), option="--cells")
    values = cells.matrix(chosen)
    total = values[np.isfinite(values).all(axis=1)].sum(axis=1)
    if len(chosen) > 1 and total.size and np.abs(total - 1.0).max() < _ROUNDED:
        return values[:, :-1], chosen[:-1], chosen[-1]
    return values, chosen, ""


def _open(config: AssociateEpigenomeConfig, path: Path, people: Sequence[SampleIndex]) -> FeatureMatrix:
    npy = path.suffix.lower() == ".npy"
    return open_features(
        path,
        people,
        rows=config.rows,
        feature_names=config.feature_names if npy or path == config.methylation else None,
        participant_ids=config.participant_ids if npy or path == config.methylation else None,
    )


def _source(
    config: AssociateEpigenomeConfig,
    matrix: FeatureMatrix,
    samples: SampleIndex,
    context: Context,
    shape: tuple[int, int],
) -> ScanSource:
    """Return the features with the lists and settings that go with them, in blocks that fit the memory."""
    detection = None
    if config.detection_p is not None:
        detection = _open(config, config.detection_p, [samples])
        lacking = detection.samples.indices_of(samples) < 0
        if lacking.any():
            raise AlignmentError(
                f"{config.detection_p}: expected detection p-values of everybody, {int(lacking.sum())} lack them: "
                f"{', '.join(repr(str(i)) for i in samples.ids[lacking][:5])}."
            )
    excluded = frozenset(name for path in config.exclude for name in read_list(path, "feature", every_row=True))
    n_covariates, n_traits = shape
    number = _number_of_surrogates(config.surrogates)
    rank = n_covariates + 1 + (20 if number is None else number)
    about = matrix.about
    fixed = (
        _OVERHEAD
        + about * _BYTES_PER_FEATURE
        + matrix.held_bytes
        + (detection.held_bytes if detection is not None else 0)
    )
    fixed += _PEOPLE * len(matrix.samples) * (n_traits + n_covariates)
    if number is None or number > 0:
        fixed += 8 * len(samples) * (6 * MOST_FEATURES + 4 * len(samples))
    design = _nominal_design(len(samples), n_traits, rank)
    workers = context.executor.workers
    copies = 1 if detection is None else 2

    def needed(size: int) -> int:
        waiting = (6 * workers + 16) * copies * 8 * size * len(samples)
        return fixed + waiting + workers * (scan_features_bytes(design, len(samples), size) + 40 * size * len(samples))

    size = _LARGEST_BLOCK
    while size > _SMALLEST_BLOCK and needed(size) > context.memory_bytes:
        size //= 2
    groups = (
        ""
        if matrix.held_bytes < context.memory_bytes // 2 or matrix.rows == "people"
        else (
            f", of which {matrix.held_bytes / 2**20:.0f} MiB for the largest row group of the Parquet file "
            "(write it with row groups of 10,000 rows),"
        )
    )
    what = f"Testing about {about:,} features of {len(samples):,} people{groups}"
    require_memory(needed(size), context.memory_bytes, what)
    preparation = Preparation(config.kind, config.keep_betas, _reach(config.winsorise), config.detection_limit)
    return ScanSource(matrix, samples, size, preparation, excluded, detection)


def _nominal_design(n_people: int, n_traits: int, rank: int) -> VoxelwiseDesign:
    """Return a design of the size that is to come, for the plan of the memory."""
    rng = np.random.default_rng(0)
    n = max(min(n_people, 4 * rank + 8), rank + 3)
    return prepare_voxelwise(rng.normal(size=(n, n_traits)), covariates=rng.normal(size=(n, rank - 1)), min_people=3)


def _estimate_cells(config: AssociateEpigenomeConfig, study: _Study, context: Context) -> None:
    """Read the markers of the reference and add the proportions to the covariates."""
    if config.cell_reference is None:
        return
    reference = read_cell_reference(config.cell_reference)
    at = {name: k for k, name in enumerate(reference.features)}
    rows: list[int] = []
    found: list[Float64[np.ndarray, "_some people"]] = []
    blocks = ScanSource(
        study.source.matrix, study.source.samples, study.source.size, study.source.preparation, frozenset(), None
    ).blocks()
    total = -(-study.source.matrix.about // study.source.size)
    for block in context.progress.track(blocks, "Reading markers of cells", total):
        here = [(k, at[name]) for k, name in enumerate(block.features.tolist()) if name in at]
        if here:
            rows += [m for _, m in here]
            found.append(block.values[[k for k, _ in here]])
    if len(rows) < len(reference.cells):
        raise SchemaError(
            f"{config.cell_reference}: expected marker CpGs that {config.methylation} has, at least "
            f"{len(reference.cells)} for {len(reference.cells)} cell types, found {len(rows)} of "
            f"{len(reference.features)} ({', '.join(map(repr, reference.features[:3]))}, ...). Give the reference of "
            "this array."
        )
    values = np.vstack(found)
    if config.kind == "m":
        values = beta_values(values)
    elif np.nanmin(values) < 0 or np.nanmax(values) > 1:
        raise SchemaError(
            f"{config.methylation}: expected betas in [0, 1], found {np.nanmin(values):.4g} to "
            f"{np.nanmax(values):.4g}. Say --kind m for M values."
        )
    cells = estimate_cells(values, reference.values[rows])
    complete = np.isfinite(cells.proportions).all(axis=1)
    study.cells = ResultTable(
        {
            "participant_id": study.source.samples.ids,
            "n_markers": cells.n_markers,
            "cell_rms": cells.residual,
        }
    )
    study.counts |= {
        "cell_types": list(reference.cells),
        "cell_markers": len(rows),
        "people_without_cells": int((~complete).sum()),
        "mean_cell_proportions": {
            cell: round(float(np.nanmean(cells.proportions[:, k])), 6) for k, cell in enumerate(reference.cells)
        },
    }
    if not complete.any():
        raise SchemaError("Nobody has enough marker CpGs for cell proportions; give --cells, or another reference.")
    _add_covariates(study, cells.proportions, list(reference.cells))


def _add_covariates(study: _Study, values: Float64[np.ndarray, "people columns"], names: list[str]) -> None:
    """Add covariates; people who lack one are left out from here on."""
    complete: Bool[np.ndarray, " people"] = np.isfinite(values).all(axis=1)
    rows = np.flatnonzero(complete)
    old = study.source
    study.source = ScanSource(
        old.matrix, old.samples.take(rows), old.size, old.preparation, old.excluded, old.detection
    )
    study.traits = study.traits[rows]
    study.covariates = np.hstack([study.covariates[rows], values[rows]])
    study.covariate_names += names


def _find_surrogates(config: AssociateEpigenomeConfig, study: _Study, context: Context) -> None:
    number = _number_of_surrogates(config.surrogates)
    if number == 0:
        return
    chosen = start_surrogates(study.covariates)
    preparer = Preparer(study.source.preparation, str(config.methylation))
    total = -(-study.source.matrix.about // study.source.size)
    blocks = context.executor.map(preparer, study.source.blocks())
    for block in context.progress.track(blocks, "Finding surrogate variables", total):
        add_surrogates(chosen, block.values)
    found = surrogate_variables(chosen, context.rng(1), number=number)
    study.surrogates = found
    n = found.scores.shape[1]
    if n:
        _add_covariates(study, found.scores, [f"surrogate_{k + 1}" for k in range(n)])
    explained = _explained(study.traits, found.scores)
    study.counts |= {
        "surrogates": n,
        "surrogate_features": found.n_features,
        "traits_explained_by_surrogates": {
            name: round(float(r2), 4) for name, r2 in zip(study.names, explained, strict=True)
        },
    }
    most = f"; they explain up to {explained.max():.0%} of a trait" if n else ""
    study.notes.append(f"{n} surrogate variables of {found.n_features:,} features{most}")


def _explained(
    traits: Float64[np.ndarray, "people traits"], scores: Float64[np.ndarray, "people surrogates"]
) -> Float64[np.ndarray, " traits"]:
    """Return the share of each trait's variance that the surrogates explain."""
    shares = np.zeros(traits.shape[1])
    for k in range(traits.shape[1]):
        known = np.isfinite(traits[:, k])
        if known.sum() <= scores.shape[1] + 1 or not scores.shape[1]:
            continue
        y = traits[known, k] - traits[known, k].mean()
        x = scores[known] - scores[known].mean(axis=0)
        total = float(y @ y)
        if total > 0:
            left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
            shares[k] = 1.0 - float(left @ left) / total
    return shares


def associate_epigenome(config: AssociateEpigenomeConfig, out: Path, context: Context) -> StepResult:
    """Scan all features against all traits, then write trait by trait."""
    if config.annotation is not None:
        read_places(config.annotation, ())
    study = _study(config, context)
    _estimate_cells(config, study, context)
    _find_surrogates(config, study, context)
    design = prepare_voxelwise(
        study.traits,
        covariates=study.covariates,
        covariate_names=study.covariate_names,
        min_share=config.min_share,
        min_people=config.min_people,
    )
    study.counts |= {"covariates": study.covariate_names, "dropped_covariates": list(design.dropped)}
    spool, features, found = scan_all(study.source, design, config.direction, context)
    study.counts |= found
    _check_features(config, study, features)
    places = None if config.annotation is None else read_places(config.annotation, features.tolist())
    if places is not None and not places.n_known:
        raise SchemaError(
            f"{config.annotation}: has a place for none of the features tested ({str(features[0])!r}, ...). Give the "
            "annotation of this array."
        )
    blood_brain = (
        None
        if config.blood_brain is None
        else read_feature_numbers(config.blood_brain, features.tolist(), what="their correlation in blood and brain")
    )
    results = _Results(config, study, design, spool, features, places, blood_brain)
    rows, candidates = _write_tests(results, out, context)
    regions = _regions(results, candidates, context) if candidates else []
    with report_folder(config.report) as folder:
        if folder is not None:
            _report(results, rows, regions, folder)
    return _result(results, rows, regions)


@dataclass(frozen=True, slots=True, eq=False)
class _Results:
    """What the results are made of."""

    config: AssociateEpigenomeConfig
    study: _Study
    design: VoxelwiseDesign
    spool: Spool
    features: Shaped[np.ndarray, " features"]
    places: Places | None
    blood_brain: Float64[np.ndarray, " features"] | None

    def trait(self, k: int) -> TraitTests:
        """Return the tests of a trait."""
        return finish_trait(
            self.study.names[k],
            self.spool.trait(k),
            moderated=self.config.moderated and self.config.direction == "feature",
            empirical_null=self.config.empirical_null,
        )


def _check_features(config: AssociateEpigenomeConfig, study: _Study, features: Shaped[np.ndarray, " features"]) -> None:
    if not features.size:
        raise SchemaError(f"{config.methylation}: there is no feature to test; check the file and --exclude.")
    unique, counts = np.unique(features, return_counts=True)
    if unique.size < features.size:
        twice = ", ".join(repr(str(n)) for n in unique[counts > 1][:5])
        raise SchemaError(
            f"{config.methylation}: features must be unique, found more than once: {twice}. Keep one of each."
        )
    study.counts["features"] = int(features.size)
    if study.source.matrix.n_features is not None:
        study.counts["features_excluded"] = study.source.matrix.n_features - int(features.size)


def _write_tests(results: _Results, out: Path, context: Context) -> tuple[list[dict[str, Any]], list[RegionCandidates]]:
    """Write the rows of every trait; return the rows of the table of traits, and candidate regions."""
    config, design = results.config, results.design
    rows, candidates = [], []
    n_study = int(sum(np.isfinite(results.spool.trait(k).variance).sum() for k in range(design.n.size)))
    with ResultWriter(out) as writer:
        wrote = False
        for k in context.progress.track(range(design.n.size), "Writing results", design.n.size):
            tests = results.trait(k)
            status = str(design.status[k])
            if status == "ok" and not tests.n_tests:
                status = "no feature could be tested"
            rows.append(trait_row(tests, results.features, int(design.n[k]), status, config.level, n_study))
            for part in result_rows(tests, results.features, results.places, results.blood_brain, max_p=config.hits):
                writer.append(part)
                wrote = True
            if results.places is not None and config.report is not None and tests.n_tests:
                candidates.append(
                    find_candidates(tests, results.places, level=config.region_level, gap=config.region_gap)
                )
        if not wrote:
            everything = result_rows(results.trait(0), results.features, results.places, results.blood_brain, max_p=1.0)
            writer.append(next(everything).take(np.empty(0, dtype=np.int64)))
    return rows, candidates


def _regions(results: _Results, candidates: list[RegionCandidates], context: Context) -> list[dict[str, Any]]:
    needed = needed_features(candidates)
    if not needed.size or results.places is None:
        return []
    source = results.study.source
    residuals = gather_residuals(source, results.study.covariates, needed, context.shards / "regions.npy", context)
    rows = []
    for found in candidates:
        rows += region_table(found, residuals, needed, results.features, results.places)
    cut = sum(c.n_cut for c in candidates)
    if cut:
        results.study.notes.append(f"{cut} candidate regions were longer than 400 features and cut there")
    return rows


_TRAIT_COLUMNS = {
    "trait": "", "n": 0, "n_tests": 0, "n_failed": 0, "lambda_gc": np.nan, "prior_degrees_of_freedom": np.nan,
    "prior_variance": np.nan, "n_level": 0, "n_bonferroni": 0, "n_bonferroni_study": 0, "n_fdr": 0, "top_feature": "",
    "top_neg_log10_p": np.nan, "status": "",
}  # fmt: skip
_NULL_COLUMNS = {"null_bias": np.nan, "null_inflation": np.nan, "null_share": np.nan, "lambda_gc_corrected": np.nan}
_REGION_COLUMNS = {
    "trait": "", "chromosome": "", "start": 0, "stop": 0, "n_features": 0, "beta": np.nan, "standard_error": np.nan,
    "z": np.nan, "neg_log10_p": np.nan, "p_bonferroni": np.nan, "gene_name": "", "features": "",
}  # fmt: skip


def _table(rows: Sequence[dict[str, Any]], columns: dict[str, Any]) -> ResultTable:
    def column(name: str, empty: Any) -> np.ndarray:
        values = [row.get(name, empty) for row in rows]
        return text_array(values) if isinstance(empty, str) else np.array(values, dtype=type(empty))

    return ResultTable({name: column(name, empty) for name, empty in columns.items()})


def _report(results: _Results, rows: list[dict[str, Any]], regions: list[dict[str, Any]], folder: Path) -> None:
    """Write the tables and figures of the report."""
    config, study = results.config, results.study
    nulls = _NULL_COLUMNS if config.empirical_null else {}
    columns = {**_TRAIT_COLUMNS, **nulls}
    columns["status"] = columns.pop("status")
    write_results(_table(rows, columns), folder / "traits.tsv")
    if results.places is not None:
        write_results(_table(regions, _REGION_COLUMNS), folder / "regions.tsv")
    if study.cells is not None:
        _write_cells(study, folder / "cells.tsv")
    if study.surrogates is not None:
        _write_surrogates(study.surrogates, folder)
    order = sorted(range(len(rows)), key=lambda k: -float(rows[k].get("top_neg_log10_p", -1.0)))
    drawn = [k for k in order if rows[k]["n_tests"]][: config.figures]
    with ResultWriter(folder / "failed.parquet") as failed, ResultWriter(folder / "histogram.parquet") as histogram:
        for k in range(len(rows)):
            tests = results.trait(k)
            histogram.append(trait_histogram(tests))
            everything = result_rows(tests, results.features, None, None, max_p=1.0)
            for part in everything:
                short = ResultTable({name: part[name] for name in ("trait", "feature", "n", "status")})
                failed.append(short.take(np.flatnonzero(np.asarray(part["status"]) != "ok")))
            if k in drawn:
                _draw(results, tests, folder)


def _write_cells(study: _Study, path: Path) -> None:
    from brainlocus.core import Column
    from brainlocus.io import write_table

    assert study.cells is not None  # noqa: S101 - our own invariant
    cells = study.counts["cell_types"]
    at = [study.covariate_names.index(name) for name in cells]
    people = study.source.samples
    known = SampleIndex.of(study.cells["participant_id"].tolist()).indices_of(people)
    columns = [Column(name, study.covariates[:, k]) for name, k in zip(cells, at, strict=True)]
    columns += [Column(n, study.cells[n][known].astype(np.float64)) for n in ("n_markers", "cell_rms")]
    write_table(PhenotypeTable(people, tuple(columns)), path)


def _write_surrogates(found: Surrogates, folder: Path) -> None:
    size, number = found.remaining.size, found.scores.shape[1]
    threshold = np.r_[found.threshold, np.full(size - found.threshold.size, np.nan)]
    write_results(
        ResultTable(
            {
                "surrogate": np.arange(1, size + 1),
                "variance_share": found.share,
                "remaining_share": found.remaining,
                "remaining_threshold": threshold,
                "kept": np.arange(size) < number,
            }
        ),
        folder / "surrogates.tsv",
    )
    draw_components(found.remaining, found.threshold, number, folder / "surrogates.png")


def _draw(results: _Results, tests: TraitTests, folder: Path) -> None:
    """Draw Q-Q, volcano and, with places, Manhattan plots of a trait."""
    config = results.config
    stem = re.sub(r"[^A-Za-z0-9._+-]+", "-", tests.name).strip(".-") or "trait"
    curves = [qq_curve_of_tests("as tested", tests.neg_log10_p)]
    if tests.neg_log10_p_corrected is not None:
        curves.append(qq_curve_of_tests("corrected", tests.neg_log10_p_corrected))
    draw_qq(curves, folder / f"{stem}-qq.png", title=tests.name)
    outcome = {"beta": "M value", "m": "M value", "other": "feature units"}[config.kind]
    outcome = "beta" if config.keep_betas else outcome
    unit = f"{outcome} per unit of the trait" if config.direction == "feature" else f"trait per {outcome}"
    labels = results.features
    if results.places is not None:
        first = np.array([g.split(";")[0] for g in results.places.gene.tolist()], dtype=np.dtypes.StringDType())
        labels = np.where(first == "", results.features, first)
    beta, _ = tests.effects()
    draw_volcano(
        beta, tests.strength, labels, folder / f"{stem}-volcano.png", level=config.level, title=tests.name, unit=unit
    )
    if results.places is not None:
        placed = np.flatnonzero(results.places.chromosome != "")
        panel = Panel(
            tests.name,
            results.places.chromosome[placed],
            results.places.position[placed],
            tests.strength[placed],
            labels[placed],
            thresholds=((config.level, power_text(config.level)),),
        )
        draw_manhattan(panel, folder / f"{stem}-manhattan.png")


def _result(results: _Results, rows: list[dict[str, Any]], regions: list[dict[str, Any]]) -> StepResult:
    config, study, design = results.config, results.study, results.design
    tested = sum(1 for row in rows if row["n_tests"])
    failed = sum(int(row["n_failed"]) for row in rows if row["status"] == "ok")
    n_traits = len(rows)
    n_level, n_fdr = (sum(int(row[name]) for row in rows) for name in ("n_level", "n_fdr"))
    study.counts |= {
        "traits": n_traits,
        "status": {str(s): int(n) for s, n in zip(*np.unique(design.status, return_counts=True), strict=True)},
        "tests": sum(int(row["n_tests"]) for row in rows),
        "tests_without_result": failed,
        "significant_level": n_level,
        "significant_fdr": n_fdr,
        "lambda_gc": {str(row["trait"]): round(float(row["lambda_gc"]), 4) for row in rows if row["n_tests"]},
    }
    lambdas = np.array([row["lambda_gc"] for row in rows if row["n_tests"]])
    shown = f"lambda {lambdas[0]:.3f}" if lambdas.size == 1 else "no lambda"
    if lambdas.size > 1:
        shown = f"lambda {lambdas.min():.3f} to {lambdas.max():.3f}"
    text = [
        f"{len(study.source.samples)} people, {results.features.size:,} features x {tested} of {n_traits} traits: "
        f"{n_level} tests at {config.level:g}, {n_fdr} at FDR 5 % of their trait; {shown}",
        *study.notes,
    ]
    if config.empirical_null:
        null = np.array([[row["null_bias"], row["null_inflation"]] for row in rows if "null_bias" in row])
        study.counts["empirical_null"] = {
            str(row["trait"]): [round(float(row["null_bias"]), 4), round(float(row["null_inflation"]), 4)]
            for row in rows
            if np.isfinite(row.get("null_bias", np.nan))
        }
        if null.size:
            text.append(f"empirical null: bias {_span(null[:, 0])}, inflation {_span(null[:, 1])}")
    if results.places is not None and config.report is not None:
        good = sum(row["p_bonferroni"] < 0.05 for row in regions)
        study.counts |= {
            "features_with_place": results.places.n_known,
            "regions": len(regions),
            "regions_bonferroni": good,
        }
        text.append(f"{good} regions of two features or more at Bonferroni 5 %")
    if failed:
        text.append(f"{failed:,} tests have no result, for their status see the table or REPORT/failed.parquet")
    if config.kind != "other":
        text.append(TISSUE)
    return StepResult(study.counts, n_failed=failed + n_traits - tested, summary=tuple(text))


def _span(values: Float64[np.ndarray, " traits"]) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return "not known"
    return f"{known[0]:.3f}" if known.size == 1 else f"{known.min():.3f} to {known.max():.3f}"


ASSOCIATE_EPIGENOME = Step(
    "associate epigenome",
    "Test CpGs, or features of another omics layer, against traits.",
    AssociateEpigenomeConfig,
    associate_epigenome,
)
