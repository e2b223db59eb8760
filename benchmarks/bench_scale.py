"""What a scan costs against people (n), variants (m) and traits (q), and what a biobank would take.

In one process and one thread: the compute stage (read, decode, products, statistics, histogram, hits) of complete
quantitative traits with 12 covariates, beside the rate of the same processor at plain float32 matrix products of the
same shape. The exponents are least-squares fits of log CPU seconds; the projections multiply the operations of the
study by the measured time per operation of the largest run. One accelerator is arithmetic, not measured.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.core import SampleIndex, VariantTable, quantitative_table, select_genotypes
from brainlocus.core.text import text_array
from brainlocus.genetics.gwas import prepare_scan, scan_shard
from brainlocus.io import BedWriter, open_bed

BASE_N, BASE_M, BASE_Q, COVARIATES = 5_000, 20_000, 256, 12
PEOPLE, VARIANTS, TRAITS = (2_500, 5_000, 10_000, 20_000), (5_000, 10_000, 20_000), (1, 16, 64, 256, 1024)
STUDY_N, STUDY_M, STUDY_Q, STUDY_COVARIATES = 33_541, 8_469_833, 2_003, 47
"""Study A of methods/gwas.md section 0."""
SHARE_ASKED = 0.60
"""Of the processor's float32 matrix-product rate, by the compute stage."""
ACCELERATOR_FLOPS = 67e12
"""float32 of a data-centre GPU (methods/gwas.md 2.6)."""
ACCELERATOR_BYTES = 25e9
"""Bytes a second to it over PCIe 4."""


def _bed(folder: Path, n: int, m: int) -> Path:
    """Write random packed calls; 0.5 % are missing in half of the variants."""
    rng = np.random.default_rng(n + m)
    people = SampleIndex.of([f"p{k}" for k in range(n)])
    ones = text_array(["A"] * m)
    table = VariantTable(
        np.array(["1"] * m), np.arange(1, m + 1), ones, text_array(["G"] * m),
        text_array([f"v{k}" for k in range(m)]), "GRCh37",
    )  # fmt: skip
    with BedWriter(folder / f"g{n}x{m}", people, table) as out:
        for start in range(0, m, 1000):
            rows = min(1000, m - start)
            calls = rng.binomial(2, rng.uniform(0.05, 0.5, (rows, 1)), (rows, n)).astype(np.float32)
            holes = rng.random((rows, n), dtype=np.float32) < np.where(rng.random((rows, 1)) < 0.5, 0.005, 0.0)
            calls[holes] = np.nan
            out.append(calls)
    return folder / f"g{n}x{m}.bed"


def _scan_seconds(path: Path, q: int) -> float:
    """Return CPU seconds of the compute stage; the smallest of three, since others use the machine."""
    source = open_bed(path)
    rng = np.random.default_rng(1)
    people, n = source.samples, len(source.samples)
    traits = quantitative_table(people, [f"t{k}" for k in range(q)], rng.normal(size=(n, q)))
    names = [f"c{k}" for k in range(COVARIATES)]
    covariates = quantitative_table(people, names, rng.normal(size=(n, COVARIATES)))
    plan = prepare_scan(traits, people, covariates=covariates)
    chosen = select_genotypes(source, samples=plan.samples)
    scan_shard(plan, chosen, 0, 512)
    return min(cpu_seconds(lambda: scan_shard(plan, chosen, 0, len(source.variants)))[1] for _ in range(3))


def _product_rate(n: int, columns: int) -> float:
    """Return float32 operations a second of plain matrix products of the scan's shape."""
    rng = np.random.default_rng(2)
    left = rng.random((1024, n), dtype=np.float32)
    right = rng.random((n, columns), dtype=np.float32)
    out = np.empty((1024, columns), dtype=np.float32)
    repeats = max(1, int(2e10 / (2 * left.size * columns)))

    def multiply() -> None:
        for _ in range(repeats):
            np.matmul(left, right, out=out)

    multiply()
    return 2.0 * left.size * columns * repeats / min(cpu_seconds(multiply)[1] for _ in range(3))


