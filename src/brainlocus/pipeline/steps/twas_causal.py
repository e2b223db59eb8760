"""``twas causal``: MR-JTI and Mendelian randomisation of genes, from tables of instruments."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Shaped
from pydantic import Field, field_validator

from brainlocus.core import Instruments, ResultTable, SchemaError
from brainlocus.genetics.twas import (
    MR_JTI_CAUTION,
    CausalEstimate,
    Estimator,
    MrJtiResult,
    MrJtiSettings,
    causal_estimates,
    heterogeneity,
    mr_jti,
)
from brainlocus.io import GeneInstruments, read_instruments, write_results
from brainlocus.pipeline.config import CommaList, InputPaths, OutputPath, Positional, StepConfig
from brainlocus.pipeline.figures.causal import draw_causal
from brainlocus.pipeline.people import report_folder
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["TWAS_CAUSAL", "TwasCausalConfig"]

_ESTIMATORS: dict[str, tuple[Estimator, ...]] = {
    "mr-jti": (),
    "ivw": ("ivw-fixed", "ivw-random"),
    "egger": ("egger",),
    "weighted-median": ("weighted-median",),
    "all": ("ivw-fixed", "ivw-random", "egger", "weighted-median"),
}
_MOST_FIGURES = 24
_STANDARD_ALPHA = 0.05
_MR_JTI_COLUMNS = (
    "estimate", "lower", "upper", "significant", "lambda", "n", "n_gwas", "coefficient", "percentile_lower",
    "percentile_upper", "selection_frequency", "heterogeneous_share",
)  # fmt: skip
_ESTIMATOR_COLUMNS = (
    "beta", "standard_error", "neg_log10_p", "lower", "upper", "significant", "n", "cochran_q", "cochran_q_neg_log10_p",
    "i2", "intercept", "intercept_standard_error", "intercept_neg_log10_p", "i2_gx",
)  # fmt: skip


class TwasCausalConfig(StepConfig):
    """Settings of ``twas causal``."""

    tables: Annotated[InputPaths, Positional()] = Field(
        description="Instruments (rsid, eqtl_beta, gwas_beta ...): a table a gene, or tables with a column gene"
    )
    method: Literal["mr-jti", "ivw", "egger", "weighted-median", "all"] = Field(
        "mr-jti", description="What to estimate"
    )
    genes_tested: int | None = Field(
        None,
        ge=1,
        description="Genes (and phenotypes) tested: intervals have alpha 0.05 / this; those given by default",
    )
    bootstrap: int = Field(500, ge=1, description="Draws of MR-JTI")
    cv_repeats: int = Field(10, ge=1, description="Cross-validations of MR-JTI that are averaged; the published has 1")
    cv_folds: int = Field(5, ge=2, description="Folds of a cross-validation")
    min_variants: int = Field(20, description="Genes with fewer have a status instead of an MR-JTI fit")
    weighted: bool = Field(False, description="Weight variants of MR-JTI by 1 / gwas_se^2")
    reference: Literal["normal", "t"] = Field("normal", description="Distribution of the tests of IVW and Egger")
    median_draws: int = Field(1000, ge=2, description="Draws for the standard error of the weighted median")
    columns: CommaList = Field((), description="Names of columns in the tables: eqtl_beta=b_eqtl,gwas_p=P")
    report: OutputPath | None = Field(None, description="Folder for heterogeneity tables and figures")

    @field_validator("columns")
    @classmethod
    def _pairs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        bad = [pair for pair in value if pair.count("=") != 1 or pair.startswith("=") or pair.endswith("=")]
        if bad:
            raise ValueError(f"expected OURS=THEIRS, separated by commas, found {bad[0]!r}")
        return value


@dataclass(frozen=True, slots=True)
class _Task:
    """One gene and phenotype."""

    gene: GeneInstruments
    settings: MrJtiSettings | None
    """None: no MR-JTI."""
    estimators: tuple[Estimator, ...]
    alpha: float
    reference: Literal["normal", "t"]
    median_draws: int
    seed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    jti: MrJtiResult | None
    estimates: tuple[CausalEstimate, ...]


def _run(task: _Task) -> _Found:
    """Fit one gene; its seeds are its own, so that neither order nor executor matter."""
    data: Instruments = task.gene.instruments
    jti = None if task.settings is None else mr_jti(data, task.settings, rng=np.random.default_rng((*task.seed, 0)))
    if not task.estimators:
        return _Found(jti, ())
    estimates = causal_estimates(
        data,
        task.estimators,
        alpha=task.alpha,
        reference=task.reference,
        draws=task.median_draws,
        rng=np.random.default_rng((*task.seed, 1)),
    )
    return _Found(jti, estimates)


def _read(config: TwasCausalConfig) -> list[GeneInstruments]:
    renamed = dict(pair.split("=") for pair in config.columns)
    needed: tuple[str, ...] = ()
    if config.method in ("mr-jti", "all"):
        needed += ("gwas_p", "ldscore")
    if config.method != "mr-jti" or config.weighted:
        needed += ("gwas_se",)
    found: dict[tuple[str, str], Path] = {}
    genes = []
    for path in config.tables:
        for one in read_instruments(path, columns=renamed, needed=needed):
            key = (one.gene, one.phenotype)
            if key in found:
                raise SchemaError(
                    f"{path}: gene {one.gene}{f' and phenotype {one.phenotype}' if one.phenotype else ''} were in "
                    f"{found[key]} already; each may be given once."
                )
            found[key] = path
            genes.append(one)
    return genes


def _tasks(config: TwasCausalConfig, genes: Sequence[GeneInstruments], alpha: float, seed: int) -> list[_Task]:
    settings = None
    if config.method in ("mr-jti", "all"):
        try:
            settings = MrJtiSettings(
                config.bootstrap, config.cv_folds, config.cv_repeats, alpha, config.min_variants, config.weighted
            )
        except ValueError as error:
            raise SchemaError(f"--min-variants, --cv-folds: {error}") from error
    return [
        _Task(
            one,
            settings,
            _ESTIMATORS[config.method],
            alpha,
            config.reference,
            config.median_draws,
            (seed, zlib.crc32(one.gene.encode()), zlib.crc32(one.phenotype.encode())),
        )
        for one in genes
    ]


def _jti_rows(one: GeneInstruments, found: MrJtiResult) -> dict[str, Shaped[np.ndarray, " rows"]]:
    size = found.terms.size
    rows: dict[str, Any] = {
        "term": found.terms,
        "estimate": found.estimate,
        "lower": found.lower,
        "upper": found.upper,
        "significant": found.significant,
        "lambda": np.full(size, found.penalty),
        "n": np.full(size, found.n),
        "n_gwas": np.full(size, found.n_pleiotropic),
        "coefficient": found.coefficient,
        "percentile_lower": found.percentile_lower,
        "percentile_upper": found.percentile_upper,
        "selection_frequency": found.selection_frequency,
        "heterogeneous_share": np.full(size, found.heterogeneous_share),
        "beta": np.where(found.terms == "expression", found.slope, np.nan),
        "method": np.full(size, "mr-jti"),
        "status": np.full(size, found.status),
    }
    return rows | {"gene": np.full(size, one.gene), "phenotype": np.full(size, one.phenotype)}


def _estimate_rows(
    one: GeneInstruments, found: Sequence[CausalEstimate], jti: MrJtiResult | None
) -> dict[str, Shaped[np.ndarray, " rows"]]:
    size = len(found)

    def column(name: str) -> Shaped[np.ndarray, " rows"]:
        return np.array([getattr(e, name) for e in found])

    def of_heterogeneity(name: str) -> Shaped[np.ndarray, " rows"]:
        return np.array([getattr(e.heterogeneity, name) for e in found])

    lower, upper = column("lower"), column("upper")
    rows: dict[str, Any] = {name: column(name) for name in _ESTIMATOR_COLUMNS if hasattr(found[0], name)}
    rows |= {"term": np.full(size, "expression"), "significant": lower * upper > 0}
    rows |= {"cochran_q": of_heterogeneity("q"), "cochran_q_neg_log10_p": of_heterogeneity("neg_log10_p")}
    rows |= {"i2": of_heterogeneity("i2"), "method": column("method"), "status": column("status")}
    rows["n_gwas"] = np.full(size, 0 if jti is None else jti.n_pleiotropic)
    return rows | {"gene": np.full(size, one.gene), "phenotype": np.full(size, one.phenotype)}


def _table(method: str, genes: Sequence[GeneInstruments], found: Sequence[_Found]) -> ResultTable:
    """Return all rows; a column that a row's method does not have is NaN."""
    parts = []
    for one, result in zip(genes, found, strict=True):
        if result.jti is not None:
            parts.append(_jti_rows(one, result.jti))
        if result.estimates:
            parts.append(_estimate_rows(one, result.estimates, result.jti))
    names = ["gene", *(["phenotype"] if any(one.phenotype for one in genes) else [])]
    names += ["method"] if method != "mr-jti" else []
    if method in ("mr-jti", "all"):
        names += ["term", *_MR_JTI_COLUMNS, "beta"]
    if method != "mr-jti":
        names += [name for name in _ESTIMATOR_COLUMNS if name not in names]
    columns = {}
    for name in [*names, "status"]:
        cells = [p.get(name, np.full(p["gene"].size, np.nan)) for p in parts]
        columns[name] = np.concatenate(cells)
    return ResultTable(columns)


