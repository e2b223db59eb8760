"""Peak memory of the streaming commands, measured in a process of their own, against ``--memory``.

The input is several times larger than the memory given. What counts is anonymous memory: pages of memory-mapped
files belong to the system's cache and go when they are needed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brainlocus.core import Mask, SampleIndex, VariantTable, Volume, quantitative_table
from brainlocus.core.text import text_array
from brainlocus.io import BedWriter, write_mask, write_table, write_volume
from brainlocus.store import gene_peak_bytes

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc (Linux)")

N, M = 2_000, 20_000
"""160 MB of dosages in float32."""
MIB = 2**20

MEASURE = """
import gc, json, sys, threading, time
from brainlocus.cli.main import main

def anonymous():
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) * 1024 for line in stream if line.startswith("RssAnon"))

def call(arguments):
    try:
        main(arguments)
    except SystemExit as stop:
        return stop.code or 0
    return 0

def watch():
    while not done:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

assert call(json.loads(sys.argv[1])) in (0, 3), "warming up failed"
gc.collect()
base = anonymous()
peak, done = [base], False
thread = threading.Thread(target=watch)
thread.start()
code = call(json.loads(sys.argv[2]))
done = True
thread.join()
print(json.dumps({"code": code, "peak": peak[0] - base}))
"""


def measure(folder, warm, arguments, memory_mib, *more):
    """Run a command on small data and then on large data; return the exit code and what the second took, in bytes."""
    suffix = ".parquet" if arguments[0] in ("associate", "idp", "twas") else ".bgen" if "convert" in arguments else ""
    common = ("--quiet", "--threads", "2", "--memory", f"{memory_mib}MiB", *map(str, more))
    first = [*map(str, warm), "--out", str(folder / f"warm{suffix}"), *common[:3], *map(str, more)]
    second = [*map(str, arguments), "--out", str(folder / f"out{suffix}"), *common]
    environment = {
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(first), json.dumps(second)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return found["code"], found["peak"], done.stderr, folder / f"out{suffix}"


def genotypes(prefix, n, m):
    rng = np.random.default_rng(0)
    people = SampleIndex.of([f"p{k}" for k in range(n)])
    variants = VariantTable(
        np.array(["1"] * m), np.arange(m) * 1000 + 1, text_array(["A"] * m), text_array(["C"] * m),
        text_array([f"rs{k}" for k in range(m)]), "GRCh37",
    )  # fmt: skip
    with BedWriter(prefix, people, variants) as out:
        for start in range(0, m, 1000):
            size = min(1000, m - start)
            first, second = (rng.integers(0, 2, (size, n), dtype=np.int8) for _ in range(2))
            out.append((first + second).astype(np.float32))


def traits(path, n, k):
    values = np.random.default_rng(1).normal(size=(n, k))
    write_table(
        quantitative_table(SampleIndex.of([f"p{j}" for j in range(n)]), [f"t{j}" for j in range(k)], values), path
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("memory")
    genotypes(root / "large", N, M)
    genotypes(root / "small", 60, 200)
    traits(root / "large.parquet", N, 20)
    traits(root / "small.parquet", 60, 20)
    (root / "first.txt").write_text("\n".join(f"rs{k}" for k in range(20)))
    return root


GENETIC = {  # command, what fits, what does not
    "gwas": (("gwas", "run", "{g}", "{t}"), 64, 24),
    "gwas of many hits": (("gwas", "run", "{g}", "{t}", "--hits", "0.02"), 96, 32),
    "gwas by ridge": (("gwas", "run", "{g}", "{t}", "--method", "ridge", "--ridge-block", "500"), 128, 40),
    "qc": (("genotypes", "qc", "{g}"), 56, 24),
    "kinship": (("genotypes", "kinship", "{g}"), 130, 64),
    "prune": (("genotypes", "prune", "{g}"), 56, 24),
    "convert": (("genotypes", "convert", "{g}"), 72, 32),
    "grm": (("genotypes", "grm", "{g}"), 220, 64),
    "pca by passes": (("genotypes", "pca", "{g}", "--method", "krylov", "--components", "2"), 96, 32),
    "gxe": (("gwas", "gxe", "{g}", "{t}", "--columns", "t0,t1", "--exposure", "t2"), 128, 48),
    "epistasis": (("gwas", "epistasis", "{g}", "{t}", "--columns", "t0,t1", "--first", "{f}"), 128, 32),
    "pca": (("genotypes", "pca", "{g}"), 220, 64),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GENETIC)
def test_genotypes_stream_within_the_memory_given(data, tmp_path, name):
    command, enough, too_little = GENETIC[name]
    small = [a.format(g=data / "small.bed", t=data / "small.parquet", f=data / "first.txt") for a in command]
    large = [a.format(g=data / "large.bed", t=data / "large.parquet", f=data / "first.txt") for a in command]
    code, peak, message, _ = measure(tmp_path, small, large, enough)
    assert code == 0, message
    assert peak <= enough * MIB, f"{peak / MIB:.0f} MiB of {enough}"
    for path in tmp_path.glob("*"):
        path.rename(path.with_name(f"first-{path.name}"))
    code, peak, message, out = measure(tmp_path, small, large, too_little)
    assert code == 2
    assert "MiB" in message or "GiB" in message
    assert "--memory" in message
    assert not out.exists()
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.slow
def test_case_control_scans_stream_within_the_memory_given(data, tmp_path):
    """Twenty diseases, each with missing people of its own, so that each is a group with fits of its own."""
    for name, n in (("large", N), ("small", 60)):
        rng = np.random.default_rng(2)
        cases = (rng.random((n, 20)) < 0.3).astype(float)
        cases[rng.random(cases.shape) < 0.02] = np.nan
        people = SampleIndex.of([f"p{j}" for j in range(n)])
        write_table(quantitative_table(people, [f"t{j}" for j in range(20)], cases), tmp_path / f"{name}.parquet")
    commands = [
        ("gwas", "run", data / f"{name}.bed", tmp_path / f"{name}.parquet", "--method", "logistic", "--screen", "0.01")
        for name in ("small", "large")
    ]
    code, peak, message, _ = measure(tmp_path, *commands, 64)
    assert code == 0, message
    assert peak <= 64 * MIB, f"{peak / MIB:.0f} MiB of 64"
    for path in tmp_path.glob("*.json"):
        path.with_suffix("").rename(tmp_path / f"first-{path.stem}")
        path.unlink()
    code, peak, message, out = measure(tmp_path, *commands, 24)
    assert code == 2
    assert "--memory" in message
    assert not out.exists()


IMAGES, GRID = 120, (64, 72, 64)
"""135 MiB of voxels in float32."""


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.8, GRID).astype(np.float32)
    affine = np.diag([4.0, 4, 4, 1])
    paths = []
    for k in range(IMAGES):
        data = base * np.float32(1 + 0.3 * rng.random())
        data[:32] *= np.float32(1 + 0.3 * rng.random())
        write_volume(Volume(data, affine, "grey_matter"), root / f"sub-{k:03d}.nii")
        paths.append(f"sub-{k:03d}.nii")
    (root / "large.txt").write_text("\n".join(paths) + "\n")
    (root / "small.txt").write_text("\n".join(paths[:3]) + "\n")
    write_mask(Mask(np.ones(GRID, dtype=bool), affine), root / "mask.nii.gz")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("masked", [True, False], ids=["mask", "default mask"])
def test_an_atlas_is_fitted_to_more_images_than_memory_holds(images, tmp_path, masked):
    more = ("--scales", "2", *(("--mask", str(images / "mask.nii.gz")) if masked else ()))
    fit = ("atlas", "fit")
    code, peak, message, _ = measure(
        tmp_path, (*fit, images / "small.txt", *more), (*fit, images / "large.txt", *more), 64
    )
    assert code == 0, message
    assert peak <= 64 * MIB, f"{peak / MIB:.0f} MiB of 64"
    (tmp_path / "warm").rename(tmp_path / "first")
    (tmp_path / "warm.json").unlink()
    (tmp_path / "out").rename(tmp_path / "second")
    (tmp_path / "out.json").unlink()
    code, peak, message, out = measure(
        tmp_path, (*fit, images / "small.txt", *more), (*fit, images / "large.txt", *more), 4
    )
    assert code == 2
    assert "--memory" in message
    assert not out.exists()


@pytest.mark.slow
def test_extraction_takes_no_more_for_more_images(images, tmp_path):
    extract = ("--atlas", images / "mask.nii.gz")
    small, large = images / "small.txt", images / "large.txt"
    code, peak, message, _ = measure(
        tmp_path, ("idp", "extract", small, *extract), ("idp", "extract", large, *extract), 40
    )
    assert code == 0, message
    assert peak <= 40 * MIB, f"{peak / MIB:.0f} MiB of 40"
    (tmp_path / "out.parquet").unlink()
    code, _, message, out = measure(
        tmp_path, ("idp", "extract", small, *extract), ("idp", "extract", large, *extract), 4
    )
    assert code == 2
    assert "--memory" in message
    assert not out.exists()


@pytest.mark.slow
def test_a_phenome_is_scanned_within_the_memory_given(data, tmp_path):
    traits(tmp_path / "phenome.parquet", N, 4000)  # 61 MiB; a block needs several copies of itself
    small, large = data / "small.parquet", data / "large.parquet"
    scan = ("associate", "phenome")
    code, peak, message, _ = measure(tmp_path, (*scan, small, small), (*scan, large, tmp_path / "phenome.parquet"), 400)
    assert code == 0, message
    assert peak <= 400 * MIB, f"{peak / MIB:.0f} MiB of 400"
    (tmp_path / "out.parquet").unlink()
    code, _, message, out = measure(tmp_path, (*scan, small, small), (*scan, large, tmp_path / "phenome.parquet"), 40)
    assert code == 2
    assert "--memory" in message
    assert not out.exists()


@pytest.mark.slow
def test_a_prepared_transcriptome_is_scanned_within_the_memory_given(tmp_path):
    """900 phenotypes x 30,000 SNPs (206 MiB) and 2 tissues x 10,000 genes (137 MiB of results)."""
    from tests.twas_files import write_prepared

    write_prepared(tmp_path / "small", n_phenotypes=3, n_genes=20, n_snps=60)
    write_prepared(tmp_path / "large", n_phenotypes=900, n_genes=10_000, n_snps=30_000)
    scan = ("twas", "associate")
    more = ("--hits", "0.05", "--precision", "float32", "--full")
    commands = [(*scan, tmp_path / name, *more, tmp_path / f"full-{name}") for name in ("small", "large")]
    code, peak, message, _ = measure(tmp_path, *commands, 160)
    assert code == 0, message
    assert peak <= 160 * MIB, f"{peak / MIB:.0f} MiB of 160"
    (tmp_path / "out.parquet").unlink()
    code, _, message, out = measure(tmp_path, *commands, 20)
    assert code == 2
    assert "--memory" in message
    assert not out.exists()


def gene_folder(path, n_genes, n_phenotypes):
    """A folder of ``twas associate --full``: z of ten tissues, half of which is kept."""
    path.mkdir()
    rng = np.random.default_rng(3)
    names = [f"ENSG{k:011d}" for k in range(n_genes)]
    tissues = [f"Tissue_{k}" for k in range(10) for _ in range(n_genes)]
    models = {
        "tissue": tissues,
        "gene": names * 10,
        "gene_name": [""] * len(tissues),
        "pred_perf_r2": [0.1] * len(tissues),
    }
    pq.write_table(pa.table(models), path / "models.parquet")
    pq.write_table(pa.table({"phenotype": [f"p{k}" for k in range(n_phenotypes)]}), path / "phenotypes.parquet")
    np.save(path / "z.npy", rng.standard_normal((len(tissues), n_phenotypes), dtype=np.float32))
    return path


@pytest.mark.slow
def test_a_store_takes_more_associations_of_genes_than_memory_holds(tmp_path):
    """5 million associations kept, 220 MB as rows, of 10 million tests."""
    command = ("store", "build", "--twas-max-p", "0.5", "--twas")
    small, large = gene_folder(tmp_path / "small", 5, 10), gene_folder(tmp_path / "large", 400, 2_500)
    code, peak, message, out = measure(tmp_path, (*command, small), (*command, large), 200)
    assert code == 0, message
    n = json.loads((tmp_path / "out.json").read_text())["counts"]["gene_associations"]
    assert n > 4_900_000
    assert peak <= 200 * MIB, f"{peak / MIB:.0f} MiB of 200"
    assert peak <= 0.85 * 44 * n, "the rows alone are 44 bytes each"
    assert peak <= gene_peak_bytes(n_associations=n, n_models=4_000, n_genes=400, n_phenotypes=2_500)
    for path in tmp_path.glob("*"):
        path.rename(path.with_name(f"first-{path.name}"))
    again = [tmp_path / f"first-{name}" for name in ("small", "large")]
    code, peak, message, out = measure(tmp_path, (*command, again[0]), (*command, again[1]), 150)
    assert code == 2
    assert "--memory allows 150 MiB" in message
    assert not out.exists()
    assert not list(tmp_path.glob(".out*"))
