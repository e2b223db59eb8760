"""Models that predict the expression of genes from genotypes, and the covariance of their SNPs.

A model file has one tissue. Its weights are held as three parallel columns ordered by gene, with `offsets` where each
gene begins, as sparse matrices are.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from brainlocus.core.errors import AlignmentError, SchemaError
from brainlocus.core.samples import SampleIndex

__all__ = ["ExpressionMatrix", "ExpressionModel", "GeneCovariance", "GenePlace"]


@dataclass(frozen=True, slots=True, eq=False)
class ExpressionModel:
    """Weights of one tissue (a PredictDB file).

    Raises
    ------
    SchemaError
        Columns do not fit together.
    """

    tissue: str
    genes: Shaped[np.ndarray, " genes"]
    """Gene ids (Ensembl), unique, in the order of `offsets`."""
    gene_names: Shaped[np.ndarray, " genes"]
    """Symbols; empty where unknown."""
    offsets: Int[np.ndarray, " genes_and_one"]
    """Weights of gene g are rows ``offsets[g]:offsets[g + 1]``."""
    snps: Shaped[np.ndarray, " weights"]
    """Name of the SNP: rsid or varID, whichever the reader was asked for."""
    effect_allele: Shaped[np.ndarray, " weights"]
    """Allele that the weight counts, in upper case."""
    other_allele: Shaped[np.ndarray, " weights"]
    weight: Float[np.ndarray, " weights"]
    """Expression (SD) per copy of the effect allele; 0 is kept and counts as a SNP of the model."""
    n_snps_in_model: Int[np.ndarray, " genes"]
    """As the file says; the number of rows where it says nothing."""
    pred_perf_r2: Float[np.ndarray, " genes"]
    """Cross-validated performance; NaN where the file has none."""
    pred_perf_pval: Float[np.ndarray, " genes"]
    pred_perf_qval: Float[np.ndarray, " genes"]
    phi: Float[np.ndarray, " genes"]
    """Inflation factor (Liang et al. 2023); NaN where the file has none."""

    def __post_init__(self) -> None:
        n_genes, n_weights = self.genes.size, self.weight.size
        if self.offsets.size != n_genes + 1 or self.offsets[0] != 0 or self.offsets[-1] != n_weights:
            raise SchemaError(
                f"Model {self.tissue}: offsets of {n_genes} genes must run from 0 to {n_weights} weights, found "
                f"{self.offsets.size} from {self.offsets[0]} to {self.offsets[-1]}."
            )

    @property
    def gene_of_weight(self) -> Int[np.ndarray, " weights"]:
        """Number of the gene of every weight."""
        return np.repeat(np.arange(self.genes.size), np.diff(self.offsets))


@dataclass(frozen=True, slots=True, eq=False)
class GeneCovariance:
    """Covariance of SNP dosages in the reference panel, gene by gene: the listed pairs, each once.

    Dosages count the effect allele of the model. A pair that is not listed, or whose value was ``NA``, is absent.
    """

    genes: Shaped[np.ndarray, " genes"]
    offsets: Int[np.ndarray, " genes_and_one"]
    """Pairs of gene g are rows ``offsets[g]:offsets[g + 1]``."""
    names: Shaped[np.ndarray, " names"]
    """Names of SNPs, each once, to which `first` and `second` point."""
    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]
    """``first == second`` is the variance of a SNP."""
    value: Float[np.ndarray, " pairs"]

    def __post_init__(self) -> None:
        if self.offsets.size != self.genes.size + 1 or self.offsets[-1] != self.value.size:
            raise SchemaError(
                f"Covariance: offsets of {self.genes.size} genes must run to {self.value.size} pairs, found "
                f"{self.offsets.size} up to {self.offsets[-1]}."
            )


@dataclass(frozen=True, slots=True)
class GenePlace:
    """Where a gene is; both ends belong to it."""

    gene: str
    name: str
    """Symbol; empty where unknown."""
    kind: str
    """Biotype; empty where unknown."""
    chromosome: str
    start: int
    stop: int
    strand: str
    """``+``, ``-``, or empty where unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class ExpressionMatrix:
    """Measured expression of genes in samples of one tissue.

    Raises
    ------
    AlignmentError
        The matrix does not have one row per gene and one column per sample.
    SchemaError
        A gene occurs twice.
    """

    genes: Shaped[np.ndarray, " genes"]
    samples: SampleIndex
    values: Float[np.ndarray, "genes samples"]
    """NaN where a sample has no value."""
    places: tuple[GenePlace, ...]
    """Of every gene, when the file has them (BED); else empty."""

    def __post_init__(self) -> None:
        expected = (self.genes.size, len(self.samples))
        if self.values.shape != expected:
            raise AlignmentError(f"Expression is {self.values.shape}, expected (genes, samples) = {expected}.")
        names, counts = np.unique(self.genes, return_counts=True)
        if (counts > 1).any():
            twice = ", ".join(names[counts > 1][:3].tolist())
            raise SchemaError(f"A gene may have one row of expression; {int((counts > 1).sum())} have more: {twice}.")
