"""Training of expression models over many genes: which people, genes and variants; shards of genes; their results.

The expression of each tissue is read once, adjusted for its covariates and kept as an array on disk, from which workers
read the rows of their genes. A shard is a few neighbouring genes: the variants of their windows are read once.
"""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Float32, Int, Shaped

from brainlocus.core import AlignmentError, SampleIndex, SchemaError, VariantTable, select_genotypes, shared_samples
from brainlocus.core.chromosomes import normal_build
from brainlocus.core.expression import GenePlace
from brainlocus.core.regions import Region, in_regions
from brainlocus.core.variants import chromosome_rank
from brainlocus.genetics.twas import (
    ElasticNetModel,
    ElasticNetSettings,
    JtiModel,
    JtiSettings,
    adjust_expression,
    cis_dosage,
    cis_window,
    train_elastic_net,
    train_jti,
    usable_variants,
)
from brainlocus.io import OpenedGenotypes
from brainlocus.io.expression import read_expression, read_expression_covariates
from brainlocus.numerics import covariate_design
from brainlocus.pipeline.filters import ChosenGenotypes, GenotypeFile
from brainlocus.pipeline.step import Context

__all__ = [
    "Tissue",
    "TrainingPlan",
    "TrainingRules",
    "gene_shards",
    "leave_unknown",
    "match_genes",
    "order_genes",
    "plan_variants",
    "prepare_tissues",
    "read_shard",
    "shard_peak_bytes",
    "train_shard",
    "training_tasks",
    "variant_names",
]

_CHROMOSOMES = frozenset([*(str(k) for k in range(1, 23)), "X", "Y", "XY", "MT"])


@dataclass(frozen=True, slots=True, eq=False)
class Tissue:
    """Expression of one tissue, adjusted and on disk."""

    name: str
    values: Path
    """Array (.npy) of its genes x its people, mean 0 and SD 1, NaN where missing."""
    genes: dict[str, int]
    """Row of each gene."""
    columns: Int[np.ndarray, " people"]
    """Its people among all donors."""
    n_people: int


@dataclass(frozen=True, slots=True)
class TrainingRules:
    """What is done with every gene."""

    method: Literal["elastic-net", "jti"]
    elastic_net: ElasticNetSettings
    jti: JtiSettings
    windows_kb: tuple[float, ...]
    """In order of preference; one for the elastic net."""
    window_of: Literal["gene", "start"]
    min_maf: float
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class TrainingPlan:
    """Everything a worker needs; written once, read by every task."""

    file: GenotypeFile
    stamp: int
    donors: SampleIndex
    tissues: tuple[Tissue, ...]
    targets: tuple[int, ...]
    """Tissues to train models for."""
    similarity: Float[np.ndarray, "tissues tissues"] | None
    dnase: Float[np.ndarray, "tissues tissues"] | None
    genes: tuple[GenePlace, ...]
    """In the order of chromosome and start."""
    variants: dict[str, tuple[Int[np.ndarray, " variants"], Int[np.ndarray, " variants"]]]
    """By chromosome: rows in the file and positions of usable variants, ascending by position."""
    rules: TrainingRules

    def rows_of(self, gene: GenePlace) -> Int[np.ndarray, " variants"]:
        """Return the rows of the file in the widest window of a gene."""
        rows, positions = self.variants.get(gene.chromosome, _NO_VARIANTS)
        first, last = cis_window(gene, max(self.rules.windows_kb), self.rules.window_of)
        start, stop = np.searchsorted(positions, [first, last + 1])
        return rows[start:stop]


_NO_VARIANTS = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class _Task:
    plan: Path
    start: int
    stop: int


def match_genes(genes: Sequence[str], places: Sequence[GenePlace]) -> tuple[dict[str, GenePlace], dict[str, str]]:
    """Return the place of each gene, and why genes have none.

    Ids are compared as they are, and where that fails without the version (``ENSG00000107937.14``).
    """
    exact: dict[str, list[GenePlace]] = {}
    plain: dict[str, list[GenePlace]] = {}
    for place in places:
        exact.setdefault(place.gene, []).append(place)
        plain.setdefault(place.gene.split(".")[0], []).append(place)
    found, reasons = {}, {}
    for gene in genes:
        candidates = exact.get(gene) or plain.get(gene.split(".")[0], [])
        spots = {(p.chromosome, p.start, p.stop) for p in candidates}
        if len(spots) == 1:
            found[gene] = replace(candidates[0], gene=gene)
        else:
            reasons[gene] = "several_places" if spots else "not_annotated"
    return found, reasons


