"""Two tables of the same people for the multivariate steps: measures or dosages, covariates, groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int

from brainlocus.cohort.multivariate import PairedTables, standardise
from brainlocus.core import PhenotypeTable, SampleIndex, SchemaError, VariantTable, select_genotypes, shared_samples
from brainlocus.io import open_genotypes
from brainlocus.io.vcf import is_vcf
from brainlocus.numerics import design_from_formula
from brainlocus.pipeline.genomes import keep_variants, require_memory
from brainlocus.pipeline.people import batch_labels, choose_traits, formula_columns, read_people

__all__ = ["PairedInput", "Side", "read_paired"]

MOST_COLUMNS = 20_000
"""Of one table. More are a matter of screening or clumping first: the models have no power left over."""
_GENOTYPES = frozenset({".bed", ".pgen", ".bgen"})


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One table as it is read, before people and columns are left out."""

    samples: SampleIndex
    names: tuple[str, ...]
    table: PhenotypeTable | None
    """None for genotypes."""
    genotypes: Any = None
    variants: VariantTable | None = None

    def matrix(self, people: SampleIndex) -> Float64[np.ndarray, "people columns"]:
        """Return the values of some people; NaN = missing."""
        if self.table is not None:
            return self.table.take(people).matrix(self.names)
        chosen = select_genotypes(self.genotypes, samples=people)
        return chosen.read(0, len(self.names)).dosage.T.astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class PairedInput:
    """What the multivariate steps work on."""

    tables: PairedTables
    people: SampleIndex
    x: Side
    x_kept: Int[np.ndarray, " columns_x"]
    """Columns of `x` that vary."""
    y: Side
    y_kept: Int[np.ndarray, " columns_y"]
    groups: Int[np.ndarray, " people"] | None
    counts: dict[str, Any]

    def names(self, side: Literal["x", "y"]) -> list[str]:
        """Return the names of the columns of a table that is analysed."""
        one, kept = (self.x, self.x_kept) if side == "x" else (self.y, self.y_kept)
        return [one.names[k] for k in kept]


