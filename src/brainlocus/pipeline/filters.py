"""Which people and variants of a genotype file a command reads: options that all genotype commands share.

Everything here is decided from lists, positions, alleles and tables, before any genotype is decoded: the rows that
are left out are not read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import Field, field_validator, model_validator

from brainlocus.core import AlignmentError, GenotypeSource, SampleIndex, SchemaError, VariantTable, select_genotypes
from brainlocus.core.errors import nearest
from brainlocus.core.long_range import long_range_ld
from brainlocus.core.regions import Region, in_regions, parse_region
from brainlocus.core.text import text_array
from brainlocus.io import OpenedGenotypes, open_genotypes, read_arrow
from brainlocus.io.regions import read_regions
from brainlocus.io.tables import MISSING_TEXT
from brainlocus.pipeline.config import CommaList, CommaPaths, InputPath, Positional, StepConfig
from brainlocus.pipeline.genomes import TABLE_SUFFIXES, keep_people, keep_variants, read_list, source_counts
from brainlocus.pipeline.where import evaluate_where, where_names

__all__ = [
    "ChosenGenotypes",
    "GenotypeFile",
    "GenotypeInput",
    "choose_genotypes",
    "choose_people",
    "choose_variants",
    "chromosome_notes",
    "rows_with_chromosome",
]


class GenotypeInput(StepConfig):
    """Genotypes, and which people and variants of them: the part that all genotype commands share."""

    genotypes: Annotated[InputPath, Positional()] = Field(
        description="Genotypes (.bed, .pgen, .bgen, .vcf.gz, .vcf, .bcf)"
    )
    genome_build: str = Field("unknown", description="Assembly of the positions, such as GRCh37")
    bgen_reference: Literal["first", "last"] = Field(
        "first", description="Which allele of a BGEN file is the reference; the other one is the effect allele"
    )
    bgen_sample: InputPath | None = Field(
        None, description="The .sample file of a BGEN file, when it is not beside it under the same name"
    )
    keep: CommaPaths = Field((), description="People: lists, or tables with participant_id; in all of them")
    remove: CommaPaths = Field((), description="People to leave out: lists, or tables with participant_id; in any")
    variants: CommaPaths = Field((), description="Variants: lists of ids, or tables with variant_id; in all of them")
    exclude: CommaPaths = Field((), description="Variants to leave out: lists of ids, or tables; in any of them")
    regions: CommaList = Field(
        (), description="Regions: 17:1000000-2000000, X, or a BED file of intervals; in any of them"
    )
    region_files: CommaPaths = Field((), description="BED files of regions, besides those in --regions")
    exclude_regions: CommaList = Field((), description="Regions to leave out, given as --regions are")
    exclude_region_files: CommaPaths = Field((), description="BED files of regions to leave out, besides those")
    exclude_long_range_ld: bool = Field(
        False, description="Leave out the regions of long-range LD (GRCh37, GRCh38: state --genome-build)"
    )
    where: str = Field(
        "",
        description="Condition on chromosome, position, alleles, variant_id and the columns of tables given as "
        "--variants: 'info > 0.3 and maf >= 0.01 and chromosome not in [6, 8]'",
    )

    @property
    def file(self) -> "GenotypeFile":
        """How to open the genotypes."""
        return GenotypeFile(self.genotypes, self.genome_build, self.bgen_reference, self.bgen_sample)

    @model_validator(mode="before")
    @classmethod
    def _files_among_regions(cls, values: Any) -> Any:
        """Take files out of the regions, so that they are inputs like any other: checked, hashed, recorded."""
        if not isinstance(values, dict):
            return values
        return (
            values
            | _apart(values, "regions", "region_files")
            | _apart(values, "exclude_regions", "exclude_region_files")
        )

    @model_validator(mode="after")
    def _sample_file_of_bgen(self) -> "GenotypeInput":
        """Refuse a .sample file that would not be read."""
        if self.bgen_sample is not None and self.genotypes.suffix.lower() != ".bgen":
            raise ValueError(f"--bgen-sample: expected genotypes ending in .bgen, found {self.genotypes.name}")
        return self

    @field_validator("regions", "exclude_regions")
    @classmethod
    def _regions(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for text in given:
            try:
                parse_region(text)
            except SchemaError as error:
                raise ValueError(str(error)) from None
        return given

    @field_validator("where")
    @classmethod
    def _where(cls, expression: str) -> str:
        if expression:
            try:
                where_names(expression)
            except SchemaError as error:
                raise ValueError(str(error).removeprefix(f"--where {expression!r}: ").removesuffix(".")) from None
        return expression


def _apart(values: dict[str, Any], regions: str, files: str) -> dict[str, Any]:
    """Return regions and files given together as the two fields that hold them; nothing when none were given."""
    if not values.get(regions):
        return {}
    texts, more = (
        given.split(",") if isinstance(given, str) else [str(item) for item in given]
        for given in (values[regions], values.get(files, ()))
    )
    return {
        regions: tuple(text.strip() for text in texts if text.strip() and not _is_file_name(text)),
        files: tuple(Path(text.strip()) for text in [*more, *filter(_is_file_name, texts)] if text.strip()),
    }


def _is_file_name(text: str) -> bool:
    name = text.strip()
    return "/" in name or name.lower().endswith((".bed", ".bed.gz", ".txt", ".tsv"))


_CHROMOSOMES = frozenset([*(str(k) for k in range(1, 23)), "X", "Y", "XY", "MT"])


@dataclass(frozen=True, slots=True)
class GenotypeFile:
    """How to open the genotypes of a command: small, hashable and picklable, for workers."""

    path: Path
    genome_build: str
    bgen_reference: Literal["first", "last"]
    bgen_sample: Path | None

    def open(self) -> OpenedGenotypes:
        """Open the genotypes."""
        return open_genotypes(
            self.path,
            genome_build=self.genome_build,
            bgen_reference=self.bgen_reference,
            bgen_sample=self.bgen_sample,
        )

    @property
    def stamp(self) -> int:
        """Time of the last change; 0 when there is no file, which opening it explains."""
        return self.path.stat().st_mtime_ns if self.path.exists() else 0


@dataclass(frozen=True, slots=True, eq=False)
class ChosenGenotypes:
    """A genotype file and which of its people and variants were asked for."""

    source: OpenedGenotypes
    """The whole file."""
    samples: SampleIndex
    variants: Bool[np.ndarray, " variants"]
    """Which rows of the file."""
    counts: dict[str, Any]
    """Size of the file, and what each filter left out."""

    @property
    def rows(self) -> Int[np.ndarray, " kept"]:
        """Rows of the variants that are kept."""
        return np.flatnonzero(self.variants)

    def selected(self) -> GenotypeSource:
        """Return the people and variants that are kept; the file itself when that is all of them."""
        if len(self.samples) == len(self.source.samples) and self.variants.all():
            return self.source
        return select_genotypes(self.source, samples=self.samples, variants=self.variants)


def choose_genotypes(config: GenotypeInput, source: OpenedGenotypes | None = None) -> ChosenGenotypes:
    """Open the genotypes of a command and apply its filters, without reading a genotype.

    Parameters
    ----------
    source
        The genotypes, when they are open already.

    Raises
    ------
    FormatError, SchemaError
        A file, list or condition is malformed.
    AlignmentError
        A list shares nothing with the genotypes, or nobody is left.
    """
    source = config.file.open() if source is None else source
    counts = source_counts(source)
    samples = choose_people(config, source.samples)
    rows, left_out = choose_variants(config, source.variants)
    if len(samples) < len(source.samples):
        counts["people_not_chosen"] = len(source.samples) - len(samples)
    if left_out:
        counts["variants_not_chosen"] = left_out
    return ChosenGenotypes(source, samples, rows, counts)


def rows_with_chromosome(asked: ChosenGenotypes) -> Int[np.ndarray, " kept"]:
    """Return the rows of the kept variants whose chromosome is known, and count the others in `asked.counts`.

    Chromosome 0 is PLINK's word for unplaced: such variants are left out. Names beyond 1-22, X, Y and MT are kept and
    counted, since other species have them.
    """
    chromosome = asked.source.variants.chromosome
    unplaced = asked.variants & (chromosome == "0")
    if unplaced.any():
        asked.counts["variants_unplaced"] = int(unplaced.sum())
    rows = np.flatnonzero(asked.variants & ~unplaced)
    names, sizes = np.unique(chromosome[rows], return_counts=True)
    unusual = {str(n): int(k) for n, k in zip(names, sizes, strict=True) if n not in _CHROMOSOMES}
    if unusual:
        asked.counts["unusual_chromosomes"] = unusual
    return rows


def chromosome_notes(counts: Mapping[str, Any]) -> list[str]:
    """Return what to tell of `rows_with_chromosome`."""
    notes = []
    if unplaced := counts.get("variants_unplaced"):
        notes.append(f"{unplaced:,} variants without a chromosome (0) left out")
    if unusual := counts.get("unusual_chromosomes"):
        listed = ", ".join(f"{name} ({n:,} variants)" for name, n in list(unusual.items())[:5])
        notes.append(f"Chromosomes besides 1-22, X, Y and MT, tested like the others: {listed}")
    return notes


def choose_people(config: GenotypeInput, samples: SampleIndex) -> SampleIndex:
    """Return the people that --keep and --remove leave, in their order.

    Raises
    ------
    AlignmentError
        A list to keep shares nobody, or nobody is left.
    """
    kept = keep_people(samples, config.keep)
    gone = _listed(config.remove, "participant_id")
    if gone:
        stays = np.array([name not in gone for name in kept.ids.tolist()], dtype=bool)
        if len(kept) and not stays.any():
            raise AlignmentError(f"--remove takes all {len(kept)} people away; nobody is left.")
        kept = kept.take(stays)
    return kept


def choose_variants(
    config: GenotypeInput, variants: VariantTable
) -> tuple[Bool[np.ndarray, " variants"], dict[str, int]]:
    """Return which variants the filters leave, and how many each filter took away, in this order.

    Raises
    ------
    AlignmentError
        A list shares no variant, or a filter leaves none.
    SchemaError
        A condition names an unknown column.
    """
    kept, left_out = np.ones(len(variants), dtype=bool), {}

    def apply(name: str, rows: Bool[np.ndarray, " variants"], message: str) -> None:
        before = int(kept.sum())
        np.logical_and(kept, rows, out=kept)
        left_out[name] = before - int(kept.sum())
        if before and not kept.any() and message:
            raise AlignmentError(f"{message} of the {before} variants{_places(variants)}. Nothing is left.")

    if config.variants:
        apply("not_listed", keep_variants(variants, config.variants), "")
    if config.exclude:
        gone = _listed(config.exclude, "variant_id")
        stays = np.array([name not in gone for name in variants.variant_id.tolist()], dtype=bool)
        apply("excluded", stays, "--exclude leaves none")
    if config.regions or config.region_files:
        inside = in_regions(variants, _regions_of(config.regions, config.region_files))
        apply("outside_regions", inside, "--regions hold none")
    if config.exclude_regions or config.exclude_region_files:
        inside = in_regions(variants, _regions_of(config.exclude_regions, config.exclude_region_files))
        apply("in_excluded_regions", ~inside, "--exclude-regions leave none")
    if config.exclude_long_range_ld:
        inside = in_regions(variants, long_range_ld(variants.genome_build))
        apply("in_long_range_ld", ~inside, "--exclude-long-range-ld leaves none")
    if config.where:
        known = _known_columns(config.where, variants, config.variants)
        apply("where", evaluate_where(config.where, known), f"--where {config.where!r} is true for none")
    return kept, left_out


def _regions_of(texts: Iterable[str], paths: Iterable[Path]) -> list[Region]:
    return [parse_region(text) for text in texts] + [region for path in paths for region in read_regions(path)]


def _places(variants: VariantTable) -> str:
    names = list(dict.fromkeys(variants.chromosome.tolist()))
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f" (chromosomes {shown})" if names else ""


def _listed(paths: Iterable[Path], column: str) -> set[str]:
    return {name for path in paths for name in read_list(path, column, every_row=True)}


_LATER = ("effect_allele_frequency", "missing_rate", "info", "maf", "hwe_neg_log10_p")
"""Columns that come only from genotypes."""


def _known_columns(
    expression: str, variants: VariantTable, tables: tuple[Path, ...]
) -> Mapping[str, Shaped[np.ndarray, " variants"]]:
    """Return the columns that an expression may read and does, one row per variant of the genotypes."""
    names = where_names(expression)
    known: dict[str, Any] = {
        "chromosome": text_array(variants.chromosome),
        "position": variants.position,
        "effect_allele": variants.effect_allele,
        "other_allele": variants.other_allele,
        "variant_id": variants.variant_id,
    }
    wanted = (names | ({"effect_allele_frequency"} if "maf" in names else set())) - known.keys()
    offered: list[str] = list(known)
    for path in tables:
        if path.suffix not in TABLE_SUFFIXES:
            continue
        table = read_arrow(path)
        offered += [name for name in table.column_names if name not in offered]
        for name in sorted(wanted & set(table.column_names)):
            known.setdefault(name, _aligned(table, name, variants, path))
    if "maf" in wanted and "maf" not in known and "effect_allele_frequency" in known:
        known["maf"] = np.minimum(known["effect_allele_frequency"], 1.0 - known["effect_allele_frequency"])
    unknown = sorted(names - known.keys())
    if unknown:
        name = unknown[0]
        hint = ""
        if name in _LATER:
            hint = (
                " It comes from genotypes: give a table that has it as --variants (genotypes qc and convert write one)."
            )
        raise SchemaError(
            f"--where {expression!r}: there is no column {name!r}.{nearest(name, offered)}{hint} "
            f"Known: {', '.join(offered)}."
        )
    return known


def _aligned(table: pa.Table, name: str, variants: VariantTable, path: Path) -> Shaped[np.ndarray, " variants"]:
    """Return a column of a table of variants, in the order of the genotypes; NaN or "" where the table has no row."""
    at = _rows_of(table, variants, path)
    if name == "effect_allele_frequency" and "effect_allele" in table.column_names:
        _check_effect_alleles(table, at, variants, path)
    values = _values(table.column(name))
    if values.dtype.kind == "f":
        found: Float[np.ndarray, " variants"] = np.where(at >= 0, values[at] if values.size else np.nan, np.nan)
        return found
    texts = values.tolist()
    return text_array([texts[k] if k >= 0 else "" for k in at.tolist()])


def _rows_of(table: pa.Table, variants: VariantTable, path: Path) -> Int[np.ndarray, " variants"]:
    """Return the row of the table for each variant, -1 where there is none; alleles tell variants of one id apart."""
    ids = [str(v) for v in table.column("variant_id").to_pylist()]
    if ids == variants.variant_id.tolist():
        return np.arange(len(ids))
    alleles = ("effect_allele", "other_allele")
    with_alleles = len(set(ids)) < len(ids) and set(alleles) <= set(table.column_names)
    if with_alleles:
        keys: list[Any] = list(zip(ids, *(map(str, table.column(a).to_pylist()) for a in alleles), strict=True))
        wanted: list[Any] = list(zip(*(getattr(variants, c).tolist() for c in ("variant_id", *alleles)), strict=True))
    else:
        keys, wanted = ids, variants.variant_id.tolist()
    if len(set(keys)) < len(keys):
        seen: set[Any] = set()
        twice = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise SchemaError(f"{path}: variant {twice!r} stands there twice; --where needs one row for each variant.")
    place = {key: k for k, key in enumerate(keys)}
    return np.array([place.get(key, -1) for key in wanted], dtype=np.int64)


def _check_effect_alleles(
    table: pa.Table, at: Int[np.ndarray, " variants"], variants: VariantTable, path: Path
) -> None:
    alleles = [str(v) for v in table.column("effect_allele").to_pylist()]
    ours = variants.effect_allele.tolist()
    for row, k in enumerate(at.tolist()):
        if k >= 0 and alleles[k] != ours[row]:
            raise AlignmentError(
                f"{path}: the effect allele of variant {variants.variant_id[row]!r} is {alleles[k]}, in the genotypes "
                f"it is {ours[row]}, so that effect_allele_frequency means another allele. Use a table made from "
                "these genotypes, or maf in a column of its own."
            )


def _values(column: pa.ChunkedArray) -> Shaped[np.ndarray, " rows"]:
    """Return numbers where all cells are numbers or missing, else text."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        try:
            return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return text_array([str(v) for v in column.to_pylist()])
    blank = pc.is_in(column, value_set=pa.array(MISSING_TEXT))
    try:
        numbers = pc.if_else(blank, pa.scalar(None, pa.string()), column).cast(pa.float64())
    except pa.ArrowInvalid:
        return text_array(["" if v is None else v for v in column.to_pylist()])
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)
