"""Transcriptome-wide association: kernels, reading of GWAS, prepared studies, false discovery rates.

The reference program takes 16 CPU s for each phenotype and tissue (MetaXcan's SPrediXcan.py, recorded: it is on no
package registry). ``BRAINLOCUS_BENCH_PHENOTYPES=3935`` runs the prepared study at full size: 11 GB of disk.
"""

import gzip
import os
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from jaxtyping import Float

from benchmarks.measure import Measurement, cpu_seconds, wall_seconds
from brainlocus.core import ExpressionModel, GeneCovariance
from brainlocus.genetics.twas import PhenotypeBlock, prepare_tissue, scan_genes, unite_snps, weigh_genes
from brainlocus.io.gwas_columns import choose_columns
from brainlocus.io.gwas_rows import GwasReader, gwas_header
from brainlocus.numerics import neg_log10_p_from_z
from brainlocus.numerics.streaming_fdr import TestBlock, fdr_curves
from brainlocus.pipeline.runner import RunOptions, execute
from brainlocus.pipeline.steps.twas import TWAS_ASSOCIATE
from brainlocus.pipeline.twas_gwas import write_phenotypes
from brainlocus.pipeline.twas_models import ModelSet, write_model_set

PEER_SECONDS = 16.0
"""CPU seconds of the reference program for a phenotype and tissue."""
TISSUES, PHENOTYPES = 19, 3_935
GENES, WEIGHTS = 12_714, 19_170
"""Of GTEx v8 MASH-R Liver."""


def run() -> list[Measurement]:
    return [*_kernel(GENES, WEIGHTS, "MASH-R Liver's size"), *_kernel(9_161, 82_542, "JTI cortex's size"),
            *_text(), *_prepared(), *_rates()]  # fmt: skip


def _model(
    n_genes: int, n_weights: int, rng: np.random.Generator, prefix: str = "rs"
) -> tuple[ExpressionModel, GeneCovariance]:
    """Return a model of the size of a published one, with the covariance of its SNPs."""
    sizes = 1 + rng.multinomial(n_weights - n_genes, np.full(n_genes, 1 / n_genes))
    offsets = np.r_[0, np.cumsum(sizes)].astype(np.int64)
    names = np.array([f"{prefix}{k}" for k in range(n_weights)])
    genes = np.array([f"ENSG{k:011d}" for k in range(n_genes)])
    nothing = np.full(n_genes, np.nan)
    model = ExpressionModel(
        "tissue", genes, genes, offsets, names, np.full(n_weights, "A"), np.full(n_weights, "G"),
        rng.normal(size=n_weights), sizes.astype(np.int64), nothing, nothing, nothing, nothing,
    )  # fmt: skip
    pairs = [np.triu_indices(int(size)) for size in sizes]
    first = np.concatenate([offsets[g] + a for g, (a, _) in enumerate(pairs)])
    second = np.concatenate([offsets[g] + b for g, (_, b) in enumerate(pairs)])
    value = np.where(first == second, 0.4, 0.05)
    counts = sizes * (sizes + 1) // 2
    return model, GeneCovariance(
        genes,
        np.r_[0, np.cumsum(counts)].astype(np.int64),
        names,
        first.astype(np.int32),
        second.astype(np.int32),
        value,
    )


