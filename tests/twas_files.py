"""Small expression models, covariances and GWAS as files, and the numbers behind them."""

import gzip
import sqlite3
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

ALLELES = ("A", "C", "G", "T")


def write_db(
    path: Path, weights, extra, *, order=("rsid", "gene", "weight", "ref_allele", "eff_allele", "varID")
) -> None:
    """Write a PredictDB file; `weights` are dicts with these keys, `extra` dicts of the table extra."""
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        quoted = ", ".join(f'"{name}"' for name in order)
        connection.execute(f"CREATE TABLE weights ({quoted})")
        connection.executemany(
            f"INSERT INTO weights VALUES ({', '.join('?' * len(order))})", [[w.get(n) for n in order] for w in weights]
        )
        names = list(dict.fromkeys(n for row in extra for n in row))
        connection.execute("CREATE TABLE extra (" + ", ".join(f'"{n}"' for n in names) + ")")
        connection.executemany(
            f"INSERT INTO extra VALUES ({', '.join('?' * len(names))})", [[row.get(n) for n in names] for row in extra]
        )
    connection.close()


def write_covariance_text(path: Path, rows, delimiter=" ") -> None:
    lines = [delimiter.join(("GENE", "RSID1", "RSID2", "VALUE"))]
    lines += [delimiter.join(map(str, row)) for row in rows]
    text = "\n".join(lines) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


