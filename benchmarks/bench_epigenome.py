"""Epigenome-wide association: CPU time of 850,000 CpGs of 1,000 people, beside R's limma on the same numbers.

A slice of 50,000 CpGs is tested, in blocks as the command does, with 16 covariates; times are of the whole array, in
proportion. limma is run where Rscript has it.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.cohort.associate import prepare_voxelwise
from brainlocus.cohort.associate.epigenome import (
    add_surrogates,
    fit_empirical_null,
    fit_variance_prior,
    m_values,
    moderate,
    scan_features,
    start_surrogates,
    surrogate_variables,
    winsorise,
)
from brainlocus.io.tables import ResultWriter
from brainlocus.numerics import benjamini_hochberg_q, z_from_neg_log10_p
from brainlocus.pipeline.epigenome_results import finish_trait, result_rows
from brainlocus.pipeline.epigenome_scan import TraitEstimates

G, N, K = 50_000, 1_000, 16
ARRAY = 850_000
BLOCK = 2_048
R = """
suppressMessages(library(limma))
folder <- commandArgs(TRUE)[1]
m <- matrix(readBin(file.path(folder, "m.bin"), "double", {g} * {n}), {g}, {n}, byrow = TRUE)
design <- matrix(readBin(file.path(folder, "design.bin"), "double", {n} * {p}), {n}, {p}, byrow = TRUE)
invisible(eBayes(lmFit(m[1:500, ], design)))
start <- proc.time()
fit <- eBayes(lmFit(m, design))
used <- proc.time() - start
cat(sum(used[c(1, 2, 4, 5)]), "\\n")
cat(sprintf("%.17g", fit$t[, 1]), "\\n")
"""


def _blocks(values: np.ndarray) -> list[np.ndarray]:
    return [values[k : k + BLOCK] for k in range(0, values.shape[0], BLOCK)]


def _each(function: Callable[[np.ndarray], object], values: np.ndarray) -> None:
    """Call a function of every block, as a scan does, which lets go of one before the next."""
    for block in _blocks(values):
        function(block)


def _tested(design, blocks: list[np.ndarray]) -> tuple[np.ndarray, ...]:  # noqa: ANN001
    scans = [scan_features(design, block) for block in blocks]
    return tuple(
        np.concatenate([getattr(s, name)[0] for s in scans])
        for name in ("beta", "unscaled", "variance", "degrees_of_freedom")
    )


def _limma(values: np.ndarray, design: np.ndarray) -> tuple[float, np.ndarray] | None:
    """Return CPU seconds of lmFit and eBayes, and the moderated t."""
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        values.tofile(Path(folder) / "m.bin")
        design.tofile(Path(folder) / "design.bin")
        script = Path(folder) / "run.R"
        script.write_text(R.format(g=values.shape[0], n=values.shape[1], p=design.shape[1]))
        done = subprocess.run(
            ["Rscript", str(script), folder], capture_output=True, text=True, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
    if done.returncode:
        return None
    first, second = done.stdout.strip().split("\n")
    return float(first), np.array(second.split(), dtype=np.float64)


def _beside_limma(rng: np.random.Generator, m: np.ndarray, x: np.ndarray, covariates: np.ndarray) -> list[Measurement]:
    """Compare time and numbers without, and with, missing values."""
    rows = []
    for name, share in (("", 0.0), (", 2 % of CpGs lack 1 % of people", 0.02)):
        values = m.copy()
        some = rng.random(G) < share
        values[some] = np.where(rng.random((int(some.sum()), N)) < 0.01, np.nan, values[some])
        design = prepare_voxelwise(x[:, None], covariates=covariates)

        def ours(values: np.ndarray = values, design=design) -> np.ndarray:  # noqa: ANN001
            found = _tested(design, _blocks(values))
            return moderate(*found, fit_variance_prior(*found[2:])).t

        t, seconds = cpu_seconds(ours)
        rows.append(Measurement(f"50,000 CpGs, moderated t{name}", seconds, "CPU s"))
        theirs = _limma(values, np.column_stack([x, np.ones(N), covariates]))
        if theirs is not None:
            rows += [
                Measurement(f"limma lmFit and eBayes, the same{name}", theirs[0], "CPU s"),
                Measurement("  times as long", theirs[0] / seconds, "times"),
                Measurement("  largest difference of t", 1e8 * float(np.abs(t - theirs[1]).max()), "1e-8", 1.0),
            ]
    return rows


def _results(rng: np.random.Generator) -> list[Measurement]:
    """Time what follows for one trait of the whole array: t, p, empirical null, q-values, rows of Parquet."""
    beta, unscaled = rng.normal(0, 0.02, ARRAY), np.full(ARRAY, 0.04)
    variance = 0.25 * rng.chisquare(980, ARRAY) / 980
    df = np.full(ARRAY, 980.0)
    estimates = TraitEstimates(np.full(ARRAY, 1000), df, beta, unscaled, variance, np.zeros(ARRAY, dtype=np.int8))
    names = np.array([f"cg{k:08d}" for k in range(ARRAY)], dtype=np.dtypes.StringDType())
    tests, plain = cpu_seconds(lambda: finish_trait("t", estimates, moderated=True, empirical_null=False))
    z = z_from_neg_log10_p(tests.neg_log10_p) * np.sign(tests.t)
    _, null = cpu_seconds(lambda: fit_empirical_null(z))
    _, q = cpu_seconds(lambda: benjamini_hochberg_q(tests.neg_log10_p))

    def write(max_p: float) -> None:
        with tempfile.TemporaryDirectory() as folder, ResultWriter(Path(folder) / "x.parquet") as writer:
            for part in result_rows(tests, names, None, None, max_p=max_p):
                writer.append(part)

    _, hits = cpu_seconds(lambda: write(1e-3))
    _, everything = cpu_seconds(lambda: write(1.0))
    return [
        Measurement("850,000 CpGs: prior, moderated t and p", plain, "CPU s"),
        Measurement("850,000 CpGs: empirical null", null, "CPU s"),
        Measurement("850,000 CpGs: q-values", q, "CPU s"),
        Measurement("850,000 CpGs: corrections, rows with p < 1e-3", hits, "CPU s"),
        Measurement("850,000 CpGs: corrections, all rows", everything, "CPU s"),
    ]


def run() -> list[Measurement]:
    rng = np.random.default_rng(0)
    beta = rng.beta(2, 5, (G, N))
    x, covariates = rng.normal(size=N), rng.normal(size=(N, K))
    traits = np.column_stack([x, rng.normal(size=(N, 35))])
    share = ARRAY / G
    with threadpool_limits(limits=1):
        scan_features(prepare_voxelwise(traits, covariates=covariates), m_values(beta[:8]))
        m = m_values(beta)
        _, to_m = cpu_seconds(lambda: _each(m_values, beta))
        _, clip = cpu_seconds(lambda: _each(winsorise, m))
        one, many = (prepare_voxelwise(t, covariates=covariates) for t in (x[:, None], traits))
        _, scan = cpu_seconds(lambda: _tested(one, _blocks(m)))
        _, scan36 = cpu_seconds(lambda: _each(partial(scan_features, many), m))
        rows = [
            Measurement("M values, 850,000 x 1,000", share * to_m, "CPU s", None, f"from {G:,} CpGs"),
            Measurement("winsorising", share * clip, "CPU s"),
            Measurement("regressions, one trait, 16 covariates", share * scan, "CPU s"),
            Measurement("all of this", share * (to_m + clip + scan), "CPU s", 60.0, "asked: well under a minute"),
            Measurement("regressions, 36 traits", share * scan36, "CPU s"),
        ]
        rows += _beside_limma(rng, m, x, covariates)
        rows += _results(rng)
        chosen = start_surrogates(covariates)
        _, adding = cpu_seconds(lambda: _each(partial(add_surrogates, chosen), m))
        _, finding = cpu_seconds(lambda: surrogate_variables(chosen, rng))
        rows += [
            Measurement("surrogates: residuals, 850,000 x 1,000", share * adding, "CPU s"),
            Measurement("surrogates: components and their number", finding, "CPU s"),
        ]
    return rows
