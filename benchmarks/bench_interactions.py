"""Epistasis of 1,500 HapMap3 variants in 957 people beside PLINK 1.9 in the same run; interaction with an exposure.

Needs `BRAINLOCUS_DATA` with genotypes/hapmap3_14k. CPU seconds are those of the process and all its threads; the
kernel is everything between opened genotypes and kept pairs, decoding of the file included.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.bench_genetics import COMMAND, _measured
from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.core import SampleIndex, quantitative_table, select_genotypes
from brainlocus.genetics.interactions import (
    AlignedTraits,
    CaseMethod,
    GxeSettings,
    PairRules,
    align_traits,
    prepare_cases,
    prepare_epistasis,
    prepare_gxe,
    prepare_variants,
    scan_cases,
    scan_gxe,
    scan_tile,
    variant_places,
)
from brainlocus.io import open_bed, write_table

PANEL = Path(os.environ.get("BRAINLOCUS_DATA", "/nowhere")) / "genotypes/hapmap3_14k/hm3"
M, TILE = 1500, 256
RULES = PairRules(1e-6, 0)
KERNEL_ASKED = 0.3
"""CPU seconds of issue "Interactions"; PLINK 1.9 is said to take 1.2."""
TRAITS = (1, 32)


def _kernel(source, rows: np.ndarray, traits: np.ndarray) -> int:  # noqa: ANN001
    """Return the pairs tested, from the file's bytes on."""
    selected = select_genotypes(source, variants=rows)
    names = [f"t{k}" for k in range(traits.shape[1])]
    group = prepare_epistasis(align_traits(quantitative_table(source.samples, names, traits), source.samples)).groups[0]
    dosage, places = selected.read(0, M).dosage, variant_places(selected.variants)
    index = [np.arange(k, min(k + TILE, M)) for k in range(0, M, TILE)]
    blocks = [prepare_variants(group, dosage[k], k) for k in index]
    tested = 0
    for a, row in enumerate(blocks):
        for column in blocks[a:]:
            inside = np.ones(column.index.size, dtype=bool)
            tested += int(scan_tile(group, row, column, places, RULES, in_rows=inside).n_tests[0])
    return tested


