"""Store and portal: associations written a second, bytes an association, latency of the JSON routes (warm).

Gene associations: 5 million at p <= 0.05, of 100 million tests of 28,500 models (3,000 genes, 19 tissues) with 3,500
phenotypes; the query of a gene is asked to take less than 50 ms (methods/twas.md 12).
"""

import gzip
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.stats import norm

from benchmarks.measure import Measurement, cpu_seconds, wall_seconds
from brainlocus.core import GeneAssociations, GeneBlock, ResultTable, VariantTable
from brainlocus.core.text import text_array
from brainlocus.numerics import neg_log10_p_from_z
from brainlocus.portal.app import BUNDLE, create_app
from brainlocus.store import LocalStore, PhenotypeInfo, StoreWriter

REPEATS = 100


def _variants(n: int) -> VariantTable:
    bases = np.array(["A", "C", "G", "T"])
    kind = np.arange(n) % 4
    return VariantTable(
        np.repeat(np.array([str(k + 1) for k in range(20)]), -(-n // 20))[:n],
        (np.arange(n) % -(-n // 20) + 1) * 350,
        text_array(bases[kind].tolist()),
        text_array(bases[(kind + 1) % 4].tolist()),
        text_array([f"rs{k}" for k in range(n)]),
        "GRCh38",
    )


def _build(path: Path, *, n_variants: int, n_phenotypes: int) -> None:
    rng = np.random.default_rng(0)
    variants = _variants(n_variants)
    frequency = rng.uniform(0.05, 0.95, n_variants)
    error = 0.01 / np.sqrt(2 * frequency * (1 - frequency))
    place = {name: getattr(variants, name) for name in ("chromosome", "position", "effect_allele", "other_allele")}
    with StoreWriter(path) as writer:
        writer.write_variants(variants, frequency, n=10_000)
        for k in range(n_phenotypes):
            z = rng.standard_normal(n_variants)
            z[rng.integers(0, n_variants, 20)] += 8.0
            estimates = {"beta": z * error, "standard_error": error, "neg_log10_p": neg_log10_p_from_z(z)}
            writer.add_phenotype(PhenotypeInfo(f"P{k}", n=10_000), ResultTable(place | estimates))
        writer.seal()


def _latency(request: Callable[[int], object]) -> tuple[float, float]:
    """Return median and 95th percentile in milliseconds, after five calls to warm up."""
    for k in range(5):
        request(k)
    times = []
    for k in range(REPEATS):
        start = time.perf_counter()
        request(k)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.quantile(times, 0.5)), float(np.quantile(times, 0.95))


def _serve(path: Path, label: str, targets: dict[str, tuple[str, float | None]]) -> list[Measurement]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastapi.testclient import TestClient
    client = TestClient(create_app(path))
    rows = []
    for name, (route, target) in targets.items():

        def request(k: int, route: str = route) -> object:
            start = 100_000 * (k + 1)
            response = client.get("/api/v1" + route.format(k=k, at=start, end=start + 500_000))
            assert response.status_code == 200, response.text
            return response

        median, high = _latency(request)
        rows.append(Measurement(f"{name}, {label}, p95 warm", high, "ms", target, f"median {median:.1f} ms"))
    return rows


GENES, MODELS, TISSUES, PHENOTYPES, KEPT = 3_000, 1_500, 19, 3_500, 0.05


def _gene_blocks() -> Iterator[GeneBlock]:
    """Yield the associations of one tissue after the other, drawn under no effect."""
    rng = np.random.default_rng(1)
    phenotypes = np.array([f"P{k}" for k in range(PHENOTYPES)])
    for tissue in range(TISSUES):
        number = np.sort(rng.choice(GENES, MODELS, replace=False))
        gene, phenotype = np.nonzero(rng.random((MODELS, PHENOTYPES)) < KEPT)
        z = norm.isf(rng.uniform(0, KEPT, gene.size) / 2) * rng.choice([-1.0, 1.0], gene.size)
        none = np.zeros(gene.size, dtype=np.int64)
        tests = GeneAssociations(
            np.array([f"ENSG{k:011d}" for k in number]),
            np.array([f"GENE{k}" for k in number]),
            np.array([f"Tissue_{tissue}"]),
            phenotypes,
            gene,
            none,
            phenotype,
            z,
            z / 50,
            neg_log10_p_from_z(z),
            np.full(gene.size, 0.1),
        )
        counted = np.full((PHENOTYPES, 1), MODELS)
        every = np.zeros(MODELS, dtype=np.int64)
        yield GeneBlock(tests, counted, np.arange(MODELS), every, np.full(MODELS, 0.1), {}, {})


def _genes(path: Path) -> list[Measurement]:
    def build() -> None:
        with StoreWriter(path) as writer:
            writer.add_gene_associations(_gene_blocks(), max_p=KEPT)
            writer.seal()

    _, seconds = cpu_seconds(build)
    n = LocalStore(path).meta["counts"]["gene_associations"]
    label = f"{n / 1e6:.1f} M gene associations"
    rows = [Measurement(f"Store build, {label}", seconds, "CPU s", note=f"{n / seconds:,.0f}/s, five scopes of q")]
    for order in ("by_gene", "by_phenotype"):
        size = sum(f.stat().st_size for f in (path / "twas" / order).iterdir()) / n
        rows.append(Measurement(f"Bytes a gene association, {order.replace('_', ' ')}", size, "B"))
    routes: dict[str, tuple[str, float | None]] = {
        "Associations of a gene": ("/genes/GENE{k}/associations?scope=nominal&limit=100", 50.0),
        "Associations of a gene, q over the study": ("/genes/GENE{k}/associations?limit=100", 50.0),
        "Sums of a gene by phenotype": ("/genes/GENE{k}/summary?by=phenotype&scope=nominal", None),
        "Genes of a phenotype": ("/phenotypes/P{k}/genes?scope=nominal&limit=100", None),
        "Search of a gene": ("/search?q=GENE{k}", None),
    }
    return rows + _serve(path, label, routes)


def run() -> list[Measurement]:
    """Return the measurements; the targets are those of methods/portal.md 2.2."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        long, wide = Path(folder) / "long", Path(folder) / "wide"
        n, p = 1_000_000, 3
        _, seconds = wall_seconds(lambda: _build(long, n_variants=n, n_phenotypes=p))
        rows.append(
            Measurement("Store build, 3 phenotypes x 1 M variants", seconds, "s", note=f"{n * p / seconds:,.0f}/s")
        )
        size = sum(f.stat().st_size for f in (long / "gwas/by_phenotype").iterdir()) / (n * p)
        rows.append(Measurement("Bytes an association, by phenotype", size, "B", 6.3))
        rows += _serve(
            long,
            "1 M variants",
            {
                "Region of 500 kb": ("/phenotypes/P1/region?chrom=3&start={at}&end={end}", 25.0),
                "Top 100 hits": ("/phenotypes/P1/hits?limit=100", 10.0),
                "Search of an rs number": ("/search?q=rs{k}00", 30.0),
                "Manhattan file": ("/phenotypes/P1/manhattan", 15.0),
            },
        )
        _build(wide, n_variants=16_384, n_phenotypes=300)
        size = sum(f.stat().st_size for f in (wide / "gwas/by_variant").iterdir()) / (16_384 * 300)
        rows.append(Measurement("Bytes an association, by variant", size, "B", 5.3))
        rows += _serve(wide, "300 phenotypes", {"PheWAS": ("/variants/rs{k}00/phewas", 25.0)})
        rows += _genes(Path(folder) / "genes")
    if (BUNDLE / "index.html").exists():
        names = re.findall(r'(?:src|href)="(/assets/[^"]+)"', (BUNDLE / "index.html").read_text())
        entry = sum(len(gzip.compress((BUNDLE / name.lstrip("/")).read_bytes())) for name in names)
        rows.append(Measurement("Entry of the pages, compressed", entry / 1e3, "KB", 120.0))
    return rows
