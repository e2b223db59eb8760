"""Training of expression models: one gene with 4,000 variants within 1 Mb, at the size of GTEx v8.

838 donors; 49 tissues of 73 to 706 samples (as in GTEx, mean 311); 4,000 variants in LD (thresholded autoregressive
normals, correlation 0.95 between neighbours, minor allele frequency 0.01 to 0.5); three causal variants. CPU seconds of
one thread; the first gene of a process is not counted (compiled kernels are loaded). R 4.2.2 with glmnet 4.1-6 runs the
same data with its own tolerance where there is `Rscript`: nested cross-validation is six cv.glmnet of ten folds, and
the joint fit of one pair of powers is one cv.glmnet of five folds with a row for every sample.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.genetics.twas import (
    ElasticNetSettings,
    JtiSettings,
    adjust_expression,
    train_elastic_net,
    train_jti,
)

DONORS, VARIANTS, TISSUES, GENES = 838, 4000, 49, 3
JTI_SECONDS = 2.0
"""CPU seconds of issue "Transcriptome-wide association across 3,935 brain phenotypes"."""
_R = """
suppressMessages(library(glmnet))
folder <- commandArgs(TRUE)[1]
read <- function(name) { f <- file(file.path(folder, name), "rb"); on.exit(close(f)); readBin(f, "double", 1e9) }
n <- as.integer(commandArgs(TRUE)[2])
x <- matrix(read("x.bin"), nrow = n)
y <- read("y.bin")
w <- read("w.bin")
fold <- as.integer(read("f.bin"))
lambda <- read("l.bin")
if (length(lambda) == 0) lambda <- NULL
most <- if (is.null(lambda)) ncol(x) else 200
time <- system.time(cv.glmnet(x, y, weights = w, foldid = fold, alpha = 0.5, lambda = lambda, pmax = most))
cat(time[1] + time[2])
"""


def _genotypes(rng: np.random.Generator) -> np.ndarray:
    threshold = norm.ppf(rng.uniform(0.01, 0.5, VARIANTS))
    dosage = np.zeros((VARIANTS, DONORS))
    for _ in range(2):
        latent = rng.normal(size=DONORS)
        for k in range(VARIANTS):
            latent = 0.95 * latent + np.sqrt(1 - 0.95**2) * rng.normal(size=DONORS)
            dosage[k] += latent < threshold[k]
    return dosage


def _expression(dosage: np.ndarray, r2: float, rng: np.random.Generator) -> np.ndarray:
    causal = rng.choice(VARIANTS, 3, replace=False)
    beta = rng.normal(size=3)
    sizes = np.sort(rng.integers(73, 550, TISSUES))[::-1]
    sizes[0] = 706
    values = np.full((TISSUES, DONORS), np.nan)
    for t, size in enumerate(sizes):
        g = (beta * rng.uniform(0.5, 1.0, 3)) @ dosage[causal]
        y = (g - g.mean()) / g.std() * np.sqrt(r2) + rng.normal(size=DONORS) * np.sqrt(1 - r2)
        have = rng.choice(DONORS, size, replace=False)
        values[t, have] = y[have]
    return adjust_expression(values, None)


def _in_r(x: np.ndarray, y: np.ndarray, w: np.ndarray, fold: np.ndarray, lambdas: np.ndarray) -> float:
    """Return CPU seconds of cv.glmnet; NaN without R."""
    if shutil.which("Rscript") is None:
        return float("nan")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, values in (("x", x), ("y", y), ("w", w), ("f", fold + 1.0), ("l", lambdas)):
            np.ascontiguousarray(values, dtype=np.float64).tofile(folder / f"{file}.bin")
        (folder / "time.R").write_text(_R)
        command = ["Rscript", str(folder / "time.R"), str(folder), str(y.size)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return float(done.stdout) if done.returncode == 0 else float("nan")


def _mean_seconds(work: Callable[[int], object]) -> float:
    return float(np.mean([cpu_seconds(lambda k=k: work(k))[1] for k in range(GENES)]))


def run() -> list[Measurement]:
    rng = np.random.default_rng(0)
    dosage = _genotypes(rng)
    similarity, dnase = rng.uniform(0.7, 0.99, TISSUES), rng.uniform(0.5, 0.99, TISSUES)
    target = 20
    similarity[target] = dnase[target] = 1.0
    genes = [_expression(dosage, r2, rng) for r2 in (0.0, 0.08, 0.25)]
    whole, lasso = ElasticNetSettings(patience=None), JtiSettings(mixing=1.0)
    rows = []
    with threadpool_limits(1):
        small = np.arange(DONORS) < 100
        train_jti(dosage[:50, small], genes[0][:3, small], 0, np.ones(3), np.ones(3), gene="warm")

        def joint(k: int, settings: JtiSettings) -> object:
            return train_jti(dosage, genes[k], target, similarity, dnase, gene=f"g{k}", settings=settings)

        size = f"{DONORS} donors, {TISSUES} tissues, {VARIANTS} variants"
        seconds = _mean_seconds(lambda k: joint(k, JtiSettings()))
        rows.append(Measurement("JTI, one gene and tissue", seconds, "CPU s", JTI_SECONDS, size))
        seconds = _mean_seconds(lambda k: joint(k, lasso))
        rows.append(Measurement("the same, joint fit a lasso (published)", seconds, "CPU s", JTI_SECONDS))
        n = int((~np.isnan(genes[0][target])).sum())
        seconds = _mean_seconds(lambda k: train_elastic_net(dosage, genes[k][target], gene=f"g{k}"))
        rows.append(
            Measurement(
                "elastic net, nested cross-validation", seconds, "CPU s", None, f"{n} people, {VARIANTS} variants"
            )
        )
        seconds = _mean_seconds(lambda k: train_elastic_net(dosage, genes[k][target], gene=f"g{k}", settings=whole))
        rows.append(Measurement("the same, every lambda", seconds, "CPU s"))
    return rows + _r_rows(dosage, genes[1], target, similarity * dnase, rng)


def _r_rows(
    dosage: np.ndarray, values: np.ndarray, target: int, weight: np.ndarray, rng: np.random.Generator
) -> list[Measurement]:
    known = np.flatnonzero(~np.isnan(values[target]))
    y, fold = values[target, known], rng.permutation(np.arange(known.size) % 10)
    single = _in_r(dosage[:, known], y, np.ones(known.size), fold, np.zeros(0))
    tissue, donor = np.nonzero(~np.isnan(values) & (weight >= 0.1)[:, None])
    lambdas = np.geomspace(0.2, 0.03, 21)
    donor_fold = rng.permutation(np.arange(DONORS) % 5)
    some = tissue < 12  # all 49 take ten minutes
    joint = _in_r(
        dosage[:, donor[some]],
        values[tissue[some], donor[some]],
        weight[tissue[some]],
        donor_fold[donor[some]],
        lambdas,
    )
    return [
        Measurement("R: six cv.glmnet of ten folds", 6 * single, "CPU s", None, "six times one of them"),
        Measurement(
            "R: one of the 16 pairs of JTI, 12 tissues", joint, "CPU s", None, f"{int(some.sum())} samples as rows"
        ),
    ]
