"""GWAS for a transcriptome-wide scan: files of any program, or scans of ours, as matrices of model SNPs.

A prepared folder has ``models/`` (`pipeline.twas_models`), ``z.npy`` and ``beta.npy`` (phenotypes x SNPs, NaN where
absent) and ``phenotypes.parquet`` with what became of each GWAS.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from pydantic import Field

from brainlocus.core import AlignmentError, FormatError, SchemaError
from brainlocus.genetics.twas import (
    AlignedGwas,
    AlignmentRules,
    ModelSnps,
    align_gwas,
    explain_no_overlap,
    genome_build_of,
    gwas_statistics,
)
from brainlocus.io import arrow_column, read_arrow
from brainlocus.io.gwas_columns import choose_columns
from brainlocus.io.gwas_rows import GwasReader, GwasRows, gwas_header
from brainlocus.io.matrices import open_matrix
from brainlocus.io.tables import MISSING_TEXT
from brainlocus.pipeline.config import CommaList, InputPath, InputPaths, Positional
from brainlocus.pipeline.full_store import iter_full, open_full
from brainlocus.pipeline.models import read_arrays, write_arrays
from brainlocus.pipeline.step import Context
from brainlocus.pipeline.twas_models import ModelInput, ModelSet, load_models, read_model_set, write_model_set

__all__ = [
    "GwasInput",
    "PreparedGwas",
    "gwas_bytes",
    "is_prepared",
    "open_prepared",
    "prepare_gwas",
    "write_phenotypes",
]

_ENDINGS = re.compile(
    r"(\.(gz|bgz|zst|txt|tsv|csv|parquet|regenie|sumstats|out|tbl|assoc|linear|logistic|glm|h|gwas))+$", re.IGNORECASE
)
_FILES_A_TASK = 16


class GwasInput(ModelInput):
    """GWAS, and how their columns, statistics and alleles are understood."""

    gwas: Annotated[InputPaths, Positional()] = Field(
        description="GWAS: files of summary statistics, a table phenotype, path that lists them, a folder of gwas run "
        "--full, or one of twas prepare"
    )
    preset: str = Field(
        "auto",
        description="Columns of a program, if not told by the header: brainlocus, gwas-ssf, big40, regenie, plink2, "
        "saige, metal, glgc, enigma, ldsc",
    )
    columns: CommaList = Field(
        (),
        description="Columns by name, as field=NAME: snp, effect_allele, other_allele, z, beta, standard_error, p ...",
    )
    phenotype_pattern: str = Field(
        "", description="Regular expression with a group for the phenotype in the names of files"
    )
    precedence: Literal["beta", "p"] = Field(
        "beta",
        description="Where there is no z: beta with its standard error first, or p with the sign first (S-PrediXcan)",
    )
    replace_zero_p: bool = Field(
        False, description="Take the smallest positive p for p = 0 instead of dropping the row"
    )
    match: Literal["id", "position"] = Field("id", description="Find SNPs by id, or by chromosome and position")
    strand: Literal["none", "complement"] = Field("none", description="Whether alleles of the other strand match too")
    palindromic: Literal["keep", "drop", "frequency"] = Field("keep", description="A/T and C/G SNPs")
    frequencies: InputPath | None = Field(
        None, description="Table snp, effect_allele, frequency of the reference, for --palindromic frequency"
    )
    duplicates: Literal["smallest-p", "last"] = Field("smallest-p", description="Which of several rows of a SNP counts")
    genome_build: str = Field("", description="Assembly of the GWAS, compared with that of varIDs: GRCh37, GRCh38")
    decimal_comma: bool = Field(False, description="Numbers are written 0,05")


@dataclass(frozen=True, slots=True, eq=False)
class PreparedGwas:
    """GWAS of all phenotypes in the entries of the models' SNPs."""

    models: ModelSet
    phenotypes: tuple[str, ...]
    z: Float[np.ndarray, "phenotypes entries"]
    """NaN: absent. May lie in a memory map."""
    beta: Float[np.ndarray, "phenotypes entries"] | None
    """None: no GWAS has betas; NaN where one row or GWAS has none."""
    report: list[dict[str, Any]] = field(default_factory=list)
    """Per phenotype: status, where z is from, and counts."""


