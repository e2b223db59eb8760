"""``twas prepare`` and ``twas associate``: predicted expression against the GWAS of any number of phenotypes."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from pydantic import Field, field_validator

from brainlocus.core import SchemaError
from brainlocus.io import read_annotation, read_arrow
from brainlocus.io.expression import read_gene_places
from brainlocus.numerics import neg_log10_p_from_z
from brainlocus.pipeline.config import CommaList, InputPath, OutputPath
from brainlocus.pipeline.figures.twas import draw_gene_manhattan, draw_gene_qq
from brainlocus.pipeline.people import report_folder
from brainlocus.pipeline.step import Context, Estimate, Step, StepResult
from brainlocus.pipeline.twas_gwas import (
    GwasInput,
    PreparedGwas,
    gwas_bytes,
    is_prepared,
    open_prepared,
    prepare_gwas,
    write_phenotypes,
)
from brainlocus.pipeline.twas_results import (
    adjust_scan,
    count_tests,
    scopes_of,
    write_gene_folder,
    write_gene_table,
)
from brainlocus.pipeline.twas_scan import GeneScan, scan_phenotypes

__all__ = ["TWAS_ASSOCIATE", "TWAS_PREPARE", "TwasAssociateConfig", "TwasPrepareConfig"]

_EVERY_TEST = 20_000_000
"""Tests up to which all are written by default."""
_NOMINAL = 0.05
_SECONDS_PER_SCAN = 0.0024
"""CPU seconds of a phenotype and a model of 12,714 genes, with all that is written."""
_BYTES_PER_SECOND = 3e7
"""Of gzipped text."""
_MISFIT = 0.01
"""Share of SNPs that do not fit the LD of the panel from which on the user is warned."""
_CELLS = 1 << 21
_DENSE = 64
"""Phenotypes above which numbers are kept as float32."""


class TwasPrepareConfig(GwasInput):
    """Settings of ``twas prepare``."""

    precision: Literal["float32", "float64"] = Field("float32", description="How z and beta are kept")


class TwasAssociateConfig(GwasInput):
    """Settings of ``twas associate``."""

    hits: float | None = Field(
        None, gt=0, le=1, description="Largest p to write; by default all, or 0.05 above 20 million tests"
    )
    full: OutputPath | None = Field(None, description="Folder for the whole matrices of z and effects")
    every_gene: bool = Field(False, description="Also list genes of which a GWAS has no SNP")
    annotation: InputPath | None = Field(
        None, description="Table of the phenotypes (modality, atlas, region ...); its columns can be scopes"
    )
    scope: CommaList = Field(
        ("study",),
        description="Tests corrected together: study, tissue, phenotype, phenotype-tissue, or a column of --annotation",
    )
    adjust: CommaList = Field(("bh",), description="Corrections: bh, by, bonferroni")
    traits: InputPath | None = Field(
        None, description="Table phenotype, n, h2: corrects for inflation where the models have phi (Liang 2023)"
    )
    precision: Literal["auto", "float32", "float64"] = Field(
        "auto", description="How matrices are kept; auto: float32 above 64 phenotypes"
    )
    gene_positions: InputPath | None = Field(
        None, description="Table gene, chromosome, start, stop, or a GTF: for the Manhattan plot of the report"
    )
    report: OutputPath | None = Field(
        None, description="Folder for tables of what became of each GWAS and model, and figures"
    )

    @field_validator("adjust")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        bad = [name for name in value if name not in ("bh", "by", "bonferroni")]
        if bad:
            raise ValueError(f"expected bh, by or bonferroni, found {bad[0]}")
        return value


def _failed(gwas: PreparedGwas) -> list[str]:
    return [str(row["phenotype"]) for row in gwas.report if row["status"] != "ok"]


def _summary(gwas: PreparedGwas) -> list[str]:
    """Return what the person at the terminal should know of the GWAS."""
    shares = [row["snps_found"] / max(row["snps_of_models"], 1) for row in gwas.report]
    told = sorted({f"{row['columns']}, z from {row['z_from']}" for row in gwas.report})
    lines = [
        f"{len(gwas.phenotypes):,} phenotypes; {gwas.models.snps.n_entries:,} SNPs of {len(gwas.models.tissues)} "
        f"models, of which {100 * float(np.median(shares)):.1f} % are in the GWAS (lowest {100 * min(shares):.1f} %)",
        f"Columns: {'; '.join(told)}",
    ]
    failed = _failed(gwas)
    if failed:
        lines.append(f"{len(failed)} GWAS have no SNP of the models: {', '.join(failed[:3])}")
    return lines


def _counts(gwas: PreparedGwas) -> dict[str, Any]:
    numbers = [n for n, v in gwas.report[0].items() if isinstance(v, int) and not isinstance(v, bool)]
    totals = {n: int(sum(row.get(n, 0) for row in gwas.report)) for n in numbers if n != "snps_of_models"}
    return {
        "phenotypes": len(gwas.phenotypes),
        "snps_of_models": gwas.models.snps.n_entries,
        "tissues": {t.tissue: int(t.genes.size) for t in gwas.models.tissues},
        "covariances_taken_as_0": {t.tissue: t.n_pairs_missing for t in gwas.models.tissues if t.n_pairs_missing},
        **totals,
        "phenotypes_without_snps": _failed(gwas),
    }


def twas_prepare(config: TwasPrepareConfig, out: Path, context: Context) -> StepResult:
    """Keep the models, and z and beta of their SNPs in every GWAS."""
    gwas = prepare_gwas(config, context, context.shards, dtype=config.precision)
    shutil.move(context.shards / "models", out / "models")
    names = ["z.npy", *(["beta.npy"] if gwas.beta is not None else [])]
    for name in names:
        shutil.move(context.shards / name, out / name)
    write_phenotypes(gwas.report, out / "phenotypes.parquet")
    description = {"format": "brainlocus-twas-gwas", "version": 1, "snp_key": config.snp_key, "match": config.match}
    (out / "prepared.json").write_text(json.dumps(description, indent=1) + "\n")
    return StepResult(_counts(gwas), n_failed=len(_failed(gwas)), summary=tuple(_summary(gwas)))


def _gwas(config: TwasAssociateConfig, context: Context) -> PreparedGwas:
    prepared = [path for path in config.gwas if is_prepared(path)]
    if not prepared:
        # Nothing is rounded where there is room for all digits.
        dtype = "float64" if config.precision != "float32" else "float32"
        return prepare_gwas(config, context, context.shards, dtype=dtype)
    if len(config.gwas) > 1 or config.models:
        raise SchemaError(
            f"{prepared[0]} has its GWAS and models already: give it alone, without --models and other GWAS."
        )
    changed = [
        name
        for name, field in GwasInput.model_fields.items()
        if name != "gwas" and getattr(config, name) != field.default
    ]
    if changed:
        shown = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise SchemaError(f"{prepared[0]} was prepared already; {shown} can only be given to twas prepare.")
    return open_prepared(prepared[0])


def _n_h2(config: TwasAssociateConfig, gwas: PreparedGwas) -> Float[np.ndarray, " phenotypes"] | None:
    """Return N times h2 of every phenotype, NaN where the table lacks it."""
    if config.traits is None:
        return None
    if all(np.isnan(t.phi).all() for t in gwas.models.tissues):
        raise SchemaError(
            "--traits: the models have no inflation factor (column phi of the table extra), so none can be used."
        )
    table = read_arrow(config.traits)
    for name in ("phenotype", "n", "h2"):
        if name not in table.column_names:
            raise SchemaError(f"{config.traits}: expected columns phenotype, n and h2, found {table.column_names}.")
    known = {}
    cells = zip(*(table.column(c).to_pylist() for c in ("phenotype", "n", "h2")), strict=True)
    for name, n, h2 in cells:
        try:
            known[str(name)] = float(n) * float(h2)
        except (TypeError, ValueError):
            continue
    found = np.array([known.get(p, np.nan) for p in gwas.phenotypes])
    if np.isnan(found).all():
        raise SchemaError(f"{config.traits}: it has n and h2 of none of the phenotypes, such as {gwas.phenotypes[0]}.")
    return found


def twas_associate(config: TwasAssociateConfig, out: Path, context: Context) -> StepResult:
    """Scan, correct for the number of tests, write."""
    gwas = _gwas(config, context)
    many = len(gwas.phenotypes) > _DENSE
    dtype = config.precision if config.precision != "auto" else ("float32" if many else "float64")
    n_h2 = _n_h2(config, gwas)
    scan = scan_phenotypes(gwas, context.shards, context, dtype=dtype, n_h2=n_h2)
    n_cells = scan.z.size
    max_p = config.hits or (1.0 if n_cells <= _EVERY_TEST else _NOMINAL)
    annotation = None if config.annotation is None else read_annotation(config.annotation)
    names = np.array(gwas.phenotypes, dtype=np.str_)
    n_unknown = None if annotation is None else annotation.unknown(names, where=str(config.annotation))
    scopes = scopes_of(config.scope, scan, annotation)
    adjustments = adjust_scan(
        scan,
        scopes,
        config.adjust,  # type: ignore[arg-type] # validated
        max_p=max_p,
        memory_bytes=context.memory_bytes,
        progress=context.progress,
    )
    written = write_gene_table(
        scan,
        adjustments,
        out,
        max_p=max_p,
        every_gene=config.every_gene,
        memory_bytes=context.memory_bytes,
        progress=context.progress,
    )
    counts = {**_counts(gwas), **written, "largest_p": max_p, "scopes": count_tests(adjustments)}
    misfits = {t.tissue: m.share for t, m in zip(scan.tissues, scan.mismatch, strict=True) if m.n_tested}
    counts["ld_misfit_share"] = misfits
    if n_unknown is not None:
        counts["phenotypes_without_annotation"] = n_unknown
    with report_folder(config.report) as folder:
        if folder is not None:
            counts["genes_without_position"] = _write_report(scan, folder, config.gene_positions)
    with report_folder(config.full) as folder:
        if folder is not None:
            write_gene_folder(scan, folder)
    lines = (*_summary(gwas), *_result_lines(counts, max_p), *_ld_lines(misfits))
    return StepResult(counts, n_failed=len(_failed(gwas)), summary=lines)


def _ld_lines(misfits: dict[str, float]) -> list[str]:
    """Return a warning where the LD of the panel does not fit the GWAS."""
    worst = max(misfits, key=lambda tissue: misfits[tissue], default="")
    if not worst or misfits[worst] <= _MISFIT:
        return []
    return [
        f"Warning: {100 * misfits[worst]:.1f} % of the SNPs of {worst} do not fit the LD of its reference panel "
        "(p < 5e-8; next to none should): is the GWAS of another ancestry, or is an allele column the wrong one?"
    ]


def _result_lines(counts: dict[str, Any], max_p: float) -> list[str]:
    shown = "all tests" if max_p >= 1 else f"tests with p <= {max_p:g}"
    lines = [f"{counts['rows']:,} rows ({shown})"]
    for column, n in counts["significant_5_percent"].items():
        scope = counts["scopes"][column]
        groups = f" in {scope['groups']:,} groups" if scope["groups"] > 1 else ""
        lines.append(f"{column} < 0.05: {n:,} of {scope['tests']:,} tests{groups}")
    return lines


def _write_report(scan: GeneScan, folder: Path, positions: Path | None) -> int:
    """Write tables and figures; return the genes that the Manhattan plot lacks."""
    write_phenotypes(scan.gwas.report, folder / "gwas.parquet")
    rows = []
    for k, tissue in enumerate(scan.tissues):
        part = slice(int(scan.offsets[k]), int(scan.offsets[k + 1]))
        used = scan.patterns.n_snps_used[part]
        rows.append(
            {
                "tissue": tissue.tissue,
                "genes": int(tissue.genes.size),
                "genes_with_snps": int((used > 0).sum()),
                "weights": int(tissue.weight.size),
                "weights_used": int(used.sum()),
                "weights_without_variance": int(np.isnan(tissue.variance).sum()),
                "pairs_taken_as_0": tissue.n_pairs_missing,
                "ld_misfit_share": scan.mismatch[k].share,
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "models.parquet")
    if scan.z.size <= _EVERY_TEST:
        parts = zip(scan.tissues, scan.offsets[:-1], scan.offsets[1:], strict=True)
        tails = {t.tissue: neg_log10_p_from_z(np.asarray(scan.z[a:b], dtype=np.float64)).ravel() for t, a, b in parts}
        draw_gene_qq(tails, folder / "qq.png")
    return 0 if positions is None else _draw_manhattan(scan, folder / "manhattan.png", positions)


def _draw_manhattan(scan: GeneScan, path: Path, positions: Path) -> int:
    """Draw the strongest test of every gene, with the line of Bonferroni over all tests."""
    places = {place.gene.split(".")[0]: place for place in read_gene_places(positions)}
    strongest = np.full(scan.z.shape[0], np.nan)
    n_tests = 0
    step = max(1, _CELLS // scan.z.shape[1])
    for start in range(0, strongest.size, step):
        size = np.abs(np.asarray(scan.z[start : start + step], dtype=np.float64))
        tested = np.isfinite(size)
        n_tests += int(tested.sum())
        strongest[start : start + step] = np.where(tested.any(axis=1), np.where(tested, size, 0.0).max(axis=1), np.nan)
    genes, first, gene = np.unique(
        np.concatenate([t.genes for t in scan.tissues]), return_index=True, return_inverse=True
    )
    best = np.full(genes.size, -1.0)
    np.maximum.at(best, gene, np.nan_to_num(strongest, nan=-1.0))
    phenotypes, tissues = scan.gwas.phenotypes, scan.tissues
    what = phenotypes[0] if len(phenotypes) == 1 else f"the strongest of {len(phenotypes):,} phenotypes"
    where = tissues[0].tissue if len(tissues) == 1 else f"{len(tissues)} tissues"
    return draw_gene_manhattan(
        genes,
        np.concatenate([t.gene_names for t in tissues])[first],
        neg_log10_p_from_z(np.where(best < 0, np.nan, best)),
        places,
        path,
        title=f"Genes: {what}, {where}",
        threshold=0.05 / max(n_tests, 1),
    )


def _estimate(config: GwasInput, memory_bytes: int) -> Estimate:
    """Return the time of unpacking and parsing, or of a prepared study; benchmarks/bench_twas.py has the rates."""
    prepared = [path for path in config.gwas if is_prepared(path)]
    if prepared:
        gwas = open_prepared(prepared[0])
        seconds = 3.0 + _SECONDS_PER_SCAN * len(gwas.phenotypes) * len(gwas.models.tissues)
        return Estimate(min(memory_bytes, 2 << 30), seconds, "blocks of phenotypes are sized to the memory")
    seconds = 5.0 + gwas_bytes(config) / _BYTES_PER_SECOND
    return Estimate(min(memory_bytes, 2 << 30), seconds, "text is read once for all models")


TWAS_PREPARE = Step(
    "twas prepare",
    "Keep what expression models need of many GWAS.",
    TwasPrepareConfig,
    twas_prepare,
    out="folder",
    estimate=_estimate,
)
TWAS_ASSOCIATE = Step(
    "twas associate",
    "Associate predicted expression with GWAS (S-PrediXcan).",
    TwasAssociateConfig,
    twas_associate,
    estimate=_estimate,
)
