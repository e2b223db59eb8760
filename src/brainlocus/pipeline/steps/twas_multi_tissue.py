"""``twas multi-tissue``: one test of a gene from its associations in several tissues, for all phenotypes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped
from pydantic import Field

from brainlocus.core import ExpressionModel, GeneCovariance, GeneMatrix, ResultTable, SchemaError
from brainlocus.genetics.twas import (
    CutOff,
    MultiTissueStatus,
    MultiTissueTests,
    acat,
    index_genes,
    join_tissues,
    multixcan,
    tissue_covariance,
)
from brainlocus.io import (
    iter_covariances,
    model_tissue,
    read_expression_model,
    read_gene_matrices,
    write_results,
)
from brainlocus.io.gwas_columns import choose_columns
from brainlocus.io.gwas_rows import GwasReader, gwas_header
from brainlocus.numerics import benjamini_hochberg_q, bonferroni_p
from brainlocus.numerics.tails import neg_log10_p_from_z
from brainlocus.pipeline.config import CommaPaths, InputPath, InputPaths, Positional, StepConfig
from brainlocus.pipeline.step import Context, Step, StepResult
from brainlocus.pipeline.twas_gwas import open_prepared
from brainlocus.pipeline.twas_models import model_files, with_prefix

__all__ = ["TWAS_MULTI_TISSUE", "TwasMultiTissueConfig"]

_EVERY_TEST = 20_000_000
"""Tests up to which all are written by default."""
_NOMINAL = 0.05
_SHOWN = 5
_VERSION = re.compile(r"\.\d+(_\d+)?$")
_RULES = ("condition_number", "eigen_ratio", "trace_ratio", "variance_threshold")
_STATUS = {
    MultiTissueStatus.OK: "ok",
    MultiTissueStatus.NO_DATA: "no tissue with a z has a model of the gene",
    MultiTissueStatus.NO_Z: "no tissue has a z",
    MultiTissueStatus.NO_COVARIANCE: "no model with variance in the reference panel",
    MultiTissueStatus.UNDERFLOW: "p is below 1e-308, see neg_log10_p",
    MultiTissueStatus.NOT_INVERTED: "the correlation of the tissues cannot be inverted",
}
_HAS_RESULT = (MultiTissueStatus.OK, MultiTissueStatus.UNDERFLOW)


class TwasMultiTissueConfig(StepConfig):
    """Settings of ``twas multi-tissue``."""

    results: Annotated[InputPaths, Positional()] = Field(
        description="Associations of single tissues: a folder of twas associate --full, its tables, or S-PrediXcan CSVs"
    )
    method: Literal["multixcan", "acat", "both"] = Field(
        "multixcan", description="S-MultiXcan, ACAT (which needs no models), or both"
    )
    models: CommaPaths = Field((), description="Expression models of the tissues (.db), or folders of them")
    covariance: InputPath | None = Field(None, description="Covariances of each gene's SNPs of all tissues together")
    gwas: InputPath | None = Field(
        None, description="GWAS, or folder of twas prepare: only its SNPs count; all of the models by default"
    )
    file_pattern: str = Field(
        "", description="Regular expression with groups named phenotype and tissue for names of result files"
    )
    model_pattern: str = Field(
        "", description="Regular expression with a group for the tissue in the names of models: 'TW_(.+)_0.5\\.db'"
    )
    snp_key: Literal["rsid", "varID"] = Field("rsid", description="Column of the models that names SNPs")
    strip_versions: bool = Field(False, description="Take versions off gene ids: ENSG00000130203.9")
    missing_covariance: Literal["error", "zero"] = Field(
        "error", description="What to do where two SNPs with variances have no covariance"
    )
    condition_number: float | None = Field(
        None,
        description="Components below the largest eigenvalue over this are left out; 30 by default",
    )
    eigen_ratio: float | None = Field(None, description="The same below this share of the largest eigenvalue")
    trace_ratio: float | None = Field(None, description="The same below this share of the trace")
    variance_threshold: float | None = Field(
        None, description="Components beyond those that have 1 - this of the trace are left out"
    )
    ridge: float = Field(0.0, description="Added to the diagonal of the correlation")
    hits: float | None = Field(
        None, gt=0, le=1, description="Largest p to write; by default all, or 0.05 above 20 million tests"
    )
    scope: Literal["study", "phenotype"] = Field("study", description="Tests that are corrected together")


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Associations and models of the same tissues."""

    matrices: tuple[GeneMatrix, ...]
    models: tuple[ExpressionModel, ...]
    """In the order of `matrices`; none for ACAT alone."""
    phenotypes: Shaped[np.ndarray, " phenotypes"]
    rows: tuple[dict[str, int], ...]
    """Of every tissue, gene to row of the matrix."""
    names: dict[str, str]
    """Gene to symbol, in the order in which genes first occur."""
    unmatched: dict[str, list[str]]
    """Tissues without a model, and models without results."""