def _kernel(n_genes: int, n_weights: int, what: str, n_phenotypes: int = 500) -> list[Measurement]:
    rng = np.random.default_rng(0)
    model, covariance = _model(n_genes, n_weights, rng)
    snps = unite_snps([model], [model.snps])
    tissue = prepare_tissue(model, covariance, entry=snps.entry[0], sign=snps.sign[0])
    z = rng.normal(size=(snps.n_entries, n_phenotypes))
    block = PhenotypeBlock(z, 0.01 * z)
    out, effect = np.empty((n_genes, n_phenotypes)), np.empty((n_genes, n_phenotypes))
    scan_genes(weigh_genes(tissue, np.ones(snps.n_entries, dtype=bool)), PhenotypeBlock(z[:, :1], z[:, :1]), out[:, :1],
               effect[:, :1])  # fmt: skip

    def scan() -> None:
        weights = weigh_genes(tissue, np.ones(snps.n_entries, dtype=bool))
        scan_genes(weights, block, out, effect)

    _, products = cpu_seconds(scan)
    _, tails = cpu_seconds(lambda: neg_log10_p_from_z(out))
    seconds = products + tails
    flops = 4 * n_weights * n_phenotypes
    whole = products * PHENOTYPES / n_phenotypes * TISSUES
    shape = f"{n_genes:,} genes, {n_weights:,} weights x {n_phenotypes} phenotypes ({what})"
    return [
        Measurement("z, effects and p of a model, CPU", seconds, "s", 1.0, shape),
        Measurement("of that, z and effects", products, "s", None, f"{flops / products / 1e9:.1f} Gflop/s"),
        Measurement(f"z and effects of {PHENOTYPES:,} x {TISSUES}, from these", whole, "s", None, "CPU"),
        Measurement("reference program / ours", PEER_SECONDS * n_phenotypes / seconds, "x", None, "16 CPU s recorded"),
    ]


