"""Phenotypes as points by their genes: what ``twas cluster`` embeds, and where it lands."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped

from brainlocus.core import GeneMatrix, ResultTable, SchemaError
from brainlocus.genetics.twas import (
    MissingCells,
    SquaredDifferences,
    UmapSettings,
    embed_umap,
    gene_blocks,
    neighbour_overlap,
    nominal_genes,
    orient_components,
    principal_components,
    scaled_genes,
    squared_differences,
    trustworthiness,
    umap_settings,
)
from brainlocus.pipeline.figures.similarity import draw_points
from brainlocus.pipeline.phenotype_choice import ChosenPhenotypes

__all__ = ["ComparedPhenotypes", "Embedded", "EmbeddingSettings", "PhenotypeVectors", "embed_phenotypes"]

_NEIGHBOURS = 15
"""Of trustworthiness and overlap."""


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """What is asked of embeddings."""

    methods: tuple[str, ...]
    """pca, umap."""
    missing: MissingCells
    components: int
    scale: bool
    max_p: float
    neighbours: int | None
    min_distance: float | None
    colour_by: str
    figures: bool


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """Points of phenotypes and what is known of them."""

    points: ResultTable
    components: ResultTable | None
    quality: dict[str, Any]
    """Columns of the table of tissues."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ComparedPhenotypes:
    """The phenotypes of a tissue that are compared."""

    matrix: GeneMatrix
    values: Float[np.ndarray, "genes all_phenotypes"]
    """z or effects of the matrix, which may lie on disk."""
    columns: Int64[np.ndarray, " phenotypes"]
    """Places of the phenotypes in it."""
    names: Shaped[np.ndarray, " phenotypes"]
    counts: dict[str, Any]
    """What was left out, and why."""


@dataclass(frozen=True, slots=True, eq=False)
class PhenotypeVectors:
    """Gene vectors of some phenotypes, over one tissue or several."""

    label: str
    parts: tuple[ComparedPhenotypes, ...]
    names: Shaped[np.ndarray, " phenotypes"]
    block_bytes: int

    def columns(self, part: ComparedPhenotypes) -> Int64[np.ndarray, " phenotypes"]:
        """Return where a tissue has the phenotypes."""
        place = dict(zip(part.matrix.phenotypes.tolist(), range(part.matrix.phenotypes.size), strict=True))
        return np.array([place[name] for name in self.names.tolist()], dtype=np.int64)

    def blocks(
        self, genes: list[Int64[np.ndarray, " _"]] | None = None, *, z: bool = False
    ) -> Iterator[Float64[np.ndarray, "block phenotypes"]]:
        """Yield the values of some genes of each tissue, tissue by tissue; all by default."""
        for k, part in enumerate(self.parts):
            rows = np.arange(part.matrix.genes.size) if genes is None else genes[k]
            values = part.matrix.z if z else part.values
            yield from gene_blocks(values, genes=rows, phenotypes=self.columns(part), block_bytes=self.block_bytes)

    def nominal(self, max_p: float) -> list[Int64[np.ndarray, " _"]]:
        """Return the genes of each tissue with a p below `max_p` for any of the phenotypes."""
        kept = np.array(nominal_genes(self.blocks(z=True), max_p=max_p), dtype=bool)
        edges = np.cumsum([part.matrix.genes.size for part in self.parts])[:-1]
        return [np.flatnonzero(part) for part in np.split(kept, edges)]

    def differences(
        self, settings: EmbeddingSettings, genes: list[Int64[np.ndarray, " _"]] | None = None
    ) -> SquaredDifferences:
        """Return the squared differences over some genes; all by default."""
        return squared_differences(self.blocks(genes), self.names.size, missing=settings.missing)


