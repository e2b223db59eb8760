"""What the results of a whole study cost: sets drawn, tissues counted, cohorts compared, terms tested.

Sizes are those of the study of 3,935 phenotypes, 22,815 genes and 19 tissues, or a part that is named. CPU seconds, one
thread; peak memory of a process of its own, less that of its start.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from benchmarks.bench_genetics import COMMAND, _measured
from benchmarks.measure import Measurement, cpu_seconds
from brainlocus.core import GeneAssociations, GeneMatrix
from brainlocus.genetics.genes import annotate, enrich, term_graph
from brainlocus.genetics.twas import (
    NON_BRAIN_TISSUES,
    blocks_of_genes,
    count_hits,
    gene_strata,
    internal_replication,
    mark_significant,
    pair_tissue,
    permute_set,
    tissue_specificity,
)
from brainlocus.numerics import neg_log10_p_from_z

GENES, TISSUES, PHENOTYPES, SET, CHOSEN, DRAWS = 22_815, 19, 3_935, 50, 45, 1000
THRESHOLDS = (0.05, 0.01, 0.005, 0.001, 5e-4, 1e-4)
BRAIN = np.array(["brain"] * 13 + ["other"] * 6)
ASKED_DRAWS = 0.1
MILLION = 1_000_000


def _models(rng: np.random.Generator) -> np.ndarray:
    modelled = rng.uniform(size=(GENES, TISSUES)) < rng.uniform(0.05, 0.9, GENES)[:, None]
    modelled[np.arange(GENES), rng.integers(0, TISSUES, GENES)] = True
    return modelled


def _tests(n: int, modelled: np.ndarray, phenotypes: int, rng: np.random.Generator) -> GeneAssociations:
    """Return about n distinct tests with p up to 0.05, half of them of genes with effects in every tissue."""
    models = np.flatnonzero(modelled.ravel())
    broad = np.flatnonzero(modelled[: GENES // 20].ravel())
    cell = np.concatenate(
        [
            models[rng.integers(0, models.size, n // 2)] * phenotypes + rng.integers(0, phenotypes, n // 2),
            broad[rng.integers(0, broad.size, n // 2)] * phenotypes + rng.integers(0, phenotypes // 10, n // 2),
        ]
    )
    cell = np.unique(cell)
    cell = cell[rng.permutation(cell.size)]
    model, phenotype = cell // phenotypes, cell % phenotypes
    z = rng.choice([-1.0, 1.0], cell.size) * (1.96 + rng.exponential(1.0, cell.size))
    names = (np.array([f"ENSG{k:011d}" for k in range(GENES)]), np.array([f"t{k}" for k in range(TISSUES)]))
    nothing = np.full(cell.size, np.nan)
    return GeneAssociations(
        names[0],
        np.full(GENES, ""),
        names[1],
        np.array([f"aparc-a2009s_lh_thickness_G-front-middle-{k}" for k in range(phenotypes)]),
        (model // TISSUES).astype(np.int32),
        (model % TISSUES).astype(np.int32),
        phenotype.astype(np.int32),
        z,
        nothing,
        neg_log10_p_from_z(z),
        nothing,
    )


def _draws() -> list[Measurement]:
    rng = np.random.default_rng(0)
    modelled = _models(rng)
    everyone = np.ones(GENES, dtype=bool)
    measured = []
    for phenotypes, n in ((CHOSEN, 500_000), (PHENOTYPES, 10 * MILLION)):
        tests = _tests(n, modelled, phenotypes, rng)
        hits, seconds = cpu_seconds(lambda t=tests, p=phenotypes: count_hits(t, np.arange(p), THRESHOLDS))
        name = f"counting {len(tests) / MILLION:.1f} million tests, {phenotypes:,} phenotypes, 6 thresholds"
        measured.append(Measurement(name, seconds, "CPU s"))
        members = rng.choice(GENES, SET, replace=False)
        ways = {
            "none": gene_strata(members, everyone),
            "models": gene_strata(members, everyone, modelled.sum(axis=1).astype(float), exact=True),
            "blocks": blocks_of_genes(members, everyone, np.sort(rng.integers(0, 1703, GENES))),
        }
        for match, way in ways.items():
            _, seconds = cpu_seconds(lambda w=way: permute_set(hits, members, w, n_draws=DRAWS, rng=rng))  # noqa: B023
            asked = ASKED_DRAWS if phenotypes == CHOSEN else None
            name = f"1,000 draws of 50 genes, match {match}, {phenotypes:,} phenotypes"
            measured.append(Measurement(name, seconds, "CPU s", asked))
    return measured


def _specificity(millions: int) -> tuple[float, float, float]:
    """Return tests, CPU seconds and peak bytes above those of the tests themselves."""
    rng = np.random.default_rng(0)
    modelled = _models(rng)
    tests = _tests(millions * MILLION, modelled, PHENOTYPES, rng)
    n_tested = np.broadcast_to(modelled.sum(axis=0)[:, None], (TISSUES, PHENOTYPES)).copy()
    scope = np.zeros(n_tested.shape, dtype=np.int64)
    # The peak so far is that of making the tests; what follows is counted from what they hold now.
    held = _resident()

    def analyse() -> None:
        passed = mark_significant(tests, n_tested, scope, method="p")
        tissue_specificity(tests.take(np.flatnonzero(passed)), modelled, n_tested, BRAIN)

    _, seconds = cpu_seconds(analyse)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return len(tests), seconds, peak - held


def _resident() -> int:
    with open("/proc/self/statm") as stream:  # noqa: PTH123
        return int(stream.read().split()[1]) * resource.getpagesize()


def _in_own_process(millions: int) -> list[Measurement]:
    code = f"from benchmarks.bench_twas_resource import _specificity; print(*_specificity({millions}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    n, seconds, extra = map(float, done.stdout.split())
    name = f"specificity of {n / MILLION:.1f} million significant tests"
    return [
        Measurement(name, seconds, "CPU s", None, f"{seconds / n * 40 * MILLION:.0f} s for 40 million"),
        Measurement(f"{name}: memory beside the tests", extra / 2**30, "GiB", None, f"{extra / n:.0f} bytes a test"),
    ]


def _replication() -> Measurement:
    rng = np.random.default_rng(0)
    genes, phenotypes = 9_161, 500
    names = np.array([f"g{k}" for k in range(genes)]), np.array([f"p{k}" for k in range(phenotypes)])
    truth = rng.normal(size=(genes, phenotypes)) * 0.5
    cohorts = [GeneMatrix("t", names[0], names[0], names[1], truth + rng.normal(size=truth.shape)) for _ in range(2)]
    _, seconds = cpu_seconds(lambda: internal_replication([pair_tissue(*cohorts)]))
    n = genes * phenotypes
    whole = seconds / n * 9_161 * TISSUES * PHENOTYPES
    return Measurement(
        f"replication, {n / MILLION:.1f} million tests", seconds, "CPU s", None, f"3,935 x 19: {whole:.0f} s"
    )


def _ontology() -> list[Measurement]:
    """Measure propagation and a cluster on a simulated ontology of the size of GO's biological processes."""
    rng = np.random.default_rng(0)
    terms, genes, direct = 28_000, 19_000, 157_000
    names = np.array([f"GO:{k:07d}" for k in range(terms)])
    child = np.r_[np.arange(1, terms), np.arange(2, terms)]
    parent = (child * rng.uniform(0, 1, child.size) ** 2).astype(int)
    graph = term_graph(names, names, np.repeat("BP", terms), (names[child], names[parent], ["isa"] * child.size))
    pairs = rng.integers(0, genes, direct), rng.integers(0, terms, direct)
    labels = [f"g{k}" for k in pairs[0]], names[pairs[1]].tolist()
    annotation, seconds = cpu_seconds(lambda: annotate(graph, *labels))
    shape = annotation.genes.size
    universe, members = rng.uniform(size=shape) < 0.5, rng.uniform(size=shape) < 0.02
    found, each = cpu_seconds(lambda: enrich(annotation, universe, members, "c"))
    return [
        Measurement(f"true paths of {direct:,} annotations, {terms:,} terms", seconds, "CPU s"),
        Measurement(f"a cluster of {int(members.sum())} genes, {found.term.size:,} terms tested", each, "CPU s"),
    ]


