"""`twas cluster`: correlations of phenotypes beside pandas and SciPy, and the whole command at the size of BIG40.

`BRAINLOCUS_BENCH_PHENOTYPES` changes the number of phenotypes of the whole command (3,934).
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.genetics.twas import adjusted_rand, rank_levels, spearman
from brainlocus.io import read_results

GENES, PHENOTYPES = 9_161, 1_000
ALL_GENES, ALL_PHENOTYPES = 12_700, int(os.environ.get("BRAINLOCUS_BENCH_PHENOTYPES", "3934"))
LOBES = 9


def _scipy(z: np.ndarray) -> np.ndarray:
    return np.corrcoef(rankdata(z, axis=0), rowvar=False)


def _similarity() -> list[Measurement]:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(GENES, PHENOTYPES)) + rng.normal(size=(GENES, 1))
    spearman(rank_levels(z[:20]))  # compile
    ranked, rank_seconds = cpu_seconds(lambda: rank_levels(z))
    rho, product_seconds = cpu_seconds(lambda: spearman(ranked))
    theirs, scipy_seconds = cpu_seconds(lambda: _scipy(z))
    rows = [
        Measurement(f"Spearman, {GENES} x {PHENOTYPES}: ranks", rank_seconds, "CPU s", 0.8),
        Measurement(f"Spearman, {GENES} x {PHENOTYPES}: product", product_seconds, "CPU s", 0.25),
        Measurement("same, SciPy rankdata and corrcoef", scipy_seconds, "CPU s"),
        Measurement("largest difference from it", float(np.abs(rho - theirs).max()) * 1e12, "1e-12", 1.0),
    ]
    few = z[:, :200].copy()
    holes = np.random.default_rng(1).random(few.shape) < 0.002
    for name, where in (("complete", np.zeros_like(holes)), ("each with its own missing genes", holes)):
        values = np.where(where, np.nan, few)
        frame = pd.DataFrame(values)
        ours, seconds = cpu_seconds(lambda values=values: spearman(rank_levels(values)))
        theirs, pandas_seconds = cpu_seconds(lambda frame=frame: frame.corr(method="spearman").to_numpy())
        rows += [
            Measurement(f"Spearman, {GENES} x 200, {name}", seconds, "CPU s"),
            Measurement("same, pandas corr", pandas_seconds, "CPU s"),
            Measurement("largest difference from it", float(np.abs(ours - theirs).max()) * 1e12, "1e-12", 1.0),
        ]
    groups = z.copy()
    for k in range(10):
        groups[rng.random(GENES) < 0.05, k::10] = np.nan
    _, seconds = cpu_seconds(lambda: spearman(rank_levels(groups)))
    rows.append(Measurement(f"Spearman, {GENES} x {PHENOTYPES}, ten patterns of missing genes", seconds, "CPU s"))
    return rows


def _folder(folder: Path) -> np.ndarray:
    """Write z of planted lobes and return the lobe of every phenotype."""
    rng = np.random.default_rng(1)
    lobe = np.tile(rng.integers(0, LOBES, ALL_PHENOTYPES // 2), 2)
    folder.mkdir()
    shape = (ALL_GENES, lobe.size)
    z = np.lib.format.open_memmap(folder / "z.npy", mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, ALL_GENES, 1000):
        rows = min(1000, ALL_GENES - start)
        shared, own = rng.normal(size=(rows, LOBES)), rng.normal(size=(rows, lobe.size // 2))
        z[start : start + rows] = shared[:, lobe] + np.tile(own, 2) + rng.normal(size=(rows, lobe.size))
    z.flush()
    genes = [f"ENSG{k:011d}" for k in range(ALL_GENES)]
    models = {"tissue": ["Brain_Cortex"] * ALL_GENES, "gene": genes, "gene_name": genes}
    pq.write_table(pa.table({**models, "pred_perf_r2": np.full(ALL_GENES, 0.1)}), folder / "models.parquet")
    pq.write_table(pa.table({"phenotype": [f"P{k}" for k in range(lobe.size)]}), folder / "phenotypes.parquet")
    return lobe


def _whole() -> list[Measurement]:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        lobe = _folder(root / "full")
        for embed in ("none", "pca", "umap"):
            out = root / embed
            command = [sys.executable, "-c", "from brainlocus.cli.main import main; main()", "twas", "cluster"]
            command += [str(root / "full"), "--embed", embed, "--memory", "2GiB", "--threads", "1", "--quiet"]
            _, seconds = cpu_seconds(
                lambda command=command, out=out: subprocess.run([*command, "--out", str(out)], check=True)
            )
            peak = json.loads(Path(f"{out}.json").read_text())["run"]["peak_memory_bytes"] / 2**30
            size = f"{lobe.size} x {ALL_GENES}"
            rows.append(
                Measurement(f"twas cluster, {size}, --embed {embed}", seconds, "CPU s", None, f"{peak:.2f} GiB")
            )
        clusters = read_results(root / "none" / "clusters.parquet")["cluster"]
        rows.append(Measurement("adjusted Rand index of planted lobes", adjusted_rand(clusters, lobe), ""))
    return rows


def run() -> list[Measurement]:
    """Measure the correlations alone, then the command."""
    with threadpool_limits(1):
        return _similarity() + _whole()
