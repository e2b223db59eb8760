"""``twas train``: expression models from genotypes and measured expression."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field, model_validator

from brainlocus.core import ExpressionModel, GeneCovariance, ResultTable, SchemaError, VariantTable
from brainlocus.core.errors import nearest
from brainlocus.core.expression import GenePlace
from brainlocus.genetics.twas import ElasticNetSettings, JtiSettings, check_similarity
from brainlocus.genetics.twas.training import PATIENCE
from brainlocus.io import write_results
from brainlocus.io.expression import read_gene_places, read_similarity
from brainlocus.io.write_expression_models import CovarianceWriter, write_expression_model
from brainlocus.numerics import benjamini_hochberg_q
from brainlocus.pipeline.config import CommaFloats, CommaList, CommaPaths, InputPath, InputPaths, Positional
from brainlocus.pipeline.filters import ChosenGenotypes, GenotypeInput, choose_genotypes, rows_with_chromosome
from brainlocus.pipeline.genomes import read_list, require_memory, table_bytes
from brainlocus.pipeline.step import Context, Step, StepResult
from brainlocus.pipeline.twas_training import (
    Tissue,
    TrainingPlan,
    TrainingRules,
    gene_shards,
    leave_unknown,
    match_genes,
    order_genes,
    plan_variants,
    prepare_tissues,
    read_shard,
    shard_peak_bytes,
    train_shard,
    training_tasks,
    variant_names,
)

__all__ = ["TWAS_TRAIN", "TwasTrainConfig"]

_TRAINED = ("ok", "not_predictive", "no_variant_chosen")
"""Statuses of genes whose training came to an end."""


class TwasTrainConfig(GenotypeInput):
    """Settings of ``twas train``."""

    expression: Annotated[InputPaths, Positional()] = Field(
        description="Expression, a file for each tissue: BED of genes, genes x samples or samples x genes"
    )
    genes: InputPath | None = Field(
        None, description="Where genes are: gene, chromosome, start, stop (or a GTF); by default as the BED files say"
    )
    covariates: CommaPaths = Field(
        (), description="Covariates of expression: one table for all tissues, or one for each file in its order"
    )
    tissues: CommaList = Field(
        (), description="Names of the files' tissues; by default their names up to the first dot"
    )
    tissue: CommaList = Field((), description="Tissues to train models for; all by default")
    gene_list: CommaPaths = Field((), description="Only these genes: lists of ids, or tables with a column gene")
    method: Literal["elastic-net", "jti"] = Field(
        "elastic-net", description="Each tissue by itself (PredictDB), or with the samples of all (JTI)"
    )
    similarity: InputPath | None = Field(
        None, description="With jti: similarity of expression, a square table of tissues with values from 0 to 1"
    )
    dnase: InputPath | None = Field(None, description="With jti: similarity of DNase profiles, a like table")
    window_kb: CommaFloats = Field(
        (1000.0,),
        description="Reach of the window in 1,000 bases; with jti several, the one of the smaller error is used",
    )
    window_of: Literal["gene", "start"] = Field(
        "gene", description="Reach beyond both ends of the gene, or around its start (first release of JTI)"
    )
    min_maf: float = Field(0.01, ge=0, le=0.5, description="Smallest minor allele frequency among those analysed")
    mixing: float = Field(0.5, gt=0, le=1, description="Of the elastic net; 1 is the lasso")
    folds: int = Field(10, ge=2, description="Folds that choose lambda (elastic-net)")
    outer_folds: int = Field(5, ge=2, description="Folds that judge the model (elastic-net)")
    jti_mixing: float = Field(0.5, gt=0, le=1, description="Of the joint fit; the published script has 1")
    jti_folds: int = Field(5, ge=2, description="Folds of donors (jti)")
    powers: CommaFloats = Field((1.0, 4.0, 16.0, 64.0), description="Powers of both similarities to try (jti)")
    min_weight: float = Field(0.1, ge=0, le=1, description="Tissues with a smaller weight are left out (jti)")
    max_variants: int = Field(200, ge=1, description="A path ends before more variants have had a weight (jti)")
    min_r: float = Field(0.1, ge=-1, lt=1, description="Keep models whose correlation with expression is above this")
    max_p: float = Field(0.05, gt=0, le=1, description="Keep models whose p is below this")
    whole_path: bool = Field(
        False, description="Try every lambda, also where the error has risen 10 % above its smallest"
    )
    ridge_by_sd: bool = Field(
        False, description="Divide the ridge part by the SD of expression in each fold, as glmnet does"
    )
    population: str = Field("", description="Whose genotypes these are, for the table sample_info")
    shard_genes: int = Field(20, ge=1, description="Genes of a shard")

    @model_validator(mode="after")
    def _together(self) -> "TwasTrainConfig":
        if self.method == "jti" and self.similarity is None:
            raise ValueError("--method jti: expected --similarity, a square table of tissues, found none")
        if self.method != "jti" and (self.similarity is not None or self.dnase is not None):
            raise ValueError("--similarity and --dnase: expected --method jti, found elastic-net")
        if self.method != "jti" and len(self.window_kb) != 1:
            raise ValueError("--window-kb: expected one window with elastic-net, found several")
        if not self.window_kb or min(self.window_kb) < 0:
            raise ValueError("--window-kb: expected numbers of 0 or more, found none or a negative one")
        if not self.powers or min(self.powers) < 0:
            raise ValueError("--powers: expected numbers of 0 or more, found none or a negative one")
        return self

    def rules(self, seed: int) -> TrainingRules:
        """Return what is done with every gene."""
        patience = None if self.whole_path else PATIENCE
        elastic_net = ElasticNetSettings(
            self.mixing, self.folds, self.outer_folds, self.min_r, self.max_p, patience, self.ridge_by_sd
        )
        jti = JtiSettings(
            mixing=self.jti_mixing, start_mixing=self.mixing, powers=self.powers, min_weight=self.min_weight,
            folds=self.jti_folds, max_variables=self.max_variants, min_r=self.min_r, max_p=self.max_p,
            patience=patience, ridge_by_sd=self.ridge_by_sd,
        )  # fmt: skip
        return TrainingRules(self.method, elastic_net, jti, self.window_kb, self.window_of, self.min_maf, seed)


def _tissue_names(config: TwasTrainConfig) -> list[str]:
    """Return the name of every file's tissue."""
    names = list(config.tissues)
    if not names:
        names = [path.name.split(".")[0] for path in config.expression]
        if len(names) == 1 and len(config.tissue) == 1:
            names = list(config.tissue)
    if len(names) != len(config.expression):
        raise SchemaError(
            f"--tissues: expected {len(config.expression)} names, one for each file of expression, found {len(names)}."
        )
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise SchemaError(f"Tissues must have different names, found {twice[0]!r} twice; name them with --tissues.")
    bad = [n for n in names if "/" in n or n.startswith(".")]
    if bad:
        raise SchemaError(f"--tissues: expected names that files can have, found {bad[0]!r}.")
    return names


