"""``associate phenome``: every trait against every phenotype."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float64, Int
from pydantic import Field

from brainlocus.cohort.associate import PhenomeScan, phenome_rows, prepare_phenome
from brainlocus.core import PhenotypeTable, ResultTable, SchemaError, shared_samples
from brainlocus.io import ResultWriter, field_of, read_arrow, read_categories, write_results
from brainlocus.numerics import benjamini_hochberg_q, bonferroni_p, design_from_formula, scoped
from brainlocus.pipeline.config import CommaList, InputPath, OutputPath, Positional, StepConfig
from brainlocus.pipeline.figures.phenome import draw_phenome, draw_phenome_traits
from brainlocus.pipeline.people import choose_traits, formula_columns, read_people, report_folder
from brainlocus.pipeline.phenome_blocks import plan_phenome, read_columns, scan_blocks, table_names
from brainlocus.pipeline.step import Context, Estimate, Step, StepResult

__all__ = ["ASSOCIATE_PHENOME", "AssociatePhenomeConfig"]

_TOP = 100
_DRAWN = 100_000
"""Points of a figure: the strongest pairs, of which a page of 3,000 pixels shows hardly more."""
_SCALE = re.compile(r"(C\d+)_\d+")
_LEVEL = 0.05
_SECONDS_PER_BYTE = 1.5e-8
"""Of the table of phenotypes, on one core: 17,485 columns of 35,273 people in Parquet (2 GB) take half a minute."""


class AssociatePhenomeConfig(StepConfig):
    """Settings of ``associate phenome``."""

    traits: Annotated[InputPath, Positional()] = Field(description="Table of traits")
    phenotypes: Annotated[InputPath, Positional()] = Field(description="Table of phenotypes of the same people")
    covariates: str = Field("", description="Formula of covariates: 'age + I(age**2) + sex'")
    participants: InputPath | None = Field(None, description="Table with the covariates; PHENOTYPES by default")
    categories: InputPath | None = Field(
        None, description="Table phenotype, category, or FUNPACK's Category, Variables: groups for the figure"
    )
    mode: Literal["per_variable", "exact"] = Field(
        "per_variable", description="Covariates out of each variable on its own people, or on the people of each pair"
    )
    robust: bool = Field(False, description="Heteroscedasticity-consistent errors (HC3), with --mode exact")
    scope: Literal["table", "trait", "phenotype", "category", "scale", "trait_group"] = Field(
        "table", description="Tests that are corrected together; scale: the traits C32_1, C32_2 ... of an atlas"
    )
    trait_groups: InputPath | None = Field(None, description="Table trait, group: for --scope trait_group")
    naive_df: bool = Field(False, description="Use n - 2 degrees of freedom, as some published results do")
    min_people: int = Field(40, ge=3, description="Pairs with fewer people are not tested")
    min_cases: int = Field(10, ge=1, description="Binary phenotypes with a smaller class are not tested")
    na_values: CommaList = Field((), description="Further texts that mean missing: -9999,-1")
    report: OutputPath | None = Field(None, description="Folder for figures and tables of top results and phenotypes")


def _groups(config: AssociatePhenomeConfig, traits: Sequence[str]) -> list[str] | None:
    """Return the group of each trait; None when they have none."""
    if config.scope == "scale":
        found = [_SCALE.fullmatch(name) for name in traits]
        others = [name for name, match in zip(traits, found, strict=True) if match is None]
        if others:
            raise SchemaError(
                f"--scope scale: expected traits named C32_1, C32_2 ..., found {', '.join(map(repr, others[:5]))}. "
                "Give their groups with --trait-groups and --scope trait_group."
            )
        return [match.group(1) for match in found if match is not None]
    if config.trait_groups is None:
        if config.scope == "trait_group":
            raise SchemaError("--scope trait_group: expected a table trait, group with --trait-groups.")
        return None
    table = read_arrow(config.trait_groups)
    if not {"trait", "group"} <= set(table.column_names):
        raise SchemaError(f"{config.trait_groups}: expected columns trait and group, found {table.column_names}.")
    known = dict(zip(table.column("trait").to_pylist(), table.column("group").to_pylist(), strict=True))
    absent = [name for name in traits if not known.get(name)]
    if absent:
        raise SchemaError(
            f"{config.trait_groups}: {len(absent)} traits have no group: {', '.join(map(repr, absent[:5]))}. Add them."
        )
    return [str(known[name]) for name in traits]


def _people(
    config: AssociatePhenomeConfig, names: Sequence[str], used: set[str]
) -> tuple[PhenotypeTable, PhenotypeTable]:
    """Return the ids of the phenotypes' table, and the table with the covariates."""
    inside = [name for name in names if name in used] if config.participants is None else []
    ids = read_columns(config.phenotypes, inside, config.na_values)
    return ids, ids if config.participants is None else read_people(config.participants, config.na_values)


