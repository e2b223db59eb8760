"""``associate phenome``: every trait against every phenotype."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from brainlocus.cohort.associate import phenome_results, prepare_phenome, scan_phenome, scan_phenome_peak_bytes
from brainlocus.core import PhenotypeTable, ResourceError, ResultTable, SchemaError, shared_samples
from brainlocus.io import read_arrow, write_results
from brainlocus.numerics import design_from_formula
from brainlocus.pipeline.config import InputPath, OutputPath, Positional, StepConfig
from brainlocus.pipeline.figures.cohort import draw_phenome
from brainlocus.pipeline.people import choose_traits, formula_columns, read_people, report_folder
from brainlocus.pipeline.step import Context, Estimate, Step, StepResult

__all__ = ["ASSOCIATE_PHENOME", "AssociatePhenomeConfig"]

_LARGEST_BLOCK = 2_000
_BYTES_PER_PAIR = 1_200
"""A row of results with its names, in the parts of the scan, joined, and written."""
_TOP = 100


class AssociatePhenomeConfig(StepConfig):
    """Settings of ``associate phenome``."""

    traits: Annotated[InputPath, Positional()] = Field(description="Table of traits")
    phenotypes: Annotated[InputPath, Positional()] = Field(description="Table of phenotypes of the same people")
    covariates: str = Field("", description="Formula of covariates: 'age + I(age**2) + sex'")
    participants: InputPath | None = Field(None, description="Table with the covariates; PHENOTYPES by default")
    categories: InputPath | None = Field(None, description="Table phenotype, category: groups for the figure")
    mode: Literal["per_variable", "exact"] = Field(
        "per_variable", description="Covariates out of each variable on its own people, or on the people of each pair"
    )
    naive_df: bool = Field(False, description="Use n - 2 degrees of freedom, as some published results do")
    min_people: int = Field(40, ge=3, description="Pairs with fewer people are not tested")
    min_cases: int = Field(10, ge=1, description="Binary phenotypes with a smaller class are not tested")
    report: OutputPath | None = Field(None, description="Folder for the figure and the table of top results")


def _categories(path: Path | None, phenotypes: list[str]) -> list[str] | None:
    if path is None:
        return None
    table = read_arrow(path)
    for name in ("phenotype", "category"):
        if name not in table.column_names:
            raise SchemaError(f"{path}: expected columns phenotype and category, found {table.column_names}.")
    known = dict(zip(table.column("phenotype").to_pylist(), table.column("category").to_pylist(), strict=True))
    return [str(known.get(name) or "") for name in phenotypes]


def _covariates(config: AssociatePhenomeConfig, phenotypes: PhenotypeTable) -> tuple[PhenotypeTable, set[str]]:
    """Return the table with the covariates, and which phenotype columns are covariates."""
    used = formula_columns(config.covariates)
    if config.participants is None:
        return phenotypes, used
    return read_people(config.participants), used


def _table_bytes(n_samples: int, n_traits: int, n_phenotypes: int) -> int:
    """Return what the tables take, which are held whole, while they are read and aligned, and the results."""
    return 8 * n_samples * 3 * (n_traits + n_phenotypes) + _BYTES_PER_PAIR * n_traits * n_phenotypes


def _block_size(n_samples: int, n_traits: int, n_phenotypes: int, memory_bytes: int) -> int:
    size = min(_LARGEST_BLOCK, n_phenotypes)
    held = _table_bytes(n_samples, n_traits, n_phenotypes)
    while size > 1 and held + scan_phenome_peak_bytes(n_samples, n_traits, size) > memory_bytes:
        size //= 2
    needed = held + scan_phenome_peak_bytes(n_samples, n_traits, size)
    if needed > memory_bytes:
        raise ResourceError(
            f"{n_phenotypes} phenotypes against {n_traits} traits of {n_samples} people need "
            f"{needed / 2**20:.0f} MiB, {memory_bytes / 2**20:.0f} MiB are given. Raise --memory."
        )
    return size


def associate_phenome(config: AssociatePhenomeConfig, out: Path, context: Context) -> StepResult:
    """Scan all pairs, block by block of phenotypes."""
    traits, phenotypes = read_people(config.traits), read_people(config.phenotypes)
    people, used = _covariates(config, phenotypes)
    shared = shared_samples(
        traits.samples, phenotypes.samples, people.samples, names=("traits", "phenotypes", "covariates")
    )
    counts: dict[str, Any] = {
        "participants_traits": len(traits.samples),
        "participants_phenotypes": len(phenotypes.samples),
        "participants": len(shared),
    }
    # Of the covariates' table only what the formula reads: it may be the phenotypes' own, and large.
    people = (people.select(sorted(used)) if used <= set(people.names) else people).take(shared)
    traits, phenotypes = traits.take(shared), phenotypes.take(shared)
    trait_names = choose_traits(traits, (), besides=used)
    numeric = [c for c in phenotypes.columns if c.kind != "categorical" and c.name not in used]
    text = [c.name for c in phenotypes.columns if c.kind == "categorical"]
    if not numeric:
        raise SchemaError(f"{config.phenotypes}: there is no numeric phenotype besides the covariates.")
    names = [c.name for c in numeric]
    categories = _categories(config.categories, names)
    design = design_from_formula(config.covariates, people)
    prepared = prepare_phenome(
        traits.matrix(trait_names),
        covariates=design.matrix,
        covariate_names=design.names,
        mode=config.mode,
        naive_df=config.naive_df,
        min_people=config.min_people,
        min_cases=config.min_cases,
    )
    size = _block_size(len(shared), len(trait_names), len(names), context.memory_bytes)
    starts = range(0, len(names), size)
    scans = [
        scan_phenome(prepared, phenotypes.matrix(names[start : start + size]))
        for start in context.progress.track(starts, "Scanning phenotypes", len(starts))
    ]
    results = phenome_results(scans, traits=trait_names, phenotypes=names, categories=categories)
    write_results(results, out)
    with report_folder(config.report) as folder:
        if folder is not None:
            write_results(_top(results), folder / "top.tsv")
            if np.isfinite(results["neg_log10_p"]).any():
                draw_phenome(results, folder / "manhattan.png")
    statuses = {str(s): int(n) for s, n in zip(*np.unique(results["status"], return_counts=True), strict=True)}
    n_significant = int((results["p_bonferroni"] < 0.05).sum())
    counts |= {
        "traits": len(trait_names),
        "phenotypes": len(names),
        "text_phenotypes_left_out": text,
        "people_without_covariates": int((~design.complete).sum()),
        "dropped_covariates": list(prepared.dropped),
        "status": statuses,
        "significant_bonferroni": n_significant,
        "significant_fdr": int((results["q_bh"] < 0.05).sum()),
    }
    summary = (
        f"{len(shared)} people, {len(trait_names)} traits x {len(names)} phenotypes: {statuses.get('ok', 0)} tests, "
        f"{n_significant} significant after Bonferroni, {counts['significant_fdr']} at FDR 5 %",
    )
    return StepResult(counts, n_failed=len(results) - statuses.get("ok", 0), summary=summary)


def _top(results: ResultTable) -> ResultTable:
    strength = np.nan_to_num(results["neg_log10_p"], nan=-1.0)
    order = np.argsort(-strength, kind="stable")[:_TOP]
    return results.take(order[strength[order] >= 0])


def _estimate(_config: AssociatePhenomeConfig, memory_bytes: int) -> Estimate:
    return Estimate(min(memory_bytes, 1 << 30), 5.0, "blocks of phenotypes are sized to the memory")


ASSOCIATE_PHENOME = Step(
    "associate phenome",
    "Test every trait against every phenotype, with missing data.",
    AssociatePhenomeConfig,
    associate_phenome,
    estimate=_estimate,
)
