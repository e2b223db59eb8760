r"""S-PrediXcan for a matrix of phenotypes: predicted expression against GWAS summary statistics.

Data flow::

    ExpressionModel, GeneCovariance, ModelSnps --prepare_tissue--> TissueModel      (once a model)
    TissueModel, presence of SNPs --weigh_genes--> GeneWeights                      (once a pattern of absent SNPs)
    GeneWeights, z (SNPs x phenotypes) --scan_genes--> genes x phenotypes           (once a block of phenotypes)

Method: with the SNPs U of gene g that the model has, the GWAS has, and the reference panel has a variance of, weights
w, covariance Gamma on U and GWAS z_l, beta_l per effect allele of the model::

    var_g    = w' Gamma w
    z_g      = sum_l w_l sqrt(Gamma_ll) z_l / sqrt(var_g)
    effect_g = sum_l w_l Gamma_ll beta_l / var_g

Both are products of a sparse matrix (genes x SNPs) with a dense one (SNPs x phenotypes); 2 x weights x phenotypes
multiplications each. Absent SNPs leave the sum and Gamma; nothing is imputed.

References
----------
Barbeira et al. (2018), Nature Communications 9:1825, equations 4 to 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numba import njit

from brainlocus.core import AlignmentError, ExpressionModel, GeneCovariance

__all__ = [
    "GeneWeights",
    "PhenotypeBlock",
    "TissueModel",
    "prepare_tissue",
    "scan_genes",
    "scan_genes_peak_bytes",
    "turn_block",
    "weigh_genes",
]

_LANES = 256
"""Phenotypes added up at a time: accumulators and a row of z stay in the first-level cache."""
_TILE_COLUMNS, _TILE_ROWS = 128, 8
"""Columns and rows turned together: eight rows of 512 bytes."""
_SHOWN = 3


@dataclass(frozen=True, slots=True, eq=False)
class TissueModel:
    """A model with the variances and covariances of its SNPs, in entries of `ModelSnps`."""

    tissue: str
    genes: Shaped[np.ndarray, " genes"]
    gene_names: Shaped[np.ndarray, " genes"]
    offsets: Int[np.ndarray, " genes_and_one"]
    entry: Int[np.ndarray, " weights"]
    weight: Float[np.ndarray, " weights"]
    """Per effect allele of the entry."""
    variance: Float[np.ndarray, " weights"]
    """Gamma_ll; NaN where the panel has none."""
    pair_offsets: Int[np.ndarray, " genes_and_one"]
    first: Int[np.ndarray, " pairs"]
    """Weights of a pair, both with a variance."""
    second: Int[np.ndarray, " pairs"]
    covariance: Float[np.ndarray, " pairs"]
    """Per effect alleles of the entries; off the diagonal counted twice already."""
    n_snps_in_model: Int[np.ndarray, " genes"]
    n_snps_in_cov: Int[np.ndarray, " genes"]
    pred_perf_r2: Float[np.ndarray, " genes"]
    pred_perf_pval: Float[np.ndarray, " genes"]
    pred_perf_qval: Float[np.ndarray, " genes"]
    phi: Float[np.ndarray, " genes"]
    n_pairs_missing: int
    """Pairs of SNPs without a covariance, taken as 0."""


@dataclass(frozen=True, slots=True, eq=False)
class GeneWeights:
    """The two sparse matrices of some genes for one pattern of absent SNPs."""

    offsets: Int[np.ndarray, " genes_and_one"]
    entry: Int[np.ndarray, " used"]
    for_z: Float[np.ndarray, " used"]
    for_effect: Float[np.ndarray, " used"]
    var_g: Float[np.ndarray, " genes"]
    """NaN where no SNP is used."""
    n_snps_used: Int[np.ndarray, " genes"]
    in_gwas: Bool[np.ndarray, " genes"]
    """Some SNP of the model is in the GWAS."""


@dataclass(frozen=True, slots=True, eq=False)
class PhenotypeBlock:
    """GWAS of some phenotypes in the entries of `ModelSnps`, zero where absent."""

    z: Float[np.ndarray, "entries phenotypes"]
    beta: Float[np.ndarray, "entries phenotypes"] | None
    """NaN where a row has z but no beta, and in the whole column of a GWAS without betas."""


def _position_of(
    wanted: Shaped[np.ndarray, " wanted"], known: Shaped[np.ndarray, " known"]
) -> Int[np.ndarray, " wanted"]:
    """Return the place of every wanted text among the known ones (unique), -1 where there is none."""
    if not known.size:
        return np.full(wanted.size, -1)
    order = np.argsort(known, kind="stable")
    at = np.minimum(np.searchsorted(known[order], wanted), known.size - 1)
    place = order[at]
    return np.where(known[place] == wanted, place, -1)


def prepare_tissue(
    model: ExpressionModel,
    covariance: GeneCovariance,
    *,
    entry: Int[np.ndarray, " weights"],
    sign: Float[np.ndarray, " weights"],
    snps: Shaped[np.ndarray, " weights"] | None = None,
    missing_as_zero: bool = False,
) -> TissueModel:
    """Join a model with the covariances of its SNPs.

    Parameters
    ----------
    entry, sign
        Of every weight, as `unite_snps` gives them.
    snps
        Names of the weights' SNPs as the covariance has them; those of the model by default.
    missing_as_zero
        Take a pair of SNPs that both have a variance, but no covariance, as uncorrelated, and count it.

    Raises
    ------
    AlignmentError
        No gene has a covariance (with examples of both sides); a pair is missing.
    """
    names = model.snps if snps is None else snps
    n_weights, n_genes = model.weight.size, model.genes.size
    gene_of_weight = model.gene_of_weight
    gene = _position_of(covariance.genes, model.genes)
    unique, code = np.unique(names, return_inverse=True)
    snp = _position_of(covariance.names, unique)
    # A pair's SNPs as weights of its gene: looked up by (gene, SNP), which is unique.
    key = gene_of_weight.astype(np.int64) * unique.size + code
    order = np.argsort(key, kind="stable")
    pair_gene = np.repeat(gene, np.diff(covariance.offsets))

    def weight_of(side: Int[np.ndarray, " pairs"]) -> Int[np.ndarray, " pairs"]:
        wanted = np.where((pair_gene >= 0) & (snp[side] >= 0), pair_gene.astype(np.int64) * unique.size + snp[side], -1)
        at = np.minimum(np.searchsorted(key[order], wanted), n_weights - 1)
        return np.where((wanted >= 0) & (key[order][at] == wanted), order[at], -1)

    first, second = weight_of(covariance.first), weight_of(covariance.second)
    listed = (first >= 0) & (second >= 0)
    diagonal = listed & (covariance.first == covariance.second)
    if not diagonal.any():
        raise AlignmentError(_no_covariance(model, names, covariance))
    variance = np.full(n_weights, np.nan)
    variance[first[diagonal]] = covariance.value[diagonal]
    seen = np.zeros(n_weights, dtype=bool)
    seen[first[listed]], seen[second[listed]] = True, True
    usable = listed & ~np.isnan(variance[first]) & ~np.isnan(variance[second])
    first, second, value = first[usable], second[usable], covariance.value[usable]
    by_gene = np.argsort(gene_of_weight[first], kind="stable")
    first, second, value = first[by_gene], second[by_gene], value[by_gene]
    pairs = np.bincount(gene_of_weight[first], minlength=n_genes)
    with_variance = np.bincount(gene_of_weight[~np.isnan(variance)], minlength=n_genes)
    missing = with_variance * (with_variance + 1) // 2 - pairs
    if missing.any() and not missing_as_zero:
        where = ", ".join(f"{model.genes[g]} ({missing[g]})" for g in np.flatnonzero(missing)[:_SHOWN])
        raise AlignmentError(
            f"Model {model.tissue}: {int((missing > 0).sum())} genes have SNPs with a variance but without a "
            f"covariance between them: {where}. Give the covariance that belongs to the model, or "
            "--missing-covariance zero."
        )
    twice = np.where(first == second, 1.0, 2.0)
    return TissueModel(
        tissue=model.tissue,
        genes=model.genes,
        gene_names=model.gene_names,
        offsets=model.offsets,
        entry=entry,
        weight=model.weight * sign,
        variance=variance,
        pair_offsets=np.r_[0, np.cumsum(pairs)].astype(np.int64),
        first=first.astype(np.int32),
        second=second.astype(np.int32),
        covariance=value * sign[first] * sign[second] * twice,
        n_snps_in_model=model.n_snps_in_model,
        n_snps_in_cov=np.bincount(gene_of_weight[seen], minlength=n_genes),
        pred_perf_r2=model.pred_perf_r2,
        pred_perf_pval=model.pred_perf_pval,
        pred_perf_qval=model.pred_perf_qval,
        phi=model.phi,
        n_pairs_missing=int(missing.sum()),
    )


def _no_covariance(model: ExpressionModel, names: Shaped[np.ndarray, " weights"], covariance: GeneCovariance) -> str:
    shared = int((_position_of(covariance.genes, model.genes) >= 0).sum())
    gene = covariance.genes[0] if covariance.genes.size else "no gene"
    snp = covariance.names[0] if covariance.names.size else "no SNP"
    return (
        f"Model {model.tissue}: no SNP of it has a variance in the covariance file. {shared} of {model.genes.size} "
        f"genes are in both. The model has genes such as {model.genes[0]} with SNPs such as {names[0]}, the covariance "
        f"{gene} with {snp}. Give the file that belongs to the model, or another --snp-key or --strip-versions."
    )


def _ranges(offsets: Int[np.ndarray, " groups_and_one"], groups: Int[np.ndarray, " some"]) -> Int[np.ndarray, " rows"]:
    """Return the rows of some groups, one after another."""
    sizes = offsets[groups + 1] - offsets[groups]
    starts = np.repeat(offsets[groups] - np.r_[0, np.cumsum(sizes)[:-1]], sizes)
    return np.asarray(np.arange(int(sizes.sum())) + starts)


def weigh_genes(
    tissue: TissueModel, present: Bool[np.ndarray, " entries"], genes: Int[np.ndarray, " some"] | None = None
) -> GeneWeights:
    """Return the sparse matrices of genes for the SNPs that a GWAS has.

    Parameters
    ----------
    present
        Entries of `ModelSnps` with a z.
    genes
        Only these, in this order; all by default.
    """
    chosen = np.arange(tissue.genes.size) if genes is None else genes
    rows = _ranges(tissue.offsets, chosen)
    number = np.repeat(np.arange(chosen.size), tissue.offsets[chosen + 1] - tissue.offsets[chosen])
    here = present[tissue.entry]
    used_weight = here & ~np.isnan(tissue.variance)
    pairs = _ranges(tissue.pair_offsets, chosen)
    pair_number = np.repeat(np.arange(chosen.size), tissue.pair_offsets[chosen + 1] - tissue.pair_offsets[chosen])
    first, second = tissue.first[pairs], tissue.second[pairs]
    together = used_weight[first] & used_weight[second]
    products = tissue.weight[first] * tissue.weight[second] * tissue.covariance[pairs]
    var_g = np.bincount(pair_number[together], weights=products[together], minlength=chosen.size)
    used = used_weight[rows]
    n_used = np.bincount(number[used], minlength=chosen.size)
    var_g = np.where(n_used > 0, var_g, np.nan)
    positive = np.where(var_g > 0, var_g, np.nan)
    mine, kept = rows[used], number[used]
    weight, variance = tissue.weight[mine], tissue.variance[mine]
    return GeneWeights(
        offsets=np.r_[0, np.cumsum(n_used)].astype(np.int64),
        entry=tissue.entry[mine],
        for_z=weight * np.sqrt(variance) / np.sqrt(positive[kept]),
        for_effect=weight * variance / positive[kept],
        var_g=var_g,
        n_snps_used=n_used,
        in_gwas=np.bincount(number[here[rows]], minlength=chosen.size) > 0,
    )


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
@no_type_check
def _sparse_times_dense(offsets, entry, weight, dense, out):  # noqa: ANN001, ANN202
    """Fill ``out = A @ dense``; sums in float64, in the order of the weights; NaN for rows without weights."""
    n_columns = dense.shape[1]
    sums = np.empty(_LANES, dtype=np.float64)
    for row in range(offsets.size - 1):
        start, stop = offsets[row], offsets[row + 1]
        if start == stop:
            out[row, :] = np.nan
            continue
        for low in range(0, n_columns, _LANES):
            n = min(_LANES, n_columns - low)
            sums[:n] = 0.0
            for k in range(start, stop):
                factor = weight[k]
                line = dense[entry[k], low : low + n]
                for c in range(n):
                    sums[c] += factor * line[c]
            for c in range(n):
                out[row, low + c] = sums[c]


@njit(cache=True, nogil=True)
@no_type_check
def _turn(values, present, out):  # noqa: ANN001, ANN202
    """Fill ``out = values.T``, 0 where absent, in tiles that stay in the cache."""
    n_rows, n_columns = values.shape
    for low in range(0, n_columns, _TILE_COLUMNS):
        high = min(low + _TILE_COLUMNS, n_columns)
        for top in range(0, n_rows, _TILE_ROWS):
            bottom = min(top + _TILE_ROWS, n_rows)
            for c in range(low, high):
                for r in range(top, bottom):
                    out[c, r] = values[r, c] if present[r, c] else 0.0


def turn_block(
    values: Float[np.ndarray, "phenotypes entries"],
    present: Bool[np.ndarray, "phenotypes entries"],
    out: Float[np.ndarray, "entries phenotypes"] | None = None,
) -> Float[np.ndarray, "entries phenotypes"]:
    """Return z or beta of phenotypes x SNPs as `PhenotypeBlock` has them: turned, zero where the SNP is absent.

    Parameters
    ----------
    out
        Filled and returned; memory that is used again costs a fraction of new memory.
    """
    filled = np.empty((values.shape[1], values.shape[0]), dtype=values.dtype) if out is None else out
    _turn(values, present, filled)
    return filled


def scan_genes(weights: GeneWeights, block: PhenotypeBlock, z_out: Any, effect_out: Any = None) -> None:
    """Fill z and effects of genes x phenotypes; NaN where a gene has no SNP or no variance.

    Parameters
    ----------
    z_out, effect_out
        Arrays of genes x phenotypes, float32 or float64, filled in place (they may lie in a memory map); without
        `effect_out`, or without betas, no effects.
    """
    _sparse_times_dense(weights.offsets, weights.entry, weights.for_z, block.z, z_out)
    if effect_out is not None:
        if block.beta is None:
            effect_out[:] = np.nan
        else:
            _sparse_times_dense(weights.offsets, weights.entry, weights.for_effect, block.beta, effect_out)


def scan_genes_peak_bytes(n_entries: int, n_genes: Sequence[int], n_phenotypes: int, itemsize: int = 4) -> int:
    """Return the memory of one block: z and beta of its phenotypes twice (as read and turned), and its results."""
    return n_phenotypes * (4 * n_entries * itemsize + 2 * itemsize * max(n_genes, default=0))