def _codes(labels: Sequence[str]) -> Int[np.ndarray, " labels"]:
    return np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True)[1].astype(np.int64)


def _corrected(
    neg_log10_p: Float64[np.ndarray, "phenotypes traits"],
    scope: str,
    *,
    categories: Sequence[str],
    groups: Sequence[str] | None,
) -> tuple[Float64[np.ndarray, "phenotypes traits"], Float64[np.ndarray, "phenotypes traits"]]:
    """Return Bonferroni's p and Benjamini-Hochberg's q within the scope."""
    n_phenotypes, n_traits = neg_log10_p.shape
    codes = np.zeros(neg_log10_p.shape, dtype=np.int64)
    if scope in ("phenotype", "category"):
        codes += (np.arange(n_phenotypes) if scope == "phenotype" else _codes(categories))[:, None]
    elif scope == "trait":
        codes += np.arange(n_traits)
    elif groups is not None and scope != "table":
        codes += _codes(groups)
    flat, within = neg_log10_p.ravel(), codes.ravel()
    p, q = scoped(bonferroni_p, flat, within), scoped(benjamini_hochberg_q, flat, within)
    return p.reshape(neg_log10_p.shape), q.reshape(neg_log10_p.shape)


def associate_phenome(config: AssociatePhenomeConfig, out: Path, context: Context) -> StepResult:
    """Scan all pairs, block by block of phenotypes."""
    if config.robust and config.mode != "exact":
        raise SchemaError("--robust needs residuals on the people of each pair: add --mode exact.")
    traits, used = read_people(config.traits, config.na_values), formula_columns(config.covariates)
    every = table_names(config.phenotypes)
    ids, people = _people(config, every, used)
    shared = shared_samples(traits.samples, ids.samples, people.samples, names=("traits", "phenotypes", "covariates"))
    people, traits_here = people.take(shared), traits.take(shared)
    trait_names = choose_traits(traits_here, (), besides=used)
    groups = _groups(config, trait_names)
    names = [name for name in every if name not in used]
    listed = None if config.categories is None else read_categories(config.categories)
    design = design_from_formula(config.covariates, people)
    prepared = prepare_phenome(
        traits_here.matrix(trait_names),
        covariates=design.matrix,
        covariate_names=design.names,
        mode=config.mode,
        naive_df=config.naive_df,
        min_people=config.min_people,
        min_cases=config.min_cases,
        robust=config.robust,
    )
    plan = plan_phenome(
        config.phenotypes,
        n_rows=len(ids.samples),
        n_traits=len(trait_names),
        n_phenotypes=max(len(names), 1),
        design=prepared,
        workers=context.executor.workers,
        memory_bytes=context.memory_bytes,
    )
    scanned = list(
        scan_blocks(
            config.phenotypes,
            names,
            plan=plan,
            design=prepared,
            people=shared,
            na_values=config.na_values,
            context=context,
        )
    )
    phenotypes = [name for block in scanned for name in block.names]
    if not phenotypes:
        raise SchemaError(f"{config.phenotypes}: there is no numeric phenotype besides the covariates.")
    found = _Found(
        [scan for block in scanned for scan in block.scans],
        trait_names,
        phenotypes,
        ["" if listed is None else listed.of(name) for name in phenotypes],
        groups,
        config.scope,
    )
    with ResultWriter(out) as writer:
        for part in found.parts():
            writer.append(part)
    with report_folder(config.report) as folder:
        if folder is not None:
            found.report(folder)
    counts: dict[str, Any] = {
        "participants_traits": len(traits.samples),
        "participants_phenotypes": len(ids.samples),
        "participants": len(shared),
        "traits": len(trait_names),
        "phenotypes": len(phenotypes),
        "text_phenotypes_left_out": [name for block in scanned for name in block.text],
        "phenotypes_without_category": 0 if listed is None else found.categories.count(""),
        "people_without_covariates": int((~design.complete).sum()),
        "dropped_covariates": list(prepared.dropped),
        "scope": config.scope,
        **found.counts(),
    }
    summary = (
        f"{len(shared)} people, {len(trait_names)} traits x {len(phenotypes)} phenotypes: {found.n_tests} tests, "
        f"{counts['significant_bonferroni']} significant after Bonferroni, {counts['significant_fdr']} at FDR 5 % "
        f"({counts['distinct_phenotypes_fdr']} distinct phenotypes)",
    )
    return StepResult(counts, n_failed=found.neg_log10_p.size - found.n_tests, summary=summary)