def _targets(config: TwasTrainConfig, names: Sequence[str]) -> tuple[int, ...]:
    for name in config.tissue:
        if name not in names:
            raise SchemaError(f"--tissue: there is no tissue {name!r}.{nearest(name, list(names))} {_some(names)}")
    return tuple(k for k, name in enumerate(names) if not config.tissue or name in config.tissue)


def _some(names: Sequence[str]) -> str:
    return "The files have: " + ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") + "."


def _similarity(path: Path | None, names: Sequence[str], what: str) -> Float[np.ndarray, "tissues tissues"] | None:
    """Return the similarities of the tissues in their order."""
    if path is None:
        return None
    known, values = read_similarity(path)
    absent = [n for n in names if n not in known]
    if absent:
        raise SchemaError(
            f"{path}: expected every tissue, found no {', '.join(absent[:3])}.{nearest(absent[0], known)} It has "
            f"{', '.join(known[:5])}, ..."
        )
    at = np.array([known.index(n) for n in names])
    chosen = values[np.ix_(at, at)]
    try:
        check_similarity(chosen, names, what)
    except ValueError as error:
        raise SchemaError(f"{path}: {error}") from error
    return np.asarray(np.clip(chosen, 0.0, 1.0))


def twas_train(config: TwasTrainConfig, out: Path, context: Context) -> StepResult:
    """Train the models of every gene and write a model and a covariance file for each tissue."""
    names = _tissue_names(config)
    targets = _targets(config, names)
    similarity = _similarity(config.similarity, names, "Similarity")
    dnase = _similarity(config.dnase, names, "DNase similarity")
    if len(config.covariates) not in (0, 1, len(config.expression)):
        raise SchemaError(
            f"--covariates: expected one table, or {len(config.expression)}, one for each file, found "
            f"{len(config.covariates)}."
        )
    tables: list[Path | None] = [*config.covariates] * (len(names) if len(config.covariates) == 1 else 1)
    tables = tables or [None] * len(names)
    asked = choose_genotypes(config)
    rows_with_chromosome(asked)
    annotation = read_gene_places(config.genes) if config.genes is not None else None
    tissues, donors, in_files, about = prepare_tissues(
        config.expression, names, tables, asked.samples, context.shards, context
    )
    if annotation is None and not in_files:
        raise SchemaError("--genes: expected a table of where genes are, as no file of expression says it, found none.")
    genes, left_out, counts = _genes(config, tissues, targets, annotation or in_files, asked)
    rules = config.rules(context.seed)
    variants, variant_counts = plan_variants(asked, genes, rules)
    plan = TrainingPlan(
        config.file,
        config.file.stamp,
        donors,
        tuple(tissues),
        targets,
        similarity,
        dnase,
        tuple(genes),
        variants,
        rules,
    )
    bounds = gene_shards(plan, config.shard_genes)
    needed = table_bytes(len(asked.source.variants)) + context.executor.workers * shard_peak_bytes(plan, bounds)
    require_memory(needed, context.memory_bytes, f"Training {len(genes)} genes by {context.executor.workers} workers")
    shards = context.map_shards(train_shard, training_tasks(plan, bounds, context.shards), "Training genes")
    rows, kept = _collect(plan, shards, asked.source.variants, out)
    table = _gene_table(plan, rows, left_out)
    write_results(table, out / "genes.parquet")
    for number in targets:
        _write_tissue(plan, number, kept[number], table, asked.source.variants, config, out)
    totals = {**asked.counts, "donors": len(donors), "tissues": about, **counts, **variant_counts}
    return _report(plan, table, totals, about)


