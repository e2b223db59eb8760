"""Copy-number variants: calls to carriers and gene burden, and their association with many traits.

Data flow::

    SegmentTable --merge_segments, filter_segments--> calls    (once)
    calls + a locus --locus_copies--> copies - 2 of every person
    calls + genes --gene_burden--> genes deleted and duplicated, plain and weighted by 1 / LOEUF
    traits, covariates, dosage --associate_terms--> TermResult (per locus, all traits at once)

Models: dosage ``y ~ d + C`` with ``d = copies - 2``, and deletion and duplication as indicators of their own (each, and
both together with two degrees of freedom). Errors are ordinary and HC3; below 30 carriers a Freedman-Lane permutation
stands beside them (residuals of the model without the term are permuted, so covariates keep their effects), and below
5 carriers only the difference of means is given.

References
----------
Freedman & Lane (1983), J. Bus. Econ. Stat. 1:292; Winkler et al. (2014), 10.1016/j.neuroimage.2014.01.060; MacKinnon &
White (1985), J. Econometrics 29:305; Wang et al. (2007), 10.1101/gr.6861907.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from brainlocus.core.errors import AlignmentError
from brainlocus.core.segments import RegionTable, SegmentTable
from brainlocus.numerics.projection import covariate_basis, project_out
from brainlocus.numerics.tails import neg_log10_p_from_t

__all__ = [
    "FEW_CARRIERS",
    "MIN_CARRIERS",
    "ArrayLimits",
    "CallLimits",
    "TermResult",
    "array_reasons",
    "associate_terms",
    "check_builds",
    "filter_segments",
    "gene_burden",
    "locus_copies",
    "merge_segments",
]

MIN_CARRIERS = 5
"""Below, results are descriptive only (methods)."""
FEW_CARRIERS = 30
"""Below, a permutation p stands beside the parametric one (methods)."""


@dataclass(frozen=True, slots=True)
class ArrayLimits:
    """Whose arrays are good enough: the conventions of PennCNV."""

    max_lrr_sd: float = 0.28
    baf_median: tuple[float, float] = (0.45, 0.55)
    max_baf_drift: float = 0.002
    max_gc_wave: float = 0.05
    """Of the absolute wave factor."""
    max_calls: int = 50


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Which calls are trusted."""

    min_snps: int = 10
    """Not asked of calls without a count (0)."""
    min_length: int = 20_000
    max_gap: float = 0.2
    """Calls of one person with equal copies are joined when the gap is below this share of the joined length."""
    max_excluded: float = 0.5
    """Largest share of a call within the regions left out (centromeres, telomeres, immunoglobulin genes)."""


@dataclass(frozen=True, slots=True, eq=False)
class TermResult:
    """Terms of one model for every trait of the same people. Rows are terms, columns traits."""

    beta: Float[np.ndarray, "terms traits"]
    """Trait units per unit of the term; NaN for several terms together."""
    standard_error: Float[np.ndarray, "terms traits"]
    neg_log10_p: Float[np.ndarray, "terms traits"]
    robust_standard_error: Float[np.ndarray, "terms traits"]
    robust_neg_log10_p: Float[np.ndarray, "terms traits"]
    permutation_p: Float[np.ndarray, "terms traits"]
    """NaN where there are carriers enough."""
    degrees_of_freedom: int


def check_builds(calls: str, regions: str) -> None:
    """Refuse positions of two assemblies.

    Raises
    ------
    AlignmentError
        The builds differ.
    """
    if calls != regions:
        raise AlignmentError(
            f"The calls are on {calls}, the regions on {regions}: overlaps would be wrong. Lift one of them over "
            "to the other build."
        )