def embed_phenotypes(
    settings: EmbeddingSettings, choice: ChosenPhenotypes, vectors: PhenotypeVectors, folder: Path, *, seed: int
) -> Embedded:
    """Return where phenotypes lie, and how much of it to believe; draw it in a folder.

    Raises
    ------
    SchemaError
        Missing cells are left out, and phenotypes share no gene.
    """
    row: dict[str, Any] = {}
    notes: list[str] = []
    components: ResultTable | None = None
    columns: dict[str, Shaped[np.ndarray, " phenotypes"]] = {
        "tissue": np.full(vectors.names.size, vectors.label),
        "phenotype": vectors.names,
    }
    colour = settings.colour_by if settings.colour_by in choice.columns() else ""
    labels = choice.column(colour, vectors.names) if colour else np.full(vectors.names.size, "", dtype=np.str_)
    nominal = vectors.nominal(settings.max_p)
    row["n_nominal_genes"] = int(sum(part.size for part in nominal))
    over = f"{vectors.label}: {vectors.names.size:,} phenotypes"
    some = vectors.differences(settings, nominal)
    if "pca" in settings.methods:
        points, components, share = _components(settings, vectors, nominal, some)
        columns |= {f"pc_{k + 1}": points[:, k] for k in range(points.shape[1])}
        columns |= {
            f"pc_{k + 1}": np.full(points.shape[0], np.nan) for k in range(points.shape[1], settings.components)
        }
        if settings.figures and points.shape[1] >= 2:
            names = tuple(f"PC{k + 1} ({share[k]:.1%})" for k in range(2))
            draw_points(points[:, :2], labels, (names[0], names[1]), over, folder / "pca.png", legend=colour)
    if "umap" in settings.methods:
        found = _umap(settings, choice, vectors, some, row, notes, seed)
        columns |= {"umap_1": found[:, 0], "umap_2": found[:, 1]}
        if settings.figures and np.isfinite(found).all():
            title = f"{over}, {row['n_nominal_genes']:,} genes; trustworthiness {row['trustworthiness']:.2f}"
            draw_points(found, labels, ("UMAP 1", "UMAP 2"), title, folder / "umap.png", legend=colour)
    return Embedded(ResultTable(columns), components, row, tuple(notes))


def _components(
    settings: EmbeddingSettings,
    vectors: PhenotypeVectors,
    nominal: list[Int64[np.ndarray, " _"]],
    some: SquaredDifferences,
) -> tuple[Float64[np.ndarray, "phenotypes components"], ResultTable, Float64[np.ndarray, " components"]]:
    """Return scores over all genes, the table of components, and their shares of the variance."""
    if settings.scale:
        sums = squared_differences(scaled_genes(vectors.blocks()), vectors.names.size, missing=settings.missing)
    else:
        rest = [
            np.setdiff1d(np.arange(part.matrix.genes.size), kept)
            for part, kept in zip(vectors.parts, nominal, strict=True)
        ]
        sums = some + vectors.differences(settings, rest)
    try:
        found = principal_components(sums, settings.components)
    except ValueError as error:
        raise SchemaError(f"Tissue {vectors.label}: {error} (--missing zero)") from error
    blocks = scaled_genes(vectors.blocks()) if settings.scale else vectors.blocks()
    turned, gene, loading = orient_components(found, blocks)
    genes = np.concatenate([part.matrix.genes for part in vectors.parts])
    symbols = np.concatenate([part.matrix.gene_names for part in vectors.parts])
    count = turned.share.size
    table = ResultTable(
        {
            "tissue": np.full(count, vectors.label),
            "component": np.arange(1, count + 1),
            "variance_explained": turned.share,
            "gene": genes[gene],
            "gene_name": symbols[gene],
            "loading": loading,
        }
    )
    return turned.scores, table, turned.share


def _umap(
    settings: EmbeddingSettings,
    choice: ChosenPhenotypes,
    vectors: PhenotypeVectors,
    differences: SquaredDifferences,
    row: dict[str, Any],
    notes: list[str],
    seed: int,
) -> Float64[np.ndarray, "phenotypes two"]:
    """Return points, NaN where there can be none, and note in the row how well they keep neighbours."""
    n = vectors.names.size
    modalities = choice.column("modality", vectors.names) if "modality" in choice.columns() else np.zeros(0, np.str_)
    usual = umap_settings(modalities)
    asked = UmapSettings(
        settings.neighbours or usual.n_neighbors,
        usual.min_dist if settings.min_distance is None else settings.min_distance,
    )
    try:
        if differences.n_genes == 0:
            raise ValueError(f"UMAP: no gene has p below {settings.max_p:g} for any phenotype.")
        found = embed_umap(differences, asked, seed=seed)
    except ValueError as error:
        notes.append(f"{vectors.label}: {error}")
        return np.full((n, 2), np.nan)
    if found.n_neighbors < asked.n_neighbors:
        notes.append(
            f"{vectors.label}: UMAP with {found.n_neighbors} neighbours rather than {asked.n_neighbors}, as there are "
            f"{n} phenotypes."
        )
    if found.n_parts > 1:
        notes.append(
            f"{vectors.label}: the neighbours of UMAP fall into {found.n_parts} parts; where these lie means nothing."
        )
    k = min(_NEIGHBOURS, (n - 1) // 2)
    far = np.sqrt(differences.squared_distances())
    row |= {
        "umap_neighbours": found.n_neighbors,
        "umap_min_distance": asked.min_dist,
        "n_neighbours_compared": k,
        "trustworthiness": trustworthiness(far, found.coordinates, k=k),
        "neighbour_overlap": neighbour_overlap(far, found.coordinates, k=k),
    }
    return found.coordinates