def _folder() -> list[Measurement]:
    """Measure the commands on a folder of whole matrices: 19 tissues, 100 phenotypes."""
    rng = np.random.default_rng(0)
    modelled, phenotypes = _models(rng), 100
    tissue, gene = np.nonzero(modelled.T)
    labels = [f"Brain_{k}" for k in range(13)] + [name.replace(" ", "_") for name in NON_BRAIN_TISSUES]
    truth = 3 * rng.normal(size=(GENES, phenotypes)) * (rng.uniform(size=(GENES, phenotypes)) < 0.03)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "full"
        folder.mkdir()
        np.save(folder / "z.npy", (truth[gene] + rng.normal(size=(gene.size, phenotypes))).astype(np.float32))
        models = {
            "tissue": [labels[t] for t in tissue],
            "gene": [f"ENSG{g:011d}" for g in gene],
            "gene_name": [f"S{g}" for g in gene],
            "pred_perf_r2": rng.uniform(0, 0.4, gene.size),
        }
        pq.write_table(pa.table(models), folder / "models.parquet")
        pq.write_table(pa.table({"phenotype": [f"p{k}" for k in range(phenotypes)]}), folder / "phenotypes.parquet")
        (Path(name) / "genes.txt").write_text("\n".join(f"S{k}" for k in range(SET)))
        (Path(name) / "phenotypes.txt").write_text("\n".join(f"p{k}" for k in range(CHOSEN)))
        lists = ["--genes", f"{name}/genes.txt", "--phenotypes", f"{name}/phenotypes.txt"]
        measured = []
        for verb, more in (("specificity", []), ("enrich", lists), ("replicate", [str(folder)])):
            out = f"{name}/{verb}" + (".parquet" if verb == "replicate" else "")
            command = [*COMMAND, "twas", verb, folder, *more, "--quiet", "--out", out]
            cpu, wall = _measured([str(c) for c in command])
            text = f"twas {verb}, folder of {gene.size * phenotypes / MILLION:.0f} million tests, whole process"
            measured.append(Measurement(text, cpu, "CPU s", None, f"{wall:.1f} s wall"))
    return measured


def run() -> list[Measurement]:
    """Measure the analyses of a study's results."""
    with threadpool_limits(1):
        return [*_draws(), *_in_own_process(4), _replication(), *_ontology(), *_folder()]