def phenotype_name(path: Path, pattern: str) -> str:
    """Return the phenotype of a file: its name without endings, or what the pattern's group matches.

    Raises
    ------
    SchemaError
        The name does not match.

    Examples
    --------
    >>> phenotype_name(Path("aparc-Desikan_lh_area_insula.v2.txt.gz"), "")
    'aparc-Desikan_lh_area_insula.v2'
    """
    if not pattern:
        return _ENDINGS.sub("", path.name) or path.name
    found = re.search(pattern, path.name)
    if found is None or not found.re.groups:
        raise SchemaError(
            f"{path.name} does not match --phenotype-pattern {pattern!r} with one group for the phenotype; correct it."
        )
    return str(found[1])


def is_prepared(path: Path) -> bool:
    """Return whether a path is a folder of ``twas prepare``."""
    return path.is_dir() and (path / "phenotypes.parquet").is_file() and (path / "models" / "snps.npz").is_file()


def open_prepared(path: Path) -> PreparedGwas:
    """Open a folder of ``twas prepare``; z and beta stay on disk.

    Raises
    ------
    FormatError
        The folder is not whole.
    """
    models = read_model_set(path / "models")
    report = read_arrow(path / "phenotypes.parquet").to_pylist()
    shape = (len(report), models.snps.n_entries)
    z = open_matrix(path / "z.npy", shape)
    beta = open_matrix(path / "beta.npy", shape) if (path / "beta.npy").is_file() else None
    return PreparedGwas(models, tuple(r["phenotype"] for r in report), z, beta, report)


def write_phenotypes(report: list[dict[str, Any]], path: Path) -> None:
    """Write what became of each GWAS as a table; counts that a GWAS has not are 0."""
    names = list(dict.fromkeys(name for row in report for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in report]
        if any(isinstance(v, str) for v in values):
            columns[name] = pa.array(["" if v is None else str(v) for v in values], pa.string())
        else:
            columns[name] = arrow_column(np.array([0 if v is None else v for v in values]))
    pq.write_table(pa.table(columns), path)


@dataclass(frozen=True, slots=True)
class _Source:
    """One file, or one trait of a scan of ours."""

    phenotype: str
    path: Path
    trait: str = ""


def _sources(config: GwasInput) -> list[_Source]:
    found: list[_Source] = []
    for path in config.gwas:
        if path.is_dir():
            found += _folder_sources(path, config.phenotype_pattern)
        elif (listed := _listed(path)) is not None:
            found += listed
        else:
            found.append(_Source(phenotype_name(path, config.phenotype_pattern), path))
    names = [s.phenotype for s in found]
    twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise SchemaError(
            f"Two GWAS are called {twice[0]!r}; phenotypes need names of their own. Use --phenotype-pattern, or a "
            "table phenotype, path."
        )
    if not found:
        raise FormatError(f"{config.gwas[0]}: expected files of summary statistics, found none.")
    return found


def _folder_sources(path: Path, pattern: str) -> list[_Source]:
    for full in (path / "full", path):
        if (full / "traits.json").is_file() and (full / "variants.parquet").is_file():
            return [_Source(trait, full, trait) for trait in open_full(full).traits]
    files = sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith(".") and f.suffix != ".json")
    return [_Source(phenotype_name(f, pattern), f) for f in files]


def gwas_bytes(config: GwasInput) -> int:
    """Return the size of all the files that are to be read."""
    return sum(path.stat().st_size for path in {s.path for s in _sources(config)} if path.is_file())


def _listed(path: Path) -> list[_Source] | None:
    """Return the files that a table phenotype, path lists; None when the file is no such table."""
    names = gwas_header(path)
    if not {"phenotype", "path"} <= set(names):
        return None
    table = read_arrow(path)
    rows = zip(table.column("phenotype").to_pylist(), table.column("path").to_pylist(), strict=True)
    found = [_Source(str(p), (path.parent / str(f)).resolve()) for p, f in rows]
    absent = [s.path for s in found if not s.path.is_file()]
    if absent:
        raise FormatError(f"{path}: {len(absent)} of the files it lists are not there: {absent[0]}. Correct the paths.")
    return found