def _genes(
    config: TwasTrainConfig,
    tissues: Sequence[Tissue],
    targets: Sequence[int],
    places: Sequence[GenePlace],
    asked: ChosenGenotypes,
) -> tuple[list[GenePlace], dict[str, str], dict[str, Any]]:
    """Return the genes to train in order, why others have no place, and counts."""
    measured = list(dict.fromkeys(gene for k in targets for gene in tissues[k].genes))
    counts: dict[str, Any] = {"genes_measured": len(measured)}
    if config.gene_list:
        wanted = {name for path in config.gene_list for name in read_list(path, "gene")}
        chosen = [g for g in measured if g in wanted or g.split(".")[0] in wanted]
        if not chosen:
            raise SchemaError(
                f"--gene-list: none of its {len(wanted)} genes ({', '.join(sorted(wanted)[:3])}, ...) is among those "
                f"measured ({', '.join(measured[:3])}, ...)."
            )
        counts["genes_not_listed"] = len(measured) - len(chosen)
        measured = chosen
    found, left_out = match_genes(measured, places)
    if not found:
        raise SchemaError(
            f"None of the {len(measured)} genes of the expression ({', '.join(measured[:3])}, ...) is among the "
            f"{len(places)} whose place is known ({', '.join(p.gene for p in places[:3])}, ...)."
        )
    there = asked.source.variants.take(np.flatnonzero(asked.variants))
    kept, unknown, elsewhere = leave_unknown(list(found.values()), there)
    if elsewhere:
        counts["genes_on_chromosomes_without_genotypes"] = elsewhere
    return order_genes(kept), left_out | unknown, counts


