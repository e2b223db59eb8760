r"""In how many tissues is an association seen? Genes and gene-phenotype pairs by the number of tissues.

Data flow::

    GeneAssociations, tests per tissue and phenotype --mark_significant--> mask
    significant tests, models, groups of tissues --tissue_specificity--> Specificity

For a gene, k is the number of tissues in which it has a significant association with any phenotype; for a pair of a
gene and a phenotype, the number of tissues in which the two are associated. By k: how many there are, the median |z|,
and the mean over pairs of the standard deviation of |z| over the pair's significant tissues.

k cannot exceed the number of tissues that model the gene, so that ``k / number of models`` stands beside it, and two
distributions: how many genes (pairs) have k models or more, and how many are expected to reach k if tissues were
independent. Tissue t finds a share q_t of the genes (pairs) it models, and k of a gene is a sum of independent draws of
its modelled tissues (Poisson-binomial)::

    E[number with k] = sum over genes of P(sum_t Bernoulli(q_t) = k)

Tissues share the regulation of genes, so that more than expected reach a high k: that is the finding, not the null.

Two groups of tissues (brain and others) make three classes: significant in the one only, the other only, or both
(shared). Class medians of |z| are compared by Mann-Whitney; of shared pairs, the signs of the two group medians of z
are. Associations per tissue are regressed on the number of models, with a difference between the groups in level and
slope (group x size) whose t test says whether a model yields more in one group.

References
----------
Mann & Whitney (1947), Ann. Math. Stat. 18:50; Wang (1993), Stat. Sin. 3:295 (Poisson-binomial).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numba import njit
from scipy.stats import mannwhitneyu, rankdata, tiecorrect

from brainlocus.core import GeneAssociations, ResultTable, SchemaError
from brainlocus.core.text import text_array
from brainlocus.numerics import (
    benjamini_hochberg_q,
    bonferroni_p,
    neg_log10_p_from_binomial,
    neg_log10_p_from_t,
    neg_log10_p_from_z,
)

__all__ = [
    "NON_BRAIN_TISSUES",
    "Specificity",
    "expected_counts",
    "mark_significant",
    "tissue_groups",
    "tissue_specificity",
]

NON_BRAIN_TISSUES = ("adrenal gland", "colon sigmoid", "colon transverse", "pituitary", "liver", "whole blood")
"""Tissues outside the brain of the study of 19 tissues, in GTEx's words."""
_SMALL = 20
"""Samples up to this size without ties have an exact Mann-Whitney p."""


def tissue_groups(tissues: Shaped[np.ndarray, " tissues"]) -> Shaped[np.ndarray, " tissues"]:
    """Return ``brain`` or ``non_brain`` by the name of a tissue: ``Brain_Cortex``, ``JTI_Liver``.

    Raises
    ------
    SchemaError
        A name that has neither ``brain`` in it nor ends as one of `NON_BRAIN_TISSUES`.
    """
    groups = []
    for name in tissues.tolist():
        words = " ".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
        if "brain" in words.split():
            groups.append("brain")
        elif words.endswith(NON_BRAIN_TISSUES):
            groups.append("non_brain")
        else:
            raise SchemaError(
                f"Tissue {name!r} is neither called brain nor one of {', '.join(NON_BRAIN_TISSUES)}; give a table of "
                "tissue and group."
            )
    return np.array(groups, dtype=np.str_)


def mark_significant(
    tests: GeneAssociations,
    n_tested: Int[np.ndarray, "tissues phenotypes"],
    scope: Int[np.ndarray, "tissues phenotypes"],
    *,
    method: Literal["bh", "bonferroni", "p"] = "bh",
    alpha: float = 0.05,
    n_tests: int | None = None,
) -> Bool[np.ndarray, " tests"]:
    """Return which tests are significant.

    Parameters
    ----------
    tests
        All tests, or those with p up to `alpha`.
    n_tested
        Tests with a result, of every tissue and phenotype.
    scope
        Group of every tissue and phenotype within which p-values are corrected.
    n_tests
        Tests of the whole study, of which `tests` are some; for a single group.

    Raises
    ------
    ValueError
        `n_tests` with several groups.
    """
    if method == "p":
        return np.asarray(tests.neg_log10_p >= -np.log10(alpha))
    counted = np.bincount(scope.ravel(), weights=n_tested.ravel().astype(np.float64)).astype(np.int64)
    if n_tests is not None:
        if counted.size > 1:
            raise ValueError("The number of tests of the whole study can only be given where the scope is the study.")
        counted = np.array([max(n_tests, int(counted[0]))])
    correct = benjamini_hochberg_q if method == "bh" else bonferroni_p
    rows = np.flatnonzero(tests.neg_log10_p >= -np.log10(alpha))
    codes = scope[tests.tissue[rows], tests.phenotype[rows]]
    rows = rows[np.argsort(codes, kind="stable")]
    codes = np.sort(codes)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    passed = np.zeros(len(tests), dtype=bool)
    for group in np.split(rows, starts[1:]) if rows.size else []:
        code = int(scope[tests.tissue[group[0]], tests.phenotype[group[0]]])
        passed[group] = correct(tests.neg_log10_p[group], n_tests=int(counted[code])) <= alpha
    return passed


