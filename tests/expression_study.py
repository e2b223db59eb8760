"""A small expression study with planted truth: genotypes on two chromosomes, genes, tissues, covariates."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainlocus.core import SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter


@dataclass(frozen=True)
class ExpressionStudy:
    """Files of the study, and what was planted."""

    genotypes: Path
    genes: Path
    files: dict[str, Path]
    """Expression by tissue, genes x samples."""
    covariates: Path
    similarity: Path
    people: list[str]
    dosage: np.ndarray
    variants: VariantTable
    effects: dict[str, np.ndarray]
    """Per copy, of the genes with a genetic component, in all tissues alike."""


def write_expression_study(
    folder: Path, *, n: int = 160, n_variants: int = 45, r2: float = 0.4, seed: int = 1
) -> ExpressionStudy:
    """Two chromosomes of `n_variants` in LD, 3 kb apart; genes G1 and G2 with effects, G3 without, and odd ones."""
    rng = np.random.default_rng(seed)
    m = 2 * n_variants
    haplotypes = np.zeros((2, m, n), dtype=np.int8)
    for copy in range(2):
        latent = rng.normal(size=n)
        frequency = rng.uniform(0.1, 0.5, m)
        for k in range(m):
            keep = 0.8 if k % n_variants else 0.0
            latent = keep * latent + np.sqrt(1 - keep * keep) * rng.normal(size=n)
            haplotypes[copy, k] = latent < np.quantile(latent, frequency[k])
    dosage = haplotypes.sum(axis=0).astype(np.float32)
    position = np.tile(1_000_000 + 3_000 * np.arange(n_variants), 2)
    chromosome = np.repeat(["1", "2"], n_variants)
    effect, other = np.array(["G"] * m), np.array(["A"] * m)
    effect[5], other[5] = "T", "A"  # palindromic
    ids = np.array([f"rs{k}" for k in range(m)])
    ids[6] = "."
    variants = VariantTable(
        chromosome, position, text_array(effect.tolist()), text_array(other.tolist()), text_array(ids.tolist()),
        "GRCh38",
    )  # fmt: skip
    people = [f"sub-{k:03d}" for k in range(n)]
    with BedWriter(folder / "cohort", SampleIndex.of(people), variants) as out:
        out.append(dosage)
    effects = {"G1.3": np.zeros(m), "G2": np.zeros(m)}
    effects["G1.3"][[20, 33]] = 1.0, -0.7
    effects["G2"][n_variants + 40] = 1.0
    age = rng.normal(50, 10, n)
    covariates = folder / "covariates.tsv"
    covariates.write_text(
        "participant_id\tage\n" + "".join(f"{p}\t{a:.3f}\n" for p, a in zip(people, age, strict=True))
    )
    genes = folder / "genes.tsv"
    genes.write_text(
        "gene_id\tchr\tleft\tright\tgenename\tgenetype\n"
        "G1\tchr1\t1060000\t1100000\tALPHA\tprotein_coding\n"
        "G2\tchr2\t1110000\t1120000\tBETA\tprotein_coding\n"
        "G3\tchr1\t1050000\t1060000\tGAMMA\tlincRNA\n"
        "FLAT\tchr1\t1050000\t1060000\tDELTA\tlincRNA\n"
        "FAR\tchr2\t90000000\t90001000\tEPSILON\tlincRNA\n"
        "ELSEWHERE\tchr7\t1000\t2000\tZETA\tlincRNA\n"
        "SCAFFOLD\tchrUn_1\t1000\t2000\tETA\tlincRNA\n"
    )
    files = {}
    for number, tissue in enumerate(("Cortex", "Putamen", "Liver")):
        have = np.sort(rng.choice(n, n - 40 * (number == 0) - 10, replace=False))
        rows = {}
        for gene in ("G1.3", "G2", "G3", "FLAT", "FAR", "ELSEWHERE", "SCAFFOLD", "NOWHERE"):
            g = effects.get(gene, np.zeros(m)) @ dosage
            noise = rng.normal(size=n)
            y = noise if g.std() == 0 else (g - g.mean()) / g.std() * np.sqrt(r2) + noise * np.sqrt(1 - r2)
            rows[gene] = np.zeros(n) if gene == "FLAT" else y + 0.05 * age
        path = folder / f"{tissue}.v1.tsv"
        path.write_text(
            "gene_id\t" + "\t".join([*(people[k] for k in have), "stranger"]) + "\n"
            + "".join(g + "\t" + "\t".join([*(f"{y[k]:.6f}" for k in have), "0.1"]) + "\n" for g, y in rows.items())
        )  # fmt: skip
        files[tissue] = path
    similarity = folder / "similarity.tsv"
    similarity.write_text(
        "tissue\tCortex\tPutamen\tLiver\nCortex\t1\t0.97\t0.6\nPutamen\t0.97\t1\t0.6\nLiver\t0.6\t0.6\t1\n"
    )
    return ExpressionStudy(
        folder / "cohort.bed", genes, files, covariates, similarity, people, dosage, variants, effects
    )
