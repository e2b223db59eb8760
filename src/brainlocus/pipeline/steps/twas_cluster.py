"""``twas cluster``: which phenotypes share their genes.

Written to OUT, in tables of all tissues::

    tissues.parquet      what was kept, chosen and reached in each tissue; status
    clusters.parquet     tissue, phenotype, cluster, leaf, silhouette, nearest phenotype and its rho
    validity.parquet     how well annotations and homologues fit the correlations
    components.parquet, embedding.parquet     with --embed

and for each tissue a folder of its name: spearman.npy (rows as in its phenotypes.txt), linkage.parquet, tree.nwk, and
figures.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from pydantic import Field, field_validator
from threadpoolctl import threadpool_limits

from brainlocus.core import GeneMatrix, ResultTable, SchemaError, concat_results
from brainlocus.core.errors import BrainlocusError, import_extra, nearest
from brainlocus.genetics.twas import (
    WardTree,
    adjusted_rand,
    best_number_of_clusters,
    cut_tree,
    cut_tree_at,
    embedding_peak_bytes,
    find_homologues,
    gene_blocks,
    homologue_hits,
    neighbour_hits,
    newick,
    rank_levels,
    silhouette,
    spearman,
    spearman_peak_bytes,
    undefined_correlations,
    ward_tree,
    ward_tree_peak_bytes,
)
from brainlocus.io import atomic_path, write_results
from brainlocus.pipeline.config import CommaList
from brainlocus.pipeline.figures.similarity import draw_similarity, draw_tree
from brainlocus.pipeline.genomes import require_memory
from brainlocus.pipeline.phenotype_choice import (
    ChosenPhenotypes,
    GeneResultsInput,
    choose_phenotypes,
    chosen_by,
    count_tissues,
    gene_matrices,
)
from brainlocus.pipeline.phenotype_embedding import (
    ComparedPhenotypes,
    EmbeddingSettings,
    PhenotypeVectors,
    embed_phenotypes,
)
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["TWAS_CLUSTER", "TwasClusterConfig"]

_STRIPS = ("modality", "atlas", "region", "side")
_LABELS = ("modality", "atlas", "region", "side", "measurement")
_HOMOLOGUES = ("modality", "atlas", "region", "measurement")
_MOST_CLUSTERS = 20
_DRAWING_BYTES = 200 << 20


class TwasClusterConfig(GeneResultsInput):
    """Settings of ``twas cluster``."""

    values: Literal["zscore", "effect_size"] = Field("zscore", description="What of the associations is compared")
    min_finite: float = Field(
        0.99, gt=0, le=1, description="Share of a tissue's genes that a phenotype needs a value for"
    )
    linkage: Literal["ward.D2", "ward.D"] = Field(
        "ward.D2", description="Ward's method on squared dissimilarities, or on dissimilarities as they are (R)"
    )
    order: Literal["r", "optimal"] = Field("r", description="Order of the leaves: as R's, or neighbours most alike")
    clusters: int = Field(0, ge=0, description="Number of clusters; 0: the largest mean silhouette, of 2 to 20")
    height: float | None = Field(None, ge=0, description="Cut the tree at this height instead")
    validate_by: CommaList = Field(
        (), description="Columns of the annotation to judge by; by default modality, atlas, region, side, measurement"
    )
    homologues: CommaList = Field(
        (), description="Columns that left and right homologues share; by default modality, atlas, region, measurement"
    )
    permutations: int = Field(1000, ge=1, description="Permutations of the annotation")
    embed: CommaList = Field(("pca", "umap"), description="Embeddings: pca, umap, or none")
    embed_over: Literal["tissue", "all"] = Field(
        "tissue", description="Gene vectors of each tissue on its own, or of all tissues put together"
    )
    missing: Literal["zero", "pairwise"] = Field(
        "zero", description="Missing cells of embeddings: no association (0), or left out of each pair"
    )
    components: int = Field(10, ge=2, le=10, description="Principal components")
    scale: bool = Field(False, description="Give every gene the same variance before the components")
    max_p: float = Field(0.05, gt=0, le=1, description="UMAP takes genes with a p below this for any phenotype")
    neighbours: int | None = Field(
        None, ge=2, description="Neighbours of UMAP; by default 60 where all phenotypes are dMRI, else 150"
    )
    min_distance: float | None = Field(
        None, ge=0, lt=1, description="Smallest distance of points of UMAP; by default 0.1 for dMRI, else 0.09"
    )
    colour_by: str = Field("region", description="Column of the annotation that colours the points")
    strips: CommaList = Field(
        (), description="Columns of the annotation beside the heat map; by default modality, atlas, region, side"
    )
    figures: bool = Field(True, description="Draw figures")

    @field_validator("embed")
    @classmethod
    def _known(cls, embed: tuple[str, ...]) -> tuple[str, ...]:
        wanted = tuple(name for name in embed if name != "none")
        for name in wanted:
            if name not in ("pca", "umap"):
                raise ValueError(f"expected pca, umap or none, found {name!r}")
        return wanted


@dataclass(slots=True)
class _Tables:
    """What is written at the end, tissue by tissue."""

    clusters: list[ResultTable]
    validity: list[ResultTable]
    components: list[ResultTable]
    embedding: list[ResultTable]
    rows: list[dict[str, Any]]
    notes: list[str]


def _annotation_columns(
    choice: ChosenPhenotypes, wanted: tuple[str, ...], usual: tuple[str, ...], option: str
) -> tuple[str, ...]:
    """Return the columns an option names, or those of the usual ones that the annotation has."""
    known = choice.columns()
    if not wanted:
        return tuple(name for name in usual if name in known)
    if not known:
        raise SchemaError(f"{option}: give the table of phenotypes with --annotation.")
    for name in wanted:
        if name not in known:
            raise SchemaError(
                f"{option}: the annotation has no column {name!r}.{nearest(name, list(known))} It has: "
                f"{', '.join(known)}."
            )
    return wanted


def _check(config: TwasClusterConfig, choice: ChosenPhenotypes) -> None:
    """Refuse what could only fail after the work."""
    if config.height is not None and config.clusters:
        raise SchemaError("--clusters and --height both cut the tree; give one of them.")
    if "umap" in config.embed:
        from importlib.util import find_spec

        if find_spec("umap") is None:
            import_extra("umap", extra="ml")
    if config.figures:
        import_extra("matplotlib.figure", extra="plot")
    for wanted, option in (
        (config.validate_by, "--validate-by"),
        (config.homologues, "--homologues"),
        (config.strips, "--strips"),
    ):
        _annotation_columns(choice, wanted, (), option)
    given = "colour_by" in config.model_fields_set
    if given and config.colour_by not in choice.columns():
        _annotation_columns(choice, (config.colour_by,), (), "--colour-by")


def _folder_name(tissue: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", tissue).lstrip(".") or "tissue"


def _choose(
    config: TwasClusterConfig, choice: ChosenPhenotypes, matrix: GeneMatrix, block_bytes: int
) -> ComparedPhenotypes:
    """Return the phenotypes that the options leave and that have enough values.

    Raises
    ------
    SchemaError
        Fewer than two are left.
    """
    values = matrix.z if config.values == "zscore" else matrix.effect
    if values is None:
        raise SchemaError(f"Tissue {matrix.tissue}: --values effect_size, but the results have no effect sizes.")
    columns, counts = choose_phenotypes(choice, matrix.phenotypes)
    finite = np.zeros(columns.size, dtype=np.int64)
    for block in gene_blocks(values, genes=np.arange(matrix.genes.size), phenotypes=columns, block_bytes=block_bytes):
        finite += (~np.isnan(block)).sum(axis=0)
    enough = finite >= config.min_finite * matrix.genes.size
    counts["below_min_finite"] = int((~enough).sum())
    if enough.sum() < 2:
        share = float(finite.max(initial=0)) / max(matrix.genes.size, 1)
        raise SchemaError(
            f"Tissue {matrix.tissue}: expected two phenotypes or more with values for {config.min_finite:.0%} of "
            f"{matrix.genes.size} genes, found {int(enough.sum())} of {columns.size}; the best has {share:.1%}. "
            "Lower --min-finite, or choose other phenotypes."
        )
    columns = columns[enough]
    if config.clusters > columns.size:
        raise SchemaError(
            f"Tissue {matrix.tissue}: --clusters {config.clusters}, but there are {columns.size} phenotypes."
        )
    return ComparedPhenotypes(matrix, values, columns, matrix.phenotypes[columns], counts)


def _block_bytes(memory_bytes: int) -> int:
    return max(1 << 20, min(1 << 27, memory_bytes // 24))


def _peak_bytes(config: TwasClusterConfig, n_genes: int, n_phenotypes: int, block_bytes: int) -> int:
    """Return what a tissue takes at most: the correlations, the tree, or the embedding, and the figures."""
    square = 8 * n_phenotypes**2
    similarity = spearman_peak_bytes(n_genes, n_phenotypes, block_bytes=block_bytes)
    tree = 3 * square + ward_tree_peak_bytes(n_phenotypes, optimal=config.order == "optimal")
    embed = embedding_peak_bytes(
        n_phenotypes,
        block_bytes=block_bytes,
        pairwise=config.missing == "pairwise",
        umap_neighbors=min(config.neighbours or 150, n_phenotypes) if "umap" in config.embed else 0,
    )
    drawing = square + (_DRAWING_BYTES if config.figures else 0)
    return max(similarity, tree, embed if config.embed else 0, drawing) + (8 << 20)


def _cut(config: TwasClusterConfig, tree: WardTree, far: Float64[np.ndarray, "p p"]) -> Int64[np.ndarray, " p"]:
    if config.height is not None:
        return cut_tree_at(tree, config.height)
    if config.clusters:
        return cut_tree(tree, config.clusters)
    return cut_tree(tree, best_number_of_clusters(tree, far, most=_MOST_CLUSTERS)[0])


def _cluster(
    config: TwasClusterConfig,
    choice: ChosenPhenotypes,
    chosen: ComparedPhenotypes,
    folder: Path,
    tables: _Tables,
    context: Context,
) -> None:
    """Compare the phenotypes of a tissue and write what belongs to it alone."""
    block_bytes = _block_bytes(context.memory_bytes)
    tissue, names = chosen.matrix.tissue, chosen.names
    ranked = rank_levels(chosen.values, phenotypes=chosen.columns, block_bytes=block_bytes)
    rho = spearman(ranked, block_bytes=block_bytes)
    del ranked
    undefined = undefined_correlations(rho, names)
    if undefined:
        raise SchemaError(
            f"Tissue {tissue}: {undefined}. They share fewer than 3 genes, or do not vary. Leave them out with "
            "--phenotypes or raise --min-finite."
        )
    folder.mkdir()
    np.save(folder / "spearman.npy", rho)
    with atomic_path(folder / "phenotypes.txt") as partial:
        partial.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    far = np.subtract(1.0, rho, out=rho)
    tree = ward_tree(far, method=config.linkage, order=config.order)
    clusters = _cut(config, tree, far)
    width = silhouette(far, clusters)
    tables.clusters.append(_cluster_table(tissue, names, tree, clusters, width, far))
    write_results(_linkage_table(tree), folder / "linkage.parquet")
    (folder / "tree.nwk").write_text(newick(tree, names.tolist()) + "\n", encoding="utf-8")
    tables.validity.append(_validity(config, choice, chosen, far, clusters, context))
    if config.figures:
        np.subtract(1.0, far, out=far)
        columns = _annotation_columns(choice, config.strips, _STRIPS, "--strips")
        strips = {name: choice.column(name, names) for name in columns}
        title = f"{tissue}: {names.size:,} phenotypes, {chosen.matrix.genes.size:,} genes"
        draw_similarity(far, tree, clusters, strips, names.tolist(), title, folder / "heatmap.png")
        draw_tree(tree, clusters, names.tolist(), title, folder / "dendrogram.png")
    tables.rows[-1] |= {
        "n_clusters": int(clusters.max()),
        "silhouette": float(width.mean()) if clusters.max() > 1 else float("nan"),
    }


def _cluster_table(
    tissue: str,
    names: Shaped[np.ndarray, " p"],
    tree: WardTree,
    clusters: Int64[np.ndarray, " p"],
    width: Float64[np.ndarray, " p"],
    far: Float64[np.ndarray, "p p"],
) -> ResultTable:
    n = names.size
    leaf = np.empty(n, dtype=np.int64)
    leaf[tree.order] = np.arange(1, n + 1)
    np.fill_diagonal(far, np.inf)
    near = far.argmin(axis=1)
    spearman_of_near = 1.0 - far[np.arange(n), near]
    np.fill_diagonal(far, 0.0)
    return ResultTable(
        {
            "tissue": np.full(n, tissue),
            "phenotype": names,
            "phenotype_cluster": clusters,
            "leaf": leaf,
            "silhouette": width,
            "nearest_phenotype": names[near],
            "spearman": spearman_of_near,
        }
    )


def _linkage_table(tree: WardTree) -> ResultTable:
    sizes = np.ones(2 * tree.n_leaves - 1, dtype=np.int64)
    for step, pair in enumerate(tree.merge):
        ends = np.where(pair < 0, -pair - 1, tree.n_leaves + pair - 1)
        sizes[tree.n_leaves + step] = sizes[ends].sum()
    return ResultTable(
        {
            "merge_1": tree.merge[:, 0],
            "merge_2": tree.merge[:, 1],
            "height": tree.height,
            "n_phenotypes": sizes[tree.n_leaves :],
        }
    )


def _validity(
    config: TwasClusterConfig,
    choice: ChosenPhenotypes,
    chosen: ComparedPhenotypes,
    far: Float64[np.ndarray, "p p"],
    clusters: Int64[np.ndarray, " p"],
    context: Context,
) -> ResultTable:
    """Return a row for every annotation of which two levels or more occur, and one for homologues."""
    rows: list[tuple[str, int, int, float, float, float, float, float]] = []
    for number, name in enumerate(_annotation_columns(choice, config.validate_by, _LABELS, "--validate-by")):
        labels = choice.column(name, chosen.names)
        known = np.flatnonzero(labels != "")
        n_levels = int(np.unique(labels[known]).size)
        if n_levels < 2 or known.size < 3:
            continue
        part = far if known.size == labels.size else far[np.ix_(known, known)]
        hits = neighbour_hits(part, labels[known], n_permutations=config.permutations, rng=context.rng(1, number))
        agreement = adjusted_rand(clusters[known], labels[known])
        width = float(silhouette(part, labels[known]).mean())
        rows.append((name, known.size, n_levels, agreement, hits.rate, hits.expected, hits.permutation_p, width))
    keys = _annotation_columns(choice, config.homologues, _HOMOLOGUES, "--homologues")
    if "side" in choice.columns() and keys:
        pairs = find_homologues(
            choice.column("side", chosen.names), [choice.column(name, chosen.names) for name in keys]
        )
        if pairs.left.size:
            hits = homologue_hits(far, pairs, n_permutations=config.permutations, rng=context.rng(2))
            together = np.mean(clusters[pairs.left] == clusters[pairs.right])
            nan = float("nan")
            row = ("homologue", hits.n, int(pairs.left.size), nan, hits.rate, hits.expected, hits.permutation_p, nan)
            rows.append(row)
            chosen.counts["homologues_in_one_cluster"] = round(float(together), 4)
        chosen.counts["homologues"] = int(pairs.left.size)
        chosen.counts["lateral_without_homologue"] = pairs.n_ambiguous
    names = [
        "annotation", "n_phenotypes", "n_levels", "adjusted_rand", "neighbour_hit_rate", "neighbour_hit_expected",
        "neighbour_hit_p", "silhouette",
    ]  # fmt: skip
    columns = {name: np.array([row[k] for row in rows]) for k, name in enumerate(names)}
    if not rows:
        columns = {name: np.zeros(0, dtype=np.str_ if name == "annotation" else np.float64) for name in names}
    columns |= {name: columns[name].astype(np.int64) for name in ("n_phenotypes", "n_levels")}
    return ResultTable({"tissue": np.full(len(rows), chosen.matrix.tissue), **columns})


def _embed(
    config: TwasClusterConfig,
    choice: ChosenPhenotypes,
    vectors: PhenotypeVectors,
    folder: Path,
    tables: _Tables,
    context: Context,
) -> None:
    """Add the embedding to the tables and to the last row of the tissues."""
    settings = EmbeddingSettings(
        config.embed, config.missing, config.components, config.scale, config.max_p, config.neighbours,
        config.min_distance, config.colour_by, config.figures,
    )  # fmt: skip
    found = embed_phenotypes(settings, choice, vectors, folder, seed=context.seed)
    tables.rows[-1] |= found.quality
    tables.embedding.append(found.points)
    tables.notes += found.notes
    if found.components is not None:
        tables.components.append(found.components)


def twas_cluster(config: TwasClusterConfig, out: Path, context: Context) -> StepResult:
    """Compare phenotypes tissue by tissue."""
    choice = chosen_by(config)
    _check(config, choice)
    tables = _Tables([], [], [], [], [], [])
    kept: list[ComparedPhenotypes] = []
    counts: dict[str, Any] = {"tissues": {}}
    first_error: BrainlocusError | None = None
    block_bytes = _block_bytes(context.memory_bytes)
    with threadpool_limits(context.threads):
        for matrix in context.progress.track(gene_matrices(config), "Tissues", count_tissues(config)):
            tables.rows.append({"tissue": matrix.tissue, "n_genes": int(matrix.genes.size), "status": "ok"})
            try:
                chosen = _choose(config, choice, matrix, block_bytes)
                tables.rows[-1]["n_phenotypes"] = int(chosen.columns.size)
                needed = _peak_bytes(config, int(matrix.genes.size), int(chosen.columns.size), block_bytes)
                require_memory(needed, context.memory_bytes, f"{matrix.tissue}: {chosen.columns.size} phenotypes")
                folder = _new_folder(out, matrix.tissue)
                _cluster(config, choice, chosen, folder, tables, context)
                if config.embed and config.embed_over == "tissue":
                    vectors = PhenotypeVectors(matrix.tissue, (chosen,), chosen.names, block_bytes)
                    _embed(config, choice, vectors, folder, tables, context)
            except SchemaError as error:
                first_error = first_error or error
                tables.rows[-1]["status"] = str(error)
                continue
            counts["tissues"][matrix.tissue] = chosen.counts
            kept.append(chosen)
        if not kept:
            raise first_error or SchemaError("The results have no tissue.")
        if config.embed and config.embed_over == "all":
            _embed_all(config, choice, kept, out, tables, context)
    return _finish(out, tables, counts)


def _new_folder(out: Path, tissue: str) -> Path:
    folder = out / _folder_name(tissue)
    if folder.exists():
        raise SchemaError(f"Two tissues would be written to {folder.name}; rename {tissue!r}.")
    return folder


def _embed_all(
    config: TwasClusterConfig,
    choice: ChosenPhenotypes,
    kept: list[ComparedPhenotypes],
    out: Path,
    tables: _Tables,
    context: Context,
) -> None:
    """Embed the phenotypes that all tissues have, by the gene vectors of all of them."""
    common = set.intersection(*(set(part.names.tolist()) for part in kept))
    names = np.array([name for name in kept[0].names.tolist() if name in common], dtype=np.str_)
    tables.rows.append(
        {"tissue": "all", "n_genes": sum(int(p.matrix.genes.size) for p in kept), "n_phenotypes": int(names.size)}
    )
    tables.rows[-1]["status"] = "ok"
    if names.size < 2:
        tables.rows[-1]["status"] = "fewer than two phenotypes have enough values in all tissues"
        return
    vectors = PhenotypeVectors("all", tuple(kept), names, _block_bytes(context.memory_bytes))
    _embed(config, choice, vectors, out, tables, context)


_TISSUE_NUMBERS = {
    "n_genes": 0, "n_phenotypes": 0, "n_clusters": 0, "silhouette": np.nan, "n_nominal_genes": 0, "umap_neighbours": 0,
    "umap_min_distance": np.nan, "n_neighbours_compared": 0, "trustworthiness": np.nan, "neighbour_overlap": np.nan,
}  # fmt: skip


def _finish(out: Path, tables: _Tables, counts: dict[str, Any]) -> StepResult:
    """Write the tables of all tissues and say what was found."""
    columns: dict[str, Shaped[np.ndarray, " tissues"]] = {"tissue": np.array([row["tissue"] for row in tables.rows])}
    columns |= {name: np.array([r.get(name, none) for r in tables.rows]) for name, none in _TISSUE_NUMBERS.items()}
    columns["status"] = np.array([row["status"] for row in tables.rows])
    write_results(ResultTable(columns), out / "tissues.parquet")
    for name in ("clusters", "validity", "components", "embedding"):
        parts: list[ResultTable] = getattr(tables, name)
        if parts:
            write_results(concat_results(parts), out / f"{name}.parquet")
    failed = [row for row in tables.rows if row["status"] != "ok"]
    lines = []
    for row in tables.rows:
        if row["status"] != "ok":
            continue
        said = f"{row['tissue']}: {row['n_phenotypes']} phenotypes, {row['n_genes']} genes"
        if "n_clusters" in row:
            said += f", {row['n_clusters']} clusters (mean silhouette {row['silhouette']:.2f})"
        if "trustworthiness" in row:
            said += f"; UMAP trustworthiness {row['trustworthiness']:.3f}"
        lines.append(said)
    counts["without_result"] = {row["tissue"]: row["status"] for row in failed}
    counts["notes"] = tables.notes
    shown = lines if len(lines) <= 25 else [*lines[:25], f"... and {len(lines) - 25} more"]
    return StepResult(counts, n_failed=len(failed), summary=(*shown, *tables.notes))


TWAS_CLUSTER = Step(
    "twas cluster", "Cluster and embed phenotypes by their genes.", TwasClusterConfig, twas_cluster, out="folder"
)
