"""Which variants of a scan are analysed with whom and which covariates: the plans of ``gwas run``.

=====================  ==============================================================================================
autosomes, PAR, MT     one plan, or one per chromosome when predictions without the chromosome are taken from the traits
X                      its own plan, with sex as a covariate, among people whose sex is known
Y                      its own plan, among males
conditioned variants   not tested (they are covariates): ``collinear``
=====================  ==============================================================================================
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from brainlocus.core import (
    Column,
    GenotypeSource,
    PhenotypeTable,
    ResultTable,
    SampleIndex,
    SchemaError,
    VariantTable,
    select_genotypes,
)
from brainlocus.core.text import text_array
from brainlocus.genetics.gwas import HalvedMales, ScanPlan, ShardResult, chromosome_classes, x_frequency
from brainlocus.pipeline.genomes import TraitInputs
from brainlocus.pipeline.ridge import Loco

__all__ = ["SEX_COVARIATE", "MaleX", "ScanUnit", "UnitPlans", "condition_columns", "plan_units", "with_reasons"]

MaleX = Literal["0/2", "0/1"]

SEX_COVARIATE = "sex (of the genotypes)"
_MALE = 1

Prepare = Callable[[SampleIndex, TraitInputs, PhenotypeTable | None], ScanPlan]
"""Makes a plan of people, traits with covariates, and what is taken from the traits beforehand."""


@dataclass(frozen=True, slots=True, eq=False)
class ScanUnit:
    """A plan and the variants it is for."""

    plan: ScanPlan
    source_rows: Int[np.ndarray, " variants"]
    """Rows of the genotype file."""
    scan_rows: Int[np.ndarray, " variants"]
    """The same variants' rows among all of the scan."""
    male: Bool[np.ndarray, " samples"] | None = None
    """Men among the people of the plan, where the variants are those of X; else None."""
    halved: bool = False
    """Whether the copies of men count half."""

    def genotypes(self, source: GenotypeSource) -> GenotypeSource:
        """Return the unit's people and variants of an opened file."""
        chosen = select_genotypes(source, samples=self.plan.samples, variants=self.source_rows)
        return HalvedMales(chosen, self.male) if self.male is not None and self.halved else chosen

    def with_frequencies(self, shard: ShardResult, source: GenotypeSource) -> ShardResult:
        """Return the shard with frequencies among X chromosomes (a man has one) where men's copies count half.

        They are those of all people of the plan, whatever their traits.
        """
        if self.male is None or not self.halved or not shard.rows.size:
            return shard
        place = np.searchsorted(self.scan_rows, shard.rows)
        chosen = select_genotypes(source, samples=self.plan.samples, variants=self.source_rows[place])
        frequency = x_frequency(chosen, self.male)
        hits = dict(shard.hit_values)
        hits["effect_allele_frequency"] = frequency[np.searchsorted(shard.rows, shard.hit_variant)]
        full = shard.full
        if full is not None:
            groups = dict(full.groups)
            shape = groups["effect_allele_frequency"].shape
            groups["effect_allele_frequency"] = np.broadcast_to(frequency[:, None], shape).copy()
            full = replace(full, groups=groups)
        return replace(shard, frequency=frequency, hit_values=hits, full=full)


@dataclass(frozen=True, slots=True, eq=False)
class UnitPlans:
    """All plans of a scan, and what is not scanned."""

    units: tuple[ScanUnit, ...]
    left_out: dict[str, Int[np.ndarray, " variants"]]
    """Reason to rows among all of the scan."""
    notes: tuple[str, ...]
    """For the summary."""


def plan_units(
    source: GenotypeSource,
    rows: Int[np.ndarray, " variants"],
    people: SampleIndex,
    traits: TraitInputs,
    prepare: Prepare,
    *,
    male_x: MaleX = "0/2",
    loco: Loco | None = None,
    conditioned: Int[np.ndarray, " conditioned"] | None = None,
) -> UnitPlans:
    """Return the plans of a scan.

    Parameters
    ----------
    rows
        Variants to be scanned, rows of the file.
    people
        Genotyped people to be analysed.
    traits
        With all covariates but sex on X.
    loco
        Predictions to be taken from the traits, by chromosome.
    conditioned
        Rows of the file that are covariates.
    """
    variants = source.variants.take(rows)
    classes = chromosome_classes(variants)
    covariate = np.isin(rows, conditioned) if conditioned is not None else np.zeros(rows.size, dtype=bool)
    left_out = {"collinear": np.flatnonzero(covariate)} if covariate.any() else {}
    sex = _sex(source, people)
    notes: list[str] = []
    units: list[ScanUnit] = []
    for kind in ("autosomal", "X", "Y"):
        of_kind = np.flatnonzero((classes == kind) & ~covariate)
        if not of_kind.size:
            continue
        if kind == "Y" and not (sex == _MALE).any():
            left_out["sex_unknown"] = of_kind
            notes.append(f"{of_kind.size:,} variants of Y left out: no male among the people")
            continue
        own_people, own_traits = people, traits
        if kind == "Y":
            own_people = people.take(sex == _MALE)
        elif kind == "X" and (sex > 0).any():
            own_people = people.take(sex > 0)
            column = Column(SEX_COVARIATE, (sex[sex > 0] == _MALE).astype(np.float64))
            own_traits = with_columns(traits, own_people, (column,))
        elif kind == "X":
            notes.append(f"Sex is not known: {of_kind.size:,} variants of X tested without it as a covariate")
        for offset, part in _by_offset(variants, of_kind, loco, traits.names):
            plan = prepare(own_people, own_traits, offset)
            male = _sex(source, plan.samples) == _MALE if kind == "X" and (sex > 0).any() else None
            units.append(ScanUnit(plan, rows[part], part, male, male_x == "0/1"))
    if not units:  # nothing is left to scan, but its traits and people are to be reported
        nothing = np.empty(0, dtype=np.int64)
        offset = loco.offset("whole", traits.names) if loco is not None else None
        units.append(ScanUnit(prepare(people, traits, offset), nothing, nothing))
    return UnitPlans(tuple(units), left_out, tuple(notes))