@dataclass(frozen=True, slots=True, eq=False)
class Specificity:
    """Genes and pairs by the number of tissues, tissues, and comparisons."""

    genes: ResultTable
    pairs: ResultTable
    profile: ResultTable
    tissues: ResultTable
    comparisons: ResultTable


@njit(cache=True, nogil=True)
@no_type_check
def _medians(values, starts, result):  # noqa: ANN001, ANN202
    """Fill the median of every stretch of values."""
    for k in range(starts.size - 1):
        part = np.sort(values[starts[k] : starts[k + 1]])
        result[k] = (part[(part.size - 1) // 2] + part[part.size // 2]) / 2


@dataclass(frozen=True, slots=True, eq=False)
class _Units:
    """Genes, or pairs, with their significant tests side by side."""

    key: Int[np.ndarray, " units"]
    starts: Int[np.ndarray, " units_and_one"]
    """Tests of a unit are rows ``starts[u]:starts[u + 1]``."""
    unit: Int[np.ndarray, " tests"]
    z: Float[np.ndarray, " tests"]
    group: Int[np.ndarray, " tests"]
    """0 or 1: group of the test's tissue."""

    def median(self, values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " units"]:
        """Return the median of a value over the tests of every unit."""
        result = np.empty(self.key.size)
        _medians(values, self.starts, result)
        return result

    def spread(self, values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " units"]:
        """Return the standard deviation (n - 1); NaN of one test."""
        n = np.diff(self.starts)
        mean = np.add.reduceat(values, self.starts[:-1]) / n
        total = np.add.reduceat((values - mean[self.unit]) ** 2, self.starts[:-1])
        return np.asarray(np.where(n > 1, np.sqrt(total / np.maximum(n - 1, 1)), np.nan))

    def group_median(self, group: int) -> Float[np.ndarray, " units"]:
        """Return the median z over tests of one group of tissues; NaN without."""
        mine = np.flatnonzero(self.group == group)
        result = np.full(self.key.size, np.nan)
        if mine.size:
            part = _units(self.unit[mine], self.z[mine], self.group[mine])
            result[part.key] = part.median(part.z)
        return result

    def classes(self) -> Int[np.ndarray, " units"]:
        """Return 0 or 1 for units of one group only, 2 for those of both."""
        other = np.add.reduceat(self.group, self.starts[:-1])
        n = np.diff(self.starts)
        return np.where(other == 0, 0, np.where(other == n, 1, 2))


def _units(key: Int[np.ndarray, " tests"], z: Float[np.ndarray, " tests"], group: Int[np.ndarray, " tests"]) -> _Units:
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    n = np.diff(np.r_[starts, key.size])
    return _Units(key[starts], np.r_[starts, key.size], np.repeat(np.arange(starts.size), n), z[order], group[order])


def tissue_specificity(
    tests: GeneAssociations,
    modelled: Bool[np.ndarray, "genes tissues"],
    n_tested: Int[np.ndarray, "tissues phenotypes"],
    groups: Shaped[np.ndarray, " tissues"],
) -> Specificity:
    """Count the tissues of genes and pairs, and compare two groups of tissues.

    Parameters
    ----------
    tests
        The significant tests.
    modelled
        Which tissues model which genes.
    n_tested
        Tests with a result, of every tissue and phenotype.
    groups
        Of every tissue; two different names.

    Raises
    ------
    SchemaError
        Other than two groups, a gene tested twice for a phenotype and tissue, or a test of a gene that its tissue does
        not model.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    if names.size != 2:
        raise SchemaError(f"Expected two groups of tissues, found {names.size}: {', '.join(names.tolist())}.")
    if len(tests) and not modelled[tests.gene, tests.tissue].all():
        row = int(np.flatnonzero(~modelled[tests.gene, tests.tissue])[0])
        raise SchemaError(
            f"Gene {tests.genes[tests.gene[row]]} has a test in {tests.tissues[tests.tissue[row]]}, but the table of "
            "models has no model of it there."
        )
    n_genes, n_tissues, n_phenotypes = tests.genes.size, tests.tissues.size, tests.phenotypes.size
    cell = (tests.gene.astype(np.int64) * n_phenotypes + tests.phenotype) * n_tissues + tests.tissue
    order = np.argsort(cell, kind="stable")
    if (np.diff(cell[order]) == 0).any():
        raise SchemaError("A gene has two results for one phenotype and tissue; each may have one.")
    z = tests.z[order]
    tissue, gene = tests.tissue[order].astype(np.int64), tests.gene[order].astype(np.int64)
    pairs = _units(cell[order] // n_tissues, z, group_of[tissue])
    by_gene = _units(gene, z, group_of[tissue])
    n_models = modelled.sum(axis=1)
    pair_gene = pairs.key // n_phenotypes
    pair_table = _unit_table(pairs, np.diff(pairs.starts), n_models[pair_gene], names) | {
        "gene": text_array(tests.genes)[pair_gene],
        "gene_name": text_array(tests.gene_names)[pair_gene],
        "phenotype": text_array(tests.phenotypes)[pairs.key % n_phenotypes],
        "sd_abs_z": pairs.spread(np.abs(pairs.z)),
    }
    reached = np.unique(gene * n_tissues + tissue)
    k_gene = np.bincount(reached // n_tissues, minlength=n_genes)[by_gene.key]
    gene_table = _unit_table(by_gene, k_gene, n_models[by_gene.key], names) | {
        "gene": tests.genes[by_gene.key],
        "gene_name": tests.gene_names[by_gene.key],
        "n_phenotypes": np.bincount(pair_gene, minlength=n_genes)[by_gene.key],
        "n_associations": np.diff(by_gene.starts),
        "sd_abs_z": _mean_by(pair_gene, pair_table["sd_abs_z"], n_genes)[by_gene.key],
    }
    models_of = modelled.sum(axis=0)
    gene_rate = np.bincount(reached % n_tissues, minlength=n_tissues) / np.maximum(models_of, 1)
    found = np.bincount(tissue, minlength=n_tissues)
    pair_rate = found / np.maximum(n_tested.sum(axis=1), 1)
    profile = _profile("gene", gene_table, expected_counts(modelled, gene_rate), n_models, 1)
    pair_expected = expected_counts(modelled, pair_rate) * n_phenotypes
    pair_profile = _profile("pair", pair_table, pair_expected, n_models, n_phenotypes)
    tissue_table = ResultTable(
        {
            "tissue": tests.tissues,
            "group": groups,
            "n_models": models_of,
            "n_tests": n_tested.sum(axis=1),
            "n_associations": found,
            "n_genes": np.bincount(reached % n_tissues, minlength=n_tissues),
            "share_significant": pair_rate,
        }
    )
    return Specificity(
        ResultTable({name: gene_table[name] for name in _GENE_COLUMNS}),
        ResultTable({name: pair_table[name] for name in _PAIR_COLUMNS}),
        ResultTable({name: np.concatenate([profile[name], pair_profile[name]]) for name in profile}),
        tissue_table,
        _comparisons(gene_table, pair_table, tissue_table, names),
    )


_SHARED_COLUMNS = (
    "n_tissues",
    "n_models",
    "share_of_models",
    "specificity",
    "median_abs_z",
    "sd_abs_z",
    "median_z_first",
    "median_z_second",
)
_GENE_COLUMNS = ("gene", "gene_name", "n_phenotypes", "n_associations", *_SHARED_COLUMNS)
_PAIR_COLUMNS = ("gene", "gene_name", "phenotype", *_SHARED_COLUMNS)
Columns = dict[str, Shaped[np.ndarray, " _"]]


def _unit_table(
    units: _Units, k: Int[np.ndarray, " units"], n_models: Int[np.ndarray, " units"], names: Shaped[np.ndarray, " 2"]
) -> Columns:
    labels = text_array([f"unique_{names[0]}", f"unique_{names[1]}", "shared"])
    return {
        "n_tissues": k,
        "n_models": n_models,
        "share_of_models": k / n_models,
        "specificity": labels[units.classes()],
        "median_abs_z": units.median(np.abs(units.z)),
        "median_z_first": units.group_median(0),
        "median_z_second": units.group_median(1),
    }


def _mean_by(
    codes: Int[np.ndarray, " rows"], values: Float[np.ndarray, " rows"], n: int
) -> Float[np.ndarray, " groups"]:
    """Return means of the finite values by code; NaN where there is none."""
    known = np.isfinite(values)
    count = np.bincount(codes[known], minlength=n)
    total = np.bincount(codes[known], weights=values[known], minlength=n)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def expected_counts(
    modelled: Bool[np.ndarray, "genes tissues"], rate: Float[np.ndarray, " tissues"]
) -> Float[np.ndarray, " tissues_and_one"]:
    """Return how many genes are expected to be found in 0, 1, ... tissues, if tissues were independent.

    Parameters
    ----------
    rate
        Share of the modelled genes that a tissue finds.
    """
    patterns, count = np.unique(modelled, axis=0, return_counts=True)
    chance = np.zeros((patterns.shape[0], rate.size + 1))
    chance[:, 0] = 1.0
    for t, q in enumerate(rate):
        here = np.where(patterns[:, t], q, 0.0)[:, None]
        moved = np.concatenate([np.zeros((patterns.shape[0], 1)), chance[:, :-1]], axis=1)
        chance = chance * (1 - here) + moved * here
    return np.asarray(count @ chance)


def _profile(
    level: str,
    table: Columns,
    expected: Float[np.ndarray, " tissues_and_one"],
    n_models: Int[np.ndarray, " genes"],
    per_gene: int,
) -> Columns:
    """Return a row for every k: how many, how many were possible and expected, and how strong they are."""
    n_tissues = expected.size - 1
    k = np.arange(1, n_tissues + 1)
    order = np.argsort(table["n_tissues"], kind="stable")
    bounds = np.searchsorted(table["n_tissues"][order], np.r_[k, n_tissues + 1])
    edges: list[int] = np.asarray(bounds).tolist()
    spans = [order[a:b] for a, b in pairwise(edges)]
    spread = [table["sd_abs_z"][span] for span in spans]
    finite = [s[np.isfinite(s)] for s in spread]
    return {
        "level": np.repeat(np.array([level]), k.size),
        "n_tissues": k,
        "count": np.diff(bounds),
        "expected_count": expected[1:],
        "possible_count": per_gene * (n_models[:, None] >= k).sum(axis=0),
        "median_abs_z": np.array([np.median(table["median_abs_z"][s]) if s.size else np.nan for s in spans]),
        "sd_abs_z": np.array([s.mean() if s.size else np.nan for s in finite]),
        "share_of_models": np.array([table["share_of_models"][s].mean() if s.size else np.nan for s in spans]),
    }


def _mann_whitney(first: Float[np.ndarray, " first"], second: Float[np.ndarray, " second"]) -> tuple[float, float]:
    """Return U of the first sample and -log10 of its two-sided p.

    Exact for small samples without ties; else by the normal distribution with correction for ties and continuity, which
    in logarithms does not underflow.
    """
    if not first.size or not second.size:
        return np.nan, np.nan
    n1, n2 = first.size, second.size
    ranks = rankdata(np.concatenate([first, second]))
    u = float(ranks[:n1].sum() - n1 * (n1 + 1) / 2)
    if max(n1, n2) <= _SMALL and np.unique(ranks).size == ranks.size:
        return u, float(-np.log10(mannwhitneyu(first, second, method="exact").pvalue))
    variance = tiecorrect(ranks) * n1 * n2 * (n1 + n2 + 1) / 12
    if variance <= 0:
        return u, 0.0
    distance = max(abs(u - n1 * n2 / 2) - 0.5, 0.0)
    return u, float(neg_log10_p_from_z(distance / np.sqrt(variance)))


def _spearman(x: Float[np.ndarray, " rows"], y: Float[np.ndarray, " rows"]) -> tuple[float, float]:
    """Return Spearman's correlation and -log10 p of its t with n - 2 degrees of freedom."""
    known = np.isfinite(x) & np.isfinite(y)
    n = int(known.sum())
    if n < 3:
        return np.nan, np.nan
    ranks = [rankdata(v[known]) - (n + 1) / 2 for v in (x, y)]
    scale = np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1]))
    if scale <= 0:
        return np.nan, np.nan
    rho = float(ranks[0] @ ranks[1] / scale)
    t = rho * np.sqrt((n - 2) / max(1 - rho**2, np.finfo(float).tiny))
    return rho, float(neg_log10_p_from_t(np.array([t]), float(n - 2))[0])


