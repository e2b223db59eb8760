"""``twas specificity``: genes and gene-phenotype pairs by the number of tissues, brain and others."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Int, Shaped
from pydantic import Field, model_validator

from brainlocus.core import SchemaError
from brainlocus.genetics.twas import mark_significant, tissue_groups, tissue_specificity
from brainlocus.io import read_arrow, write_results
from brainlocus.io.gene_associations import read_annotation
from brainlocus.pipeline.config import InputPath, InputPaths, Positional
from brainlocus.pipeline.figures.specificity import draw_breadth, draw_strength, draw_tissue_sizes
from brainlocus.pipeline.gene_results import ResultFiles, StudyTests, read_study
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["TWAS_SPECIFICITY", "TwasSpecificityConfig"]


class TwasSpecificityConfig(ResultFiles):
    """Settings of ``twas specificity``."""

    results: Annotated[InputPaths, Positional()] = Field(
        description="Gene associations: a folder of twas associate --full, or tables"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Largest corrected p of a significant association")
    method: Literal["bh", "bonferroni", "p"] = Field("bh", description="Correction; p for none")
    scope: Literal["study", "modality", "phenotype", "tissue", "phenotype-tissue"] = Field(
        "study", description="Tests that are corrected together"
    )
    n_tests: int | None = Field(
        None, ge=1, description="Tests of the whole study, when the tables hold only some of them (scope study)"
    )
    annotation: InputPath | None = Field(None, description="Table of the phenotypes, for the scope modality")
    groups: InputPath | None = Field(
        None, description="Table of tissue and group, two groups; brain and six other tissues by name by default"
    )
    models: InputPath | None = Field(
        None, description="Table of gene and tissue: which tissues model which genes, when the tables lack tests"
    )

    @model_validator(mode="after")
    def _goes_together(self) -> "TwasSpecificityConfig":
        if self.scope == "modality" and self.annotation is None:
            raise ValueError("annotation: the scope modality needs --annotation")
        if self.n_tests is not None and (self.scope != "study" or self.method == "p"):
            raise ValueError("n_tests: only the scope study with a correction takes --n-tests")
        return self


def _scope(config: TwasSpecificityConfig, study: StudyTests) -> Int[np.ndarray, "tissues phenotypes"]:
    n_tissues, n_phenotypes = study.n_tested.shape
    tissue, phenotype = np.arange(n_tissues)[:, None], np.arange(n_phenotypes)[None, :]
    shape = (n_tissues, n_phenotypes)
    if config.annotation is not None and config.scope == "modality":
        annotation = read_annotation(config.annotation)
        annotation.unknown(study.tests.phenotypes, where=str(config.annotation))
        modality = annotation.of("modality", study.tests.phenotypes)
        return np.broadcast_to(np.unique(modality, return_inverse=True)[1][None, :], shape)
    codes = {"phenotype": phenotype, "tissue": tissue, "phenotype-tissue": tissue * n_phenotypes + phenotype}
    return np.broadcast_to(codes.get(config.scope, np.zeros((1, 1), dtype=np.int64)), shape)


def _groups(path: Path | None, tissues: Shaped[np.ndarray, " tissues"]) -> Shaped[np.ndarray, " tissues"]:
    if path is None:
        return tissue_groups(tissues)
    table = read_arrow(path)
    if not {"tissue", "group"} <= set(table.column_names):
        raise SchemaError(f"{path}: expected columns tissue and group, found {', '.join(table.column_names[:8])}.")
    known = dict(zip(table.column("tissue").to_pylist(), table.column("group").to_pylist(), strict=True))
    absent = [name for name in tissues.tolist() if not known.get(name)]
    if absent:
        raise SchemaError(f"{path}: {len(absent)} tissues have no group: {', '.join(absent[:5])}.")
    return np.array([known[name] for name in tissues.tolist()], dtype=np.str_)


def twas_specificity(config: TwasSpecificityConfig, out: Path, _context: Context) -> StepResult:
    """Write how many tissues genes and pairs are associated in."""
    study = read_study(config.results, config, max_p=config.alpha, models=config.models)
    groups = _groups(config.groups, study.tests.tissues)
    passed = mark_significant(
        study.tests,
        study.n_tested,
        _scope(config, study),
        method=config.method,
        alpha=config.alpha,
        n_tests=config.n_tests,
    )
    significant = study.tests.take(np.flatnonzero(passed))
    if not len(significant):
        strongest = study.tests.neg_log10_p.max() if len(study.tests) else 0.0
        raise SchemaError(
            f"None of {study.n_read:,} tests is significant ({config.method}, {config.scope}, alpha {config.alpha:g}); "
            f"the smallest p is {10.0**-strongest:.2g}. Give another --method, --scope or --alpha."
        )
    found = tissue_specificity(significant, study.modelled, study.n_tested, groups)
    for name in ("genes", "pairs", "profile", "tissues", "comparisons"):
        write_results(getattr(found, name), out / f"{name}.parquet")
    draw_breadth(found, out / "breadth.png")
    draw_strength(found, out / "strength.png")
    draw_tissue_sizes(found, out / "tissues.png")
    n_models = study.modelled.sum(axis=1)
    classes, numbers = np.unique(found.genes["specificity"], return_counts=True)
    counts: dict[str, Any] = {
        "tests": study.n_read,
        "tests_significant": len(significant),
        "genes_tested": int((n_models > 0).sum()),
        "genes_significant": len(found.genes),
        "pairs_significant": len(found.pairs),
        "models_per_gene": {"median": float(np.median(n_models[n_models > 0])), "largest": int(n_models.max())},
        "genes_by_class": dict(zip(classes.tolist(), numbers.tolist(), strict=True)),
        "models_from": "table" if config.models is not None else "results",
    }
    most = found.profile["n_tissues"].max()
    everywhere = found.profile.take(
        np.flatnonzero((found.profile["level"] == "gene") & (found.profile["n_tissues"] == most))
    )
    summary = (
        f"{len(significant):,} of {study.n_read:,} tests significant: {len(found.genes):,} genes, {len(found.pairs):,} "
        f"pairs; {int(everywhere['count'][0]):,} genes in all {most} tissues, which "
        f"{int(everywhere['possible_count'][0]):,} could be ({everywhere['expected_count'][0]:.1f} expected if tissues "
        "were independent)"
    )
    return StepResult(counts, summary=(summary,))


TWAS_SPECIFICITY = Step(
    "twas specificity",
    "In how many tissues, and in which, genes are associated.",
    TwasSpecificityConfig,
    twas_specificity,
    out="folder",
)