def _by_offset(
    variants: VariantTable, part: Int[np.ndarray, " rows"], loco: Loco | None, names: Sequence[str]
) -> list[tuple[PhenotypeTable | None, Int[np.ndarray, " part"]]]:
    """Return the variants in parts that share what is taken from the traits."""
    if loco is None:
        return [(None, part)]
    chromosome = variants.chromosome[part].astype(np.str_)
    keys = np.where(np.isin(chromosome, loco.chromosomes), chromosome, "whole")
    present = [key for key in (*loco.chromosomes, "whole") if (keys == key).any()]
    return [(loco.offset(key, names), part[keys == key]) for key in present]


def _sex(source: GenotypeSource, people: SampleIndex) -> Int[np.ndarray, " samples"]:
    """Return 1 male, 2 female, 0 unknown for each person."""
    pedigree = getattr(source, "pedigree", None)
    if pedigree is None:
        return np.zeros(len(people), dtype=np.int64)
    sex: Int[np.ndarray, " everyone"] = np.asarray(pedigree.sex, dtype=np.int64)
    return np.asarray(sex[source.samples.indices_of(people)])


def with_columns(traits: TraitInputs, people: SampleIndex, columns: Sequence[Column]) -> TraitInputs:
    """Return the inputs with further covariates, known for the given people only."""
    if not columns:
        return traits
    if traits.covariates is None:
        return replace(traits, covariates=PhenotypeTable(people, tuple(columns)))
    table = traits.covariates
    at = people.indices_of(table.samples)
    taken = set(table.names)
    added = []
    for column in columns:
        name = column.name
        while name in taken:
            name += " (dosage)"
        taken.add(name)
        values = np.where(at >= 0, column.values[at], np.nan)
        added.append(Column(name, values))
    formula = traits.formula
    if formula is not None:
        formula = " + ".join([formula, *(f"`{column.name}`" for column in added)])
    return replace(traits, covariates=PhenotypeTable(table.samples, (*table.columns, *added)), formula=formula)


def condition_columns(
    source: GenotypeSource, ids: Sequence[str], people: SampleIndex
) -> tuple[tuple[Column, ...], Int[np.ndarray, " conditioned"]]:
    """Return the dosages of variants as covariates, missing calls at their mean among the people.

    Returns
    -------
    columns
        One per variant of these ids, named by its id.
    rows
        Their rows in the file.

    Raises
    ------
    SchemaError
        An id is not among the variants.
    """
    wanted = set(ids)
    names = source.variants.variant_id
    rows = np.flatnonzero(np.array([name in wanted for name in names.tolist()], dtype=bool))
    absent = sorted(wanted - set(names[rows].tolist()))
    if absent:
        raise SchemaError(
            f"--condition: {len(absent)} of {len(wanted)} variants are not among the {len(names)} of the genotypes: "
            f"{', '.join(absent[:5])}. Variants are matched by id."
        )
    chosen = select_genotypes(source, samples=people, variants=rows)
    columns: list[Column] = []
    for k, name in enumerate(names[rows].tolist()):
        dosage: Float[np.ndarray, " samples"] = chosen.read(k, k + 1).dosage[0].astype(np.float64)
        called = ~np.isnan(dosage)
        dosage[~called] = dosage[called].mean() if called.any() else 0.0
        same = sum(column.name.split(" (")[0] == name for column in columns)
        columns.append(Column(name if not same else f"{name} ({same + 1})", dosage))
    return tuple(columns), rows


def with_reasons(variants: ResultTable, left_out: dict[str, Int[np.ndarray, " variants"]]) -> ResultTable:
    """Return the table of variants with the reasons of those that were not scanned."""
    if not left_out:
        return variants
    reason: Shaped[np.ndarray, " variants"] = variants["reason"].astype(object)
    for name, rows in left_out.items():
        reason[rows] = name
    return ResultTable(dict(variants.columns) | {"reason": text_array(reason.tolist())})