@dataclass(slots=True)
class _Rows:
    """Results that are to be written, gene by gene."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    n_tests: Int64[np.ndarray, " phenotypes"] | None = None
    n_acat: Int64[np.ndarray, " phenotypes"] | None = None
    status: dict[int, int] = field(default_factory=dict)
    left_out: int = 0


def _cut_off(config: TwasMultiTissueConfig) -> CutOff:
    given = {name: value for name in _RULES if (value := getattr(config, name)) is not None}
    if len(given) > 1:
        shown = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise SchemaError(f"Expected one rule for the components to keep, found {shown}.")
    name, value = next(iter(given.items()), ("condition_number", 30.0))
    try:
        return CutOff(name.replace("_", "-"), value, config.ridge)  # type: ignore[arg-type]
    except ValueError as error:
        raise SchemaError(f"--{name.replace('_', '-')}: {error}") from error


def _gene_id(gene: str, config: TwasMultiTissueConfig) -> str:
    return _VERSION.sub("", gene) if config.strip_versions else gene


def _read(config: TwasMultiTissueConfig, context: Context) -> _Inputs:
    matrices = tuple(read_gene_matrices(config.results, pattern=config.file_pattern))
    if not matrices or not any(m.genes.size for m in matrices):
        raise SchemaError(f"{config.results[0]}: expected associations of genes, found none.")
    models: tuple[ExpressionModel, ...] = ()
    unmatched: dict[str, list[str]] = {"tissues_without_model": [], "models_without_results": []}
    if config.method != "acat":
        if not config.models or config.covariance is None:
            raise SchemaError("S-MultiXcan needs --models and --covariance; --method acat needs neither.")
        matrices, models, unmatched = _matched(config, matrices, context)
    names: dict[str, str] = {}
    rows = []
    for matrix in matrices:
        ids = [_gene_id(gene, config) for gene in matrix.genes.tolist()]
        rows.append({gene: row for row, gene in enumerate(ids)})
        if len(rows[-1]) < len(ids):
            raise SchemaError(f"Tissue {matrix.tissue}: two genes have one id; each may have one row for a phenotype.")
        for gene, symbol in zip(ids, matrix.gene_names.tolist(), strict=True):
            names[gene] = names.get(gene, "") or symbol
    return _Inputs(matrices, models, matrices[0].phenotypes, tuple(rows), names, unmatched)


def _matched(
    config: TwasMultiTissueConfig, matrices: tuple[GeneMatrix, ...], context: Context
) -> tuple[tuple[GeneMatrix, ...], tuple[ExpressionModel, ...], dict[str, list[str]]]:
    """Return the tissues that have both results and a model."""
    paths: dict[str, Path] = {}
    for path in model_files(config.models):
        tissue = model_tissue(path, config.model_pattern)
        if tissue in paths:
            raise SchemaError(f"--models: tissue {tissue} occurs twice; each may have one model. See --model-pattern.")
        paths[tissue] = path
    known = [m.tissue for m in matrices]
    both = [m for m in matrices if m.tissue in paths]
    if not both:
        raise SchemaError(
            f"No tissue of the results has a model. Results have {_some(known)}; models have {_some(paths)}. Name them "
            "alike with --file-pattern and --model-pattern."
        )
    models = []
    for matrix in context.progress.track(both, "Reading models", len(both)):
        models.append(
            read_expression_model(
                paths[matrix.tissue],
                tissue=matrix.tissue,
                snp_key=config.snp_key,
                strip_versions=config.strip_versions,
                allow_empty=True,
            )
        )
    unmatched = {
        "tissues_without_model": [t for t in known if t not in paths],
        "models_without_results": [t for t in paths if t not in known],
    }
    return tuple(both), tuple(models), unmatched


def _some(names: Any) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(map(str, listed[:_SHOWN])) + more


@dataclass(frozen=True, slots=True)
class _Presence:
    """Phenotypes whose GWAS have the same SNPs of the models."""

    phenotypes: Int64[np.ndarray, " members"]
    snps: Shaped[np.ndarray, " snps"] | None
    """None: all."""


def _presences(config: TwasMultiTissueConfig, inputs: _Inputs) -> list[_Presence]:
    everyone = np.arange(inputs.phenotypes.size)
    if config.gwas is None:
        return [_Presence(everyone, None)]
    if not config.gwas.is_dir():
        names = np.unique(np.concatenate([m.snps for m in inputs.models]))
        _, columns = choose_columns(gwas_header(config.gwas), where=str(config.gwas))
        found = np.unique(names[np.unique(GwasReader(names).read(config.gwas, columns).snp)])
        if not found.size:
            raise SchemaError(f"{config.gwas}: it has none of the models' SNPs, such as {_some(names[:3])}.")
        return [_Presence(everyone, found)]
    prepared = open_prepared(config.gwas)
    place = {name: k for k, name in enumerate(prepared.phenotypes)}
    absent = [p for p in inputs.phenotypes.tolist() if p not in place]
    if absent:
        raise SchemaError(f"{config.gwas}: it lacks {len(absent)} phenotypes of the results: {_some(absent)}.")
    z, names = prepared.z, prepared.models.snps.entry_names
    groups: dict[bytes, list[int]] = {}
    for number, phenotype in enumerate(inputs.phenotypes.tolist()):
        groups.setdefault(np.packbits(np.isfinite(z[place[phenotype]])).tobytes(), []).append(number)
    found_groups = []
    for key, members in groups.items():
        known = np.unpackbits(np.frombuffer(key, dtype=np.uint8), count=names.size).astype(bool)
        found_groups.append(_Presence(np.array(members), np.unique(names[known])))
    return found_groups


def _scores(inputs: _Inputs, gene: str, tissues: Sequence[int]) -> Float64[np.ndarray, "tissues phenotypes"]:
    z = np.full((len(tissues), inputs.phenotypes.size), np.nan)
    for k, tissue in enumerate(tissues):
        row = inputs.rows[tissue].get(gene)
        if row is not None:
            z[k] = inputs.matrices[tissue].z[row]
    return z


def _covariances(config: TwasMultiTissueConfig, wanted: set[str]) -> Iterator[tuple[str, GeneCovariance]]:
    """Yield the wanted genes with their covariances, those that have none last."""
    assert config.covariance is not None  # noqa: S101, `_read` has seen it
    left = dict.fromkeys(sorted(wanted))
    n_genes = 0
    examples: list[str] = []
    for block in iter_covariances(config.covariance, strip_versions=config.strip_versions):
        n_genes += block.genes.size
        examples = examples or block.genes[:3].tolist()
        for gene in block.genes.tolist():
            if gene in left:
                del left[gene]
                yield gene, block
    if len(left) == len(wanted) and wanted:
        raise SchemaError(
            f"{config.covariance}: it has none of the {len(wanted)} genes, such as {_some(list(left)[:3])}; it has "
            f"{_some(examples)}. Do both have versions, or neither (--strip-versions)?"
        )
    text, number = np.zeros(0, dtype="<U1"), np.zeros(0, dtype=np.int64)
    empty = GeneCovariance(text, np.zeros(1, dtype=np.int64), text, number, number, np.zeros(0))
    for gene in left:
        yield gene, empty


def _test_genes(config: TwasMultiTissueConfig, inputs: _Inputs) -> Iterator[tuple[str, MultiTissueTests]]:
    """Yield S-MultiXcan of every gene that has a model in a tissue of the results."""
    cut_off = _cut_off(config)
    places = index_genes(inputs.models)
    wanted = {gene for gene in places if gene in inputs.names}
    if not wanted:
        raise SchemaError(
            f"No gene of the results is in the models. Results have {_some(list(inputs.names)[:3])}; models have "
            f"{_some(list(places)[:3])}. Do both have versions, or neither (--strip-versions)?"
        )
    presences = _presences(config, inputs)
    snps: list[Shaped[np.ndarray, " weights"]] | None = None
    for gene, covariance in _covariances(config, wanted):
        if snps is None:
            snps = [with_prefix(m.snps, covariance.names[:3].tolist()) for m in inputs.models]
        joined = join_tissues(
            gene,
            inputs.models,
            places[gene],
            covariance,
            snps=snps,
            missing_as_zero=config.missing_covariance == "zero",
        )
        z = _scores(inputs, gene, joined.tissues.tolist())
        parts = []
        for presence in presences:
            present: Bool[np.ndarray, " snps"] | None = None
            if presence.snps is not None:
                present = np.isin(joined.snps, with_prefix(presence.snps, joined.snps[:3].tolist()))
            parts.append(multixcan(joined, tissue_covariance(joined, present), z[:, presence.phenotypes], cut_off))
        yield gene, parts[0] if len(parts) == 1 else _together(parts, [p.phenotypes for p in presences])


def _together(parts: list[MultiTissueTests], members: list[Int64[np.ndarray, " members"]]) -> MultiTissueTests:
    """Return tests of groups of phenotypes in the order of the phenotypes."""
    order = np.argsort(np.concatenate(members))
    columns = {}
    for name in MultiTissueTests.__slots__:
        if name == "without_variance":
            columns[name] = np.unique(np.concatenate([p.without_variance for p in parts]))
        else:
            columns[name] = np.concatenate([getattr(p, name) for p in parts])[order]
    return MultiTissueTests(**columns)


_ARRAYS = (
    "n_indep", "best", "best_neg_log10_p", "worst", "worst_neg_log10_p", "eigen_max", "eigen_min", "eigen_min_kept",
    "z_min", "z_max", "z_mean", "z_sd", "tmi", "status",
)  # fmt: skip


def _collect(
    rows: _Rows, inputs: _Inputs, gene: str, found: MultiTissueTests | None, combined: Any, smallest: float
) -> None:
    """Keep what is to be written of a gene, and count the tests."""
    n_phenotypes = inputs.phenotypes.size
    part: dict[str, Any] = {}
    kept = np.zeros(n_phenotypes, dtype=bool)
    if found is not None:
        part |= {name: getattr(found, name) for name in _ARRAYS} | {"n": found.n, "neg_log10_p": found.neg_log10_p}
        part["left_out"] = np.full(n_phenotypes, ",".join(inputs.matrices[t].tissue for t in found.without_variance))
        kept |= found.neg_log10_p >= smallest
        tested = ~np.isnan(found.neg_log10_p)
        rows.n_tests = tested.astype(np.int64) if rows.n_tests is None else rows.n_tests + tested
        rows.left_out += found.without_variance.size
        for code, times in zip(*np.unique(found.status, return_counts=True), strict=True):
            rows.status[int(code)] = rows.status.get(int(code), 0) + int(times)
    if combined is not None:
        strength, count = combined
        part |= {"acat": strength} | ({"n": count} if found is None else {})
        kept |= strength >= smallest
        tested = ~np.isnan(strength)
        rows.n_acat = tested.astype(np.int64) if rows.n_acat is None else rows.n_acat + tested
    if smallest <= 0:
        kept[:] = True
    if kept.any():
        chosen = np.flatnonzero(kept)
        rows.parts.append({name: values[chosen] for name, values in part.items()} | {"phenotype": chosen, "gene": gene})


def _combined(
    inputs: _Inputs, gene: str
) -> tuple[Float64[np.ndarray, " phenotypes"], Int64[np.ndarray, " phenotypes"]]:
    """Return ACAT of all tissues of a gene, and how many there are."""
    z = _scores(inputs, gene, range(len(inputs.matrices)))
    z[~np.isfinite(z)] = np.nan
    return acat(neg_log10_p_from_z(z)), np.isfinite(z).sum(axis=0)


def _scan(config: TwasMultiTissueConfig, inputs: _Inputs, smallest: float, context: Context) -> _Rows:
    rows = _Rows()
    with_acat = config.method != "multixcan"
    if config.method == "acat":
        for gene in context.progress.track(list(inputs.names), "Genes", len(inputs.names)):
            _collect(rows, inputs, gene, None, _combined(inputs, gene), smallest)
        return rows
    done = set()
    for gene, found in context.progress.track(_test_genes(config, inputs), "Genes", len(inputs.names)):
        _collect(rows, inputs, gene, found, _combined(inputs, gene) if with_acat else None, smallest)
        done.add(gene)
    for gene in inputs.names:
        if gene not in done:
            nothing = _without_model(inputs, gene)
            _collect(rows, inputs, gene, nothing, _combined(inputs, gene) if with_acat else None, smallest)
    return rows


def _without_model(inputs: _Inputs, gene: str) -> MultiTissueTests:
    """Return the statuses of a gene that no model has."""
    count = np.isfinite(_scores(inputs, gene, range(len(inputs.matrices)))).sum(axis=0)
    n = inputs.phenotypes.size
    nan, zero, none = np.full(n, np.nan), np.zeros(n, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    status = np.where(count > 0, MultiTissueStatus.NO_DATA, MultiTissueStatus.NO_Z)
    return MultiTissueTests(
        nan, count, zero, none, nan, none, nan, nan, nan, nan, nan, nan, nan, nan, nan, status, zero[:0]
    )


def _corrected(
    function: Any, strength: Float64[np.ndarray, " rows"], group: Int64[np.ndarray, " rows"], tests: Any, scope: str
) -> Float64[np.ndarray, " rows"]:
    """Return a correction over the whole study, or within each phenotype, of which only some tests are here."""
    if scope == "study":
        return np.asarray(function(strength, n_tests=int(tests.sum())))
    result = np.full(strength.size, np.nan)
    for number in np.unique(group):
        mine = group == number
        result[mine] = function(strength[mine], n_tests=int(tests[number]))
    return result


def _table(config: TwasMultiTissueConfig, inputs: _Inputs, rows: _Rows) -> ResultTable:
    parts = rows.parts
    if not parts:
        raise SchemaError("No gene has p up to --hits; write more of them.")
    joined = {n: np.concatenate([p[n] for p in parts]) for n in parts[0] if n != "gene"}
    genes = np.repeat([p["gene"] for p in parts], [p["phenotype"].size for p in parts])
    phenotype = joined["phenotype"]
    tissues = np.array([*(m.tissue for m in inputs.matrices), ""])
    columns: dict[str, Any] = {
        "phenotype": inputs.phenotypes[phenotype],
        "gene": genes,
        "gene_name": np.array([inputs.names[g] for g in genes.tolist()], dtype=np.str_),
    }
    first = joined["acat"] if config.method == "acat" else joined["neg_log10_p"]
    status = np.zeros(genes.size, dtype=np.int64)
    if config.method != "acat":
        status = joined["status"]
        columns |= {"pvalue": 10.0**-first, "n": joined["n"], "n_indep": joined["n_indep"]}
        for name in ("best", "worst"):
            columns[f"p_i_{name}"] = 10.0 ** -joined[f"{name}_neg_log10_p"]
            columns[f"t_i_{name}"] = tissues[joined[name]]
        columns |= {n: joined[n] for n in ("eigen_max", "eigen_min", "eigen_min_kept")}
        columns |= {n: joined[n] for n in ("z_min", "z_max", "z_mean", "z_sd", "tmi")}
        columns["neg_log10_p"] = first
        columns["q_bh"] = _corrected(benjamini_hochberg_q, first, phenotype, rows.n_tests, config.scope)
        columns["p_bonferroni"] = _corrected(bonferroni_p, first, phenotype, rows.n_tests, config.scope)
    if config.method != "multixcan":
        strength = joined["acat"]
        columns |= {"acat_pvalue": 10.0**-strength, "acat_neg_log10_p": strength}
        columns["acat_q_bh"] = _corrected(benjamini_hochberg_q, strength, phenotype, rows.n_acat, config.scope)
    if config.method == "acat":
        columns["n"] = joined["n"]
        status = np.where(joined["n"] > 0, MultiTissueStatus.OK, MultiTissueStatus.NO_Z)
    else:
        columns["tissues_left_out"] = joined["left_out"]
    columns |= {"status_code": status, "status": np.array([_STATUS[c] for c in status.tolist()])}
    order = np.lexsort((genes, -status, np.where(np.isnan(first), np.inf, -first), phenotype))
    return ResultTable({name: values[order] for name, values in columns.items()})


def twas_multi_tissue(config: TwasMultiTissueConfig, out: Path, context: Context) -> StepResult:
    """Combine the tissues of every gene."""
    _cut_off(config)
    inputs = _read(config, context)
    n_cells = len(inputs.names) * inputs.phenotypes.size
    max_p = config.hits or (1.0 if n_cells <= _EVERY_TEST else _NOMINAL)
    rows = _scan(config, inputs, -np.log10(max_p), context)
    table = _table(config, inputs, rows)
    write_results(table, out)
    without = {_STATUS[code]: times for code, times in rows.status.items() if code not in _HAS_RESULT}
    n_tests = rows.n_tests if rows.n_tests is not None else rows.n_acat
    tested = int(n_tests.sum()) if n_tests is not None else 0
    failed = sum(without.values()) if config.method != "acat" else n_cells - tested
    counts = {
        "phenotypes": int(inputs.phenotypes.size),
        "genes": len(inputs.names),
        "tissues": [m.tissue for m in inputs.matrices],
        **inputs.unmatched,
        "models_without_genes": [m.tissue for m in inputs.models if not m.genes.size],
        "tests": tested,
        "rows": len(table),
        "largest_p": max_p,
        "without_result": without,
        "models_without_variance": rows.left_out,
    }
    lines = [
        f"{len(inputs.names):,} genes, {inputs.phenotypes.size:,} phenotypes, {len(inputs.matrices)} tissues: "
        f"{tested:,} tests, {failed:,} without a result; {len(table):,} rows with p up to {max_p:g}"
    ]
    for name, listed in inputs.unmatched.items():
        if listed:
            lines.append(f"{name.replace('_', ' ').capitalize()}: {_some(listed)}")
    if rows.left_out:
        lines.append(
            f"{rows.left_out} models of a gene in a tissue have no variance and are left out, see tissues_left_out"
        )
    return StepResult(counts, n_failed=failed, summary=tuple(lines))


TWAS_MULTI_TISSUE = Step(
    "twas multi-tissue",
    "One test of a gene from several tissues (S-MultiXcan, ACAT).",
    TwasMultiTissueConfig,
    twas_multi_tissue,
)
