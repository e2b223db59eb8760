"""Genotype formats at 5,000 people x 5,000 variants: rates of reading, and conversions beside PLINK 2.

Rates are genotypes (people x variants) a CPU second. The BGEN file is as a biobank's: 8 bits, zlib, imputed
probabilities most of which are certain. `BRAINLOCUS_BENCH_N` and `BRAINLOCUS_BENCH_FORMATS_M` change the size.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.core import SampleIndex, VariantTable
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter, BgenWriter, PgenWriter, open_bed, open_bgen, open_pgen

N = int(os.environ.get("BRAINLOCUS_BENCH_N", "5000"))
M = int(os.environ.get("BRAINLOCUS_BENCH_FORMATS_M", "5000"))
COMMAND = [sys.executable, "-c", "from brainlocus.cli.main import main; main()"]


def _make(folder: Path) -> None:
    rng = np.random.default_rng(0)
    people = SampleIndex.of([f"p{k}" for k in range(N)])
    variants = VariantTable(
        np.array(["1"] * M), np.arange(M) * 1000 + 1, text_array(["A"] * M), text_array(["G"] * M),
        text_array([f"v{k}" for k in range(M)]), "GRCh37",
    )  # fmt: skip
    sex = np.ones(N, dtype=np.int8)
    with (
        BgenWriter(folder / "imputed", people, variants, sex) as imputed,
        BedWriter(folder / "calls", people, variants, sex) as bed,
        PgenWriter(folder / "calls", people, variants, sex) as pgen,
    ):
        for start in range(0, M, 500):
            rows = min(500, M - start)
            frequency = rng.beta(0.5, 2, (rows, 1))
            calls = rng.binomial(2, frequency, (rows, N)).astype(np.float32)
            # One genotype in ten is uncertain: its neighbour has up to half of the probability.
            doubt = np.where(rng.random((rows, N)) < 0.1, rng.uniform(0, 0.5, (rows, N)), 0).astype(np.float32)
            one = np.where(calls == 1, 1 - doubt, doubt)
            two = np.where(calls == 2, 1 - doubt, np.where(calls == 1, doubt, 0))
            imputed.append_probabilities(one.astype(np.float32), two.astype(np.float32))
            bed.append(calls)
            pgen.append(calls)


def _rate(name: str, read: Callable[[], object], note: str = "") -> Measurement:
    read()
    best = min(cpu_seconds(read)[1] for _ in range(3))
    return Measurement(name, N * M / best / 1e9, "1e9/s", None, note)


def _run(command: list[str]) -> Callable[[], object]:
    def call() -> object:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return call


def _conversions(folder: Path) -> list[Measurement]:
    rows = []
    imputed = ("--bgen", "imputed.bgen", "ref-first", "--sample", "imputed.sample")
    ways = {
        "imputed.bgen to .pgen": ("imputed.bgen", "a.pgen", (*imputed, "--make-pgen")),
        "calls.pgen to .bed": ("calls.pgen", "b.bed", ("--pfile", "calls", "--make-bed")),
        "calls.bed to .pgen": ("calls.bed", "c.pgen", ("--bfile", "calls", "--make-pgen")),
        "calls.bed to .bgen": ("calls.bed", "d.bgen", ("--bfile", "calls", "--export", "bgen-1.2", "bits=8")),
    }  # fmt: skip
    for label, (start, target, arguments) in ways.items():
        ours = [*COMMAND, "genotypes", "convert", str(folder / start), "--out", str(folder / target), "--threads", "2"]
        rows.append(Measurement(f"convert {label}", cpu_seconds(_run(ours))[1], "CPU s"))
        if shutil.which("plink2"):
            filled = [str(folder / a) if (folder / a).exists() or a == "calls" else a for a in arguments]
            theirs = ["plink2", *filled, "--threads", "2", "--out", str(folder / "plink")]
            rows.append(Measurement(f"plink2 {label}", cpu_seconds(_run(theirs))[1], "CPU s"))
    return rows


def run() -> list[Measurement]:
    """Return rates of reading and CPU seconds of conversions."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make(folder)
        bgen, bed, pgen = (
            open_bgen(folder / "imputed.bgen"),
            open_bed(folder / "calls.bed"),
            open_pgen(folder / "calls.pgen"),
        )
        blocks = [zlib.compress(block) for block in bgen._blocks(0, M)]
        return [
            _rate("zlib alone, the blocks of imputed.bgen", lambda: [zlib.decompress(b) for b in blocks]),
            _rate("imputed.bgen, dosages", lambda: bgen.read(0, M)),
            _rate("imputed.bgen, probabilities", lambda: bgen.read_probabilities(0, M)),
            _rate("calls.pgen, dosages", lambda: pgen.read(0, M)),
            _rate("calls.pgen, packed", lambda: pgen.read_packed(0, M)),
            _rate("calls.bed, dosages", lambda: bed.read(0, M)),
            _rate("calls.bed, packed", lambda: bed.read_packed(0, M)),
            *_conversions(folder),
        ]