def array_reasons(
    quality: dict[str, Shaped[np.ndarray, " people"]], n_calls: Int[np.ndarray, " people"], limits: ArrayLimits
) -> Shaped[np.ndarray, " people"]:
    """Return why a person is left out, empty when kept; unknown metrics (NaN) pass.

    Parameters
    ----------
    quality
        lrr_sd, baf_median, baf_drift, gc_wave of every person.
    """
    low, high = limits.baf_median
    with np.errstate(invalid="ignore"):
        checks = (
            ("lrr_sd", quality["lrr_sd"] > limits.max_lrr_sd),
            ("baf_median", (quality["baf_median"] < low) | (quality["baf_median"] > high)),
            ("baf_drift", quality["baf_drift"] > limits.max_baf_drift),
            ("gc_wave", np.abs(quality["gc_wave"]) > limits.max_gc_wave),
            ("too_many_calls", n_calls > limits.max_calls),
        )
    reasons = np.full(n_calls.size, "", dtype="<U16")
    for name, bad in reversed(checks):
        reasons[bad] = name
    return reasons


def merge_segments(segments: SegmentTable, max_gap: float = 0.2) -> SegmentTable:
    """Return calls with neighbours of one person and equal copies joined, sorted by person and place.

    Two calls become one when the gap between them is below `max_gap` of the joined length; n_snps add up, the higher
    score stays.

    Examples
    --------
    >>> from brainlocus.core.segments import SegmentTable
    >>> one = np.ones(2, dtype=np.int64)
    >>> calls = SegmentTable(np.array(["a", "a"]), np.array(["1", "1"]), np.array([1, 105]), np.array([100, 200]),
    ...                      one, 20 * one, np.ones(2), "GRCh38")
    >>> merged = merge_segments(calls)
    >>> len(merged), int(merged.stop[0]), int(merged.n_snps[0])
    (1, 200, 40)
    """
    order = np.lexsort((segments.start, segments.copies, segments.chromosome, segments.participant_id))
    s = segments.take(order)
    kept: list[int] = []
    stop, snps, score = s.stop.copy(), s.n_snps.copy(), s.score.copy()
    for k in range(len(s)):
        last = kept[-1] if kept else -1
        same = last >= 0 and (
            s.participant_id[k] == s.participant_id[last]
            and s.chromosome[k] == s.chromosome[last]
            and s.copies[k] == s.copies[last]
        )
        if same:
            end = max(int(stop[last]), int(stop[k]))
            gap = int(s.start[k]) - int(stop[last]) - 1
            if gap < max_gap * (end - int(s.start[last]) + 1):
                stop[last], snps[last] = end, snps[last] + snps[k]
                score[last] = np.fmax(score[last], score[k])
                continue
        kept.append(k)
    rows = np.array(kept, dtype=np.int64)
    first = s.take(rows)
    return SegmentTable(
        first.participant_id, first.chromosome, first.start, stop[rows], first.copies, snps[rows], score[rows],
        first.genome_build,
    )  # fmt: skip


def filter_segments(
    segments: SegmentTable, limits: CallLimits, excluded: RegionTable | None = None
) -> tuple[SegmentTable, dict[str, int]]:
    """Return the calls that pass, and how many were dropped for what.

    Raises
    ------
    AlignmentError
        The regions to leave out are on another build.
    """
    few = (segments.n_snps > 0) & (segments.n_snps < limits.min_snps)
    short = segments.length < limits.min_length
    inside = np.zeros(len(segments), dtype=bool)
    if excluded is not None:
        check_builds(segments.genome_build, excluded.genome_build)
        covered = sum((overlaps(segments, excluded, r) for r in range(len(excluded))), np.zeros(len(segments)))
        inside = covered > limits.max_excluded * segments.length
    normal = segments.copies == 2
    kept = ~(few | short | inside | normal)
    counts = {"few_snps": int(few.sum()), "short": int((~few & short).sum())}
    counts |= {"excluded_region": int((~few & ~short & inside).sum()), "two_copies": int(normal.sum())}
    return segments.take(kept), counts