class _Found:
    """What a scan found, held as numbers; rows with names are made part by part."""

    def __init__(
        self,
        scans: list[PhenomeScan],
        traits: Sequence[str],
        phenotypes: Sequence[str],
        categories: list[str],
        groups: Sequence[str] | None,
        scope: str,
    ) -> None:
        self.scans, self.traits, self.phenotypes = scans, traits, phenotypes
        self.categories, self.groups, self.scope = categories, groups, scope
        self.neg_log10_p = np.concatenate([scan.neg_log10_p for scan in scans])
        self.p_bonferroni, self.q_bh = _corrected(self.neg_log10_p, scope, categories=categories, groups=groups)
        self.n_tests = int(np.isfinite(self.neg_log10_p).sum())

    def parts(self) -> Iterator[ResultTable]:
        """Yield the rows of each block."""
        start = 0
        for scan in self.scans:
            rows = slice(start, start + scan.n.shape[0])
            start = rows.stop
            yield phenome_rows(
                scan,
                traits=self.traits,
                phenotypes=self.phenotypes[rows],
                categories=self.categories[rows],
                groups=self.groups,
                corrected=(self.p_bonferroni[rows].ravel(), self.q_bh[rows].ravel()),
            )

    def strongest(self, count: int) -> ResultTable:
        """Return the tests with the smallest p, smallest first."""
        strength = np.nan_to_num(self.neg_log10_p, nan=-1.0).ravel()
        count = min(count, self.n_tests)
        chosen = np.zeros(strength.size, dtype=bool)
        if count:
            chosen[np.argpartition(-strength, count - 1)[:count]] = True
        rows, start = [], 0
        for part in self.parts():
            rows.append(part.take(np.flatnonzero(chosen[start : start + len(part)])))
            start += len(part)
        table = ResultTable({name: np.concatenate([part[name] for part in rows]) for name in rows[0].columns})
        return table.take(np.argsort(-table["neg_log10_p"], kind="stable"))

    def by_phenotype(self) -> ResultTable:
        """Return one row per phenotype: its tests, those that are significant, and the strongest."""
        tested = np.isfinite(self.neg_log10_p)
        best = np.nan_to_num(self.neg_log10_p, nan=-1.0).argmax(axis=1)
        rows = np.arange(best.size)
        signs = np.concatenate([scan.r for scan in self.scans])
        with np.errstate(invalid="ignore"):
            return ResultTable(
                {
                    "phenotype": np.asarray(self.phenotypes, dtype=np.str_),
                    "category": np.asarray(self.categories, dtype=np.str_),
                    "n_tests": tested.sum(axis=1),
                    "n_significant": (self.p_bonferroni < _LEVEL).sum(axis=1),
                    "n_fdr": (self.q_bh <= _LEVEL).sum(axis=1),
                    "trait": np.where(tested.any(axis=1), np.asarray(self.traits, dtype=np.str_)[best], ""),
                    "r": signs[rows, best],
                    "neg_log10_p": self.neg_log10_p[rows, best],
                }
            )

    def counts(self) -> dict[str, Any]:
        """Return how many tests there are, of which status, and how many are significant."""
        codes, sizes = np.unique(np.concatenate([scan.status_code for scan in self.scans]), return_counts=True)
        statuses = self.scans[0].statuses
        found = {statuses[code]: int(size) for code, size in zip(codes, sizes, strict=True)}
        with np.errstate(invalid="ignore"):
            bonferroni, fdr = self.p_bonferroni < _LEVEL, self.q_bh <= _LEVEL
        passed = self.neg_log10_p[fdr]
        return {
            "status": found,
            "tests": self.n_tests,
            "significant_bonferroni": int(bonferroni.sum()),
            "significant_fdr": int(fdr.sum()),
            "distinct_phenotypes_bonferroni": self._distinct(np.flatnonzero(bonferroni.any(axis=1))),
            "distinct_phenotypes_fdr": self._distinct(np.flatnonzero(fdr.any(axis=1))),
            "bonferroni_neg_log10_p": float(-np.log10(_LEVEL / self.n_tests)) if self.n_tests else None,
            "fdr_neg_log10_p": float(passed.min()) if passed.size else None,
        }

    def _distinct(self, chosen: Int[np.ndarray, " chosen"]) -> int:
        """Return the number of phenotypes, visits of one field of UK Biobank counted once."""
        names = [self.phenotypes[k] for k in chosen.tolist()]
        return len({name if field_of(name) is None else field_of(name) for name in names})

    def report(self, folder: Path) -> None:
        """Write the tables and figures of a report."""
        write_results(self.strongest(_TOP), folder / "top.tsv")
        write_results(self.by_phenotype(), folder / "phenotypes.tsv")
        if self.n_tests:
            drawn = self.strongest(_DRAWN)
            line = float(-np.log10(_LEVEL / self.n_tests)) if self.scope == "table" else None
            draw_phenome(drawn, folder / "manhattan.png", bonferroni=line)
            if self.groups is not None:
                draw_phenome_traits(drawn, folder / "manhattan_traits.png", bonferroni=self._lines(self.groups))

    def _lines(self, groups: Sequence[str]) -> dict[str, float]:
        """Return -log10 p of Bonferroni's level within each group of traits."""
        tests = np.isfinite(self.neg_log10_p).sum(axis=0)
        sizes = {name: int(tests[np.asarray(groups, dtype=np.str_) == name].sum()) for name in dict.fromkeys(groups)}
        return {name: float(-np.log10(_LEVEL / size)) for name, size in sizes.items() if size}


def _estimate(config: AssociatePhenomeConfig, memory_bytes: int) -> Estimate:
    names = len(table_names(config.phenotypes))
    size = config.phenotypes.stat().st_size
    seconds = 2.0 + size * _SECONDS_PER_BYTE
    note = f"{names} columns, read a few at a time; blocks are sized to the memory"
    return Estimate(min(memory_bytes, (1 << 29) + 2 * size), seconds, note)


ASSOCIATE_PHENOME = Step(
    "associate phenome",
    "Test every trait against every phenotype, with missing data.",
    AssociatePhenomeConfig,
    associate_phenome,
    estimate=_estimate,
)