def plan_variants(
    asked: ChosenGenotypes, genes: Sequence[GenePlace], rules: TrainingRules
) -> tuple[dict[str, tuple[Int[np.ndarray, " variants"], Int[np.ndarray, " variants"]]], dict[str, int]]:
    """Return the usable variants in any window, by chromosome, and how many were left out and why."""
    table = asked.source.variants
    widest = max(rules.windows_kb)
    regions = [Region(g.chromosome, *cis_window(g, widest, rules.window_of)) for g in genes]
    rows = np.flatnonzero(asked.variants & in_regions(table, regions))
    near: VariantTable = table.take(rows)
    kept, counts = usable_variants(near)
    counts = {"variants_outside_windows": int(asked.variants.sum()) - rows.size, **counts}
    rows, near = rows[kept], near.take(kept)
    by_chromosome = {}
    for name in dict.fromkeys(g.chromosome for g in genes):
        mine = np.flatnonzero(near.chromosome == name)
        mine = mine[np.argsort(near.position[mine], kind="stable")]
        if mine.size:
            by_chromosome[name] = (rows[mine], near.position[mine].astype(np.int64))
    counts["variants_usable"] = int(kept.sum())
    return by_chromosome, counts


def variant_names(variants: VariantTable) -> Shaped[np.ndarray, " variants"]:
    """Return names as PredictDB's varID: ``chr9_137028813_A_G_b38``, other allele first; no build when unknown."""
    build = {"GRCh37": "_b37", "GRCh38": "_b38"}.get(normal_build(variants.genome_build), "")
    cells = zip(
        *(c.tolist() for c in (variants.chromosome, variants.position, variants.other_allele, variants.effect_allele)),
        strict=True,
    )
    return np.array([f"chr{c}_{p}_{other}_{effect}{build}" for c, p, other, effect in cells], dtype=np.str_)


def prepare_tissues(
    files: Sequence[Path],
    names: Sequence[str],
    covariates: Sequence[Path | None],
    people: SampleIndex,
    folder: Path,
    context: Context,
) -> tuple[list[Tissue], SampleIndex, list[GenePlace], list[dict[str, Any]]]:
    """Read, align and adjust the expression of every tissue, one file at a time.

    Parameters
    ----------
    people
        Those with genotypes. People are kept in the order of their ids, so that the order in files decides nothing.

    Returns
    -------
    tuple
        Tissues, all donors, places of genes that the files have (BED), and a count of every intersection.

    Raises
    ------
    AlignmentError
        A file shares nobody with the genotypes or its covariates.
    """
    people = people.take(np.argsort(people.ids, kind="stable"))
    places: dict[str, GenePlace] = {}
    parts = []
    for number, (path, name, table) in enumerate(
        context.progress.track(list(zip(files, names, covariates, strict=True)), "Reading expression", len(files))
    ):
        matrix = read_expression(path)
        places |= {p.gene: p for p in matrix.places if p.gene not in places}
        shared = shared_samples(people, matrix.samples, names=("genotypes", str(path)))
        about: dict[str, Any] = {
            "tissue": name, "samples": len(matrix.samples), "with_genotypes": len(shared), "genes": matrix.genes.size,
        }  # fmt: skip
        design = None
        if table is not None:
            shared, design = _covariates(table, shared, about)
        about["analysed"] = len(shared)
        values = adjust_expression(matrix.values[:, matrix.samples.indices_of(shared)], design)
        kept = folder / f"expression-{number:03d}.npy"
        np.save(kept, values)
        rows = {gene: row for row, gene in enumerate(matrix.genes.tolist())}
        parts.append((name, kept, rows, shared, about))
        del matrix, values  # one file at a time
    everyone = set().union(*(set(p[3].ids.tolist()) for p in parts))
    donors = people.take(np.array([i in everyone for i in people.ids.tolist()], dtype=bool))
    tissues = [
        Tissue(name, kept, rows, donors.indices_of(shared), len(shared)) for name, kept, rows, shared, _ in parts
    ]
    return tissues, donors, list(places.values()), [about for *_, about in parts]


def _covariates(
    path: Path, people: SampleIndex, about: dict[str, Any]
) -> tuple[SampleIndex, Float[np.ndarray, "people covariates"]]:
    table = read_expression_covariates(path, people)
    shared = shared_samples(people, table.samples, names=("expression with genotypes", str(path)))
    about["with_covariates"] = len(shared)
    design = covariate_design(table.take(shared), None)
    if not design.complete.any():
        raise AlignmentError(f"{path}: every one of the {len(shared)} people lacks some covariate; nobody is left.")
    about["covariates"] = design.matrix.shape[1]
    return shared.take(design.complete), np.asarray(design.matrix[design.complete])


def gene_shards(plan: TrainingPlan, largest: int) -> list[tuple[int, int]]:
    """Return ``(start, stop)`` of every shard: neighbouring genes of one chromosome, at most `largest` of them."""
    bounds, start = [], 0
    for k in range(1, len(plan.genes) + 1):
        full = k - start >= largest
        if k == len(plan.genes) or full or plan.genes[k].chromosome != plan.genes[start].chromosome:
            bounds.append((start, k))
            start = k
    return bounds


