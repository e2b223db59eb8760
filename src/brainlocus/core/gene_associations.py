"""Associations of predicted expression with phenotypes: a list of tests, or one tissue as a matrix."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from brainlocus.core.errors import SchemaError, nearest

__all__ = ["SCOPES", "GeneAssociations", "GeneBlock", "GeneMatrix", "PhenotypeAnnotation"]


@dataclass(frozen=True, slots=True, eq=False)
class GeneAssociations:
    """Tests of genes x phenotypes x tissues as a list; names once, numbers per test.

    All tests, or those below some p: what is absent was not significant or not tested, which the list cannot tell.

    Raises
    ------
    SchemaError
        Columns differ in length, or a number points to no name.
    """

    genes: Shaped[np.ndarray, " genes"]
    gene_names: Shaped[np.ndarray, " genes"]
    """Symbols; empty where unknown."""
    tissues: Shaped[np.ndarray, " tissues"]
    phenotypes: Shaped[np.ndarray, " phenotypes"]
    gene: Int[np.ndarray, " tests"]
    """Place in `genes`."""
    tissue: Int[np.ndarray, " tests"]
    phenotype: Int[np.ndarray, " tests"]
    z: Float[np.ndarray, " tests"]
    """NaN: no result."""
    effect: Float[np.ndarray, " tests"]
    """Effect size per SD of predicted expression; NaN where the scan had no betas."""
    neg_log10_p: Float[np.ndarray, " tests"]
    pred_perf_r2: Float[np.ndarray, " tests"]
    """Performance of the model of this gene and tissue; NaN where unknown."""

    def __post_init__(self) -> None:
        columns = {"gene": self.gene, "tissue": self.tissue, "phenotype": self.phenotype, "z": self.z}
        columns |= {"effect": self.effect, "neg_log10_p": self.neg_log10_p, "pred_perf_r2": self.pred_perf_r2}
        sizes = {name: column.size for name, column in columns.items()}
        if len(set(sizes.values())) > 1:
            raise SchemaError(f"Columns of the tests differ in length: {sizes}.")
        for name, codes, levels in (
            ("gene", self.gene, self.genes),
            ("tissue", self.tissue, self.tissues),
            ("phenotype", self.phenotype, self.phenotypes),
        ):
            if codes.size and (codes.min() < 0 or codes.max() >= levels.size):
                raise SchemaError(f"A test names {name} {codes.max()}, but there are {levels.size}.")

    def __len__(self) -> int:
        return int(self.z.size)

    def take(self, tests: Int[np.ndarray, " kept"] | Bool[np.ndarray, " tests"]) -> "GeneAssociations":
        """Return some tests, by number or where a mask is true; the names stay."""
        return GeneAssociations(
            self.genes,
            self.gene_names,
            self.tissues,
            self.phenotypes,
            self.gene[tests],
            self.tissue[tests],
            self.phenotype[tests],
            self.z[tests],
            self.effect[tests],
            self.neg_log10_p[tests],
            self.pred_perf_r2[tests],
        )


@dataclass(frozen=True, slots=True, eq=False)
class GeneMatrix:
    """One tissue: every modelled gene against every phenotype."""

    tissue: str
    genes: Shaped[np.ndarray, " genes"]
    gene_names: Shaped[np.ndarray, " genes"]
    phenotypes: Shaped[np.ndarray, " phenotypes"]
    z: Float[np.ndarray, "genes phenotypes"]
    """NaN: no result. May be float32, and may lie in a memory map."""
    effect: Float[np.ndarray, "genes phenotypes"] | None = None
    pred_perf_r2: Float[np.ndarray, " genes"] | None = None
    """Performance of the genes' models, where it is known at all; NaN for those where it is not."""

    def __post_init__(self) -> None:
        expected = (self.genes.size, self.phenotypes.size)
        if self.z.shape != expected:
            raise SchemaError(f"Tissue {self.tissue}: expected z of {expected}, found {self.z.shape}.")