def _given_columns(config: GwasInput) -> dict[str, str]:
    given = {}
    for part in config.columns:
        key, equals, name = part.partition("=")
        if not equals:
            raise SchemaError(f"--columns: expected field=NAME, found {part!r}.")
        given[key.strip()] = name.strip()
    return given


@dataclass(frozen=True, slots=True)
class _Task:
    """Some GWAS for a worker; everything large is read from the folder of models, once a process."""

    folder: Path
    first: int
    """Row of the first of them in the matrices, which lie beside the folder."""
    sources: tuple[_Source, ...]
    preset: str
    given: tuple[tuple[str, str], ...]
    precedence: Literal["beta", "p"]
    replace_zero_p: bool
    by_position: bool
    decimal_comma: bool
    rules: AlignmentRules
    with_frequencies: bool


@lru_cache(maxsize=2)
def _models_of(folder: Path) -> ModelSet:
    return read_model_set(folder)


@lru_cache(maxsize=2)
def _frequencies_of(folder: Path) -> Any:
    return read_arrays(folder / "frequencies.npz")[1]["frequency"]


def _align_files(task: _Task, out: Path) -> None:
    """Align some GWAS and write their z, beta and counts."""
    models = _models_of(task.folder)
    snps = models.snps
    reader = GwasReader(snps.names, by_position=task.by_position, decimal_comma=task.decimal_comma)
    frequencies = _frequencies_of(task.folder) if task.with_frequencies else None
    z, beta = (np.load(task.folder.parent / name, mmap_mode="r+") for name in ("z.npy", "beta.npy"))
    reports: list[dict[str, Any]] = []
    for k, (source, rows, told) in enumerate(_read_sources(task, reader, snps)):
        statistics = gwas_statistics(
            z=rows.z,
            beta=rows.beta,
            standard_error=rows.standard_error,
            neg_log10_p=rows.neg_log10_p,
            sign=rows.sign,
            precedence=task.precedence,
            replace_zero_p=task.replace_zero_p,
        )
        aligned = align_gwas(
            snps,
            snp=rows.snp,
            alleles=rows.alleles,
            effect_allele=rows.effect_allele,
            other_allele=rows.other_allele,
            z=statistics.z,
            beta=statistics.beta,
            frequency=rows.frequency,
            reference_frequency=frequencies,
            rules=task.rules,
        )
        z[task.first + k] = aligned.z
        beta[task.first + k] = np.nan if aligned.beta is None else aligned.beta
        counts = {**aligned.counts, **statistics.counts}
        reports.append(_report(source, rows, told, statistics.source, counts, aligned, snps))
    z.flush()
    beta.flush()
    out.write_text(json.dumps(reports))


def _read_sources(task: _Task, reader: GwasReader, snps: ModelSnps) -> Iterator[tuple[_Source, GwasRows, str]]:
    scans = [s for s in task.sources if s.trait]
    if scans:
        yield from _scan_rows(scans, snps, by_position=task.by_position)
        return
    for source in task.sources:
        told, columns = choose_columns(
            gwas_header(source.path), preset=task.preset, given=dict(task.given), where=str(source.path)
        )
        if task.by_position and not (columns.chromosome and columns.position):
            raise SchemaError(f"{source.path}: --match position needs columns of chromosome and position, found none.")
        if not task.by_position and not columns.snp:
            raise SchemaError(f"{source.path}: it has no ids of SNPs; match by place with --match position.")
        yield source, reader.read(source.path, columns), told