def _text(n_rows: int = 1_000_000) -> list[Measurement]:
    """Read a gzipped file as BIG40's, once for all tissues."""
    rng = np.random.default_rng(0)
    ids = np.sort(rng.choice(1_000_000_000, n_rows, replace=False))
    bases = np.array(["A", "C", "G", "T"])
    a1 = rng.integers(0, 4, n_rows)
    table = pa.table(
        {
            "chr": [f"{c:02d}" for c in np.sort(rng.integers(1, 23, n_rows)).tolist()],
            "rsid": [f"rs{k}" for k in ids.tolist()],
            "pos": rng.integers(1, 200_000_000, n_rows),
            "a1": bases[a1].tolist(),
            "a2": bases[(a1 + 1) % 4].tolist(),
            "beta": rng.normal(0, 0.01, n_rows).round(5),
            "se": (0.01 + 0.01 * rng.random(n_rows)).round(5),
            "pval(-log10)": rng.exponential(0.43, n_rows).round(5),
        }
    )
    sink = pa.BufferOutputStream()
    pacsv.write_csv(table, sink, pacsv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none"))
    data = (" ".join(table.column_names) + "\n").encode() + bytes(sink.getvalue())
    wanted = np.array([f"rs{k}" for k in ids[rng.random(n_rows) < 0.03].tolist()])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "0001.txt.gz"
        path.write_bytes(gzip.compress(data, 6))
        columns = choose_columns(gwas_header(path))[1]
        reader = GwasReader(wanted)
        _, first = cpu_seconds(lambda: reader.read(path, columns))
        _, second = cpu_seconds(lambda: reader.read(path, columns))
        with gzip.open(path) as stream:
            _, unpack = cpu_seconds(lambda: stream.read())
    note = f"from {n_rows:,} rows; {len(data) / n_rows:.0f} bytes a row"
    return [
        Measurement("GWAS of 10 million rows from .txt.gz, CPU", first * 1e7 / n_rows, "s", 12.0, note),
        Measurement("the next file of the same variants, CPU", second * 1e7 / n_rows, "s", None, note),
        Measurement("of that, unpacking alone (zlib)", unpack * 1e7 / n_rows, "s", None, note),
    ]


def _prepared() -> list[Measurement]:
    """Run the whole command over a prepared study of 19 models with SNPs of their own."""
    n_phenotypes = int(os.environ.get("BRAINLOCUS_BENCH_PHENOTYPES", "200"))
    rng = np.random.default_rng(0)
    models = [_model(GENES, WEIGHTS, rng, prefix=f"rs{t:02d}") for t in range(TISSUES)]
    snps = unite_snps([m for m, _ in models], [m.snps for m, _ in models])
    tissues = []
    for t, (model, covariance) in enumerate(models):
        named = ExpressionModel(f"T{t:02d}", *(getattr(model, n) for n in _FIELDS))
        tissues.append(prepare_tissue(named, covariance, entry=snps.entry[t], sign=snps.sign[t]))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "prepared"
        write_model_set(ModelSet(tuple(tissues), snps), root / "models")
        shape = (n_phenotypes, snps.n_entries)
        z = np.lib.format.open_memmap(root / "z.npy", mode="w+", dtype=np.float32, shape=shape)
        beta = np.lib.format.open_memmap(root / "beta.npy", mode="w+", dtype=np.float32, shape=shape)
        for k in range(n_phenotypes):
            z[k] = rng.standard_normal(snps.n_entries, dtype=np.float32)
            beta[k] = z[k] * np.float32(0.01)
        row = {"status": "ok", "columns": "simulated", "z_from": "z", "rows_read": 0, "snps_of_models": shape[1]}
        report = [{"phenotype": f"p{k}", **row, "snps_found": shape[1]} for k in range(n_phenotypes)]
        write_phenotypes(report, root / "phenotypes.parquet")
        config = TWAS_ASSOCIATE.config(gwas=(root,), hits=0.05, full=Path(folder) / "full")
        out = Path(folder) / "t.parquet"
        ((_, wall), seconds) = cpu_seconds(
            lambda: wall_seconds(lambda: execute(TWAS_ASSOCIATE, config, out, RunOptions(quiet=True)))
        )
    cells = n_phenotypes * TISSUES * GENES
    whole = PHENOTYPES / n_phenotypes
    note = f"{n_phenotypes:,} phenotypes, {snps.n_entries:,} SNPs, {cells:,} tests; matrices, table of p <= 0.05, FDR"
    return [
        Measurement("twas associate from a prepared study, CPU", seconds, "s", None, note),
        Measurement("the same, wall", wall, "s", None, note),
        Measurement(
            f"{PHENOTYPES:,} phenotypes x {TISSUES} tissues, CPU", seconds * whole, "s", 180.0, "in proportion"
        ),
    ]


_FIELDS = (
    "genes", "gene_names", "offsets", "snps", "effect_allele", "other_allele", "weight", "n_snps_in_model",
    "pred_perf_r2", "pred_perf_pval", "pred_perf_qval", "phi",
)  # fmt: skip


def _rates(n_tests: int = 260_000_000) -> list[Measurement]:
    """Benjamini-Hochberg over more tests than fit, from a file."""
    columns = 4_000
    rows = n_tests // columns
    with tempfile.TemporaryDirectory() as folder:
        z = np.lib.format.open_memmap(Path(folder) / "z.npy", mode="w+", dtype=np.float32, shape=(rows, columns))
        rng = np.random.default_rng(0)
        for start in range(0, rows, 1_000):
            part: Float[np.ndarray, "rows columns"] = rng.standard_normal(
                (min(1_000, rows - start), columns), np.float32
            )
            part[:10] *= 3
            z[start : start + 1_000] = part

        def blocks() -> Iterator[TestBlock]:
            zero = np.zeros(columns, dtype=np.int64)
            for start in range(0, rows, 1_000):
                block = np.asarray(z[start : start + 1_000])
                yield TestBlock(block, np.zeros(block.shape[0], dtype=np.int64), zero)

        tracemalloc.start()
        curves, seconds = cpu_seconds(lambda: fdr_curves(blocks, 1, smallest=1.96, to_neg_log10_p=neg_log10_p_from_z))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    note = f"{n_tests:,} tests on disk, exact q of the {curves[0].strength.size:,} distinct with p <= 0.05"
    return [
        Measurement("Benjamini-Hochberg over 260 million p, peak memory", peak / 2**30, "GiB", 4.0, note),
        Measurement("the same, CPU", seconds, "s", None, note),
    ]