def _report(folder: Path, genes: Sequence[GeneInstruments], found: Sequence[_Found]) -> None:
    """Write heterogeneity by gene and by variant, and a figure a gene (the first ones)."""
    with_errors = all(one.instruments.outcome_se is not None for one in genes)
    by_gene: dict[str, list[Any]] = {}
    by_variant: list[dict[str, Shaped[np.ndarray, " rows"]]] = []
    for one, result in zip(genes, found, strict=True):
        row: dict[str, Any] = {"gene": one.gene, "phenotype": one.phenotype, "n": one.instruments.variants.size}
        own = np.zeros(one.instruments.variants.size, dtype=bool)
        if result.jti is not None:
            named = result.jti.terms[2:][result.jti.significant[2:]]
            own = np.isin(one.instruments.variants, named)
            row |= {"n": result.jti.n, "n_gwas": result.jti.n_pleiotropic, "n_heterogeneous": int(own.sum())}
            row["heterogeneous_share"] = result.jti.heterogeneous_share
        if with_errors:
            spread, parts = heterogeneity(one.instruments)
            row |= {"cochran_q": spread.q, "cochran_q_neg_log10_p": spread.neg_log10_p, "i2": spread.i2}
            by_variant.append(_variant_rows(one, parts, own))
        for name, value in row.items():
            by_gene.setdefault(name, []).append(value)
    write_results(ResultTable({name: np.array(values) for name, values in by_gene.items()}), folder / "genes.tsv")
    if by_variant:
        joined = {name: np.concatenate([part[name] for part in by_variant]) for name in by_variant[0]}
        write_results(ResultTable(joined), folder / "variants.tsv")
    for one, result in list(zip(genes, found, strict=True))[:_MOST_FIGURES]:
        label = "_".join(filter(None, (one.gene, one.phenotype)))
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in label)
        draw_causal(one, result.jti, result.estimates, folder / f"{safe}.png")