def _scan_rows(
    sources: Sequence[_Source], snps: ModelSnps, *, by_position: bool
) -> Iterator[tuple[_Source, GwasRows, str]]:
    """Yield the rows of traits of a ``gwas run --full`` folder; where the SNPs are is found once."""
    index = open_full(sources[0].path)
    variants = index.variants
    if by_position:
        names = [f"{c}:{p}" for c, p in zip(variants.chromosome.tolist(), variants.position.tolist(), strict=True)]
    else:
        names = variants.variant_id.tolist()
    place = {name: k for k, name in enumerate(snps.names.tolist())}
    found = np.array([place.get(name, -1) for name in names], dtype=np.int32)
    row = np.flatnonzero(found >= 0)
    effect = np.array([a.upper() for a in variants.effect_allele[row].tolist()], dtype=np.dtypes.StringDType())
    other = np.array([a.upper() for a in variants.other_allele[row].tolist()], dtype=np.dtypes.StringDType())
    levels = {a: k for k, a in enumerate(dict.fromkeys([*effect.tolist(), *other.tolist()]))}
    codes = [np.array([levels[a] for a in side.tolist()], dtype=np.int32) for side in (effect, other)]
    for source, table in zip(sources, iter_full(index, [s.trait for s in sources]), strict=True):
        yield (
            source,
            GwasRows(
                snp=found[row],
                alleles=np.array(list(levels), dtype=np.dtypes.StringDType()),
                effect_allele=codes[0],
                other_allele=codes[1],
                z=None,
                beta=np.asarray(table["beta"][row], dtype=np.float64),
                standard_error=np.asarray(table["standard_error"][row], dtype=np.float64),
                neg_log10_p=None,
                sign=None,
                frequency=np.asarray(table["effect_allele_frequency"][row], dtype=np.float64),
                n_read=len(names),
                n_without_id=0,
                examples=tuple(names[:3]),
            ),
            "gwas run",
        )


def _report(
    source: _Source,
    rows: GwasRows,
    told: str,
    statistic: str,
    counts: dict[str, int],
    aligned: AlignedGwas,
    snps: ModelSnps,
) -> dict[str, Any]:
    found = int(np.isfinite(aligned.z).sum())
    return {
        "phenotype": source.phenotype,
        "status": "ok" if found else "no SNP of the models found",
        "file": source.path.name,
        "columns": told,
        "z_from": statistic,
        "rows_read": rows.n_read,
        "rows_without_id": rows.n_without_id,
        "rows_not_in_models": rows.n_read - rows.n_without_id - int(rows.snp.size),
        **{name: n for name, n in counts.items() if name != "entries"},
        "snps_of_models": snps.n_entries,
        "snps_found": found,
        "has_beta": aligned.beta is not None,
        "examples": ", ".join(rows.examples),
    }


def prepare_gwas(config: GwasInput, context: Context, folder: Path, *, dtype: str = "float64") -> PreparedGwas:
    """Read models and GWAS; return them as matrices.

    Parameters
    ----------
    folder
        Where models and matrices are kept.

    Raises
    ------
    BrainlocusError
        A file is not as it should be, or no SNP of the models is in the first GWAS.
    """
    sources = _sources(config)
    by_position = config.match == "position"
    examples = _first_names(config, sources[0]) if not by_position else ()
    models = load_models(config, context.progress, by_position=by_position, gwas_names=examples)
    _check_build(config, models)
    write_model_set(models, folder / "models")
    if config.frequencies is not None:
        frequency = _reference_frequencies(config.frequencies, models.snps)
        write_arrays({}, {"frequency": frequency}, folder / "models" / "frequencies.npz")
    _models_of.cache_clear()
    _frequencies_of.cache_clear()
    # The first alone: a mismatch of ids shows before hours of reading.
    starts = [0, *range(1, len(sources), _FILES_A_TASK)]
    tasks = {}
    for start, stop in zip(starts, [*starts[1:], len(sources)], strict=True):
        group = sources[start:stop]
        tasks[f"gwas-{start:05d}-{_content_name(group)}.json"] = _task(config, folder / "models", start, group)
    shape = (len(sources), models.snps.n_entries)
    for name in ("z.npy", "beta.npy"):
        _ensure_matrix(folder / name, shape, dtype)
    reports: list[dict[str, Any]] = []
    for path in context.map_shards(_align_files, tasks, "Reading GWAS"):
        first = not reports
        reports += json.loads(path.read_text())
        if first and reports[0]["snps_found"] == 0:
            raise AlignmentError(_no_overlap(models, reports[0]))
    z, beta = (np.load(folder / name, mmap_mode="r") for name in ("z.npy", "beta.npy"))
    has_beta = any(row["has_beta"] for row in reports)
    return PreparedGwas(models, tuple(s.phenotype for s in sources), z, beta if has_beta else None, reports)