@dataclass(frozen=True, slots=True, eq=False)
class PhenotypeAnnotation:
    """What is known of imaging phenotypes: modality, atlas, side, region, measurement ... as text.

    Raises
    ------
    SchemaError
        Columns differ in length, or a phenotype occurs twice.
    """

    phenotypes: Shaped[np.ndarray, " phenotypes"]
    columns: Mapping[str, Shaped[np.ndarray, " phenotypes"]]
    """By name: ``modality``, ``atlas``, ``side`` (left, right, or other text), ``region``, ``measurement`` ...; empty
    text where unknown."""

    def __post_init__(self) -> None:
        names, counts = np.unique(self.phenotypes, return_counts=True)
        if (counts > 1).any():
            twice = ", ".join(map(str, names[counts > 1][:5]))
            raise SchemaError(f"The annotation has {int((counts > 1).sum())} phenotypes more than once: {twice}.")
        for name, column in self.columns.items():
            if column.size != self.phenotypes.size:
                raise SchemaError(f"The annotation's column {name} has {column.size} rows, not {self.phenotypes.size}.")

    def unknown(self, phenotypes: Shaped[np.ndarray, " asked"], *, where: str = "The annotation") -> int:
        """Return how many phenotypes are not annotated.

        Parameters
        ----------
        where
            Name of the annotation, for the message.

        Raises
        ------
        SchemaError
            None of them is: the names are of another kind.
        """
        n = int((~np.isin(phenotypes, self.phenotypes)).sum())
        if phenotypes.size and n == phenotypes.size:
            raise SchemaError(
                f"{where}: it has none of the {n} phenotypes of the results, such as {phenotypes[0]}; it has "
                f"{self.phenotypes[0] if self.phenotypes.size else 'none at all'}. Name them alike."
            )
        return n

    def of(self, column: str, phenotypes: Shaped[np.ndarray, " asked"]) -> Shaped[np.ndarray, " asked"]:
        """Return a column for some phenotypes, empty text for those that are not annotated.

        Raises
        ------
        SchemaError
            There is no such column.
        """
        if column not in self.columns:
            raise SchemaError(
                f"The annotation has no column {column!r}.{nearest(column, list(self.columns))} It has: "
                f"{', '.join(self.columns)}."
            )
        known = dict(zip(self.phenotypes.tolist(), self.columns[column].tolist(), strict=True))
        return np.array([known.get(name, "") for name in phenotypes.tolist()], dtype=np.str_)


SCOPES = ("study", "modality", "atlas", "phenotype", "phenotype-tissue")
"""What tests may be corrected together, from all of a study to one phenotype in one tissue."""


@dataclass(frozen=True, slots=True, eq=False)
class GeneBlock:
    """A part of a scan's results that fits in memory, and what is known of the tests behind it.

    Raises
    ------
    SchemaError
        Columns differ in length.
    """

    tests: GeneAssociations
    """Tests with a result that passed the filter on p."""
    n_tested: Int[np.ndarray, "phenotypes tissues"] | None
    """Tests with a result, kept or not, of each phenotype and tissue of `tests`; None where only a selection was
    listed, so that they cannot be counted."""
    model_gene: Int[np.ndarray, " models"]
    """Models (a gene in a tissue) that occur in the block, kept or not: place in ``tests.genes``."""
    model_tissue: Int[np.ndarray, " models"]
    model_r2: Float[np.ndarray, " models"]
    q: Mapping[str, Float[np.ndarray, " tests"]]
    """Benjamini-Hochberg q that came with the tests, by scope."""
    n_tests: Mapping[str, Float[np.ndarray, " tests"]]
    """Number of tests of the scope that came with the tests, by scope."""

    def __post_init__(self) -> None:
        sizes = {name: c.size for name, c in (*self.q.items(), *self.n_tests.items()) if c.size != len(self.tests)}
        if sizes:
            raise SchemaError(f"Columns of {len(self.tests)} tests differ in length: {sizes}.")
