"""Which associations of genes a command reads, and which phenotypes of them: options that several commands share."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Int64, Shaped
from pydantic import Field, field_validator

from brainlocus.core import GeneMatrix, PhenotypeAnnotation, SchemaError
from brainlocus.core.errors import nearest
from brainlocus.io import is_gene_folder, open_gene_folder, read_annotation, read_gene_matrices, read_lines
from brainlocus.pipeline.config import CommaList, InputPath, InputPaths, Positional, StepConfig

__all__ = [
    "ChosenPhenotypes",
    "GeneResultsInput",
    "choose_phenotypes",
    "chosen_by",
    "count_tissues",
    "gene_matrices",
    "read_choice",
]

_FILTERS = ("modality", "atlas", "side", "measurement", "region")


class GeneResultsInput(StepConfig):
    """Associations of genes, and which tissues and phenotypes of them."""

    results: Annotated[InputPaths, Positional()] = Field(
        description="Tables of twas associate or S-PrediXcan, or one folder of twas associate --full"
    )
    tissues: CommaList = Field((), description="Tissues, in this order; all by default")
    file_pattern: str = Field(
        "",
        description=(
            "What the names of files without such columns mean: a regular expression with the groups phenotype and "
            "tissue, (?P<phenotype>[^_]+)_(?P<tissue>.+)\\.csv"
        ),
    )
    tissue_name: str = Field("", description="Tissue of tables that name none")
    phenotypes: CommaList = Field((), description="Phenotypes: names or patterns (IDP_T1_*); all by default")
    phenotype_list: InputPath | None = Field(None, description="List of phenotypes, one a line")
    annotation: InputPath | None = Field(
        None,
        description="Table whose first column names phenotypes: their modality, atlas, side, region, measurement",
    )
    modality: CommaList = Field((), description="Only phenotypes of these modalities of the annotation")
    atlas: CommaList = Field((), description="Only phenotypes of these atlases of the annotation")
    side: CommaList = Field((), description="Only phenotypes of these sides of the annotation")
    measurement: CommaList = Field((), description="Only phenotypes of these measurements of the annotation")
    region: CommaList = Field((), description="Only phenotypes of these regions of the annotation")

    @field_validator("file_pattern")
    @classmethod
    def _is_regular(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"expected a regular expression: {error}, found {pattern!r}") from error
        if pattern and not set(groups) & {"phenotype", "tissue"}:
            raise ValueError(f"expected a group (?P<phenotype>...) or (?P<tissue>...), found {pattern!r}")
        return pattern


@dataclass(frozen=True, slots=True, eq=False)
class ChosenPhenotypes:
    """What the options ask of phenotypes."""

    annotation: PhenotypeAnnotation | None
    names: tuple[str, ...]
    """Names or patterns; empty: all."""
    listed: frozenset[str] | None
    filters: dict[str, tuple[str, ...]]

    def column(self, name: str, phenotypes: Shaped[np.ndarray, " asked"]) -> Shaped[np.ndarray, " asked"]:
        """Return a column of the annotation for some phenotypes, empty text where there is none."""
        if self.annotation is None:
            return np.full(phenotypes.size, "", dtype=np.str_)
        return self.annotation.of(name, phenotypes)

    def columns(self) -> tuple[str, ...]:
        """Return the columns of the annotation."""
        return () if self.annotation is None else tuple(self.annotation.columns)


def chosen_by(config: GeneResultsInput) -> ChosenPhenotypes:
    """Return what the options of a command ask of phenotypes."""
    filters = {name: getattr(config, name) for name in _FILTERS if getattr(config, name)}
    return read_choice(config.annotation, names=config.phenotypes, listed=config.phenotype_list, filters=filters)


def read_choice(
    annotation: Path | None,
    *,
    names: tuple[str, ...] = (),
    listed: Path | None = None,
    filters: Mapping[str, tuple[str, ...]] | None = None,
) -> ChosenPhenotypes:
    """Read the annotation and the list.

    Parameters
    ----------
    filters
        Columns of the annotation and the levels to keep.

    Raises
    ------
    SchemaError
        A filter without an annotation, or on a column or level that it has not.
    """
    wanted = dict(filters or {})
    read = read_annotation(annotation) if annotation is not None else None
    if wanted and read is None:
        options = ", ".join(f"--{name}" for name in wanted)
        raise SchemaError(f"{options}: give the table that says this of phenotypes with --annotation.")
    if read is not None:
        for name, levels in wanted.items():
            _check_levels(read, name, levels, f"--{name}: {annotation}")
    member = None
    if listed is not None:
        lines = read_lines(listed, what="a list of phenotypes")
        member = frozenset(line.strip() for line in lines if line.strip())
    return ChosenPhenotypes(read, names, member, wanted)


def _check_levels(annotation: PhenotypeAnnotation, column: str, levels: tuple[str, ...], where: str) -> None:
    """Refuse a column or a level that the annotation has not."""
    if column not in annotation.columns:
        raise SchemaError(
            f"{where} has no column {column!r}.{nearest(column, list(annotation.columns))} It has: "
            f"{', '.join(annotation.columns)}."
        )
    known = sorted(set(annotation.columns[column].tolist()) - {""})
    for level in levels:
        if level not in known:
            some = ", ".join(known[:12]) + (" ..." if len(known) > 12 else "")
            raise SchemaError(f"{where} has nothing of {level!r}.{nearest(level, known)} There are: {some}.")


def choose_phenotypes(
    choice: ChosenPhenotypes, phenotypes: Shaped[np.ndarray, " all_phenotypes"]
) -> tuple[Int64[np.ndarray, " chosen"], dict[str, Any]]:
    """Return the places of the phenotypes to work on, and what each option left out.

    Raises
    ------
    SchemaError
        A name or pattern matches nothing, or nothing is left.
    """
    kept = np.ones(phenotypes.size, dtype=bool)
    counts: dict[str, Any] = {"phenotypes_in_results": int(phenotypes.size)}
    if choice.names:
        named = np.zeros(phenotypes.size, dtype=bool)
        for pattern in choice.names:
            found = np.array([name == pattern or fnmatchcase(name, pattern) for name in phenotypes.tolist()], bool)
            if not found.any():
                hint = nearest(pattern, phenotypes.tolist())
                raise SchemaError(f"--phenotypes: no phenotype of the results matches {pattern!r}.{hint}")
            named |= found
        counts["not_named"] = int((~named).sum())
        kept &= named
    if choice.listed is not None:
        member = np.array([name in choice.listed for name in phenotypes.tolist()], dtype=bool)
        counts["not_in_list"] = int((kept & ~member).sum())
        counts["listed_but_not_in_results"] = len(choice.listed - set(phenotypes.tolist()))
        kept &= member
    if choice.annotation is not None:
        choice.annotation.unknown(phenotypes, where="--annotation")
        known = np.isin(phenotypes, choice.annotation.phenotypes)
        counts["not_in_annotation"] = int((kept & ~known).sum())
    for name, levels in choice.filters.items():
        member = np.isin(choice.column(name, phenotypes), levels)
        counts[f"other_{name}"] = int((kept & ~member).sum())
        kept &= member
    if not kept.any():
        said = ", ".join(f"{name} {number}" for name, number in counts.items())
        some = ", ".join(phenotypes[:3].tolist())
        annotated = "" if choice.annotation is None else ", ".join(choice.annotation.phenotypes[:3].tolist())
        beside = f"; the annotation has {annotated} ..." if annotated else ""
        raise SchemaError(f"No phenotype is left ({said}). The results have {some} ...{beside}")
    return np.flatnonzero(kept), counts


def count_tissues(config: GeneResultsInput) -> int:
    """Return how many tissues there are to do; of tables, which have not been read, at least 1."""
    if not config.tissues and len(config.results) == 1 and is_gene_folder(config.results[0]):
        return len(open_gene_folder(config.results[0]).tissues)
    return max(len(config.tissues), 1)


def gene_matrices(config: GeneResultsInput) -> Iterator[GeneMatrix]:
    """Yield the matrix of every tissue that is asked for.

    Raises
    ------
    FormatError, SchemaError
        As `read_gene_matrices`.
    """
    return read_gene_matrices(
        config.results, tissues=config.tissues, pattern=config.file_pattern, tissue=config.tissue_name
    )
