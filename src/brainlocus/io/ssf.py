"""GWAS-SSF, the text format of the GWAS Catalog for summary statistics, version 1.0.

One gzipped tab-separated file per trait with the standard's columns in its order, sorted by place, and a YAML file of
metadata beside it (``NAME.tsv.gz-meta.yaml``). X, Y and MT are 23, 24 and 25; a missing value is ``#NA``.

The standard's ``variant_id`` is made of the place (``1_754182_A_G``: other allele, then effect allele); a name such as
rs3131969 is the ``rsid``. Where a scan has other names, they follow in a column ``variant_name``, as the standard
allows.

References
----------
Hayhurst et al. (2022), doi:10.1101/2022.07.15.500230; the files of EBISPOT/gwas-summary-statistics-standard, v1.0.0.
"""

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from jaxtyping import Float, Int

from brainlocus.core.results import ResultTable
from brainlocus.core.variants import AUTOSOMES, VariantTable
from brainlocus.io.atomic import atomic_path
from brainlocus.io.tables import arrow_column

__all__ = [
    "SSF_CHROMOSOMES",
    "SSF_VERSION",
    "SsfMetadata",
    "SsfVariants",
    "prepare_ssf",
    "ssf_metadata_path",
    "write_ssf",
]

SSF_VERSION = "GWAS-SSF v1.0"
SSF_CHROMOSOMES = {**{name: int(name) for name in AUTOSOMES}, "X": 23, "XY": 23, "Y": 24, "MT": 25}
"""Chromosome to number; XY, the pseudo-autosomal part of X, has none of its own."""
_DIGITS = 10
"""Significant digits: a stored t has seven."""
_GZIP_LEVEL = 4
_ALLELE = "^[ACGTacgt]+$"
_RSID = "^rs[0-9]+$"
_RESULTS = ("beta", "standard_error", "effect_allele_frequency", "neg_log10_p")
_NA = "#NA"
_BATCH = 1 << 18
"""Rows that are text at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class SsfVariants:
    """What every file of a scan has alike, in the order of the files."""

    rows: Int[np.ndarray, " kept"]
    """Rows of the variant table, sorted by chromosome and position."""
    before: pa.Table
    """chromosome, base_pair_location, effect_allele, other_allele."""
    after: pa.Table
    """variant_id, rsid, variant_name where needed, info."""
    n_left_out: int
    """Variants whose chromosome the standard has no number for, or without a position."""
    n_other_alleles: int
    """Variants of `rows` whose alleles are not of A, C, G, T: written as they are, refused by validators."""


@dataclass(frozen=True, slots=True)
class SsfMetadata:
    """What the YAML file says of a trait, besides what the data file itself says."""

    trait: str
    genome_build: str
    sample_size: int
    modified: str
    """Date, ISO 8601."""
    software: str = ""
    n_cases: int = 0
    """0 where the trait is not binary."""
    covariates: tuple[str, ...] = ()


def prepare_ssf(variants: VariantTable, info: Float[np.ndarray, " variants"] | None = None) -> SsfVariants:
    """Return the columns that the files of all traits share.

    Parameters
    ----------
    info
        Imputation quality; NaN where unknown. Cut at 1, the standard's largest.
    """
    names, inverse = np.unique(variants.chromosome.astype(np.str_), return_inverse=True)
    numbers = np.array([SSF_CHROMOSOMES.get(str(name), 0) for name in names], dtype=np.int64)[inverse]
    kept = np.flatnonzero((numbers > 0) & (variants.position > 0))
    rows = kept[np.lexsort((variants.position[kept], numbers[kept]))]
    chosen, number = variants.take(rows), numbers[rows]
    effect, other = arrow_column(chosen.effect_allele), arrow_column(chosen.other_allele)
    chromosome, position = arrow_column(number), arrow_column(chosen.position.astype(np.int64))
    plain = pc.and_(pc.match_substring_regex(effect, _ALLELE), pc.match_substring_regex(other, _ALLELE))
    place = pc.binary_join_element_wise(
        chromosome.cast(pa.string()), position.cast(pa.string()), other.cast(pa.string()), effect.cast(pa.string()), "_"
    )
    name = arrow_column(chosen.variant_id).cast(pa.string())
    is_rsid = pc.match_substring_regex(name, _RSID)
    after = {
        "variant_id": pc.if_else(plain, place, _NA),
        "rsid": pc.if_else(is_rsid, name, _NA),
        "info": _number_text(np.full(rows.size, np.nan) if info is None else np.minimum(info[rows], 1.0)),
    }
    if not pc.all(pc.or_(is_rsid, pc.equal(name, place)), min_count=0).as_py():
        after["variant_name"] = name
    before = (chromosome, position, effect, other)
    columns = dict(zip(("chromosome", "base_pair_location", "effect_allele", "other_allele"), before, strict=True))
    return SsfVariants(
        rows=rows,
        before=pa.table(columns),
        after=pa.table(after),
        n_left_out=len(variants) - int(rows.size),
        n_other_alleles=int(rows.size) - int(pc.sum(plain.cast(pa.int64()), min_count=0).as_py()),
    )


def _ten_digits(values: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    """Return the doubles nearest to the values at ten significant digits, whose shortest text has no more.

    A whole number below 2^53 divided by an exact power of ten is correctly rounded.
    """
    usable = np.isfinite(values) & (values != 0.0)
    magnitude = np.floor(np.log10(np.abs(np.where(usable, values, 1.0)))).astype(np.int64)
    power = np.clip(_DIGITS - 1 - magnitude, -300, 300)
    up, down = 10.0 ** np.maximum(power, 0), 10.0 ** np.maximum(-power, 0)
    return np.where(usable, np.rint(values * up / down) / up * down, values)


def _number_text(values: Float[np.ndarray, " rows"]) -> pa.Array:
    """Return numbers as text of at most ten significant digits; ``#NA`` for NaN."""
    rounded = _ten_digits(values.astype(np.float64))
    text = arrow_column(rounded).cast(pa.string())
    return pc.if_else(arrow_column(np.isnan(rounded)), _NA, text)


