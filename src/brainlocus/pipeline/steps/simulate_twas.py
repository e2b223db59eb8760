"""``simulate twas``: expression models, GWAS of two cohorts, and which genes change which phenotypes.

Written to OUT::

    models/TISSUE.db, models/TISSUE.txt.gz       PredictDB models with their covariances
    joint_covariance.txt.gz                      of all SNPs of each gene, for twas multi-tissue
    discovery/PHENOTYPE.txt.gz                   GWAS as BIG40 writes them
    replication/PHENOTYPE.txt.gz                 of a second cohort
    discovery.tsv, replication.tsv               phenotype, path, modality, atlas, side, region, measurement
    genes.tsv                                    gene, gene_name, chromosome, start, stop
    genes.txt, phenotypes.txt                    the planted genes, and the phenotypes they act on: sets to test
    truth.tsv                                    gene, tissue, phenotype, zscore: what was planted
"""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from jaxtyping import Bool, Float
from pydantic import Field, model_validator

from brainlocus.core import ResultTable
from brainlocus.io import arrow_column, write_results
from brainlocus.io.write_expression_models import write_covariance, write_expression_model
from brainlocus.numerics import neg_log10_p_from_z
from brainlocus.pipeline.config import StepConfig
from brainlocus.pipeline.step import Context, Step, StepResult
from brainlocus.simulate import ExpressionStudy, ExpressionStudyPlan, draw_scans, plan_expression_study

__all__ = ["SIMULATE_TWAS", "SimulateTwasConfig"]

_OTHER_SNPS = 0.5
"""SNPs that no model has, for each that one has."""
_MISSING = 0.02
"""Share of SNPs that GWAS of diffusion lack."""
_SWAPPED = 0.4
"""Share of SNPs whose GWAS counts the other allele."""


class SimulateTwasConfig(StepConfig):
    """Settings of ``simulate twas``."""

    genes: int = Field(300, ge=2, description="Number of genes")
    tissues: int = Field(4, ge=1, le=8, description="Number of tissues")
    regions: int = Field(
        8, ge=1, le=34, description="Regions of cortex: four phenotypes each, and four of tracts each two"
    )
    causal: int = Field(12, ge=0, description="Genes that change phenotypes, each in one tissue")
    strength: float = Field(8.0, ge=0, description="Mean |z| of a causal gene with the phenotypes that it changes")
    participants: int = Field(33_000, ge=100, description="People of the first cohort")
    replication: float = Field(0.5, gt=0, description="People of the second cohort, as a share of the first's")

    @model_validator(mode="after")
    def _enough(self) -> "SimulateTwasConfig":
        if self.causal > self.genes:
            raise ValueError(f"expected at most as many causal genes as genes ({self.genes}), found {self.causal}")
        return self