@dataclass
class Panel:
    """SNPs of a few genes with the covariance of a reference panel, models of some tissues, and GWAS."""

    rng: np.random.Generator
    n_genes: int = 12
    tissues: tuple[str, ...] = ("Cortex", "Liver", "Blood")
    ld: float = 0.6
    """How much of a gene's first SNP is in the others."""
    genes: list[dict] = field(default_factory=list)
    models: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    """By tissue and gene: SNP number to weight."""

    def __post_init__(self) -> None:
        number = 0
        for g in range(self.n_genes):
            size = int(self.rng.integers(1, 7))
            dosages = self.rng.binomial(2, 0.3, size=(300, size)).astype(float)
            dosages += self.ld * dosages[:, :1]
            alleles = [self.rng.choice(4, 2, replace=False) for _ in range(size)]
            self.genes.append(
                {
                    "gene": f"ENSG{g:011d}.{g % 4 + 1}",
                    "name": f"GENE{g}",
                    "snps": [number + k for k in range(size)],
                    "covariance": np.atleast_2d(np.cov(dosages, rowvar=False)),
                    "alleles": [(ALLELES[a], ALLELES[b]) for a, b in alleles],
                }
            )
            number += size
        self.n_snps = number
        for tissue in self.tissues:
            mine = {}
            for gene in self.genes:
                chosen = [s for s in gene["snps"] if self.rng.random() < 0.8]
                if chosen and self.rng.random() < 0.9:
                    mine[gene["gene"]] = {s: float(self.rng.normal()) for s in chosen}
            self.models[tissue] = mine

    def name(self, snp: int) -> str:
        return f"rs{1000 + snp}"

    def var_id(self, snp: int) -> str:
        other, effect = self.allele_pair(snp)
        return f"chr1_{5000 + 10 * snp}_{other}_{effect}_b38"

    def gene_of(self, snp: int) -> dict:
        return next(g for g in self.genes if snp in g["snps"])

    def allele_pair(self, snp: int) -> tuple[str, str]:
        gene = self.gene_of(snp)
        return gene["alleles"][gene["snps"].index(snp)]

    def write_models(self, folder: Path, *, swap_second: bool = True) -> list[Path]:
        """Write a .db and a covariance for each tissue; the second counts the other allele of every SNP."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for k, tissue in enumerate(self.tissues):
            flip = swap_second and k == 1
            weights, extra, rows = [], [], []
            for gene, chosen in self.models[tissue].items():
                snps = sorted(chosen)
                data = next(g for g in self.genes if g["gene"] == gene)
                for s in snps:
                    other, effect = self.allele_pair(s)
                    pair = (effect, other) if flip else (other, effect)
                    weights.append(
                        {
                            "rsid": self.name(s), "varID": self.var_id(s), "gene": gene,
                            "weight": -chosen[s] if flip else chosen[s], "ref_allele": pair[0], "eff_allele": pair[1],
                        }
                    )  # fmt: skip
                extra.append(
                    {
                        "gene": gene, "genename": data["name"], "n.snps.in.model": len(snps), "pred.perf.R2": 0.2,
                        "pred.perf.pval": 1e-4, "pred.perf.qval": 2e-4,
                    }
                )  # fmt: skip
                place = [data["snps"].index(s) for s in snps]
                for a in range(len(snps)):
                    for b in range(a, len(snps)):
                        value = data["covariance"][place[a], place[b]]
                        rows.append((gene, self.name(snps[a]), self.name(snps[b]), repr(float(value))))
            path = folder / f"{tissue}.db"
            write_db(path, weights, extra)
            write_covariance_text(folder / f"{tissue}.txt.gz", rows)
            paths.append(path)
        return paths

    def gwas(self, absent=()) -> dict[int, tuple[float, float]]:
        """Return z and beta per effect allele of some SNPs."""
        z = self.rng.normal(size=self.n_snps) * 2
        return {s: (float(z[s]), float(z[s] * 0.013)) for s in range(self.n_snps) if s not in set(absent)}

    def write_gwas(self, path: Path, gwas, *, swap=lambda _snp: False, gz=False) -> Path:
        """Write a GWAS as BIG40 does, with SNPs that no model has; some SNPs count the other allele."""
        lines = ["chr rsid pos a1 a2 beta se pval(-log10)"]
        for s, (z, beta) in gwas.items():
            other, effect = self.allele_pair(s)
            if swap(s):
                other, effect, z, beta = effect, other, -z, -beta
            lines.append(f"01 {self.name(s)} {5000 + 10 * s} {other} {effect} {beta!r} {beta / z!r} 1.0")
            lines.append(f"01 rs{900000 + s} {9000 + s} A G 0.1 0.1 0.5")
        text = "\n".join(lines) + "\n"
        path.write_bytes(gzip.compress(text.encode()) if gz else text.encode())
        return path

    def expected(self, tissue: str, gwas) -> dict[str, tuple[float, float, float, int]]:
        """Return z, effect, var_g and SNPs used of every gene: the formula of Barbeira et al. read literally."""
        found = {}
        for gene, chosen in self.models[tissue].items():
            data = next(g for g in self.genes if g["gene"] == gene)
            used = [s for s in sorted(chosen) if s in gwas]
            if not used:
                continue
            variance = 0.0
            top = bottom = 0.0
            for a in used:
                for b in used:
                    gamma = data["covariance"][data["snps"].index(a), data["snps"].index(b)]
                    variance += chosen[a] * chosen[b] * gamma
            for s in used:
                place = data["snps"].index(s)
                sigma = np.sqrt(data["covariance"][place, place])
                top += chosen[s] * sigma * gwas[s][0]
                bottom += chosen[s] * sigma * sigma * gwas[s][1]
            found[gene] = (top / np.sqrt(variance), bottom / variance, variance, len(used))
        return found


def write_prepared(folder: Path, *, n_phenotypes: int, n_genes: int, n_snps: int, tissues=("A", "B")) -> None:
    """Write a folder as ``twas prepare`` does, of random numbers."""
    from brainlocus.core import ExpressionModel, GeneCovariance
    from brainlocus.genetics.twas import prepare_tissue, unite_snps
    from brainlocus.pipeline.twas_gwas import write_phenotypes
    from brainlocus.pipeline.twas_models import ModelSet, write_model_set

    rng = np.random.default_rng(0)
    offsets = np.linspace(0, n_snps, n_genes + 1).astype(np.int64)
    names = np.array([f"rs{k}" for k in range(n_snps)])
    genes = np.array([f"G{k}" for k in range(n_genes)])
    nothing = np.full(n_genes, np.nan)
    models = [
        ExpressionModel(
            tissue, genes, genes, offsets, names, np.full(n_snps, "A"), np.full(n_snps, "G"), rng.normal(size=n_snps),
            np.diff(offsets), nothing, nothing, nothing, nothing,
        )
        for tissue in tissues
    ]  # fmt: skip
    pairs = [np.triu_indices(int(b - a)) for a, b in pairwise(offsets.tolist())]
    first, second = (
        np.concatenate([offsets[g] + pair[side] for g, pair in enumerate(pairs)]).astype(np.int32) for side in (0, 1)
    )
    counts = np.array([pair[0].size for pair in pairs])
    covariance = GeneCovariance(
        genes, np.r_[0, np.cumsum(counts)].astype(np.int64), names, first, second, np.where(first == second, 0.5, 0.1)
    )
    snps = unite_snps(models, [m.snps for m in models])
    prepared = tuple(
        prepare_tissue(m, covariance, entry=snps.entry[k], sign=snps.sign[k]) for k, m in enumerate(models)
    )
    folder.mkdir(parents=True)
    write_model_set(ModelSet(prepared, snps), folder / "models")
    for name, scale in (("z.npy", 1.0), ("beta.npy", 0.01)):
        array = np.lib.format.open_memmap(folder / name, mode="w+", dtype=np.float32, shape=(n_phenotypes, n_snps))
        for k in range(n_phenotypes):
            array[k] = rng.standard_normal(n_snps, dtype=np.float32) * np.float32(scale)
    row = {"status": "ok", "columns": "simulated", "z_from": "z", "rows_read": 0, "snps_of_models": n_snps}
    write_phenotypes(
        [{"phenotype": f"p{k}", **row, "snps_found": n_snps} for k in range(n_phenotypes)],
        folder / "phenotypes.parquet",
    )