@dataclass(slots=True)
class _Kept:
    """Weights of the models of one tissue, as they come."""

    rows: list[Int[np.ndarray, " weights"]]
    weights: list[Float[np.ndarray, " weights"]]


def _collect(
    plan: TrainingPlan, shards: Iterable[Path], variants: VariantTable, out: Path
) -> tuple[list[dict[str, Any]], dict[int, _Kept]]:
    """Read every shard once: write covariances, and return the numbers of every gene and the weights by tissue."""
    kept = {number: _Kept([], []) for number in plan.targets}
    rows = []
    with ExitStack() as stack:
        writers = {
            number: stack.enter_context(CovarianceWriter(out / f"{plan.tissues[number].name}.cov.txt.gz"))
            for number in plan.targets
        }
        for path in shards:
            for row in read_shard(path):
                at, weights, covariance = (row.pop(name) for name in ("rows", "weights", "covariance"))
                row["n_snps_in_model"] = weights.size
                rows.append(row)
                if weights.size:
                    kept[row["tissue"]].rows.append(at)
                    kept[row["tissue"]].weights.append(weights)
                    writers[row["tissue"]].append(_covariance(row["gene"], at, covariance, variants))
    return rows, kept


def _covariance(
    gene: str, at: Int[np.ndarray, " weights"], packed: Float[np.ndarray, " pairs"], variants: VariantTable
) -> GeneCovariance:
    first, second = np.triu_indices(at.size)
    names = np.array(variants.variant_id[at].tolist(), dtype=np.str_)
    return GeneCovariance(np.array([gene], dtype=np.str_), np.array([0, first.size]), names, first, second, packed)


def _gene_table(plan: TrainingPlan, rows: list[dict[str, Any]], left_out: dict[str, str]) -> ResultTable:
    """Return a row for every gene and tissue: by tissue, then place; genes without a place come last."""
    numbers = _ELASTIC_NET if plan.rules.method == "elastic-net" else _JTI
    places = {g.gene: g for g in plan.genes}
    rows = list(rows)
    for number in plan.targets:
        for gene, reason in left_out.items():
            if gene in plan.tissues[number].genes:
                rows.append({"tissue": number, "gene": gene, "status": reason, "n": 0, "n_variants": 0})
    rows.sort(key=lambda row: row["tissue"])
    nowhere = GenePlace("", "", "", "", 0, 0, "")
    where = [places.get(row["gene"], nowhere) for row in rows]
    columns: dict[str, Any] = {
        "tissue": np.array([plan.tissues[row["tissue"]].name for row in rows], dtype=np.str_),
        "gene": np.array([row["gene"] for row in rows], dtype=np.str_),
        "gene_name": np.array([p.name for p in where], dtype=np.str_),
        "chromosome": np.array([p.chromosome for p in where], dtype=np.str_),
        "start": np.array([p.start for p in where], dtype=np.int64),
        "stop": np.array([p.stop for p in where], dtype=np.int64),
    }
    for theirs, ours, whole in (*_COUNTS, *numbers):
        columns[ours] = np.array(
            [row.get(theirs, 0 if whole else np.nan) for row in rows], dtype=np.int64 if whole else np.float64
        )
    columns["q_bh"] = np.full(len(rows), np.nan)
    tissue = np.array([row["tissue"] for row in rows], dtype=np.int64)
    for number in plan.targets:
        mine = tissue == number
        columns["q_bh"][mine] = benjamini_hochberg_q(columns["neg_log10_p"][mine])
    columns["status"] = np.array([row["status"] for row in rows], dtype=np.str_)
    return ResultTable(columns)


_COUNTS = (("n", "n", True), ("n_variants", "n_variants", True), ("n_snps_in_model", "n_snps_in_model", True))
_ELASTIC_NET = (
    ("rho_avg", "rho_avg", False),
    ("rho_sd", "rho_sd", False),
    ("r2", "nested_r2", False),
    ("cv_r2", "cv_r2", False),
    ("z", "z", False),
    ("neg_log10_p", "neg_log10_p", False),
    ("fisher_p", "fisher_p", False),
    ("penalty", "penalty", False),
)
_JTI = (
    ("window_kb", "window_kb", False),
    ("n_donors", "n_donors", True),
    ("n_tissues", "n_tissues", True),
    ("r", "out_of_fold_r", False),
    ("single_tissue_r", "single_tissue_r", False),
    ("similarity_power", "similarity_power", False),
    ("dnase_power", "dnase_power", False),
    ("neg_log10_p", "neg_log10_p", False),
    ("penalty", "penalty", False),
)
"""Name in a shard, column of genes.parquet, and whether it is a whole number."""