def _epistasis() -> list[Measurement]:
    source = open_bed(PANEL.with_suffix(".bed"))
    rows = np.arange(0, len(source.variants), 9)[:M]
    rng = np.random.default_rng(0)
    measured = []
    for count in TRAITS:
        traits = rng.normal(size=(len(source.samples), count))
        with threadpool_limits(1):
            _kernel(source, rows, traits)  # compiles
            tested, seconds = cpu_seconds(lambda traits=traits: _kernel(source, rows, traits))
        asked = KERNEL_ASKED if count == 1 else None
        name = f"epistasis kernel, {tested:,} pairs x {count} trait{'s' if count > 1 else ''}"
        measured.append(Measurement(name, seconds, "CPU s", asked, "957 people, one thread"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trait = rng.normal(size=len(source.samples))
        write_table(quantitative_table(source.samples, ["y"], trait[:, None]), folder / "t.tsv")
        (folder / "v.txt").write_text("\n".join(source.variants.variant_id[rows].tolist()))
        ids = [line.split()[:2] for line in PANEL.with_suffix(".fam").read_text().splitlines()]
        pheno = "\n".join(f"{f} {i} {v!r}" for (f, i), v in zip(ids, trait.tolist(), strict=True))
        (folder / "p.txt").write_text(pheno)
        ours = [
            *COMMAND, "gwas", "epistasis", PANEL.with_suffix(".bed"), folder / "t.tsv", "--variants", folder / "v.txt",
            "--min-maf", "0", "--min-distance", "0", "--threads", "2", "--quiet",
        ]  # fmt: skip
        for label, extra in (("whole process", []), ("start-up and the same with 10 variants", ["few"])):
            command = [str(c) for c in (*ours, "--out", folder / f"out{len(extra)}")]
            if extra:
                (folder / "few.txt").write_text("\n".join(source.variants.variant_id[rows[:10]].tolist()))
                command[command.index(str(folder / "v.txt"))] = str(folder / "few.txt")
            cpu, wall = _measured(command)
            measured.append(Measurement(f"gwas epistasis, {label}", cpu, "CPU s", None, f"{wall:.2f} s wall"))
        if shutil.which("plink1.9"):
            command = [
                "plink1.9", "--bfile", PANEL, "--extract", folder / "v.txt", "--pheno", folder / "p.txt", "--epistasis",
                "--epi1", "1e-6", "--allow-no-sex", "--threads", "1", "--out", folder / "plink",
            ]  # fmt: skip
            cpu, wall = _measured([str(c) for c in command])
            measured.append(
                Measurement("plink1.9 --epistasis, the same pairs", cpu, "CPU s", None, f"{wall:.2f} s wall")
            )
    return measured


def _case_control() -> list[Measurement]:
    source = open_bed(PANEL.with_suffix(".bed"))
    rows = np.arange(0, len(source.variants), 9)[:M]
    selected = select_genotypes(source, variants=rows)
    status = np.random.default_rng(0).integers(0, 2, (len(source.samples), 1)).astype(float)
    data = align_traits(quantitative_table(source.samples, ["case"], status), source.samples)
    group = prepare_epistasis(data).groups[0]
    dosage, places = selected.read(0, M).dosage, variant_places(selected.variants)

    def scan(method: CaseMethod) -> int:
        index = [np.arange(k, min(k + TILE, M)) for k in range(0, M, TILE)]
        blocks = [prepare_cases(group, dosage[k], k, method) for k in index]
        tested = 0
        for a, row in enumerate(blocks):
            for column in blocks[a:]:
                inside = np.ones(column.index.size, dtype=bool)
                tested += int(scan_cases(group, row, column, places, RULES, method, in_rows=inside).n_tests[0])
        return tested

    measured = []
    methods: tuple[CaseMethod, ...] = ("correlation", "boost")
    for method in methods:
        with threadpool_limits(1):
            scan(method)
            tested, seconds = cpu_seconds(lambda method=method: scan(method))
        measured.append(
            Measurement(f"epistasis kernel, {tested:,} pairs, {method}", seconds, "CPU s", None, "one thread")
        )
    return measured


def _gxe() -> list[Measurement]:
    n, m, k = 5000, 512, 10
    rng = np.random.default_rng(0)
    calls = rng.binomial(2, rng.uniform(0.1, 0.5, m)[:, None], (m, n)).astype(np.float32)
    measured = []
    for q in TRAITS:
        names = tuple(f"t{j}" for j in range(q))
        labels = tuple(f"c{j}" for j in range(k))
        data = AlignedTraits(SampleIndex.of(range(n)), names, rng.normal(size=(n, q)), rng.normal(size=(n, k)), labels)
        design = prepare_gxe(data, rng.normal(size=n), "e")
        with threadpool_limits(1):
            scan_gxe(design, design.groups[0], calls[:8], GxeSettings("hc3"))
            _, seconds = cpu_seconds(lambda d=design: scan_gxe(d, d.groups[0], calls, GxeSettings("hc3")))
        name = f"gxe kernel, 1,000 variants x {q} trait{'s' if q > 1 else ''}"
        note = f"{n} people, {k} covariates with all products, HC3, one thread"
        measured.append(Measurement(name, seconds * 1000 / m, "CPU s", None, note))
    return measured


def run() -> list[Measurement]:
    """Measure the pair scan, PLINK's, and the interaction scan."""
    if not PANEL.with_suffix(".bed").exists():
        print("interactions: set BRAINLOCUS_DATA to a folder with genotypes/hapmap3_14k", file=sys.stderr)
        return _gxe()
    return _epistasis() + _case_control() + _gxe()