def _scan_text(
    study: ExpressionStudy,
    z: Float[np.ndarray, " snps"],
    beta: Float[np.ndarray, " snps"],
    swapped: Bool[np.ndarray, " snps"],
    kept: Bool[np.ndarray, " snps"],
    other: pa.Table,
) -> bytes:
    """Return a GWAS as BIG40 writes it: beta is of a2."""
    sign = np.where(swapped, -1.0, 1.0)
    chromosome = np.repeat(study.chromosome, np.diff(study.offsets))
    strength = neg_log10_p_from_z(z)
    table = pa.table(
        {
            "chr": pa.array([f"{c:02d}" for c in chromosome.tolist()], pa.string()),
            "rsid": arrow_column(study.snps),
            "pos": arrow_column(study.position),
            "a1": arrow_column(np.where(swapped, study.effect_allele, study.other_allele)),
            "a2": arrow_column(np.where(swapped, study.other_allele, study.effect_allele)),
            "beta": arrow_column(np.round(sign * beta, 8)),
            "se": arrow_column(np.round(np.where(z == 0, 1.0, beta / np.where(z == 0, 1.0, z)), 8)),
            "pval(-log10)": arrow_column(np.round(strength, 5)),
        }
    ).filter(pa.array(kept.tolist()))
    whole = pa.concat_tables([table, other])
    sink = pa.BufferOutputStream()
    pacsv.write_csv(whole, sink, pacsv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none"))
    return (" ".join(whole.column_names) + "\n").encode() + bytes(sink.getvalue())


def _others(study: ExpressionStudy, rng: np.random.Generator) -> pa.Table:
    """Return rows of SNPs that no model has."""
    n = int(_OTHER_SNPS * study.snps.size)
    z = rng.normal(size=n)
    return pa.table(
        {
            "chr": pa.array(["22"] * n, pa.string()),
            "rsid": pa.array([f"rs{900_000_000 + k}" for k in range(n)], pa.string()),
            "pos": arrow_column(np.arange(n, dtype=np.int64) + 200_000_000),
            "a1": pa.array(["A"] * n, pa.string()),
            "a2": pa.array(["G"] * n, pa.string()),
            "beta": arrow_column(np.round(z * 0.01, 8)),
            "se": arrow_column(np.full(n, 0.01)),
            "pval(-log10)": arrow_column(np.round(neg_log10_p_from_z(z), 5)),
        }
    )


def _write_lists(study: ExpressionStudy, out: Path) -> None:
    names = study.phenotypes.phenotypes.tolist()
    columns = study.phenotypes.columns
    for cohort in ("discovery", "replication"):
        lines = ["\t".join(("phenotype", "path", *columns))]
        for k, name in enumerate(names):
            lines.append("\t".join((name, f"{cohort}/{name}.txt.gz", *(str(c[k]) for c in columns.values()))))
        (out / f"{cohort}.tsv").write_text("\n".join(lines) + "\n")
    rows = zip(study.genes, study.gene_names, study.chromosome, study.start, study.stop, strict=True)
    lines = ["gene\tgene_name\tchromosome\tstart\tstop", *("\t".join(map(str, row)) for row in rows)]
    (out / "genes.tsv").write_text("\n".join(lines) + "\n")
    (out / "genes.txt").write_text("".join(f"{g}\n" for g in study.genes[study.causal].tolist()))
    areas = [n for n, m in zip(names, columns["measurement"].tolist(), strict=True) if m == "area"]
    (out / "phenotypes.txt").write_text("".join(f"{n}\n" for n in areas))


def _truth(study: ExpressionStudy) -> ResultTable:
    gene, phenotype = np.nonzero(study.mean_z)
    tissues = np.array([m.tissue for m in study.models], dtype=np.str_)
    return ResultTable(
        {
            "gene": study.genes[study.causal[gene]],
            "tissue": tissues[study.causal_tissue[gene]],
            "phenotype": study.phenotypes.phenotypes[phenotype],
            "zscore": study.mean_z[gene, phenotype],
        }
    )


def simulate_twas(config: SimulateTwasConfig, out: Path, context: Context) -> StepResult:
    """Write models, GWAS of two cohorts, and the truth."""
    plan = ExpressionStudyPlan(
        n_genes=config.genes,
        n_tissues=config.tissues,
        n_regions=config.regions,
        n_causal=config.causal,
        strength=config.strength,
    )
    study = plan_expression_study(plan, context.rng(0))
    (out / "models").mkdir()
    for model, covariance in zip(study.models, study.covariances, strict=True):
        place = {name: k for k, name in enumerate(study.snps.tolist())}
        rows = np.array([place[s] for s in model.snps.tolist()])
        write_expression_model(
            model,
            out / "models" / f"{model.tissue}.db",
            variant_names=study.variant_names[rows],
            population="simulated",
        )
        write_covariance([covariance], out / "models" / f"{model.tissue}.txt.gz")
    write_covariance([study.joint_covariance], out / "joint_covariance.txt.gz")
    rng = context.rng(1)
    swapped = rng.random(study.snps.size) < _SWAPPED
    lacking = rng.random(study.snps.size) < _MISSING
    other = _others(study, rng)
    modality = study.phenotypes.columns["modality"]
    names = study.phenotypes.phenotypes.tolist()
    for number, (cohort, share) in enumerate((("discovery", 1.0), ("replication", config.replication))):
        (out / cohort).mkdir()
        z, beta = draw_scans(study, context.rng(2, number), n=int(share * config.participants), share=share)
        for k in context.progress.track(range(len(names)), f"Writing GWAS ({cohort})", len(names)):
            kept = ~lacking if modality[k] == "dMRI" else np.ones(lacking.size, dtype=bool)
            data = _scan_text(study, z[:, k], beta[:, k], swapped, kept, other)
            (out / cohort / f"{names[k]}.txt.gz").write_bytes(gzip.compress(data, 6, mtime=0))
    _write_lists(study, out)
    truth = _truth(study)
    write_results(truth, out / "truth.tsv")
    counts = {
        "genes": config.genes,
        "models": {m.tissue: int(m.genes.size) for m in study.models},
        "snps": int(study.snps.size),
        "phenotypes": len(names),
        "planted_effects": len(truth),
    }
    line = (
        f"{config.genes} genes, {len(study.models)} tissues, {len(names)} phenotypes in two cohorts; {config.causal} "
        f"genes change phenotypes ({len(truth)} effects, truth.tsv)"
    )
    return StepResult(counts, summary=(line,))


SIMULATE_TWAS = Step(
    "simulate twas",
    "Simulate expression models and GWAS with planted effects of genes.",
    SimulateTwasConfig,
    simulate_twas,
    out="folder",
    out_positional=True,
)