def _write_tissue(
    plan: TrainingPlan,
    number: int,
    kept: _Kept,
    table: ResultTable,
    variants: VariantTable,
    config: TwasTrainConfig,
    out: Path,
) -> None:
    """Write the model of one tissue."""
    name = plan.tissues[number].name
    mine = table.take((table["tissue"] == name) & (table["status"] == "ok"))
    chosen = variants.take(np.concatenate([*kept.rows, np.zeros(0, dtype=np.int64)]))
    r = mine["rho_avg" if plan.rules.method == "elastic-net" else "out_of_fold_r"]
    kinds = {g.gene: g.kind for g in plan.genes}
    model = ExpressionModel(
        tissue=name,
        genes=mine["gene"],
        gene_names=mine["gene_name"],
        offsets=np.concatenate([[0], np.cumsum(mine["n_snps_in_model"])]).astype(np.int64),
        snps=np.array(chosen.variant_id.tolist(), dtype=np.str_),
        effect_allele=np.array([a.upper() for a in chosen.effect_allele.tolist()], dtype=np.str_),
        other_allele=np.array([a.upper() for a in chosen.other_allele.tolist()], dtype=np.str_),
        weight=np.concatenate([*kept.weights, np.zeros(0)]),
        n_snps_in_model=mine["n_snps_in_model"],
        pred_perf_r2=r**2,
        pred_perf_pval=10.0 ** -mine["neg_log10_p"],
        pred_perf_qval=mine["q_bh"],
        phi=np.full(len(mine), np.nan),
    )
    write_expression_model(
        model,
        out / f"{name}.db",
        variant_names=variant_names(chosen),
        gene_types=[kinds[g] for g in mine["gene"].tolist()],
        n_samples=plan.tissues[number].n_people,
        population=config.population,
        construction=[(c, plan.rules.seed) for c in dict.fromkeys(mine["chromosome"].tolist())],
    )


def _report(
    plan: TrainingPlan, table: ResultTable, counts: dict[str, Any], about: Sequence[dict[str, Any]]
) -> StepResult:
    statuses, sizes = np.unique(table["status"], return_counts=True)
    by_status = {str(s): int(n) for s, n in zip(statuses, sizes, strict=True)}
    failed = sum(n for s, n in by_status.items() if s not in _TRAINED)
    lines = []
    for number in plan.targets[:8]:
        tissue, known = plan.tissues[number], about[number]
        mine = table["tissue"] == tissue.name
        ok = mine & (table["status"] == "ok")
        with_covariates = f", {known['with_covariates']} of them with covariates" if "with_covariates" in known else ""
        lines.append(
            f"{tissue.name}: {known['with_genotypes']:,} of {known['samples']:,} samples have genotypes"
            f"{with_covariates}; {int(ok.sum()):,} models of {int(mine.sum()):,} genes"
        )
    if len(plan.targets) > 8:
        lines.append(f"... and {len(plan.targets) - 8} more tissues, see genes.parquet")
    if elsewhere := counts.get("genes_on_chromosomes_without_genotypes"):
        lines.append(f"{elsewhere:,} genes are on chromosomes without genotypes")
    if failed:
        told = ", ".join(f"{s} {n:,}" for s, n in by_status.items() if s not in _TRAINED)
        lines.append(f"{failed:,} genes could not be trained: {told}")
    return StepResult({**counts, "genes_by_status": by_status}, n_failed=failed, summary=tuple(lines))


TWAS_TRAIN = Step(
    "twas train", "Train models that predict expression from genotypes.", TwasTrainConfig, twas_train, out="folder"
)