def shard_peak_bytes(plan: TrainingPlan, bounds: Sequence[tuple[int, int]]) -> int:
    """Return the memory of the largest shard: its genotypes, and the arrays of its largest gene."""
    n = len(plan.donors)
    largest, widest = 0, 0
    for start, stop in bounds:
        sizes = [plan.rows_of(g) for g in plan.genes[start:stop]]
        widest = max(widest, *(s.size for s in sizes))
        largest = max(largest, np.unique(np.concatenate(sizes)).size)
    n_fits, copies = (11, 56) if plan.rules.method == "elastic-net" else (17 * 6, 72)
    # Bytes of a dosage of the gene: as read and chosen, filled, kept, centred, squared and single, with JTI rounded and
    # of the donors too; what fits keep of every variant; Gram matrices of working sets, which rarely exceed 512.
    gene = widest * n * copies + widest * n_fits * 48 + n_fits * 8 * min(n, widest, 512) ** 2
    return 4 * largest * n + gene


def training_tasks(plan: TrainingPlan, bounds: Sequence[tuple[int, int]], shards: Path) -> dict[str, _Task]:
    """Write the plan where workers find it, and return the tasks by the names of their shards."""
    path = shards / "plan.pickle"
    with path.open("wb") as stream:
        pickle.dump(plan, stream, protocol=pickle.HIGHEST_PROTOCOL)
    return {f"genes-{start:06d}-{stop:06d}.parquet": _Task(path, start, stop) for start, stop in bounds}


@lru_cache(maxsize=2)
def _plan(path: Path, stamp: int) -> tuple[TrainingPlan, OpenedGenotypes]:  # noqa: ARG001
    with path.open("rb") as stream:
        plan: TrainingPlan = pickle.load(stream)
    return plan, plan.file.open()


def train_shard(task: _Task, path: Path) -> None:
    """Train the models of a shard and write them."""
    plan, source = _plan(task.plan, task.plan.stat().st_mtime_ns)
    genes = plan.genes[task.start : task.stop]
    windows = [plan.rows_of(gene) for gene in genes]
    rows = np.unique(np.concatenate(windows)) if windows else np.zeros(0, dtype=np.int64)
    chosen = select_genotypes(source, samples=plan.donors, variants=rows)
    dosage = chosen.read(0, rows.size).dosage if rows.size else np.empty((0, len(plan.donors)), dtype=np.float32)
    expression = [np.load(t.values, mmap_mode="r") for t in plan.tissues]
    train = _train_elastic_nets if plan.rules.method == "elastic-net" else _train_joint
    found: list[dict[str, Any]] = []
    for gene, window in zip(genes, windows, strict=True):
        found += train(plan, gene, window, dosage[np.searchsorted(rows, window)], expression)
    pq.write_table(pa.Table.from_pylist(found, schema=_schema(plan.rules.method)), path, compression="zstd")


def _row(expression: Any, tissue: Tissue, gene: GenePlace) -> Float[np.ndarray, " people"]:
    return np.array(expression[tissue.genes[gene.gene]], dtype=np.float64)


def _train_elastic_nets(
    plan: TrainingPlan,
    gene: GenePlace,
    rows: Int[np.ndarray, " variants"],
    dosage: Float32[np.ndarray, "variants donors"],
    expression: Sequence[Any],
) -> Iterator[dict[str, Any]]:
    rules = plan.rules
    for number in plan.targets:
        tissue = plan.tissues[number]
        if gene.gene not in tissue.genes:
            continue
        y = _row(expression[number], tissue, gene)
        known = ~np.isnan(y)
        cis = cis_dosage(dosage[:, tissue.columns[known]], min_maf=rules.min_maf)
        model = train_elastic_net(cis.dosage, y[known], gene=gene.gene, seed=rules.seed, settings=rules.elastic_net)
        numbers = {name: getattr(model, name) for name in _ELASTIC_NET_NUMBERS}
        yield _found(number, gene, model, rows[cis.rows]) | numbers | {"penalty": model.penalty}


