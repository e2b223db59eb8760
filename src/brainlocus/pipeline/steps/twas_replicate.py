"""``twas replicate``: agreement of gene associations with those of another cohort, or of an external set."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from brainlocus.core import AlignmentError, PhenotypeAnnotation, SchemaError
from brainlocus.core.errors import nearest
from brainlocus.genetics.twas import (
    HemispherePairs,
    annotated_hemispheres,
    external_replication,
    internal_replication,
    match_hemispheres,
    pair_tissue,
)
from brainlocus.io import read_arrow, write_results
from brainlocus.io.gene_associations import GeneFolder, GeneTables, read_annotation
from brainlocus.pipeline.config import CommaInts, CommaList, InputPath, InputPaths, OutputPath, Positional
from brainlocus.pipeline.figures.replication import draw_estimates, draw_external, draw_modalities, draw_tissues
from brainlocus.pipeline.gene_results import ResultFiles
from brainlocus.pipeline.people import report_folder
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["TWAS_REPLICATE", "TwasReplicateConfig"]


class TwasReplicateConfig(ResultFiles):
    """Settings of ``twas replicate``."""

    discovery: Annotated[InputPath, Positional()] = Field(
        description="Gene associations of the discovery: a folder of twas associate --full, or a table"
    )
    replication: Annotated[InputPaths, Positional()] = Field(
        description="Those of the other cohort or the external set: a folder, or tables"
    )
    mode: Literal["internal", "external"] = Field(
        "internal",
        description="internal: the same phenotypes in other people; external: phenotypes without hemispheres",
    )
    annotation: InputPath | None = Field(
        None, description="Table of the phenotypes: modality, side, region and other columns"
    )
    pairs: InputPath | None = Field(
        None, description="Table with columns left, right, external: which phenotypes belong together (external)"
    )
    match_on: CommaList = Field(
        (), description="Columns of the annotation that are equal in phenotypes that belong together; all but side"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Largest p of a significant test")
    fdr: float = Field(0.05, gt=0, lt=1, description="Largest Benjamini-Hochberg q, study-wide")
    significance: Literal["bh", "p"] = Field(
        "bh", description="What makes a discovery (external): q up to --fdr, or p up to --alpha, in both hemispheres"
    )
    estimate: Literal["auto", "effect", "z"] = Field(
        "auto", description="What is compared: effect sizes, or z; effect sizes where both have them by default"
    )
    n_tests: CommaInts = Field(
        (), description="Tests of the discovery and the replication, when the tables hold only some of them"
    )
    min_r2: float = Field(0.1, ge=0, lt=1, description="Smallest pred_perf_r2 of a model (external); 0 for any")
    min_tests: int = Field(10, ge=1, description="Tests a phenotype needs to enter the mean of its modality")
    tests: OutputPath | None = Field(None, description="Table of the discovered associations (external)")
    report: OutputPath | None = Field(None, description="Folder for the figures")

    @model_validator(mode="after")
    def _goes_together(self) -> "TwasReplicateConfig":
        if self.n_tests and len(self.n_tests) != 2:
            raise ValueError("n_tests: expected two numbers, of the discovery and of the replication")
        if self.fdr > self.alpha:
            raise ValueError("fdr: expected a false discovery rate up to alpha, since only tests up to alpha are kept")
        if self.mode == "external" and self.pairs is None and self.annotation is None:
            raise ValueError("pairs: the external mode needs --pairs or --annotation")
        if self.mode == "internal" and (self.pairs is not None or self.tests is not None):
            raise ValueError("pairs: --pairs and --tests belong to the external mode")
        return self


Opened = GeneFolder | GeneTables


def _shared_tissues(discovery: Opened, replication: Opened) -> list[str]:
    shared = sorted(set(discovery.tissues) & set(replication.tissues))
    if not shared:
        raise AlignmentError(
            f"No tissue is in both: the discovery has {', '.join(discovery.tissues)}; the replication has "
            f"{', '.join(replication.tissues)}. Name them alike, for example with --file-pattern."
        )
    return shared


def _choose_estimate(config: TwasReplicateConfig, first: Opened, second: Opened) -> Literal["effect", "z"]:
    if config.estimate != "auto":
        return config.estimate

    def has(opened: Opened) -> bool:
        if isinstance(opened, GeneFolder):
            return opened.effect is not None
        return bool(np.isfinite(opened.tests.effect).any())

    return "effect" if has(first) and has(second) else "z"


def _internal(
    config: TwasReplicateConfig, first: Opened, second: Opened, out: Path, context: Context
) -> tuple[dict[str, Any], str]:
    annotation = None if config.annotation is None else read_annotation(config.annotation)
    estimate = _choose_estimate(config, first, second)
    tissues = _shared_tissues(first, second)
    if annotation is not None:
        annotation.unknown(first.matrix(tissues[0]).phenotypes, where=str(config.annotation))
    pairs = [
        pair_tissue(first.matrix(name), second.matrix(name), alpha=config.alpha, estimate=estimate)
        for name in context.progress.track(iter(tissues), "tissues", len(tissues))
    ]
    n_tests = (config.n_tests[0], config.n_tests[1]) if config.n_tests else None
    found = internal_replication(
        pairs,
        annotation=annotation,
        alpha=config.alpha,
        fdr=config.fdr,
        n_tests=n_tests,
        min_tests=config.min_tests,
    )
    write_results(found, out)
    with report_folder(config.report) as folder:
        if folder is not None:
            draw_estimates(pairs, found, estimate, folder / "estimates.png")
            if annotation is not None:
                draw_modalities(found, folder / "modalities.png")
                draw_tissues(found, folder / "modalities_tissues.png")
    one = found.take(np.flatnonzero((found["level"] == "all") & (found["selection"] == "both")))
    alone = found.take(np.flatnonzero((found["level"] == "all") & (found["selection"] == "discovery")))
    counts = {
        "estimate": estimate,
        "tissues": len(tissues),
        "tissues_of_one_cohort": sorted(set(first.tissues) ^ set(second.tissues)),
        "genes": int(np.unique(np.concatenate([p.genes for p in pairs])).size),
        "phenotypes": int(np.unique(np.concatenate([p.phenotypes for p in pairs])).size),
        "tests_discovery": sum(p.n_tests[0] for p in pairs),
        "tests_replication": sum(p.n_tests[1] for p in pairs),
        "tests_in_both": sum(p.n_shared for p in pairs),
        "significant_in_both": int(one["n_tests"][0]),
    }
    summary = (
        f"{counts['tests_in_both']:,} tests in both; {one['n_tests'][0]:,} with p <= {config.alpha:g} in both: "
        f"{one['same_sign'][0]:.2%} of equal sign, Spearman {one['spearman_rho'][0]:.4f} ({estimate}); significant in "
        f"the discovery, any p in the replication: {alone['same_sign'][0]:.2%} of {alone['n_tests'][0]:,}"
    )
    return counts, summary


def _read_pairs(path: Path) -> HemispherePairs:
    table = read_arrow(path)
    for name in ("left", "right", "external"):
        if name not in table.column_names:
            raise SchemaError(
                f"{path}: expected columns left, right and external, found {', '.join(table.column_names[:8])}."
                f"{nearest(name, table.column_names)}"
            )
    columns = [np.array(table.column(n).to_pylist(), dtype=np.str_) for n in ("left", "right", "external")]
    if not columns[0].size:
        raise SchemaError(f"{path}: expected a row for each pair of hemispheres, found none.")
    return HemispherePairs(*columns)


def _external(
    config: TwasReplicateConfig, first: Opened, second: Opened, out: Path, context: Context
) -> tuple[dict[str, Any], str]:
    tissues = _shared_tissues(first, second)
    if config.pairs is not None:
        pairs = _read_pairs(config.pairs)
    else:
        annotation: PhenotypeAnnotation = read_annotation(config.annotation or Path())
        names = [first.matrix(tissues[0]).phenotypes, second.matrix(tissues[0]).phenotypes]
        pairs = annotated_hemispheres(annotation, names[0], names[1], on=config.match_on)
    merges = [
        match_hemispheres(first.matrix(name), second.matrix(name), pairs, alpha=config.alpha, min_r2=config.min_r2)
        for name in context.progress.track(iter(tissues), "tissues", len(tissues))
    ]
    poor, models = sum(m.n_poor for m in merges), sum(first.matrix(name).genes.size for name in tissues)
    if models and poor == models:
        raise SchemaError(
            f"None of the {models} models of the discovery has a pred_perf_r2 of {config.min_r2:g} or more; where it "
            "is not known, give --min-r2 0."
        )
    found, tests = external_replication(
        merges,
        alpha=config.alpha,
        significance=config.significance,
        fdr=config.fdr,
        n_tests=config.n_tests[0] if config.n_tests else None,
    )
    write_results(found, out)
    if config.tests is not None:
        write_results(tests, config.tests)
    with report_folder(config.report) as folder:
        if folder is not None and len(tests):
            draw_external(found, tests, folder / "external.png")
    one = {name: column[0] for name, column in found.columns.items()}
    counts = {
        "tissues": len(tissues),
        "pairs_of_hemispheres": int(pairs.left.size),
        "models": models,
        "models_below_min_r2": poor,
        "discovered": int(one["n_discovered"]),
        "discovered_not_in_external": int(one["n_discovered"] - one["n_tests"]),
    }
    summary = (
        f"{one['n_discovered']:,} associations in both hemispheres, {one['n_tests']:,} with an external result: "
        f"{one['share_significant']:.1%} with p <= {config.alpha:g} ({config.alpha:.0%} by chance), "
        f"{one['same_sign']:.1%} of equal sign, pi1 {one['pi1']:.3f}"
    )
    return counts, summary


def twas_replicate(config: TwasReplicateConfig, out: Path, context: Context) -> StepResult:
    """Write how the associations agree with others."""
    first, second = config.open([config.discovery]), config.open(config.replication)
    run = _internal if config.mode == "internal" else _external
    counts, summary = run(config, first, second, out, context)
    return StepResult(counts, summary=(summary,))


TWAS_REPLICATE = Step(
    "twas replicate",
    "Compare gene associations with those of another cohort or an external set.",
    TwasReplicateConfig,
    twas_replicate,
)
