"""Replication of gene associations: in an independent cohort, and in an external set without hemispheres.

Data flow::

    two matrices of one tissue --pair_tissue--> TissuePair --internal_replication--> ResultTable
    lateralised and hemisphere-free matrices --match_hemispheres--> TissueMerge --external_replication--> ResultTable

Internal. Of the tests with a result in both cohorts: how many have equal sign, and Spearman's correlation of the
estimates. Tests are selected

* in both cohorts (``p <= alpha`` in each). Of two estimates without any effect, half agree in sign whatever the
  selection; but true effects that reached ``alpha`` in one cohort only, because they are weak, are left out, so that
  the share is that of strong effects;
* in one cohort only, which asks what becomes of a finding: ``p <= alpha`` in the one, any p in the other;
* by Benjamini-Hochberg, study-wide within each cohort.

The share is compared with 1/2 by the binomial distribution, one-sided. Genes share variants and phenotypes share
people: tests are not independent, so that this p is smaller than the evidence. Means over the phenotypes of a modality
have an interval of Student's t.

External. A left and a right phenotype stand for one phenotype without hemispheres. An association is discovered when
both sides are significant with equal sign. Of those, the share with ``p <= alpha`` in the external set is set beside
``alpha``, which it would be without any effect; replicated are those that have the sign of the discovery as well.
``pi1 = 1 - #{p > 1/2} / (n / 2)`` estimates the share of discovered associations that are not null in the external set
(Storey & Tibshirani 2003, with lambda = 1/2).

References
----------
Storey & Tibshirani (2003), PNAS 100:9440; Benjamini & Hochberg (1995), J. R. Stat. Soc. B 57:289.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.special import ndtri
from scipy.stats import rankdata
from scipy.stats import t as t_distribution

from brainlocus.core import AlignmentError, GeneMatrix, PhenotypeAnnotation, ResultTable, SchemaError
from brainlocus.numerics import benjamini_hochberg_q, neg_log10_p_from_binomial, neg_log10_p_from_z

__all__ = [
    "HemispherePairs",
    "TissueMerge",
    "TissuePair",
    "annotated_hemispheres",
    "external_replication",
    "internal_replication",
    "match_hemispheres",
    "pair_tissue",
]

Estimate = Literal["effect", "z"]
_EXPECTED_SIGN = 0.5
_LAMBDA = 0.5
_SLACK = 1e-6
"""z this far below the edge is looked at exactly."""
_CELLS = 1 << 23
"""Cells of a matrix that are looked at together."""
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class TissuePair:
    """One tissue of two cohorts: tests significant in both in full, and counts of those significant in one."""

    tissue: str
    genes: Shaped[np.ndarray, " genes"]
    """With a model in both."""
    phenotypes: Shaped[np.ndarray, " phenotypes"]
    gene: Int[np.ndarray, " both"]
    phenotype: Int[np.ndarray, " both"]
    estimate: Float[np.ndarray, "cohorts both"]
    neg_log10_p: Float[np.ndarray, "cohorts both"]
    n_tests: tuple[int, int]
    """Tests with a result, of each cohort."""
    n_shared: int
    """Tests with a result in both."""
    selected: Int[np.ndarray, "cohorts phenotypes"]
    """Tests significant in that cohort, with a result in the other."""
    agreeing: Int[np.ndarray, "cohorts phenotypes"]
    """Those of them with equal sign."""
    strong: tuple[Float[np.ndarray, " first"], Float[np.ndarray, " second"]]
    """-log10 p of all significant tests of each cohort, strongest first."""
    found: tuple[Float[np.ndarray, " first_shared"], Float[np.ndarray, " second_shared"]]
    """-log10 p of those with a result in the other cohort; negative where the signs differ."""


def pair_tissue(
    discovery: GeneMatrix, replication: GeneMatrix, *, alpha: float = 0.05, estimate: Estimate = "z"
) -> TissuePair:
    """Bring one tissue of two cohorts together.

    Parameters
    ----------
    alpha
        Largest p of a significant test.
    estimate
        What is compared: effect sizes, which both matrices must have, or z.

    Raises
    ------
    AlignmentError
        The cohorts share no gene or no phenotype.
    SchemaError
        Effect sizes are asked for, and a matrix has none.
    """
    genes, rows = _shared(discovery.genes, replication.genes, f"genes of tissue {discovery.tissue}")
    phenotypes, columns = _shared(discovery.phenotypes, replication.phenotypes, "phenotypes")
    cohorts = (discovery, replication)
    values = [_estimates(cohort, estimate) for cohort in cohorts]
    edge = -np.log10(alpha)
    selected = np.zeros((2, phenotypes.size), dtype=np.int64)
    agreeing = np.zeros((2, phenotypes.size), dtype=np.int64)
    found: tuple[list[Any], list[Any]] = ([], [])
    both: list[tuple[Any, ...]] = []
    n_shared = 0
    for part in _blocks(genes.size, phenotypes.size):
        z = [_cells(c.z, rows[k][part], columns[k]) for k, c in enumerate(cohorts)]
        value = [_cells(v, rows[k][part], columns[k]) for k, v in enumerate(values)]
        tested = np.isfinite(z[0]) & np.isfinite(z[1]) & np.isfinite(value[0]) & np.isfinite(value[1])
        n_shared += int(tested.sum())
        strength = [_strength(x, alpha) for x in z]
        significant = [tested & (s >= edge) for s in strength]
        equal = np.sign(value[0]) == np.sign(value[1])
        for k in range(2):
            selected[k] += significant[k].sum(axis=0)
            agreeing[k] += (significant[k] & equal).sum(axis=0)
            found[k].append(np.where(equal, strength[k], -strength[k])[significant[k]])
        gene, phenotype = np.nonzero(significant[0] & significant[1])
        pair = [np.stack([x[0][gene, phenotype], x[1][gene, phenotype]]) for x in (value, strength)]
        both.append((gene + part.start, phenotype, *pair))
    gene, phenotype, estimates, strengths = (np.concatenate(x, axis=-1) for x in zip(*both, strict=True))
    (first, n_first), (second, n_second) = (_strong(c.z, alpha) for c in cohorts)
    return TissuePair(
        discovery.tissue,
        genes,
        phenotypes,
        gene,
        phenotype,
        estimates,
        strengths,
        (n_first, n_second),
        n_shared,
        selected,
        agreeing,
        (first, second),
        (np.concatenate(found[0]), np.concatenate(found[1])),
    )


def _shared(
    first: Shaped[np.ndarray, " first"], second: Shaped[np.ndarray, " second"], what: str
) -> tuple[Shaped[np.ndarray, " shared"], tuple[Int[np.ndarray, " shared"], Int[np.ndarray, " shared"]]]:
    names, one, other = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    if not names.size:
        raise AlignmentError(
            f"The two cohorts share none of the {what}: the discovery has {first.size} such as {_some(first)}, the "
            f"replication {second.size} such as {_some(second)}. Names must be equal, versions of gene ids too."
        )
    return names, (one, other)


def _some(names: Shaped[np.ndarray, " names"]) -> str:
    return ", ".join(map(str, names[:3]))


def _estimates(matrix: GeneMatrix, estimate: Estimate) -> Float[np.ndarray, "genes phenotypes"]:
    if estimate == "z":
        return matrix.z
    if matrix.effect is None:
        raise SchemaError(f"Tissue {matrix.tissue}: there are no effect sizes; compare z instead (--estimate z).")
    return matrix.effect


def _blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    step = max(1, _CELLS // max(n_columns, 1))
    yield from (slice(k, min(k + step, n_rows)) for k in range(0, n_rows, step))


def _cells(
    matrix: Float[np.ndarray, "genes phenotypes"],
    rows: Int[np.ndarray, " rows"],
    columns: Int[np.ndarray, " columns"],
) -> Float[np.ndarray, "rows columns"]:
    return np.asarray(matrix[rows][:, columns], dtype=np.float64)


def _strength(z: Float[np.ndarray, "*shape"], alpha: float) -> Float[np.ndarray, "*shape"]:
    """Return -log10 p where it may reach -log10 alpha, and 0 elsewhere: most of a table is not significant."""
    near = np.flatnonzero(np.abs(z) >= -ndtri(alpha / 2) - _SLACK)
    strength = np.zeros(z.shape)
    strength.flat[near] = neg_log10_p_from_z(z.flat[near])
    return strength


def _strong(z: Float[np.ndarray, "genes phenotypes"], alpha: float) -> tuple[Float[np.ndarray, " strong"], int]:
    """Return -log10 p of the significant tests of a matrix, and how many tests have a result."""
    parts, tested = [np.zeros(0)], 0
    for rows in _blocks(*z.shape):
        values = np.asarray(z[rows], dtype=np.float64)
        tested += int((~np.isnan(values)).sum())
        strength = _strength(values, alpha)
        parts.append(strength[strength >= -np.log10(alpha)])
    return np.concatenate(parts), tested


def _fdr_edge(strong: Sequence[Float[np.ndarray, " _"]], n_tests: int, fdr: float) -> float:
    """Return the smallest -log10 p with q <= fdr; infinite where there is none."""
    strength = np.concatenate([np.zeros(0), *strong])
    passing = strength[benjamini_hochberg_q(strength, n_tests=max(n_tests, strength.size)) <= fdr]
    return float(passing.min()) if passing.size else np.inf


@dataclass(frozen=True, slots=True, eq=False)
class _Selected:
    """All tissues together: tests significant in both cohorts."""

    tissue: Int[np.ndarray, " both"]
    phenotype: Int[np.ndarray, " both"]
    first: Float[np.ndarray, " both"]
    second: Float[np.ndarray, " both"]

    def take(self, tests: Bool[np.ndarray, " both"] | Int[np.ndarray, " kept"]) -> "_Selected":
        return _Selected(self.tissue[tests], self.phenotype[tests], self.first[tests], self.second[tests])

    def groups(self, codes: Int[np.ndarray, " both"]) -> Iterator[tuple[int, "_Selected"]]:
        """Yield the tests of each code that occurs."""
        order = np.argsort(codes, kind="stable")
        levels, starts = np.unique(codes[order], return_index=True)
        for code, tests in zip(levels.tolist(), np.split(order, starts[1:]) if levels.size else [], strict=True):
            yield code, self.take(tests)


def internal_replication(
    pairs: Sequence[TissuePair],
    *,
    annotation: PhenotypeAnnotation | None = None,
    alpha: float = 0.05,
    fdr: float = 0.05,
    n_tests: tuple[int, int] | None = None,
    min_tests: int = 10,
) -> ResultTable:
    """Return agreement of two cohorts: in all, by tissue, phenotype, modality, and modality and tissue.

    Parameters
    ----------
    pairs
        Tissues, paired at the same `alpha`.
    annotation
        With a column ``modality``; without, there are no rows by modality.
    alpha, fdr
        Largest p (as in `pair_tissue`) and largest q of the selections.
    n_tests
        Tests of each cohort, where the tables hold only some of them; by default those with a result.
    min_tests
        Phenotypes with fewer tests significant in both cohorts do not enter the means of their modality.

    Raises
    ------
    ValueError
        `fdr` above `alpha`: the tests in between were not kept.
    SchemaError
        The annotation has no modality.
    """
    if fdr > alpha:
        raise ValueError(f"Expected a false discovery rate up to alpha = {alpha:g}, found {fdr:g}.")
    phenotypes = np.unique(np.concatenate([p.phenotypes for p in pairs]))
    places = [np.searchsorted(phenotypes, p.phenotypes) for p in pairs]
    tissues = [p.tissue for p in pairs]
    tests = _Selected(
        np.repeat(np.arange(len(pairs)), [p.gene.size for p in pairs]),
        np.concatenate([at[p.phenotype] for at, p in zip(places, pairs, strict=True)]),
        np.concatenate([p.estimate[0] for p in pairs]),
        np.concatenate([p.estimate[1] for p in pairs]),
    )
    edges = [
        _fdr_edge([p.strong[k] for p in pairs], n_tests[k] if n_tests else sum(p.n_tests[k] for p in pairs), fdr)
        for k in range(2)
    ]
    strong = np.concatenate([(p.neg_log10_p[0] >= edges[0]) & (p.neg_log10_p[1] >= edges[1]) for p in pairs])
    rows = _Rows()
    for name, some in (("both", tests), ("fdr_both", tests.take(strong))):
        rows.tests(some, level="all", selection=name)
        for code, group in some.groups(some.tissue):
            rows.tests(group, level="tissue", selection=name, tissue=tissues[code])
        by_phenotype = [
            (code, rows.tests(group, level="phenotype", selection=name, phenotype=str(phenotypes[code])))
            for code, group in some.groups(some.phenotype)
        ]
        if annotation is not None:
            _by_modality(rows, some, name, by_phenotype, annotation.of("modality", phenotypes), tissues, min_tests)
    for k, name in enumerate(("discovery", "replication")):
        _one_sided(rows, pairs, places, phenotypes, k, name, annotation)
        kept = np.concatenate([np.zeros(0), *(p.found[k] for p in pairs)])
        kept = kept[np.abs(kept) >= edges[k]]
        rows.counts(int(kept.size), int((kept > 0).sum()), level="all", selection=f"fdr_{name}")
    return rows.table()


def _by_modality(
    rows: "_Rows",
    tests: _Selected,
    selection: str,
    by_phenotype: list[tuple[int, dict[str, Any]]],
    modality: Shaped[np.ndarray, " phenotypes"],
    tissues: list[str],
    min_tests: int,
) -> None:
    names, codes = np.unique(modality, return_inverse=True)
    for code, group in tests.groups(codes[tests.phenotype]):
        row = rows.tests(group, level="modality", selection=selection, modality=str(names[code]) or "unknown")
        mine = [found for k, found in by_phenotype if codes[k] == code and found["n_tests"] >= min_tests]
        row["n_phenotypes"] = len(mine)
        for column in ("same_sign", "spearman_rho"):
            row |= _mean_with_interval(np.array([found[column] for found in mine], dtype=np.float64), column)
        for tissue, part in group.groups(group.tissue):
            rows.tests(
                part,
                level="modality_tissue",
                selection=selection,
                modality=str(names[code]) or "unknown",
                tissue=tissues[tissue],
            )


def _one_sided(
    rows: "_Rows",
    pairs: Sequence[TissuePair],
    places: list[Int[np.ndarray, " phenotypes"]],
    phenotypes: Shaped[np.ndarray, " all_phenotypes"],
    cohort: int,
    selection: str,
    annotation: PhenotypeAnnotation | None,
) -> None:
    """Add agreement of the tests that are significant in one cohort, whatever their p in the other."""
    counts = np.zeros((2, phenotypes.size), dtype=np.int64)
    for at, pair in zip(places, pairs, strict=True):
        counts[0, at] += pair.selected[cohort]
        counts[1, at] += pair.agreeing[cohort]
        mine = (int(pair.selected[cohort].sum()), int(pair.agreeing[cohort].sum()))
        rows.counts(*mine, level="tissue", selection=selection, tissue=pair.tissue)
    rows.counts(int(counts[0].sum()), int(counts[1].sum()), level="all", selection=selection)
    for k in np.flatnonzero(counts[0]).tolist():
        n, agree = int(counts[0, k]), int(counts[1, k])
        rows.counts(n, agree, level="phenotype", selection=selection, phenotype=str(phenotypes[k]))
    if annotation is not None:
        modality = annotation.of("modality", phenotypes)
        for name in np.unique(modality).tolist():
            n, agree = (int(c) for c in counts[:, modality == name].sum(axis=1))
            rows.counts(n, agree, level="modality", selection=selection, modality=name or "unknown")


def _spearman(first: Float[np.ndarray, " tests"], second: Float[np.ndarray, " tests"]) -> float:
    """Return Spearman's correlation with average ranks; NaN of fewer than three tests or a constant."""
    if first.size < 3:
        return np.nan
    ranks = [rankdata(x) - (first.size + 1) / 2 for x in (first, second)]
    scale = np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1]))
    return float(ranks[0] @ ranks[1] / scale) if scale > 0 else np.nan


