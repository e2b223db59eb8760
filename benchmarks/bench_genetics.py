"""Genetic stages at 5,000 people x 50,000 variants: whole processes, complete output, beside PLINK 2.

Half of the variants have up to 2 % missing calls; 12 covariates. CPU seconds are those of the process and all
its threads. `BRAINLOCUS_BENCH_N` and `BRAINLOCUS_BENCH_M` change the size.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import Measurement, cpu_seconds, wall_seconds
from brainlocus.core import SampleIndex, VariantTable, quantitative_table
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter, write_table

N, M = int(os.environ.get("BRAINLOCUS_BENCH_N", "5000")), int(os.environ.get("BRAINLOCUS_BENCH_M", "50000"))
COVARIATES, TRAITS, THREADS = 12, (1, 32, 256), 2
COMMAND = [sys.executable, "-c", "from brainlocus.cli.main import main; main()"]
ASKED = {"1 trait": 1.4, "32 traits": 2.0, "256 traits": 4.5, "256 traits, full": 7.0, "32 missing patterns": 5.0}
"""CPU seconds of issue "Genotypes and genome-wide association"."""


def _make(folder: Path) -> None:
    rng = np.random.default_rng(0)
    people = SampleIndex.of([f"p{k}" for k in range(N)])
    variants = VariantTable(
        np.array([str(1 + k * 22 // M) for k in range(M)]), np.arange(M) % (M // 22 + 1) * 1000 + 1,
        text_array(["A"] * M), text_array(["G"] * M), text_array([f"v{k}" for k in range(M)]), "GRCh37",
    )  # fmt: skip
    with BedWriter(folder / "g", people, variants, np.ones(N, dtype=np.int8)) as out:
        for start in range(0, M, 2000):
            rows = min(2000, M - start)
            calls = rng.binomial(2, rng.uniform(0.02, 0.98, (rows, 1)), (rows, N)).astype(np.float32)
            rate = np.where(rng.random((rows, 1)) < 0.5, rng.uniform(0, 0.02, (rows, 1)), 0)
            calls[rng.random(calls.shape) < rate] = np.nan
            out.append(calls)
    write_table(
        quantitative_table(people, [f"c{k}" for k in range(COVARIATES)], rng.normal(size=(N, COVARIATES))),
        folder / "covariates.tsv",
    )
    for q in TRAITS:
        write_table(
            quantitative_table(people, [f"t{k}" for k in range(q)], rng.normal(size=(N, q))), folder / f"t{q}.tsv"
        )
    holes = rng.normal(size=(N, 32))
    holes[rng.random(holes.shape) < 0.05] = np.nan
    write_table(quantitative_table(people, [f"t{k}" for k in range(32)], holes), folder / "holes.tsv")
    for name in ("covariates", *(f"t{q}" for q in TRAITS[:2])):
        header, *lines = (folder / f"{name}.tsv").read_text().replace('"', "").splitlines()
        rows = ["#FID\tIID\t" + header.split("\t", 1)[1], *(f"{line.split(chr(9))[0]}\t{line}" for line in lines)]
        (folder / f"{name}.plink").write_text("\n".join(rows) + "\n")


def _measured(command: list[str]) -> tuple[float, float]:
    """Return CPU and wall seconds of a process that must succeed."""

    def once() -> None:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    ((_, wall), cpu) = cpu_seconds(lambda: wall_seconds(once))
    return cpu, wall


def _row(name: str, command: list[str], target: float | None = None) -> Measurement:
    cpu, wall = _measured(command)
    print(f"{name}: {cpu:.2f} CPU s, {wall:.2f} s wall", file=sys.stderr, flush=True)
    return Measurement(name, cpu, "CPU s", target, f"{wall:.2f} s wall")


def run() -> list[Measurement]:
    """Measure scans, relationship matrix, components, quality control and REML."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make(folder)
        common = ["--threads", str(THREADS), "--quiet"]
        g, bed = folder / "g", folder / "g.bed"
        rows: list[Measurement] = []

        def ours(label: str, *arguments: object, target: float | None = None) -> None:
            out = folder / (f"out{len(rows)}" + (".parquet" if arguments[0] == "heritability" else ""))
            command = [*COMMAND, *map(str, arguments), "--out", str(out), *common]
            if arguments[0] != "heritability" and "--variants" not in arguments:
                # Kernels are compiled once in the life of an installation; here, before the clock starts.
                first = folder / f"first-{out.name}"
                subprocess.run(
                    [*COMMAND, *map(str, arguments), "--variants", str(_few(folder)), "--out", str(first), *common],
                    check=False,
                    capture_output=True,
                )
            rows.append(_row(f"brainlocus {label}", command, target))

        def plink(label: str, *arguments: object) -> None:
            if shutil.which("plink2"):
                command = ["plink2", *map(str, arguments), "--threads", str(THREADS), "--out", str(folder / "plink")]
                rows.append(_row(f"plink2 {label}", command))

        covariates = ("--covariates", folder / "covariates.tsv", "--executor", "threads")
        ours(
            "start-up and one small scan",
            "gwas",
            "run",
            bed,
            folder / "t1.tsv",
            *covariates,
            "--variants",
            _few(folder),
        )
        for q in TRAITS:
            label = f"{q} trait{'s' if q > 1 else ''}"
            ours(f"gwas run, {label}", "gwas", "run", bed, folder / f"t{q}.tsv", *covariates, target=ASKED[label])
            if q <= 32:
                glm = ("--pheno", folder / f"t{q}.plink", "--covar", folder / "covariates.plink", "--glm", "hide-covar")
                plink(f"--glm, {label}", "--bfile", g, "--no-psam-pheno", *glm)
        full = "256 traits, full"
        ours(f"gwas run, {full}", "gwas", "run", bed, folder / "t256.tsv", *covariates, "--full", target=ASKED[full])
        exact = ("gwas", "run", bed, folder / "t32.tsv", *covariates, "--missing", "exact")
        ours("gwas run, 32 traits, exact", *exact)
        patterns = "32 missing patterns"
        ours(f"gwas run, {patterns}", "gwas", "run", bed, folder / "holes.tsv", *covariates, target=ASKED[patterns])
        ours("genotypes qc", "genotypes", "qc", bed, target=1.0)
        plink("--freq --missing --hardy", "--bfile", g, "--freq", "--missing", "--hardy")
        ours("genotypes prune", "genotypes", "prune", bed, target=1.5)
        plink("--indep-pairwise 200 50 0.2", "--bfile", g, "--indep-pairwise", "200", "50", "0.2")
        ours("genotypes kinship", "genotypes", "kinship", bed, target=6.0)
        plink("--king-cutoff 0.0884", "--bfile", g, "--king-cutoff", "0.0884")
        ours("genotypes grm", "genotypes", "grm", bed, target=14.0)
        ours("genotypes pca, 40 exact", "genotypes", "pca", bed, "--components", "40", target=22.0)
        grm = folder / f"out{len(rows) - 2}.grm.bin"
        ours("heritability greml, 32 traits", "heritability", "greml", grm, folder / "t32.tsv")
        return rows


def _few(folder: Path) -> Path:
    path = folder / "few.txt"
    path.write_text("\n".join(f"v{k}" for k in range(100)))
    return path