def read_paired(
    x: Path,
    y: Path,
    *,
    columns_x: Sequence[str],
    columns_y: Sequence[str],
    variants: tuple[Path, ...],
    genome_build: str,
    participants: Path | None,
    covariates: str,
    groups: str | None,
    impute: Literal["none", "mean"],
    memory_bytes: int,
) -> PairedInput:
    """Read both tables and bring them to the same people.

    Raises
    ------
    AlignmentError, FormatError, ResourceError, SchemaError
        A table cannot be read, nobody is in both, a column is not there, or too large.
    """
    people_table = None if participants is None else read_people(participants)
    used = formula_columns(covariates) | ({groups} if groups else set())
    first = _read_side(x, columns_x, used, "--columns-x", variants, genome_build)
    second = _read_side(y, columns_y, used, "--columns-y", variants, genome_build)
    other = people_table or second.table or first.table
    if other is None:
        if used:
            raise SchemaError("X and Y are genotypes: give the table of covariates and groups with --participants.")
        other = PhenotypeTable(first.samples, ())
    shared = shared_samples(first.samples, second.samples, other.samples, names=("X", "Y", "the participants table"))
    needed = 8 * len(shared) * 4 * (len(first.names) + len(second.names))
    require_memory(needed, memory_bytes, f"{len(shared)} people x {len(first.names) + len(second.names)} columns")
    known = other.take(shared)
    design = design_from_formula(covariates, known)
    labels = None if groups is None else batch_labels(known, groups)
    values = [side.matrix(shared) for side in (first, second)]
    missing = [np.isnan(v) for v in values]
    usable = design.complete.copy()
    counts: dict[str, Any] = {
        "participants_x": len(first.samples),
        "participants_y": len(second.samples),
        "participants_shared": len(shared),
        "participants_without_covariates": int((~design.complete).sum()),
    }
    if labels is not None:
        counts["participants_without_group"] = int((usable & (labels == "")).sum())
        usable &= labels != ""
    kept_columns = []
    for name, side, value, hole in zip("xy", (first, second), values, missing, strict=True):
        _refuse_infinite(value, side.names, name.upper())
        present: Bool[np.ndarray, " columns"] = ~hole.all(axis=0)
        filled = impute == "mean" or side.table is None
        if not filled:
            incomplete = hole[:, present].any(axis=1)
            counts[f"participants_incomplete_{name}"] = int((usable & incomplete).sum())
            usable &= ~incomplete
        kept_columns.append(np.flatnonzero(present))
    if usable.sum() < 2:
        raise SchemaError(
            f"None of the {len(shared)} people in both tables has every column, covariate and group. Fill missing "
            "values with --impute mean, or use fewer columns."
        )
    covariate_matrix = design.matrix[usable]
    tables = []
    for k, name in enumerate("xy"):
        value = values[k][usable][:, kept_columns[k]]
        counts[f"values_imputed_{name}"] = int(np.isnan(value).sum())
        varies = _varying(value, covariate_matrix)
        counts[f"columns_{name}"] = int(varies.sum())
        all_names = (first, second)[k].names
        dropped = sorted(set(range(len(all_names))) - set(kept_columns[k][varies].tolist()))
        counts[f"columns_constant_{name}"] = len(dropped)
        counts[f"constant_{name}"] = [all_names[j] for j in dropped[:20]]
        if not varies.any():
            raise SchemaError(
                f"No column of {name.upper()} varies among the {int(usable.sum())} people beyond the covariates."
            )
        kept_columns[k] = kept_columns[k][varies]
        tables.append(np.ascontiguousarray(value[:, varies]))
    counts["participants_used"] = int(usable.sum())
    codes = None if labels is None else np.unique(labels[usable], return_inverse=True)[1].astype(np.int64)
    if codes is not None:
        counts["groups"] = int(codes.max()) + 1
    paired = PairedTables(tables[0], tables[1], covariate_matrix)
    people = shared.take(np.flatnonzero(usable))
    return PairedInput(paired, people, first, kept_columns[0], second, kept_columns[1], codes, counts)


def _read_side(
    path: Path, columns: Sequence[str], used: set[str], option: str, variants: tuple[Path, ...], genome_build: str
) -> Side:
    if path.suffix not in _GENOTYPES and not is_vcf(path):
        table = read_people(path)
        names = tuple(choose_traits(table, columns, besides=used & set(table.names), option=option))
        _refuse_many(len(names), path)
        return Side(table.samples, names, table.select(names) if not used else table)
    if columns:
        raise SchemaError(f"{option}: {path} has genotypes; choose variants with --variants.")
    source = open_genotypes(path, genome_build=genome_build)
    rows = np.flatnonzero(keep_variants(source.variants, variants))
    _refuse_many(rows.size, path)
    chosen = select_genotypes(source, variants=rows)
    return Side(source.samples, tuple(chosen.variants.variant_id.tolist()), None, chosen, chosen.variants)


def _refuse_many(count: int, path: Path) -> None:
    if count > MOST_COLUMNS:
        raise SchemaError(
            f"{path}: expected at most {MOST_COLUMNS:,} columns, found {count:,}. Screen or clump them first "
            "(genotypes prune; --variants takes the list)."
        )


def _refuse_infinite(values: Float64[np.ndarray, "people columns"], names: Sequence[str], what: str) -> None:
    infinite = np.isinf(values).any(axis=0)
    if infinite.any():
        shown = ", ".join(names[k] for k in np.flatnonzero(infinite)[:5])
        raise SchemaError(
            f"{what}: expected finite numbers, found infinite ones in {int(infinite.sum())} columns: {shown}. Set them "
            "missing."
        )


def _varying(
    values: Float64[np.ndarray, "people columns"], covariates: Float64[np.ndarray, "people covariates"]
) -> Bool[np.ndarray, " columns"]:
    everyone = np.arange(values.shape[0])
    return np.asarray(np.isfinite(standardise(values, covariates, everyone, everyone[:0]).spread))
