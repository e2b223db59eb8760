r"""S-MultiXcan: one test of a gene from its S-PrediXcan z-scores in several tissues, for all phenotypes at once.

Data flow::

    ExpressionModels, GeneCovariance --join_tissues--> GeneTissues       (once a gene)
    GeneTissues --tissue_covariance--> V                                 (once a gene and set of SNPs in the GWAS)
    V, z (tissues x phenotypes) --multixcan--> MultiTissueTests          (once a gene)

Method: predicted expression in tissues t and s has covariance and correlation::

    V_ts = w_t' Gamma w_s        R_ts = V_ts / sqrt(V_tt V_ss)

with Gamma over the union of the gene's SNPs. With ``R = sum_i s_i u_i u_i'``, s_1 the largest, components below a
cut-off c are left out (the first never is), and::

    R+ = sum_kept u_i u_i' / s_i        X2 = z' R+ z ~ chi-square with as many degrees of freedom as are kept

R+ depends on which tissues have a z, so phenotypes with the same tissues share it and their tests are one product,
``rowsum((Z R+) * Z)``.

References
----------
Barbeira et al. (2019), 10.1371/journal.pgen.1007889.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64, Shaped

from brainlocus.core import AlignmentError, ExpressionModel, GeneCovariance
from brainlocus.numerics.tails import neg_log10_p_from_chi2, neg_log10_p_from_z

__all__ = [
    "CutOff",
    "GeneTissues",
    "MultiTissueStatus",
    "MultiTissueTests",
    "PseudoInverse",
    "index_genes",
    "invert_correlation",
    "join_tissues",
    "multixcan",
    "tissue_covariance",
]

_UNDERFLOW = 308.0
"""-log10 p above which p has no double of full precision."""


class MultiTissueStatus:
    """Status codes of the published program."""

    OK = 0
    NO_DATA = -1
    """No tissue with a z has a model of the gene."""
    NO_Z = -2
    NO_COVARIANCE = -3
    """No tissue with a z has a model with variance in the reference panel."""
    UNDERFLOW = -4
    """p is below the smallest double; -log10 p is there."""
    NOT_INVERTED = -6


@dataclass(frozen=True, slots=True)
class CutOff:
    """Smallest eigenvalue of R that is kept, by one rule.

    Raises
    ------
    ValueError
        A number is out of range, or 0 (keep everything) without a ridge.
    """

    rule: Literal["condition-number", "eigen-ratio", "trace-ratio", "variance-threshold"] = "condition-number"
    value: float = 30.0
    """Condition number k: ``s_1 / k``. Eigen ratio r: ``r s_1``. Trace ratio r: ``r tr(R)``. Variance threshold v: the
    last eigenvalue, from the largest down, before the sum exceeds ``(1 - v) tr(R)``."""
    ridge: float = 0.0
    """Added to the diagonal after the cut-off is known."""

    def __post_init__(self) -> None:
        if self.ridge < 0 or self.value < 0 or not np.isfinite(self.value) or not np.isfinite(self.ridge):
            raise ValueError(f"Expected a {self.rule} and a ridge of 0 or more, found {self.value} and {self.ridge}.")
        if self.rule == "condition-number" and self.value < 1:
            raise ValueError(f"Expected a condition number of 1 or more, found {self.value}.")
        if self.rule != "condition-number" and self.value >= 1:
            raise ValueError(f"Expected a {self.rule} below 1, found {self.value}.")
        if self.value == 0 and self.ridge == 0:
            raise ValueError(f"A {self.rule} of 0 keeps everything, also what is rounding; give a ridge with it.")

    def smallest(self, eigenvalues: Float64[np.ndarray, " tissues"], trace: float) -> float:
        """Return the cut-off for eigenvalues in descending order, and the trace of R."""
        if self.rule == "condition-number":
            return float(eigenvalues[0]) / self.value
        if self.rule == "eigen-ratio":
            return float(eigenvalues[0]) * self.value
        if self.rule == "trace-ratio":
            return trace * self.value
        # Sums that are equal but for rounding do not exceed.
        reached = int((np.cumsum(eigenvalues) <= (1 - self.value) * trace * (1 + 1e-12)).sum())
        return float(eigenvalues[max(reached - 1, 0)])


@dataclass(frozen=True, slots=True, eq=False)
class GeneTissues:
    """Models of one gene in several tissues, over the union of their SNPs."""

    gene: str
    gene_name: str
    tissues: Int64[np.ndarray, " tissues"]
    """Numbers of the models that have the gene."""
    snps: Shaped[np.ndarray, " snps"]
    """SNPs with a variance in the reference panel; none where it lacks the gene."""
    weights: Float64[np.ndarray, "tissues snps"]
    """Per allele of the first tissue that has the SNP; 0 where a tissue has not."""
    covariance: Float64[np.ndarray, "snps snps"]
    n_pairs_missing: int
    """Pairs of SNPs without a covariance, taken as 0."""


@dataclass(frozen=True, slots=True, eq=False)
class PseudoInverse:
    """R+ and what is known of R."""

    inverse: Float64[np.ndarray, "tissues tissues"]
    n_kept: int
    eigen_max: float
    eigen_min: float
    eigen_min_kept: float
    tmi: float
    """tr(R R+)."""


@dataclass(frozen=True, slots=True, eq=False)
class MultiTissueTests:
    """Tests of one gene with every phenotype; NaN (0, -1) where the status says why there is none."""

    neg_log10_p: Float64[np.ndarray, " phenotypes"]
    n: Int64[np.ndarray, " phenotypes"]
    """Tissues with a z; those without variance are among them."""
    n_indep: Int64[np.ndarray, " phenotypes"]
    """Components kept: degrees of freedom."""
    best: Int64[np.ndarray, " phenotypes"]
    """Tissue of the largest |z|, as a number of the models; -1 where there is none."""
    best_neg_log10_p: Float64[np.ndarray, " phenotypes"]
    worst: Int64[np.ndarray, " phenotypes"]
    worst_neg_log10_p: Float64[np.ndarray, " phenotypes"]
    eigen_max: Float64[np.ndarray, " phenotypes"]
    eigen_min: Float64[np.ndarray, " phenotypes"]
    eigen_min_kept: Float64[np.ndarray, " phenotypes"]
    z_min: Float64[np.ndarray, " phenotypes"]
    z_max: Float64[np.ndarray, " phenotypes"]
    z_mean: Float64[np.ndarray, " phenotypes"]
    z_sd: Float64[np.ndarray, " phenotypes"]
    """With n - 1; NaN for one tissue."""
    tmi: Float64[np.ndarray, " phenotypes"]
    status: Int64[np.ndarray, " phenotypes"]
    """Of `MultiTissueStatus`."""
    without_variance: Int64[np.ndarray, " left_out"]
    """Tissues (numbers of the models) that are left out because their predicted expression has no variance."""


def index_genes(models: Sequence[ExpressionModel]) -> dict[str, dict[int, int]]:
    """Return, for every gene, the models that have it and its place in each; genes in the order they first occur."""
    found: dict[str, dict[int, int]] = {}
    for number, model in enumerate(models):
        for place, gene in enumerate(model.genes.tolist()):
            found.setdefault(gene, {})[number] = place
    return found


def join_tissues(
    gene: str,
    models: Sequence[ExpressionModel],
    places: Mapping[int, int],
    covariance: GeneCovariance,
    *,
    snps: Sequence[Shaped[np.ndarray, " _weights"]] | None = None,
    missing_as_zero: bool = False,
) -> GeneTissues:
    """Join the models of a gene with the covariances of their SNPs.

    Parameters
    ----------
    places
        Of `index_genes`.
    covariance
        May lack the gene.
    snps
        Names of each model's SNPs as the covariance has them; those of the models by default.
    missing_as_zero
        Take a pair of SNPs that both have a variance, but no covariance, as uncorrelated, and count it.

    Raises
    ------
    AlignmentError
        Two tissues have other alleles for a SNP; a pair is missing.
    """
    numbers = np.array(sorted(places), dtype=np.int64)
    rows = [slice(*models[t].offsets[places[t] : places[t] + 2].tolist()) for t in numbers.tolist()]
    pairs = list(zip(numbers.tolist(), rows, strict=True))
    names = np.concatenate([(models[t].snps if snps is None else snps[t])[row] for t, row in pairs])
    tissue = np.repeat(np.arange(numbers.size), [row.stop - row.start for row in rows])
    weight = np.concatenate([models[t].weight[row] for t, row in pairs])
    sign = _signs(gene, names, *(np.concatenate([getattr(models[t], a)[row] for t, row in pairs]) for a in _ALLELES))
    at = np.flatnonzero(covariance.genes == gene)
    known, gamma, missing = _gene_matrix(covariance, int(at[0]) if at.size else -1, np.unique(names))
    if missing and not missing_as_zero:
        raise AlignmentError(
            f"Gene {gene}: {missing} pairs of SNPs that have variances have no covariance. Give the covariance that "
            "belongs to the models, or --missing-covariance zero."
        )
    place = np.searchsorted(known, names)
    there = place < known.size
    there[there] = known[place[there]] == names[there]
    matrix = np.zeros((numbers.size, known.size))
    matrix[tissue[there], place[there]] = (weight * sign)[there]
    symbols = [str(models[t].gene_names[places[t]]) for t in numbers.tolist()]
    return GeneTissues(gene, next(filter(None, symbols), ""), numbers, known, matrix, gamma, missing)


_ALLELES = ("effect_allele", "other_allele")


def _signs(
    gene: str,
    names: Shaped[np.ndarray, " weights"],
    effect: Shaped[np.ndarray, " weights"],
    other: Shaped[np.ndarray, " weights"],
) -> Float64[np.ndarray, " weights"]:
    """Return 1 where a weight counts the allele of the first tissue that has its SNP, -1 where it counts the other."""
    _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    of_first = first[inverse]
    same = (effect == effect[of_first]) & (other == other[of_first])
    swapped = (effect == other[of_first]) & (other == effect[of_first])
    bad = np.flatnonzero(~same & ~swapped)
    if bad.size:
        k = int(bad[0])
        raise AlignmentError(
            f"Gene {gene}: {names[k]} has the alleles {effect[of_first[k]]}/{other[of_first[k]]} in one model and "
            f"{effect[k]}/{other[k]} in another. Give models of one release."
        )
    return np.where(same, 1.0, -1.0)


def _gene_matrix(
    covariance: GeneCovariance, gene: int, wanted: Shaped[np.ndarray, " wanted"]
) -> tuple[Shaped[np.ndarray, " snps"], Float64[np.ndarray, "snps snps"], int]:
    """Return the wanted SNPs that have a variance, their covariances, and how many pairs are missing."""
    if gene < 0:
        return wanted[:0], np.zeros((0, 0)), 0
    listed = slice(int(covariance.offsets[gene]), int(covariance.offsets[gene + 1]))
    first, second, value = covariance.first[listed], covariance.second[listed], covariance.value[listed]
    codes = np.unique(first[first == second])
    names = covariance.names[codes]
    kept = np.isin(names, wanted)
    order = np.argsort(names[kept], kind="stable")
    codes, names = codes[kept][order], names[kept][order]
    by_code = np.argsort(codes)

    def place(side: Int[np.ndarray, " pairs"]) -> Int64[np.ndarray, " pairs"]:
        if not codes.size:
            return np.full(side.size, -1)
        at = np.minimum(np.searchsorted(codes[by_code], side), codes.size - 1)
        return np.where(codes[by_code][at] == side, by_code[at], -1)

    a, b = place(first), place(second)
    used = (a >= 0) & (b >= 0)
    matrix = np.full((names.size, names.size), np.nan)
    matrix[a[used], b[used]] = value[used]
    matrix[b[used], a[used]] = value[used]
    absent = np.isnan(matrix)
    return names, np.where(absent, 0.0, matrix), int(absent.sum()) // 2


def tissue_covariance(
    gene: GeneTissues, present: Bool[np.ndarray, " snps"] | None = None
) -> Float64[np.ndarray, "tissues tissues"]:
    """Return V, the covariance of predicted expression between the gene's tissues.

    Parameters
    ----------
    present
        SNPs that the GWAS has; all by default. Others leave both weights and covariance.
    """
    weights, covariance = gene.weights, gene.covariance
    if present is not None:
        weights, covariance = weights[:, present], covariance[np.ix_(present, present)]
    return np.asarray(weights @ covariance @ weights.T)


def invert_correlation(correlation: Float64[np.ndarray, "tissues tissues"], cut_off: CutOff) -> PseudoInverse:
    """Return the pseudo-inverse of a correlation without its small components.

    Raises
    ------
    numpy.linalg.LinAlgError
        The eigenvalues cannot be computed.

    Examples
    --------
    >>> found = invert_correlation(np.array([[1.0, 1.0], [1.0, 1.0]]), CutOff())
    >>> found.n_kept, found.inverse.round(3).tolist()
    (1, [[0.25, 0.25], [0.25, 0.25]])
    """
    values, vectors = np.linalg.eigh(correlation)
    smallest = cut_off.smallest(values[::-1], float(np.trace(correlation)))
    # Singular values, as published: a correlation estimated pair by pair may have eigenvalues below 0.
    shifted = values + cut_off.ridge
    order = np.argsort(-np.abs(shifted), kind="stable")
    size, signed, vectors = np.abs(shifted)[order], shifted[order], vectors[:, order]
    # An eigenvalue that equals the cut-off but for rounding is kept.
    kept = size >= smallest * (1 - 1e-12)
    kept[0] = True
    some = vectors[:, kept]
    inverse = (some / signed[kept]) @ some.T
    return PseudoInverse(
        np.asarray(inverse),
        int(kept.sum()),
        float(size[0]),
        float(size[-1]),
        float(size[kept].min()),
        float(np.einsum("ij,ji->", correlation, inverse)),
    )


def _patterns(
    mask: Bool[np.ndarray, "tissues phenotypes"],
) -> Iterator[tuple[Bool[np.ndarray, " tissues"], Int64[np.ndarray, " members"]]]:
    """Yield every set of tissues that some phenotypes have, and these phenotypes."""
    packed = np.ascontiguousarray(np.packbits(mask, axis=0).T)
    if not packed.size:
        return
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    for number, example in enumerate(first.tolist()):
        yield mask[:, example], np.flatnonzero(inverse == number)


def multixcan(
    gene: GeneTissues,
    covariance: Float64[np.ndarray, "tissues tissues"],
    z: Float[np.ndarray, "tissues phenotypes"],
    cut_off: CutOff | None = None,
) -> MultiTissueTests:
    """Test a gene with every phenotype.

    Parameters
    ----------
    covariance
        Of `tissue_covariance`.
    z
        S-PrediXcan of the gene's tissues; NaN where there is no result.
    """
    rule = cut_off or CutOff()
    scores = np.asarray(z, dtype=np.float64)
    n_phenotypes = scores.shape[1]
    variance = np.diag(covariance)
    usable = variance > 0
    finite = np.isfinite(scores)
    mask = finite & usable[:, np.newaxis]
    result = _empty(n_phenotypes, gene.tissues[~usable] if gene.snps.size else gene.tissues[:0])
    result.n[:] = finite.sum(axis=0)
    _describe(result, scores, finite)
    _name_best(result, gene, scores, mask)
    result.status[~mask.any(axis=0)] = MultiTissueStatus.NO_COVARIANCE
    result.status[~finite.any(axis=0)] = MultiTissueStatus.NO_Z
    for tissues, members in _patterns(mask):
        if not tissues.any():
            continue
        spread = np.sqrt(variance[tissues])
        correlation = covariance[np.ix_(tissues, tissues)] / np.outer(spread, spread)
        np.fill_diagonal(correlation, 1.0)
        try:
            found = invert_correlation(correlation, rule)
        except np.linalg.LinAlgError:
            result.status[members] = MultiTissueStatus.NOT_INVERTED
            continue
        part = scores[np.ix_(tissues, members)].T
        chi2 = np.einsum("pt,pt->p", part @ found.inverse, part)
        result.neg_log10_p[members] = neg_log10_p_from_chi2(chi2, float(found.n_kept))
        result.n_indep[members] = found.n_kept
        for name in ("eigen_max", "eigen_min", "eigen_min_kept", "tmi"):
            getattr(result, name)[members] = getattr(found, name)
    result.status[result.neg_log10_p > _UNDERFLOW] = MultiTissueStatus.UNDERFLOW
    return result


def _empty(n: int, without_variance: Int64[np.ndarray, " left_out"]) -> MultiTissueTests:
    def nan() -> Float64[np.ndarray, " phenotypes"]:
        return np.full(n, np.nan)

    def none() -> Int64[np.ndarray, " phenotypes"]:
        return np.full(n, -1, dtype=np.int64)

    zero = np.zeros(n, dtype=np.int64)
    return MultiTissueTests(
        nan(), zero.copy(), zero.copy(), none(), nan(), none(), nan(), nan(), nan(), nan(), nan(), nan(), nan(), nan(),
        nan(), zero.copy(), without_variance,
    )  # fmt: skip


def _describe(
    result: MultiTissueTests,
    scores: Float64[np.ndarray, "tissues phenotypes"],
    finite: Bool[np.ndarray, "tissues phenotypes"],
) -> None:
    """Fill range, mean and spread of the z of each phenotype."""
    some = finite.any(axis=0)
    kept, value = finite[:, some], np.where(finite, scores, 0.0)[:, some]
    count = kept.sum(axis=0)
    mean = value.sum(axis=0) / np.maximum(count, 1)
    deviation = np.where(kept, value - mean, 0.0)
    result.z_mean[some] = mean
    result.z_min[some] = np.where(kept, value, np.inf).min(axis=0, initial=np.inf)
    result.z_max[some] = np.where(kept, value, -np.inf).max(axis=0, initial=-np.inf)
    spread = np.sqrt((deviation**2).sum(axis=0) / np.maximum(count - 1, 1))
    result.z_sd[some] = np.where(count > 1, spread, np.nan)


def _name_best(
    result: MultiTissueTests,
    gene: GeneTissues,
    scores: Float64[np.ndarray, "tissues phenotypes"],
    mask: Bool[np.ndarray, "tissues phenotypes"],
) -> None:
    """Fill the tissues of the largest and the smallest |z| among those that enter the test."""
    some = mask.any(axis=0)
    if not some.any():
        return
    size = np.abs(scores[:, some])
    best = np.where(mask[:, some], size, -1.0).argmax(axis=0)
    worst = np.where(mask[:, some], size, np.inf).argmin(axis=0)
    each = np.arange(best.size)
    result.best[some], result.worst[some] = gene.tissues[best], gene.tissues[worst]
    result.best_neg_log10_p[some] = neg_log10_p_from_z(size[best, each])
    result.worst_neg_log10_p[some] = neg_log10_p_from_z(size[worst, each])