def overlaps(segments: SegmentTable, regions: RegionTable, region: int) -> Float[np.ndarray, " segments"]:
    """Return the bases that each call shares with a region."""
    start = np.maximum(segments.start, regions.start[region])
    stop = np.minimum(segments.stop, regions.stop[region])
    here = segments.chromosome == regions.chromosome[region]
    return np.where(here, np.maximum(stop - start + 1, 0), 0).astype(np.float64)


def locus_copies(
    segments: SegmentTable,
    loci: RegionTable,
    locus: int,
    people: Shaped[np.ndarray, " people"],
    *,
    min_overlap: float = 0.4,
) -> Int[np.ndarray, " people"]:
    """Return copies - 2 of a locus, from -2 to 2, of every person; 0 for non-carriers.

    A carrier has a call that covers at least `min_overlap` of the locus, in the locus's direction; of several calls the
    one that covers most counts.

    Raises
    ------
    AlignmentError
        Calls and loci are on different builds.
    """
    check_builds(segments.genome_build, loci.genome_build)
    covered = overlaps(segments, loci, locus) / (loci.stop[locus] - loci.start[locus] + 1)
    change = np.clip(segments.copies - 2, -2, 2)
    wanted = {"deletion": change < 0, "duplication": change > 0}.get(str(loci.direction[locus]), change != 0)
    rows = np.flatnonzero((covered >= min_overlap) & wanted)
    rows = rows[np.argsort(covered[rows], kind="stable")]  # the largest is written last
    place = {str(name): k for k, name in enumerate(people.tolist())}
    result = np.zeros(people.size, dtype=np.int64)
    for row in rows:
        k = place.get(str(segments.participant_id[row]))
        if k is not None:
            result[k] = change[row]
    return result


def gene_burden(
    segments: SegmentTable, genes: RegionTable, people: Shaped[np.ndarray, " people"]
) -> Float[np.ndarray, "people 4"]:
    """Return genes deleted and duplicated, and the same weighted by 1 / LOEUF (0 for genes without one).

    A gene counts once a person and direction when a call shares a base with it.

    Raises
    ------
    AlignmentError
        Calls and genes are on different builds.
    """
    check_builds(segments.genome_build, genes.genome_build)
    place = {str(name): k for k, name in enumerate(people.tolist())}
    person = np.array([place.get(str(name), -1) for name in segments.participant_id.tolist()], dtype=np.int64)
    weight = np.where(genes.loeuf > 0, 1.0 / np.where(genes.loeuf > 0, genes.loeuf, 1.0), 0.0)
    burden = np.zeros((people.size, 4))
    for gene in range(len(genes)):
        here = (overlaps(segments, genes, gene) > 0) & (person >= 0)
        for direction, some in enumerate((segments.copies < 2, segments.copies > 2)):
            carriers = np.unique(person[here & some])
            burden[carriers, direction] += 1.0
            burden[carriers, 2 + direction] += weight[gene]
    return burden