def write_ssf(variants: SsfVariants, results: ResultTable, path: Path, metadata: SsfMetadata) -> int:
    """Write one trait and its metadata; return the number of rows.

    Variants without an estimate have no row: the standard wants beta, standard error, frequency and p in every one.

    Parameters
    ----------
    results
        One row per variant of the table that `variants` was prepared from, in its order: the columns of
        `pipeline.full_store.read_full`.
    """
    values = {name: np.asarray(results[name][variants.rows], dtype=np.float64) for name in _RESULTS}
    kept = np.logical_and.reduce([np.isfinite(column) for column in values.values()])
    n = np.asarray(results["n"][variants.rows], dtype=np.int64)
    optional = [name for name in variants.after.column_names if name != "variant_name"]
    extra = ["variant_name"] if "variant_name" in variants.after.column_names else []
    header = [*variants.before.column_names, *_RESULTS[:3], "neg_log_10_p_value", *optional, "n", *extra]
    with atomic_path(path) as partial:
        with partial.open("wb") as raw, gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as stream:
            stream.write(("\t".join(header) + "\n").encode())
            for start in range(0, kept.size, _BATCH):
                batch = slice(start, min(start + _BATCH, kept.size))
                stream.write(_lines(variants, values, n, np.flatnonzero(kept[batch]) + start, optional, extra))
        digest = hashlib.md5(usedforsecurity=False)
        with partial.open("rb") as whole:
            while piece := whole.read(1 << 20):
                digest.update(piece)
    with atomic_path(ssf_metadata_path(path)) as partial:
        partial.write_text(_yaml(metadata, path.name, digest.hexdigest()), encoding="utf-8")
    return int(kept.sum())


def ssf_metadata_path(path: Path) -> Path:
    """Return where the metadata of a data file are, as the standard names them."""
    return path.with_name(f"{path.name}-meta.yaml")


def _lines(
    variants: SsfVariants,
    values: dict[str, Float[np.ndarray, " rows"]],
    n: Int[np.ndarray, " rows"],
    rows: Int[np.ndarray, " kept"],
    optional: Sequence[str],
    extra: Sequence[str],
) -> bytes:
    """Return some rows as text."""
    at = arrow_column(rows)
    columns: dict[str, Any] = {name: variants.before.column(name).take(at) for name in variants.before.column_names}
    columns |= {name: arrow_column(_ten_digits(values[name][rows])) for name in _RESULTS}
    columns |= {name: variants.after.column(name).take(at) for name in optional}
    columns["n"] = arrow_column(n[rows])
    columns |= {name: variants.after.column(name).take(at) for name in extra}
    sink = pa.BufferOutputStream()
    options = pacsv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    pacsv.write_csv(pa.table(columns), sink, options)
    return bytes(sink.getvalue())


def _yaml(metadata: SsfMetadata, name: str, md5: str) -> str:
    """Return the metadata; texts are quoted as in JSON, which YAML reads alike."""
    lines = [
        f"date_metadata_last_modified: {metadata.modified}",
        "trait_description:",
        f"  - {_quoted(metadata.trait)}",
        f"genome_assembly: {_quoted(metadata.genome_build)}",
        "coordinate_system: 1-based",
        "samples:",
        f"  - sample_size: {metadata.sample_size}",
        *(_case_lines(metadata) if metadata.n_cases else ()),
        f"data_file_name: {_quoted(name)}",
        f"file_type: {SSF_VERSION}",
        f"data_file_md5sum: {md5}",
    ]
    if metadata.software:
        lines.append(f"analysis_software: {_quoted(metadata.software)}")
    if metadata.covariates:
        lines += ["adjusted_covariates:", *(f"  - {_quoted(covariate)}" for covariate in metadata.covariates)]
    return "\n".join([*lines, "is_harmonised: false", "is_sorted: true", ""])


def _case_lines(metadata: SsfMetadata) -> tuple[str, ...]:
    return (
        "    case_control_study: true",
        f"    case_count: {metadata.n_cases}",
        f"    control_count: {metadata.sample_size - metadata.n_cases}",
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
