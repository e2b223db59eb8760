"""Case-control association at 5,000 people x 50,000 variants: whole processes, complete output, beside PLINK 2.

12 covariates; half of the variants with up to 2 % missing calls, a fifth of them rare (0.2 to 2 %); 10 to 30 % cases.
CPU seconds are those of the process and all its threads. `BRAINLOCUS_BENCH_N` and `BRAINLOCUS_BENCH_M` change the size.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.bench_genetics import COMMAND, COVARIATES, THREADS, M, N
from benchmarks.measure import Measurement, cpu_seconds, wall_seconds
from brainlocus.core import SampleIndex, VariantTable, quantitative_table
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter, write_table

TRAITS = 16


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
            rare = rng.random((rows, 1)) < 0.2
            frequency = np.where(rare, rng.uniform(0.002, 0.02, (rows, 1)), rng.uniform(0.02, 0.98, (rows, 1)))
            calls = rng.binomial(2, frequency, (rows, N)).astype(np.float32)
            rate = np.where(rng.random((rows, 1)) < 0.5, rng.uniform(0, 0.02, (rows, 1)), 0)
            calls[rng.random(calls.shape) < rate] = np.nan
            out.append(calls)
    covariates = rng.normal(size=(N, COVARIATES))
    risk = np.log(np.linspace(0.1, 0.3, TRAITS)) + 0.3 * covariates[:, :1]
    cases = (rng.random((N, TRAITS)) < 1.0 / (1.0 + np.exp(-risk))).astype(float)
    write_table(quantitative_table(people, [f"c{k}" for k in range(COVARIATES)], covariates), folder / "covariates.tsv")
    write_table(quantitative_table(people, [f"t{k}" for k in range(TRAITS)], cases), folder / "cases.tsv")
    write_table(quantitative_table(people, [f"t{k}" for k in range(TRAITS)], cases + 1.0), folder / "plink.tsv")
    for name in ("covariates", "plink"):
        header, *lines = (folder / f"{name}.tsv").read_text().replace('"', "").splitlines()
        rows = ["#FID\tIID\t" + header.split("\t", 1)[1], *(f"{line.split(chr(9))[0]}\t{line}" for line in lines)]
        (folder / f"{name}.plink").write_text("\n".join(rows) + "\n")


def _row(name: str, command: list[str]) -> Measurement:
    def once() -> None:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    ((_, wall), cpu) = cpu_seconds(lambda: wall_seconds(once))
    print(f"{name}: {cpu:.2f} CPU s, {wall:.2f} s wall", file=sys.stderr, flush=True)
    return Measurement(name, cpu, "CPU s", None, f"{wall:.2f} s wall")


def run() -> list[Measurement]:
    """Measure logistic scans of 1 and 16 traits, by correction, and PLINK 2's Firth fallback."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make(folder)
        rows: list[Measurement] = []
        common = ["--covariates", str(folder / "covariates.tsv"), "--method", "logistic", "--executor", "threads"]
        common += ["--threads", str(THREADS), "--quiet"]
        # A first small run compiles what is not compiled yet (about 20 s, once on a machine).
        (folder / "few.txt").write_text("\n".join(f"v{k}" for k in range(200)))
        few = [*COMMAND, "gwas", "run", str(folder / "g.bed"), str(folder / "cases.tsv"), *common, "--columns", "t0"]
        few += ["--variants", str(folder / "few.txt"), "--out"]
        _row("compiling", [*few, str(folder / "first")])
        rows.append(_row("brainlocus gwas run, start-up and one small scan", [*few, str(folder / "second")]))
        for traits, label in (("t0", "1 trait"), ("t*", f"{TRAITS} traits")):
            for correction in ("firth-fallback", "firth", "firth-approx", "spa"):
                out = folder / f"out{len(rows)}"
                command = [*COMMAND, "gwas", "run", str(folder / "g.bed"), str(folder / "cases.tsv"), *common]
                command += ["--columns", traits, "--correction", correction, "--out", str(out)]
                rows.append(_row(f"brainlocus gwas run, {label}, {correction}", command))
        if shutil.which("plink2"):
            for column, label in (("--pheno-name t0", "1 trait"), ("", f"{TRAITS} traits")):
                command = ["plink2", "--bfile", str(folder / "g"), "--no-psam-pheno"]
                command += ["--pheno", str(folder / "plink.plink"), *column.split()]
                command += ["--covar", str(folder / "covariates.plink"), "--glm", "firth-fallback", "hide-covar"]
                command += ["--threads", str(THREADS), "--out", str(folder / "plink")]
                rows.append(_row(f"plink2 --glm firth-fallback, {label}", command))
        return rows