def associate_terms(
    traits: Float[np.ndarray, "people traits"],
    covariates: Float[np.ndarray, "people covariates"],
    terms: Float[np.ndarray, "people terms"],
    *,
    permute: Bool[np.ndarray, " rows"] | None = None,
    n_permutations: int = 1000,
    rng: np.random.Generator | None = None,
) -> TermResult | None:
    """Fit ``y ~ 1 + C + terms`` for every trait; with two terms the last row tests both.

    Parameters
    ----------
    traits, covariates, terms
        Complete; the intercept is added.
    permute
        Rows of the result that get a permutation p.

    Returns
    -------
    TermResult or None
        None when a term is a combination of the covariates and the terms before it, or too few people are left.

    References
    ----------
    Freedman & Lane (1983); MacKinnon & White (1985).
    """
    n, k = terms.shape
    basis = covariate_basis(covariates).q
    df = n - basis.shape[1] - k
    left = project_out(basis, terms)
    size = np.sqrt((left**2).sum(axis=0))
    centred = np.sqrt(((terms - terms.mean(axis=0)) ** 2).sum(axis=0))
    if df < 1 or not (size > 1e-6 * np.maximum(centred, 1e-300)).all() or not (centred > 0).all():
        return None
    u, r = np.linalg.qr(left / size)
    if np.abs(np.diag(r)).min() < 1e-6:
        return None
    inverse = np.linalg.inv(r) / size[:, None]
    y = project_out(basis, traits)
    score = u.T @ y
    beta = inverse @ score
    residual = (y - u @ score) ** 2
    scale = residual.sum(axis=0) / df
    error = np.sqrt((inverse**2).sum(axis=1)[:, None] * scale)
    leverage = (basis**2).sum(axis=1) + (u**2).sum(axis=1)
    with np.errstate(divide="ignore"):
        omega = 1.0 / np.where(1.0 - leverage > 1e-10, 1.0 - leverage, np.nan) ** 2
    influence = inverse @ u.T
    robust = np.sqrt((influence**2 * omega) @ residual)
    with np.errstate(divide="ignore", invalid="ignore"):
        strength = neg_log10_p_from_t(beta / error, float(df))
        strong = neg_log10_p_from_t(beta / robust, float(df))
    rows = [beta, error, strength, robust, strong]
    if k == 2:
        nan = np.full((1, traits.shape[1]), np.nan)
        wald = (score**2).sum(axis=0) / scale
        weights = np.stack([influence[a] * influence[b] * omega for a, b in ((0, 0), (0, 1), (1, 1))])
        aa, ab, bb = weights @ residual
        quadratic = (bb * beta[0] ** 2 - 2 * ab * beta[0] * beta[1] + aa * beta[1] ** 2) / (aa * bb - ab * ab)
        both = (0.5 * df * np.log1p(w / df) / np.log(10.0) for w in (wald, quadratic))
        rows = [np.vstack([a, b]) for a, b in zip(rows, (nan, nan, next(both), nan, next(both)), strict=True)]
    permuted = np.full(rows[0].shape, np.nan)
    for row in np.flatnonzero(permute if permute is not None else np.zeros(len(permuted), dtype=bool)):
        tested = [int(row)] if row < k else list(range(k))
        others = np.delete(terms, tested, axis=1)
        generator = rng if rng is not None else np.random.default_rng(0)
        permuted[row] = _freedman_lane(
            traits, np.hstack([covariates, others]), terms[:, tested], n_permutations, generator
        )
    b, se, p, robust_se, robust_p = rows
    return TermResult(b, se, p, robust_se, robust_p, permuted, int(df))


def _freedman_lane(
    traits: Float[np.ndarray, "people traits"],
    nuisance: Float[np.ndarray, "people nuisance"],
    terms: Float[np.ndarray, "people terms"],
    n_permutations: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, " traits"]:
    """Return ``(1 + exceeding) / (1 + B)`` of F, permuting what the nuisance model leaves.

    The permuted trait is ``H y + P M y``; the nuisance model takes ``H y`` out again, so only ``M P M y`` is needed.
    """
    q = covariate_basis(nuisance).q
    u, _ = np.linalg.qr(project_out(q, terms))
    residual = project_out(q, traits)
    total = (residual**2).sum(axis=0)

    def share(permuted: Float[np.ndarray, "people traits"]) -> Float[np.ndarray, " traits"]:
        left = total - ((q.T @ permuted) ** 2).sum(axis=0)
        return np.asarray(((u.T @ permuted) ** 2).sum(axis=0) / left)

    observed = share(residual)
    exceeding = np.zeros(traits.shape[1], dtype=np.int64)
    for _ in range(n_permutations):
        exceeding += share(residual[rng.permutation(residual.shape[0])]) >= observed * (1.0 - 1e-12)
    return np.asarray((1.0 + exceeding) / (1.0 + n_permutations))