def _variant_rows(
    one: GeneInstruments, parts: Shaped[np.ndarray, " variants"], own: Shaped[np.ndarray, " variants"]
) -> dict[str, Shaped[np.ndarray, " rows"]]:
    data = one.instruments
    assert data.outcome_se is not None  # noqa: S101, the caller has looked
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, error = data.outcome_beta / data.exposure_beta, data.outcome_se / np.abs(data.exposure_beta)
    known = np.isfinite(ratio)
    return {
        "gene": np.full(own.size, one.gene),
        "phenotype": np.full(own.size, one.phenotype),
        "variant_id": data.variants,
        "beta": np.where(known, ratio, np.nan),
        "standard_error": np.where(known, error, np.nan),
        "cochran_q": parts,
        "significant": own,
    }


def twas_causal(config: TwasCausalConfig, out: Path, context: Context) -> StepResult:
    """Estimate the causal effect of every gene's expression."""
    genes = _read(config)
    tested = config.genes_tested or len(genes)
    if tested < len(genes):
        raise SchemaError(f"--genes-tested: expected {len(genes)} or more, the genes that were given, found {tested}.")
    alpha = _STANDARD_ALPHA / tested
    tasks = _tasks(config, genes, alpha, context.seed)
    found = list(context.progress.track(context.executor.map(_run, tasks), "Genes", len(tasks)))
    table = _table(config.method, genes, found)
    write_results(table, out)
    with report_folder(config.report) as folder:
        if folder is not None:
            _report(folder, genes, found)
    first = table["term"] == "expression" if "term" in table.names else np.ones(len(table), dtype=bool)
    failed = first & (table["status"] != "ok")
    notes: dict[str, int] = {}
    for result in found:
        for note in result.jti.notes if result.jti is not None else ():
            notes[note] = notes.get(note, 0) + 1
    counts = {
        "genes": len(genes),
        "genes_tested": tested,
        "alpha": alpha,
        "estimates": int(first.sum()),
        "significant": int((table["significant"] & first).sum()),
        "variants_incomplete": sum(_incomplete(one, result) for one, result in zip(genes, found, strict=True)),
        "without_result": {str(g): str(s) for g, s in zip(table["gene"][failed], table["status"][failed], strict=True)},
        "notes": notes,
    }
    lines = [
        f"{len(genes)} gene-phenotype pairs, intervals of 1 - 0.05 / {tested}: {counts['significant']} of "
        f"{counts['estimates']} estimates are significant, {int(failed.sum())} have no result"
    ]
    lines += [f"{text} ({times} genes)" if times > 1 else text for text, times in notes.items()]
    if config.method in ("mr-jti", "all"):
        lines.append(f"Caution: {MR_JTI_CAUTION}")
    return StepResult(counts, n_failed=int(failed.sum()), summary=tuple(lines))


def _incomplete(one: GeneInstruments, result: _Found) -> int:
    used = [result.jti.n] if result.jti is not None else [e.n for e in result.estimates]
    return one.instruments.variants.size - min(used)


TWAS_CAUSAL = Step(
    "twas causal",
    "Causal effects of expression: MR-JTI and Mendelian randomisation.",
    TwasCausalConfig,
    twas_causal,
)