def _ensure_matrix(path: Path, shape: tuple[int, int], dtype: str) -> None:
    """Make an empty matrix on disk, unless an interrupted run has left one of this shape."""
    if path.is_file():
        with suppress(ValueError, EOFError):
            found = np.load(path, mmap_mode="r")
            if found.shape == shape and found.dtype == np.dtype(dtype):
                return
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _content_name(group: Sequence[_Source]) -> str:
    """Return a name that changes with the files' size and time, so that resuming does not take a changed one."""
    text = "|".join(f"{s.path}:{s.trait}:{_stamp(s.path)}" for s in group)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}:{status.st_mtime_ns}"


def _task(config: GwasInput, folder: Path, first: int, group: Sequence[_Source]) -> _Task:
    return _Task(
        folder,
        first,
        tuple(group),
        config.preset,
        tuple(_given_columns(config).items()),
        config.precedence,
        config.replace_zero_p,
        config.match == "position",
        config.decimal_comma,
        AlignmentRules(config.strand, config.palindromic, config.duplicates),
        config.frequencies is not None,
    )


def _first_names(config: GwasInput, source: _Source) -> tuple[str, ...]:
    """Return some names of SNPs in the first GWAS."""
    if source.trait:
        return tuple(open_full(source.path).variants.variant_id[:3].tolist())
    _, columns = choose_columns(
        gwas_header(source.path), preset=config.preset, given=_given_columns(config), where=str(source.path)
    )
    if not columns.snp:
        return ()
    return GwasReader(np.zeros(0, dtype=np.str_)).first_names(source.path, columns)


def _check_build(config: GwasInput, models: ModelSet) -> None:
    found = genome_build_of(models.snps.names[:: max(1, models.snps.names.size // 50)].tolist())
    alias = {"hg19": "GRCh37", "b37": "GRCh37", "hg38": "GRCh38", "b38": "GRCh38"}
    ours = alias.get(config.genome_build.lower(), config.genome_build)
    if found and ours and found != ours:
        raise AlignmentError(
            f"--genome-build {config.genome_build}: the varIDs of the models are of {found}. Lift the GWAS over, or "
            "match by rsid (--snp-key rsid)."
        )


def _no_overlap(models: ModelSet, report: dict[str, Any]) -> str:
    names = [n for n in str(report["examples"]).split(", ") if n]
    n = models.snps.names.size
    if report["rows_in_models"]:
        return (
            f"{report['file']}: {report['rows_in_models']} rows are of SNPs of the models, but none has their alleles "
            f"and a usable statistic ({report['other_alleles']} with other alleles). Are effect and other allele the "
            f"right columns ({report['columns']})? See --columns and --strand."
        )
    why = explain_no_overlap(models.snps.names[:3].tolist(), names)
    return f"{report['file']}: none of the {n:,} SNPs of the models is among its {report['rows_read']:,} rows: {why}"


def _reference_frequencies(path: Path, snps: ModelSnps) -> Float[np.ndarray, " entries"]:
    """Return the frequency of every entry's effect allele from a table snp, effect_allele, frequency."""
    table = read_arrow(path)
    for name in ("snp", "effect_allele", "frequency"):
        if name not in table.column_names:
            raise SchemaError(f"{path}: expected columns snp, effect_allele and frequency, found {table.column_names}.")
    cells = zip(*(table.column(n).to_pylist() for n in ("snp", "effect_allele", "frequency")), strict=True)
    known = {(str(s), str(a).upper()): float(f) for s, a, f in cells if str(f) not in MISSING_TEXT}
    effect = snps.alleles[snps.effect_allele].tolist()
    other = snps.alleles[snps.other_allele].tolist()
    found = np.full(snps.n_entries, np.nan)
    for k, (name, e, o) in enumerate(zip(snps.entry_names.tolist(), effect, other, strict=True)):
        if (name, e) in known:
            found[k] = known[name, e]
        elif (name, o) in known:
            found[k] = 1.0 - known[name, o]
    return found
