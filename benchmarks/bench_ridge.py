"""Whole-genome ridge regression: one block and one stack beside their floors, and the whole command.

CPU seconds of one thread. The floor counts the flop of the module's docstring at the speed of a float32 matrix product
of this machine (float64 for the factors), measured beside it. `BRAINLOCUS_BENCH_N` and `BRAINLOCUS_BENCH_M` change
the size.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measure import Measurement, cpu_seconds, wall_seconds
from brainlocus.core import SampleIndex, VariantTable, quantitative_table
from brainlocus.core.text import text_array
from brainlocus.genetics.gwas import RidgeSettings, fit_block, prepare_ridge, stack_predictions
from brainlocus.io import BedWriter, write_table

N, M = int(os.environ.get("BRAINLOCUS_BENCH_N", "5000")), int(os.environ.get("BRAINLOCUS_BENCH_M", "50000"))
BLOCK, COVARIATES = 1000, 12
COMMAND = [sys.executable, "-c", "from brainlocus.cli.main import main; main()"]


def _speed(dtype: type) -> float:
    """Return flop per second of a matrix product of one thread, best of three."""
    a = np.ones((1500, 1500), dtype=dtype)
    return 2 * 1500**3 / min(cpu_seconds(lambda: a @ a)[1] for _ in range(3))


def _block(n: int, n_traits: int, method: Literal["folds", "loo"], speed: tuple[float, float]) -> Measurement:
    """Measure level 0 of one block, predictions included."""
    rng = np.random.default_rng(0)
    settings = RidgeSettings(BLOCK, cross_validation=method)
    dosage = rng.binomial(2, 0.4, (BLOCK, n)).astype(np.float32)
    traits, covariates = rng.normal(size=(n, n_traits)), rng.normal(size=(n, COVARIATES))
    (design,), _ = prepare_ridge(traits, covariates, np.arange(n) % 5, settings=settings)
    fit_block(design, dosage[:8], M, settings)
    taken = min(cpu_seconds(lambda: fit_block(design, dosage, M, settings).predict(slice(None)))[1] for _ in range(3))
    products = n * BLOCK**2 + 4 * n * BLOCK * COVARIATES + 2 * n * BLOCK * n_traits * 6
    floor = products / speed[0] + (25 * BLOCK**3 / 3 + 50 * BLOCK**2 * n_traits) / speed[1]
    note = f"floor {floor:.2f} CPU s" if method == "folds" else ""
    return Measurement(f"block of {BLOCK} x {n}, {n_traits} traits, {method}", taken, "CPU s", None, note)


def _stack(n: int, n_blocks: int, method: Literal["folds", "loo"], speed: tuple[float, float]) -> Measurement:
    """Measure level 1 of one trait."""
    rng = np.random.default_rng(0)
    settings = RidgeSettings(BLOCK, cross_validation=method)
    (design,), _ = prepare_ridge(rng.normal(size=(n, 1)), np.empty((n, 0)), np.arange(n) % 5, settings=settings)
    n_columns = 5 * n_blocks
    columns = rng.normal(size=(n_columns, n)).astype(np.float32)
    where = np.array([str(1 + k * 22 // n_columns) for k in range(n_columns)])
    taken = cpu_seconds(lambda: stack_predictions(design, 0, columns, where, n, settings))[1]
    floor = n * n_columns**2 / speed[0] + 25 * n_columns**3 / 3 / speed[1]
    note = f"floor {floor:.2f} CPU s" if method == "folds" else ""
    return Measurement(f"level 1 of one trait, {n_blocks} blocks x {n}, {method}", taken, "CPU s", None, note)


def _kernels() -> list[Measurement]:
    speed = _speed(np.float32), _speed(np.float64)
    methods: tuple[Literal["folds", "loo"], ...] = ("folds", "loo")
    rows = [_block(n, q, m, speed) for n, q in ((N, 1), (N, 32), (N, 256), (35_000, 36)) for m in methods]
    return rows + [_stack(n, b, m, speed) for n, b in ((N, M // BLOCK), (35_000, 500)) for m in methods]


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
            out.append(rng.binomial(2, rng.uniform(0.05, 0.95, (rows, 1)), (rows, N)).astype(np.float32))
    names = [f"c{k}" for k in range(COVARIATES)]
    write_table(quantitative_table(people, names, rng.normal(size=(N, COVARIATES))), folder / "covariates.tsv")
    for q in (1, 32):
        traits = quantitative_table(people, [f"t{k}" for k in range(q)], rng.normal(size=(N, q)))
        write_table(traits, folder / f"t{q}.tsv")


def _command(folder: Path, traits: str, method: str) -> Measurement:
    out = folder / f"{traits}-{method}"
    command = [
        *COMMAND, "gwas", "run", str(folder / "g.bed"), str(folder / f"{traits}.tsv"), "--method", method,
        "--covariates", str(folder / "covariates.tsv"), "--out", str(out), "--threads", "2", "--executor", "threads",
        "--quiet",
    ]  # fmt: skip

    def once() -> None:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    ((_, wall), cpu) = cpu_seconds(lambda: wall_seconds(once))
    return Measurement(f"gwas run {method}, {traits[1:]} traits, {N} x {M}", cpu, "CPU s", None, f"{wall:.1f} s wall")


def run() -> list[Measurement]:
    """Measure the kernels of both levels and the command with and without the regression."""
    with threadpool_limits(1):
        rows = _kernels()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make(folder)
        return rows + [_command(folder, traits, method) for traits in ("t1", "t32") for method in ("linear", "ridge")]
