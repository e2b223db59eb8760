"""Causal effects of expression, tests of several tissues, and the elastic nets of a gene's SNPs.

MR-JTI and the estimators run on the public example of 145 variants, which needs BRAINLOCUS_DATA. R's glmnet is measured
beside ours where Rscript and glmnet are installed.
"""

import csv
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.core import Instruments
from brainlocus.genetics.twas import GeneTissues, MrJtiSettings, causal_estimates, mr_jti, multixcan, tissue_covariance
from brainlocus.numerics.elastic_net import elastic_net_path_columns, lambda_path, standardise_columns

EXAMPLE = "twas/mr/mrjti_example.txt"
NAMES = ("eqtl_beta", "gwas_beta", "eqtl_se", "gwas_se", "gwas_p", "ldscore")
SIZES = ((200, 1000), (500, 5000))
"""People and SNPs of a gene."""
_GLMNET = """
suppressMessages(library(glmnet)); glmnet.control(fdev = 0, devmax = 1)
x <- as.matrix(read.table("x.txt")); y <- scan("y.txt", quiet = TRUE)
invisible(glmnet(x, y, alpha = 0.5))
for (threshold in c(1e-7, 1e-14)) {
  used <- system.time(found <- glmnet(x, y, alpha = 0.5, thresh = threshold, maxit = 1e8))
  cat(used[1] + used[2], "\\n")
}
"""


def _example() -> Instruments | None:
    path = Path(os.environ.get("BRAINLOCUS_DATA", "")) / EXAMPLE
    if not path.is_file():
        return None
    with path.open() as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    columns = [np.array([float(row[name]) for row in rows]) for name in NAMES]
    return Instruments(np.array([row["rsid"] for row in rows]), *columns)


def _mr() -> list[Measurement]:
    example = _example()
    if example is None:
        return []
    settings = MrJtiSettings(alpha=0.05 / 100)
    mr_jti(example, settings)
    rows = []
    for repeats in (1, 10):
        settings = MrJtiSettings(alpha=0.05 / 100, repeats=repeats)
        found, seconds = cpu_seconds(lambda s=settings: [mr_jti(example, s) for _ in range(5)])
        note = f"expression {found[0].estimate[0]:.3f} ({found[0].lower[0]:.2f}, {found[0].upper[0]:.2f})"
        name = f"MR-JTI, 500 draws, {repeats} cross-validation{'s' if repeats > 1 else ''}"
        rows.append(Measurement(name, seconds / 5, "CPU s", 0.3, note))
    _, seconds = cpu_seconds(lambda: [causal_estimates(example) for _ in range(5)])
    rows.append(Measurement("IVW, Egger, weighted median (1,000 draws)", seconds / 5, "CPU s"))
    return rows


def _dosages(n: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Return dosages in linkage disequilibrium (r of 0.5 to 0.999 between neighbours) and a trait of three of them."""
    rng = np.random.default_rng(0)
    rho = rng.choice([0.999, 0.99, 0.9, 0.5], p)
    cut = rng.uniform(-2, 0, p)
    x = np.zeros((n, p))
    for _ in range(2):
        z = rng.normal(size=n)
        for j in range(p):
            z = rho[j] * z + np.sqrt(1 - rho[j] ** 2) * rng.normal(size=n)
            x[:, j] += z < cut[j]
    y = standardise_columns(x).x[:, rng.choice(p, 3, replace=False)] @ np.array([0.3, 0.2, 0.2]) + rng.normal(size=n)
    return x, (y - y.mean()) / y.std()


def _glmnet_seconds(x: np.ndarray, y: np.ndarray) -> list[float]:
    if shutil.which("Rscript") is None:
        return []
    with tempfile.TemporaryDirectory() as name:
        np.savetxt(Path(name) / "x.txt", x, fmt="%g")
        np.savetxt(Path(name) / "y.txt", y, fmt="%.17g")
        done = subprocess.run(
            ["Rscript", "-e", _GLMNET], check=False, cwd=name, capture_output=True, text=True, timeout=600
        )
    return [float(line) for line in done.stdout.split()]


def _wide(n: int, p: int) -> list[Measurement]:
    x, y = _dosages(n, p)
    columns = standardise_columns(x).x
    lambdas = lambda_path(columns.T @ y / n, 0.5, n=n)
    elastic_net_path_columns(columns, y, lambdas[:2], mixing=0.5)
    rows = []
    for tolerance in (1e-4, 1e-10):
        path, seconds = cpu_seconds(
            lambda t=tolerance: elastic_net_path_columns(columns, y, lambdas, mixing=0.5, tolerance=t)
        )
        note = f"{np.count_nonzero(path.coefficients[-1])} columns at the last lambda"
        name = f"elastic net, {n} x {p}, 100 lambdas, tolerance {tolerance:g}"
        rows.append(Measurement(name, seconds, "CPU s", None, note))
    for threshold, seconds in zip((1e-7, 1e-14), _glmnet_seconds(x, y), strict=False):
        rows.append(Measurement(f"R glmnet, {n} x {p}, thresh {threshold:g}", seconds, "CPU s"))
    return rows


def _tissues() -> list[Measurement]:
    """Measure S-MultiXcan of one gene in 44 tissues, with one set of tissues for all phenotypes and with many."""
    rng = np.random.default_rng(0)
    tissues, snps, phenotypes = 44, 200, 3935
    x = rng.normal(size=(300, snps)) + rng.normal(size=(300, 1))
    weights = rng.normal(size=(tissues, snps)) * (rng.random((tissues, snps)) < 0.1)
    names = np.array([f"rs{k}" for k in range(snps)])
    gene = GeneTissues("g", "G", np.arange(tissues), names, weights, np.cov(x.T), 0)
    z = rng.normal(size=(tissues, phenotypes))
    holes = np.where(rng.random(z.shape) < 0.01, np.nan, z)
    rows = []
    for label, scores in (("all tissues in each", z), ("1 % of z missing", holes)):
        multixcan(gene, tissue_covariance(gene), scores[:, :2])
        _, seconds = cpu_seconds(lambda s=scores: multixcan(gene, tissue_covariance(gene), s))
        name = f"S-MultiXcan, a gene in {tissues} tissues, {phenotypes:,} phenotypes"
        rows.append(Measurement(name, seconds, "CPU s", None, label))
    return rows


def run() -> list[Measurement]:
    """Measure MR-JTI, the estimators, S-MultiXcan, and elastic-net paths of a gene's SNPs."""
    return [*_mr(), *_tissues(), *(row for size in SIZES for row in _wide(*size))]