def _slopes(
    size: Float[np.ndarray, " tissues"], count: Float[np.ndarray, " tissues"], second: Bool[np.ndarray, " tissues"]
) -> tuple[float, float, float]:
    """Return how much steeper the second group's line is, its t, and -log10 p (least squares, n - 4 df)."""
    design = np.column_stack([np.ones(size.size), size, second, size * second]).astype(np.float64)
    if size.size < 5 or np.linalg.matrix_rank(design) < 4:
        return np.nan, np.nan, np.nan
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ count
    residual = count - design @ beta
    variance = float(residual @ residual) / (size.size - 4)
    t = float(beta[3] / np.sqrt(variance * inverse[3, 3])) if variance > 0 else np.nan
    return float(beta[3]), t, float(neg_log10_p_from_t(np.array([t]), float(size.size - 4))[0])


def _comparisons(genes: Columns, pairs: Columns, tissues: ResultTable, names: Shaped[np.ndarray, " 2"]) -> ResultTable:
    rows: list[tuple[object, ...]] = []

    def compare(level: str, what: str, labels: tuple[str, str], values: Sequence[Float[np.ndarray, " _"]]) -> None:
        u, strength = _mann_whitney(values[0], values[1])
        medians = [float(np.median(v)) if v.size else np.nan for v in values]
        rows.append((f"mann_whitney {what}", level, *labels, values[0].size, values[1].size, *medians, u, strength))

    first, second = f"unique_{names[0]}", f"unique_{names[1]}"
    for level, table in (("gene", genes), ("pair", pairs)):
        strength = {c: table["median_abs_z"][table["specificity"] == c] for c in (first, second, "shared")}
        for labels in ((first, second), (first, "shared"), (second, "shared")):
            compare(level, "median_abs_z", labels, [strength[label] for label in labels])
    shared = pairs["specificity"] == "shared"
    medians = [pairs[name][shared] for name in ("median_z_first", "median_z_second")]
    labels = (str(names[0]), str(names[1]))
    compare("pair", "median_abs_z of shared", labels, [np.abs(m) for m in medians])
    n, agree = int(shared.sum()), int((np.sign(medians[0]) == np.sign(medians[1])).sum())
    share = agree / n if n else np.nan
    rows.append(
        ("equal sign of shared", "pair", *labels, n, agree, share, 0.5, share, neg_log10_p_from_binomial(agree, n, 0.5))
    )
    for level, table in (("gene", genes), ("pair", pairs)):
        for column in ("median_abs_z", "sd_abs_z"):
            k, values = table["n_tissues"].astype(np.float64), table[column]
            known = int(np.isfinite(values).sum())
            rho, strength_rho = _spearman(k, values)
            rows.append(
                (f"spearman of {column}", level, "n_tissues", column, known, known, np.nan, np.nan, rho, strength_rho)
            )
    other = tissues["group"] == names[1]
    rate = tissues["n_associations"] / np.maximum(tissues["n_models"], 1)
    compare("tissue", "associations per model", labels, [rate[~other], rate[other]])
    size, count = tissues["n_models"].astype(np.float64), tissues["n_associations"].astype(np.float64)
    slopes = [
        float(np.polyfit(size[mask], count[mask], 1)[0]) if np.unique(size[mask]).size > 1 else np.nan
        for mask in (~other, other)
    ]
    _, t, strength_t = _slopes(size, count, other)
    n_first, n_second = int((~other).sum()), int(other.sum())
    rows.append(
        ("group x size, slope of associations on models", "tissue", *labels, n_first, n_second, *slopes, t, strength_t)
    )
    columns = zip(*rows, strict=True)
    return ResultTable({name: np.array(column) for name, column in zip(_COMPARED, columns, strict=True)})


_COMPARED = (
    "comparison",
    "level",
    "first",
    "second",
    "n_first",
    "n_second",
    "value_first",
    "value_second",
    "statistic",
    "neg_log10_p",
)
