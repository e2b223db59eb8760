"""Harmonisation, phenome scan and signatures: time and memory on real and on biobank-sized input."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from scipy import stats
from threadpoolctl import threadpool_limits

from benchmarks.measure import Measurement, cpu_seconds, wall_seconds
from brainlocus.cohort.associate import prepare_phenome, scan_phenome, scan_phenome_peak_bytes
from brainlocus.cohort.harmonise import apply_combat, fit_combat, site_effects
from brainlocus.cohort.signatures import SpareOptions, train_spare


def run() -> list[Measurement]:
    with threadpool_limits(1):
        rows = [*_combat(), *_spare()]
    return [*rows, *_phenome()]


def _combat() -> list[Measurement]:
    root = Path(os.environ.get("BRAINLOCUS_DATA", ""))
    if not (root / "structural/tabular/abide_impac_freesurfer.csv").is_file():
        return []
    from tests.real_data import abide, abide_nuisance

    table, names = abide()
    y, site = table[names].to_numpy(dtype=float), table["site"].astype(str).to_numpy(dtype=str)
    nuisance = abide_nuisance(table)
    preserved = nuisance[:, [0, 3, 4]]

    def harmonise() -> Float64[np.ndarray, "samples features"]:
        return apply_combat(fit_combat(y, site, covariates=preserved), y, site, covariates=preserved).values

    clean, seconds = cpu_seconds(harmonise)
    before, after = (site_effects(v, site, covariates=nuisance).mean_eta2 for v in (y, clean))
    shape = f"ABIDE {y.shape[0]:,} x {y.shape[1]}, {np.unique(site).size} sites"
    return [
        Measurement("combat fit and apply, CPU", seconds, "s", 0.2, shape),
        Measurement("combat, mean site eta^2 before", before, "", None, f"{before:.4f}; specification 0.208"),
        Measurement("combat, mean site eta^2 after", after, "", 0.0108, f"{after:.4f}; specification 0.0107"),
    ]


def _spare() -> list[Measurement]:
    rng = np.random.default_rng(0)
    diagnosis = rng.integers(0, 2, 1_000)
    features = rng.standard_normal((1_000, 200)) + 0.15 * diagnosis[:, None]
    options = SpareOptions(repeats=3)
    result, seconds = cpu_seconds(
        lambda: train_spare(features, diagnosis, generator=np.random.default_rng(0), options=options)
    )
    note = f"1,000 x 200, 10 inner folds, 17 C; balanced accuracy {result.performance.balanced_accuracy.mean():.3f}"
    return [Measurement("spare, CPU per outer repeat (final model shared)", seconds / 3, "s", None, note)]


def _phenome() -> list[Measurement]:
    """One block of issue 6's problem; time is linear in the phenotypes."""
    n, q, block = 35_273, 36, 250
    rng = np.random.default_rng(0)
    covariates = rng.standard_normal((n, 10))
    traits = rng.standard_normal((n, q))
    phenotypes = rng.standard_normal((n, block))
    phenotypes[rng.uniform(size=phenotypes.shape) < 0.4] = np.nan
    design, once = wall_seconds(lambda: prepare_phenome(traits, covariates=covariates))
    tracemalloc.start()
    _, seconds = wall_seconds(lambda: scan_phenome(design, phenotypes))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    x = phenotypes[:, 0]
    rows = ~np.isnan(x)
    _, pair = wall_seconds(lambda: [stats.pearsonr(x[rows], traits[rows, j]) for j in range(q)])
    whole = once + seconds * 17_485 / block
    note = f"{n:,} people, 10 covariates, 40 % missing, each phenotype with its own pattern"
    return [
        Measurement(f"phenome, wall for {block} phenotypes x {q} traits", seconds, "s", None, note),
        Measurement("phenome, wall for 17,485 phenotypes (from these)", whole, "s", 90.0, "asked by issue 6"),
        Measurement("phenome, loop of scipy.stats.pearsonr / ours", pair * block / seconds, "x", None, "no covariates"),
        Measurement("phenome, peak memory of a block", peak / 2**20, "MiB",
                    scan_phenome_peak_bytes(n, q, block) / 2**20, "asked: what scan_phenome_peak_bytes declares"),
    ]  # fmt: skip