def _exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _row(name: str, value: float, unit: str, target: float | None = None, note: str = "") -> Measurement:
    print(f"{name}: {value:.4g} {unit} {note}", file=sys.stderr, flush=True)
    return Measurement(name, value, unit, target, note)


def run() -> list[Measurement]:
    """Measure the grid, fit exponents and project the study."""
    rows: list[Measurement] = []
    with tempfile.TemporaryDirectory() as name, threadpool_limits(limits=1):
        folder = Path(name)
        paths = {(n, BASE_M): _bed(folder, n, BASE_M) for n in PEOPLE}
        paths |= {(BASE_N, m): _bed(folder, BASE_N, m) for m in VARIANTS if m != BASE_M}
        by_n = [_scan_seconds(paths[n, BASE_M], BASE_Q) for n in PEOPLE]
        by_m = [_scan_seconds(paths[BASE_N, m], BASE_Q) for m in VARIANTS]
        by_q = [_scan_seconds(paths[BASE_N, BASE_M], q) for q in TRAITS]
        for size, seconds in zip(PEOPLE, by_n, strict=True):
            rows.append(_row(f"n = {size:,} (m = {BASE_M:,}, q = {BASE_Q})", seconds, "CPU s"))
        for size, seconds in zip(VARIANTS, by_m, strict=True):
            rows.append(_row(f"m = {size:,} (n = {BASE_N:,}, q = {BASE_Q})", seconds, "CPU s"))
        for size, seconds in zip(TRAITS, by_q, strict=True):
            rows.append(_row(f"q = {size:,} (n = {BASE_N:,}, m = {BASE_M:,})", seconds, "CPU s"))
        rows.append(_row("exponent of n", _exponent(PEOPLE, by_n), ""))
        rows.append(_row("exponent of m", _exponent(VARIANTS, by_m), ""))
        rows.append(_row("exponent of q, 64 to 1,024", _exponent(TRAITS[2:], by_q[2:]), ""))
        for q, seconds in zip(TRAITS[2:], by_q[2:], strict=True):
            columns = q + COVARIATES + 1
            achieved = 2.0 * BASE_N * BASE_M * columns / seconds
            rate = _product_rate(BASE_N, columns)
            share = f"{achieved / 1e9:.0f} of {rate / 1e9:.0f} GFLOP/s; asked at least {SHARE_ASKED:.0%}"
            rows.append(_row(f"share of the product rate, q = {q}", achieved / rate, "", None, share))
        per_operation = by_q[-1] / (2.0 * BASE_N * BASE_M * (TRAITS[-1] + COVARIATES + 1))
        rows += _projections(per_operation)
    return rows


def _projections(per_operation: float) -> list[Measurement]:
    """Return hours of the study: 2,003 traits x 8.5 million variants x 33,541 people."""
    operations = 2.0 * STUDY_N * STUDY_M * (STUDY_Q + STUDY_COVARIATES)
    hours = operations * per_operation / 3600.0
    device = operations / ACCELERATOR_FLOPS / 0.6
    bus = STUDY_N * STUDY_M / 4 / ACCELERATOR_BYTES
    tests = 4.0 * STUDY_M * (STUDY_Q + STUDY_COVARIATES) / ACCELERATOR_BYTES
    note = f"{operations:.2e} operations; {per_operation**-1 / 1e9:.0f} GFLOP/s a core as measured"
    return [
        _row("study A, 2 cores (projected)", hours / 2, "hours", None, note),
        _row("study A, 64 cores (projected)", 60 * hours / 64, "minutes", None, "if cores keep their rate together"),
        _row(
            "study A, one GPU (arithmetic, not measured)", device + bus + tests, "s", None,
            f"{device:.0f} s of products at 60 % of 67 TFLOP/s, {bus:.0f} s of calls in and {tests:.0f} s of sums out; "
            "statistics on the processor come on top",
        ),
    ]  # fmt: skip