def _train_joint(
    plan: TrainingPlan,
    gene: GenePlace,
    rows: Int[np.ndarray, " variants"],
    dosage: Float32[np.ndarray, "variants donors"],
    expression: Sequence[Any],
) -> Iterator[dict[str, Any]]:
    rules = plan.rules
    values = np.full((len(plan.tissues), len(plan.donors)), np.nan)
    for number, tissue in enumerate(plan.tissues):
        if gene.gene in tissue.genes:
            values[number, tissue.columns] = _row(expression[number], tissue, gene)
    measured = np.flatnonzero(~np.isnan(values).all(axis=0))
    cis = cis_dosage(dosage[:, measured], min_maf=rules.min_maf)
    positions = _positions(plan, gene, rows[cis.rows])
    spans = [cis_window(gene, kb, rules.window_of) for kb in rules.windows_kb]
    windows = [(positions >= first) & (positions <= last) for first, last in spans]
    nothing = np.ones((len(plan.tissues),) * 2)
    similarity = plan.similarity if plan.similarity is not None else nothing
    dnase = plan.dnase if plan.dnase is not None else nothing
    for number in plan.targets:
        if gene.gene not in plan.tissues[number].genes:
            continue
        model = train_jti(
            cis.dosage, values[:, measured], number, similarity[number], dnase[number],
            gene=gene.gene, seed=rules.seed, settings=rules.jti, windows=windows,
        )  # fmt: skip
        numbers = {name: getattr(model, name) for name in _JTI_NUMBERS}
        kb = rules.windows_kb[model.window] if model.window >= 0 else float("nan")
        yield _found(number, gene, model, rows[cis.rows]) | numbers | {"window_kb": kb, "penalty": model.penalty}


def _positions(plan: TrainingPlan, gene: GenePlace, rows: Int[np.ndarray, " variants"]) -> Int[np.ndarray, " variants"]:
    own, positions = plan.variants.get(gene.chromosome, _NO_VARIANTS)
    order = np.argsort(own, kind="stable")
    return positions[order[np.searchsorted(own[order], rows)]]


_ELASTIC_NET_NUMBERS = ("rho_avg", "rho_sd", "r2", "z", "neg_log10_p", "fisher_p", "cv_r2")
_JTI_NUMBERS = ("n_donors", "n_tissues", "r", "neg_log10_p", "single_tissue_r", "similarity_power", "dnase_power")


def _found(
    tissue: int, gene: GenePlace, model: ElasticNetModel | JtiModel, rows: Int[np.ndarray, " variants"]
) -> dict[str, Any]:
    upper = np.triu_indices(model.weights.size)
    return {
        "tissue": tissue,
        "gene": gene.gene,
        "status": model.status,
        "n": model.n,
        "n_variants": model.n_variants,
        "rows": rows[model.variants].tolist(),
        "weights": model.weights.tolist(),
        "covariance": model.covariance[upper].tolist(),
    }


def _schema(method: str) -> pa.Schema:
    numbers = _ELASTIC_NET_NUMBERS if method == "elastic-net" else (*_JTI_NUMBERS, "window_kb")
    whole = {"n_donors", "n_tissues"}
    return pa.schema(
        [
            ("tissue", pa.int32()),
            ("gene", pa.string()),
            ("status", pa.string()),
            ("n", pa.int64()),
            ("n_variants", pa.int64()),
            ("rows", pa.list_(pa.int64())),
            ("weights", pa.list_(pa.float64())),
            ("covariance", pa.list_(pa.float64())),
            *((name, pa.int64() if name in whole else pa.float64()) for name in (*numbers, "penalty")),
        ]
    )


def read_shard(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the results of a shard, a row for every gene and tissue; lists are arrays."""
    table = pq.read_table(path)
    lists = {name: table.column(name).combine_chunks() for name in ("rows", "weights", "covariance")}
    for k, row in enumerate(table.drop_columns(list(lists)).to_pylist()):
        yield row | {name: column[k].values.to_numpy(zero_copy_only=False) for name, column in lists.items()}


def order_genes(genes: Sequence[GenePlace]) -> list[GenePlace]:
    """Return genes by chromosome, start and id."""
    if not genes:
        return []
    rank = chromosome_rank(np.array([g.chromosome for g in genes], dtype=np.str_))
    order = sorted(range(len(genes)), key=lambda k: (int(rank[k]), genes[k].start, genes[k].gene))
    return [genes[k] for k in order]


def leave_unknown(genes: Sequence[GenePlace], variants: VariantTable) -> tuple[list[GenePlace], dict[str, str], int]:
    """Return the genes on chromosomes of the genotypes, reasons of those on no chromosome, and how many are elsewhere.

    Raises
    ------
    SchemaError
        No gene is on a chromosome of the genotypes.
    """
    there = set(np.unique(variants.chromosome.astype(np.str_)).tolist())
    kept = [g for g in genes if g.chromosome in there]
    unknown = {g.gene: "unknown_chromosome" for g in genes if g.chromosome not in there | _CHROMOSOMES}
    elsewhere = len(genes) - len(kept) - len(unknown)
    if genes and not kept:
        theirs = ", ".join(list(dict.fromkeys(g.chromosome for g in genes))[:5])
        raise SchemaError(
            f"No gene is on a chromosome of the genotypes ({', '.join(sorted(there)[:5])}); they are on {theirs}."
        )
    return kept, unknown, elsewhere