def _mean_with_interval(values: Float[np.ndarray, " phenotypes"], name: str) -> dict[str, float]:
    values = values[np.isfinite(values)]
    mean = float(values.mean()) if values.size else np.nan
    half = np.nan
    if values.size > 1:
        quantile = t_distribution.ppf(0.5 + _CONFIDENCE / 2, values.size - 1)
        half = float(quantile * values.std(ddof=1) / np.sqrt(values.size))
    return {f"mean_{name}": mean, f"mean_{name}_lower": mean - half, f"mean_{name}_upper": mean + half}


_TEXT = ("level", "selection", "modality", "phenotype", "tissue")
_NUMBERS = (
    "n_tests",
    "n_same_sign",
    "same_sign",
    "expected_same_sign",
    "sign_neg_log10_p",
    "spearman_rho",
    "n_phenotypes",
    "mean_same_sign",
    "mean_same_sign_lower",
    "mean_same_sign_upper",
    "mean_spearman_rho",
    "mean_spearman_rho_lower",
    "mean_spearman_rho_upper",
)
_COUNTED = ("n_tests", "n_same_sign", "n_phenotypes")


class _Rows:
    """Rows of the table of agreement, in the making."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def counts(self, n: int, agree: int, **keys: str) -> dict[str, Any]:
        row: dict[str, Any] = {
            **keys,
            "n_tests": n,
            "n_same_sign": agree,
            "same_sign": agree / n if n else np.nan,
            "expected_same_sign": _EXPECTED_SIGN,
            "sign_neg_log10_p": neg_log10_p_from_binomial(agree, n, _EXPECTED_SIGN),
        }
        self.rows.append(row)
        return row

    def tests(self, tests: _Selected, **keys: str) -> dict[str, Any]:
        row = self.counts(tests.first.size, int((np.sign(tests.first) == np.sign(tests.second)).sum()), **keys)
        row["spearman_rho"] = _spearman(tests.first, tests.second)
        return row

    def table(self) -> ResultTable:
        columns: dict[str, Shaped[np.ndarray, " rows"]] = {
            name: np.array([row.get(name, "") for row in self.rows], dtype=np.str_) for name in _TEXT
        }
        for name in _NUMBERS:
            values = np.array([row.get(name, 0 if name in _COUNTED else np.nan) for row in self.rows])
            columns[name] = values.astype(np.int64 if name in _COUNTED else np.float64)
        return ResultTable(columns)


@dataclass(frozen=True, slots=True, eq=False)
class HemispherePairs:
    """Left and right phenotypes, and the phenotype without hemispheres that each two stand for.

    Raises
    ------
    SchemaError
        An external phenotype, or one of a hemisphere, is named twice.
    """

    left: Shaped[np.ndarray, " pairs"]
    right: Shaped[np.ndarray, " pairs"]
    external: Shaped[np.ndarray, " pairs"]

    def __post_init__(self) -> None:
        for what, names in (("left", self.left), ("right", self.right), ("external", self.external)):
            known, counts = np.unique(names, return_counts=True)
            if (counts > 1).any():
                raise SchemaError(
                    f"Pairs of hemispheres: {what} phenotype {known[counts > 1][0]} is named {counts.max()} times; a "
                    "phenotype can be in one pair. Leave rows out, or match on more columns of the annotation."
                )


def annotated_hemispheres(
    annotation: PhenotypeAnnotation,
    discovery: Shaped[np.ndarray, " discovery"],
    external: Shaped[np.ndarray, " external"],
    *,
    on: Sequence[str] = (),
) -> HemispherePairs:
    """Return the pairs of hemispheres that an annotation of both sets of phenotypes gives.

    Parameters
    ----------
    annotation
        With a column ``side``: ``left`` and ``right`` (or ``lh``, ``rh``) for phenotypes of hemispheres, other text for
        the external ones.
    on
        Columns that are equal in a left, a right and an external phenotype that belong together; by default all but
        ``side``.

    Raises
    ------
    SchemaError
        No such column, or no three phenotypes belong together.
    """
    columns = list(on) or [name for name in annotation.columns if name != "side"]

    def keys(names: Shaped[np.ndarray, " names"]) -> list[tuple[str, ...]]:
        return list(zip(*(annotation.of(column, names).tolist() for column in columns), strict=True))

    known = set(annotation.phenotypes.tolist())
    side = np.char.lower(annotation.of("side", discovery))
    by_side: dict[str, dict[tuple[str, ...], str]] = {"left": {}, "right": {}}
    twice: set[tuple[str, ...]] = set()
    for name, key, where in zip(discovery.tolist(), keys(discovery), side.tolist(), strict=True):
        half = {"left": "left", "lh": "left", "right": "right", "rh": "right"}.get(where)
        if half is not None:
            twice |= {key} if key in by_side[half] else set()
            by_side[half][key] = name
    found = [
        (by_side["left"][key], by_side["right"][key], name)
        for name, key in zip(external.tolist(), keys(external), strict=True)
        if name in known and key in by_side["left"] and key in by_side["right"] and key not in twice
    ]
    if not found:
        raise SchemaError(
            f"No external phenotype ({', '.join(external[:3].tolist())} ...) has the annotation of a left and a right "
            f"one in {', '.join(columns)}. Annotate the external phenotypes too, match on fewer columns, or give a "
            "table of pairs (left, right, external)."
        )
    left, right, other = (np.array(names, dtype=np.str_) for names in zip(*found, strict=True))
    return HemispherePairs(left, right, other)


@dataclass(frozen=True, slots=True, eq=False)
class TissueMerge:
    """One tissue: associations significant in both hemispheres with equal sign, and their external results."""

    tissue: str
    gene: Shaped[np.ndarray, " found"]
    gene_name: Shaped[np.ndarray, " found"]
    external: Shaped[np.ndarray, " found"]
    """The phenotype without hemispheres."""
    weaker: Float[np.ndarray, " found"]
    """-log10 p of the weaker hemisphere."""
    sign: Float[np.ndarray, " found"]
    z_left: Float[np.ndarray, " found"]
    z_right: Float[np.ndarray, " found"]
    z_external: Float[np.ndarray, " found"]
    """NaN: not tested in the external set."""
    strong: Float[np.ndarray, " strong"]
    """-log10 p of all significant tests of the discovery."""
    n_tests: int
    """Tests of the discovery with a result."""
    n_poor: int
    """Genes left out because their model performs below the limit, or is of unknown performance."""


def match_hemispheres(
    discovery: GeneMatrix,
    external: GeneMatrix,
    pairs: HemispherePairs,
    *,
    alpha: float = 0.05,
    min_r2: float = 0.1,
) -> TissueMerge:
    """Return the associations of one tissue that both hemispheres show.

    Parameters
    ----------
    alpha
        Largest p in either hemisphere.
    min_r2
        Smallest performance of a gene's model; 0 takes models of unknown performance too.

    Raises
    ------
    AlignmentError
        The two sets share no gene, or the discovery has no pair of hemispheres.
    """
    _shared(discovery.genes, external.genes, f"genes of tissue {discovery.tissue}")
    column = {name: k for k, name in enumerate(discovery.phenotypes.tolist())}
    other = {name: k for k, name in enumerate(external.phenotypes.tolist())}
    names = zip(pairs.left.tolist(), pairs.right.tolist(), pairs.external.tolist(), strict=True)
    usable = [(column[a], column[b], other[c], c) for a, b, c in names if a in column and b in column and c in other]
    if not usable:
        raise AlignmentError(
            f"Tissue {discovery.tissue}: none of the {pairs.left.size} pairs of hemispheres is in the results; the "
            f"first is {pairs.left[0]}, {pairs.right[0]} for {pairs.external[0]}."
        )
    r2 = np.full(discovery.genes.size, np.nan) if discovery.pred_perf_r2 is None else discovery.pred_perf_r2
    good = np.ones(r2.size, dtype=bool) if min_r2 <= 0 else np.nan_to_num(r2, nan=-1.0) >= min_r2
    row_of = {name: k for k, name in enumerate(external.genes.tolist())}
    rows = np.array([row_of.get(name, -1) for name in discovery.genes.tolist()], dtype=np.int64)
    parts: list[tuple[Any, ...]] = []
    edge = -np.log10(alpha)
    for left, right, third, name in usable:
        z = [np.asarray(discovery.z[:, k], dtype=np.float64) for k in (left, right)]
        weaker = np.minimum(neg_log10_p_from_z(z[0]), neg_log10_p_from_z(z[1]))
        kept = np.flatnonzero(good & (weaker >= edge) & (np.sign(z[0]) == np.sign(z[1])))
        outside = np.full(kept.size, np.nan)
        tested = rows[kept] >= 0
        outside[tested] = np.asarray(external.z[:, third], dtype=np.float64)[rows[kept][tested]]
        parts.append((kept, np.full(kept.size, name), weaker[kept], z[0][kept], z[1][kept], outside))
    kept, merged, weaker, z_left, z_right, outside = (np.concatenate(x) for x in zip(*parts, strict=True))
    strong, n_tests = _strong(discovery.z, alpha)
    return TissueMerge(
        discovery.tissue,
        discovery.genes[kept],
        discovery.gene_names[kept],
        merged,
        weaker,
        np.sign(z_left),
        z_left,
        z_right,
        outside,
        strong,
        n_tests,
        int((~good).sum()),
    )


def external_replication(
    merges: Sequence[TissueMerge],
    *,
    alpha: float = 0.05,
    significance: Literal["p", "bh"] = "bh",
    fdr: float = 0.05,
    n_tests: int | None = None,
) -> tuple[ResultTable, ResultTable]:
    """Return how many discovered associations replicate (in all, by tissue, by phenotype), and those associations.

    Parameters
    ----------
    merges
        Tissues, matched at an `alpha` of at least `fdr`.
    alpha
        Largest p in the external set.
    significance, fdr
        Discovered: ``p``, as matched; ``bh``, q up to `fdr` study-wide in both hemispheres.
    n_tests
        Tests of the discovery, where its tables hold only some of them.
    """
    edge = -np.inf
    if significance == "bh":
        edge = _fdr_edge([m.strong for m in merges], n_tests or sum(m.n_tests for m in merges), fdr)
    kept = [m.weaker >= edge for m in merges]

    def joined(name: str) -> Shaped[np.ndarray, " found"]:
        return np.concatenate([getattr(m, name)[k] for m, k in zip(merges, kept, strict=True)])

    z = joined("z_external")
    tissue = np.repeat([m.tissue for m in merges], [int(k.sum()) for k in kept])
    strength = neg_log10_p_from_z(z)
    same = np.sign(z) == joined("sign")
    significant = strength >= -np.log10(alpha)
    found = ResultTable(
        {
            "tissue": tissue,
            "gene": joined("gene"),
            "gene_name": joined("gene_name"),
            "phenotype": joined("external"),
            "z_left": joined("z_left"),
            "z_right": joined("z_right"),
            "z_external": z,
            "neg_log10_p": strength,
            "significant": significant,
            "replicated": significant & same,
        }
    )
    groups: list[tuple[str, str, Bool[np.ndarray, " found"]]] = [("all", "", np.ones(z.size, dtype=bool))]
    groups += [("tissue", m.tissue, tissue == m.tissue) for m in merges]
    groups += [("phenotype", name, found["phenotype"] == name) for name in np.unique(found["phenotype"]).tolist()]
    return _replicated(found, same, groups, alpha), found


def _replicated(
    found: ResultTable,
    equal: Bool[np.ndarray, " found"],
    groups: Sequence[tuple[str, str, Bool[np.ndarray, " found"]]],
    alpha: float,
) -> ResultTable:
    rows: list[Mapping[str, Any]] = []
    for level, name, mask in groups:
        tested = mask & np.isfinite(found["z_external"])
        n, hits = int(tested.sum()), int((tested & found["significant"]).sum())
        same, replicated = int((tested & equal).sum()), int((tested & found["replicated"]).sum())
        p = 10.0 ** -found["neg_log10_p"][tested]
        null = min(1.0, float((p > _LAMBDA).mean() / (1 - _LAMBDA))) if n else np.nan
        mean = (found["z_left"][tested] + found["z_right"][tested]) / 2
        rows.append(
            {
                "level": level,
                "tissue": name if level == "tissue" else "",
                "phenotype": name if level == "phenotype" else "",
                "n_discovered": int(mask.sum()),
                "n_tests": n,
                "n_significant": hits,
                "share_significant": hits / n if n else np.nan,
                "expected_significant": alpha,
                "significant_neg_log10_p": neg_log10_p_from_binomial(hits, n, alpha),
                "n_replicated": replicated,
                "share_replicated": replicated / n if n else np.nan,
                "pi1": 1.0 - null,
                "n_same_sign": same,
                "same_sign": same / n if n else np.nan,
                "expected_same_sign": _EXPECTED_SIGN,
                "sign_neg_log10_p": neg_log10_p_from_binomial(same, n, _EXPECTED_SIGN),
                "spearman_rho": _spearman(mean, found["z_external"][tested]),
            }
        )
    return ResultTable({name: np.array([row[name] for row in rows]) for name in rows[0]})
