"""Epistasis: the interaction of every pair of variants in exact least squares, by matrix products.

Data flow::

    traits, covariates --prepare_epistasis--> EpistasisDesign      (once)
    EpistasisDesign + dosage --prepare_variants--> VariantBlock    (once per block of variants and group of traits)
    two VariantBlocks --scan_tile--> TileResult                    (per block of pairs)

Model ``y = C b + b1 g1 + b2 g2 + b3 g1 g2``. With X the standardised genotypes, Q an orthonormal basis of intercept
and covariates, and ``~`` for what Q leaves, a pair's product ``p = x_i x_j`` has::

    S11 = X~'X~   V = (X * X~)'X   S22 = (X*X)'(X*X)   Sy = (X * y~)'X   u = X'y~
    pp = S22 - sum_q ((X * q)'X)^2     v = (V_ij, V_ji)     S = [[S11_ii, S11_ij], [S11_ij, S11_jj]]
    rpp = pp - v'S^-1 v     rpy = Sy - v'S^-1 u     b3 = rpy / rpp
    rss = y~'y~ - u'S^-1 u - rpy^2 / rpp            t = b3 / sqrt(rss / df / rpp),   df = n - rank(Q) - 3

so a pair costs 8 n floating-point operations, 2 n more for each covariate and each further trait: S11, V and S22 are
of the genotypes alone, and all traits of the same people share them. Products are float32; pairs with ``|t| > 4``, a
hit, or sums that float32 cannot settle are computed again in float64. Missing calls count as the mean in the scan;
`refit_pairs` fits hits again on the people with both calls, with HC3 errors.

References
----------
Cordell (2009), Nat. Rev. Genet. 10:392; Frisch & Waugh (1933), Econometrica 1:387; Purcell et al. (2007),
Am. J. Hum. Genet. 81:559 (--epistasis).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Shaped
from scipy.special import ndtri, stdtr, stdtrit

from brainlocus.core.errors import AlignmentError
from brainlocus.core.genotypes import GenotypeSource, iter_blocks
from brainlocus.core.variants import VariantTable
from brainlocus.genetics.interactions import _pairs
from brainlocus.genetics.interactions.people import AlignedTraits
from brainlocus.genetics.interactions.robust import fit_least_squares
from brainlocus.numerics.missingness import same_people
from brainlocus.numerics.projection import covariate_basis, project_out
from brainlocus.numerics.tails import neg_log10_p_from_t

__all__ = [
    "EpistasisDesign",
    "PairFit",
    "PairGroup",
    "PairRules",
    "PairSet",
    "TileResult",
    "VariantBlock",
    "VariantSurvey",
    "count_pairs",
    "histogram_lambda",
    "histogram_strength",
    "pair_fits_columns",
    "prepare_epistasis",
    "prepare_variants",
    "refit_pairs",
    "scan_tile",
    "survey_variants",
    "tile_peak_bytes",
    "variant_places",
]

_RECOMPUTE_T2 = 16.0
_MIN_TRAIT_SHARE = 1e-12
_MEDIAN_CHI2 = 0.454936423119572
MIN_CELL = 5
"""Fewest people in each cell of the 3 x 3 table of two variants before the test is trusted as it is (methods)."""


@dataclass(frozen=True, slots=True, eq=False)
class PairGroup:
    """Traits observed in exactly the same people."""

    names: tuple[str, ...]
    rows: Int[np.ndarray, " people"]
    """People of the design who have these traits."""
    q: Float[np.ndarray, "people rank"]
    traits: Float[np.ndarray, "people traits"]
    """As given: trait units."""
    residuals: Float[np.ndarray, "people traits"]
    """Covariates projected out, scaled to a mean square of 1."""

    @property
    def degrees_of_freedom(self) -> int:
        """Of the model with both variants and their product."""
        return int(self.q.shape[0] - self.q.shape[1] - 3)


@dataclass(frozen=True, slots=True, eq=False)
class EpistasisDesign:
    """Traits and covariates reduced once and reused for every pair."""

    groups: tuple[PairGroup, ...]
    n_samples: int
    skipped: tuple[tuple[str, str], ...]
    """Traits left out, with the reason: constant, too_few_people."""
    dropped: tuple[str, ...]
    """Covariates that are constant or combinations of others."""

    @property
    def names(self) -> tuple[str, ...]:
        """Traits that can be analysed, grouped by who has them."""
        return tuple(name for group in self.groups for name in group.names)


@dataclass(frozen=True, slots=True)
class PairRules:
    """Which pairs are tested and which are kept."""

    report_p: float = 1e-6
    """Largest p of a reported pair."""
    min_distance: int = 1_000_000
    """Pairs on one chromosome nearer than this (bases) are not tested: interaction within LD mimics a haplotype."""

    def __post_init__(self) -> None:
        if not 0.0 < self.report_p <= 1.0:
            raise ValueError(f"report_p is a p-value in (0, 1], found {self.report_p}.")


@dataclass(frozen=True, slots=True, eq=False)
class PairSet:
    """The pairs of a scan: every row with every column, once."""

    rows: Int[np.ndarray, " rows"]
    """Variants (rows of the source), ascending."""
    columns: Int[np.ndarray, " columns"]
    """With all rows among them."""
    in_rows: Bool[np.ndarray, " columns"]
    """Whether a column is also a row, so that its pair with an earlier row is already there."""

    @classmethod
    def of(cls, rows: Int[np.ndarray, " rows"], columns: Int[np.ndarray, " more"]) -> "PairSet":
        """Return all pairs of `rows` with one another and with `columns`; the same twice gives all pairs of one set."""
        first = np.unique(rows)
        second = np.union1d(first, columns)
        return cls(first, second, np.isin(second, first))


@dataclass(frozen=True, slots=True, eq=False)
class VariantBlock:
    """Some variants among the people of one group, as the products need them."""

    index: Int[np.ndarray, " variants"]
    """Rows of the source."""
    dosage: Float32[np.ndarray, "variants people"]
    mean: Float[np.ndarray, " variants"]
    scale: Float[np.ndarray, " variants"]
    """1 / standard deviation; 0 where constant."""
    x: Float32[np.ndarray, "variants people"]
    squares: Float32[np.ndarray, "variants people"]
    main: Float32[np.ndarray, "variants people"]
    """``x * x~``."""
    b: Float32[np.ndarray, "variants rank"]
    """``Q'x``."""
    left: Float[np.ndarray, " variants"]
    """``x~'x~``."""
    u: Float[np.ndarray, "traits variants"]
    """``x'y~``."""


@dataclass(frozen=True, slots=True, eq=False)
class TileResult:
    """What is kept of a block of pairs of one group of traits."""

    n_tests: Int[np.ndarray, " traits"]
    n_perfect_ld: Int[np.ndarray, " traits"]
    histogram: Int[np.ndarray, "traits bins"]
    """Tests by t^2, in bins of 1/256 up to 64."""
    trait: Int[np.ndarray, " hits"]
    """Trait within the group."""
    row: Int[np.ndarray, " hits"]
    """Row of the source."""
    column: Int[np.ndarray, " hits"]
    neg_log10_p: Float[np.ndarray, " hits"]
    """In float64, missing calls at the mean."""


@dataclass(frozen=True, slots=True, eq=False)
class VariantSurvey:
    """Every variant among the analysed people."""

    effect_allele_frequency: Float[np.ndarray, " variants"]
    """NaN without calls."""
    marginal_neg_log10_p: Float[np.ndarray, "traits variants"]
    """Of the variant alone given the covariates, in the order of `EpistasisDesign.names`."""


@dataclass(frozen=True, slots=True, eq=False)
class PairFit:
    """One pair fitted on the people with both calls."""

    n: int
    beta: float
    """Trait units per product of effect-allele counts; NaN where not estimable."""
    standard_error: float
    t: float
    degrees_of_freedom: float
    neg_log10_p: float
    robust_standard_error: float
    robust_neg_log10_p: float
    """With HC3 errors."""
    variance_explained: float
    """R^2 that the product adds."""
    min_cell: int
    """Smallest cell of the 3 x 3 table of (rounded) allele counts."""
    status: str
    """ok, sparse_cells (min_cell below 5), collinear (the pair is in perfect LD)."""


def prepare_epistasis(data: AlignedTraits) -> EpistasisDesign:
    """Reduce traits and covariates.

    Raises
    ------
    ValueError
        More covariates than people, or no trait that can be analysed.
    """
    groups, skipped, dropped = [], [], set()
    for mask, members in same_people(~np.isnan(data.traits)):
        labels = [data.names[k] for k in members]
        if mask.sum() <= data.covariates.shape[1] + 4:
            skipped += [(label, "too_few_people") for label in labels]
            continue
        basis = covariate_basis(data.covariates[mask], data.covariate_names)
        values = data.traits[np.ix_(mask, members)]
        residual = project_out(basis.q, values - values.mean(axis=0))
        left = (residual**2).mean(axis=0)
        good = left > _MIN_TRAIT_SHARE * np.maximum((values**2).mean(axis=0), np.finfo(float).tiny)
        skipped += [(label, "constant") for label, fine in zip(labels, good, strict=True) if not fine]
        dropped |= set(basis.dropped)
        if good.any():
            names = tuple(label for label, fine in zip(labels, good, strict=True) if fine)
            unit = residual[:, good] / np.sqrt(left[good])
            groups.append(PairGroup(names, np.flatnonzero(mask), basis.q, values[:, good], unit))
    if not groups:
        why = ", ".join(f"{name} ({reason})" for name, reason in skipped[:5])
        raise ValueError(f"No trait can be analysed: {why}. Traits must vary given the covariates.")
    return EpistasisDesign(tuple(groups), len(data.samples), tuple(skipped), tuple(sorted(dropped)))


def prepare_variants(
    group: PairGroup, dosage: Float32[np.ndarray, "variants samples"], index: Int[np.ndarray, " variants"]
) -> VariantBlock:
    """Standardise a block of variants among the people of a group.

    Parameters
    ----------
    dosage
        Copies of the effect allele, NaN = missing; columns are all people of the design.
    index
        Rows of the source.

    Raises
    ------
    AlignmentError
        Fewer people than the group names.
    """
    if group.rows.size and dosage.shape[1] <= group.rows[-1]:
        raise AlignmentError(f"The block has {dosage.shape[1]} people, the design names number {group.rows[-1] + 1}.")
    own = np.ascontiguousarray(dosage if group.rows.size == dosage.shape[1] else dosage[:, group.rows])
    m, n = own.shape
    mean, scale, x = np.empty(m), np.empty(m), np.empty((m, n), dtype=np.float32)
    _pairs.standardise(own, mean, scale, x)
    q = group.q.astype(np.float32)
    squares = x * x
    if q.shape[1] == 1:
        b, main, left = np.zeros((m, 1), dtype=np.float32), squares, np.full(m, float(n))
    else:
        b = x @ q
        main = x * (x - b @ q.T)
        left = n - (b.astype(np.float64) ** 2).sum(axis=1)
    u = (group.residuals.T.astype(np.float32) @ x.T).astype(np.float64)
    return VariantBlock(index, own, mean, scale, x, squares, main, b, left, u)


def tile_peak_bytes(design: EpistasisDesign, rows: int, columns: int) -> int:
    """Return an upper estimate of the bytes that blocks of this size and the products between them take."""
    n = design.n_samples
    traits = max(len(group.names) for group in design.groups)
    blocks = (rows + columns) * n * 4 * 5
    return blocks + rows * columns * 4 * (6 + 2 * traits) + 2 * rows * n * 4 + traits * _pairs.BINS * 16


def scan_tile(
    group: PairGroup,
    rows: VariantBlock,
    columns: VariantBlock,
    places: Int[np.ndarray, "source 2"],
    rules: PairRules,
    *,
    in_rows: Bool[np.ndarray, " columns"],
    open_rows: Bool[np.ndarray, "traits rows"] | None = None,
    open_columns: Bool[np.ndarray, "traits columns"] | None = None,
) -> TileResult:
    """Test the pairs of a block of rows with a block of columns for every trait of a group.

    Parameters
    ----------
    places
        `variant_places` of the source.
    in_rows
        `PairSet.in_rows` of these columns: such a column is not paired with rows after it.
    open_rows, open_columns
        Variants a trait is tested with (a marginal filter); None: all.

    References
    ----------
    Module docstring; Cordell (2009), 10.1038/nrg2579.
    """
    n, df, n_traits = rows.x.shape[1], float(group.degrees_of_freedom), len(group.names)
    same = rows.index.shape == columns.index.shape and bool((rows.index == columns.index).all())
    right = columns.x.T
    raw11 = rows.x @ right
    s11 = raw11 - rows.b @ columns.b.T if group.q.shape[1] > 1 else raw11
    v_row = rows.main @ right
    v_column = v_row.T if same else rows.x @ columns.main.T
    s22 = rows.squares @ columns.squares.T
    for k in range(1, group.q.shape[1]):
        part = (rows.x * group.q[:, k].astype(np.float32)) @ right
        s22 -= part * part
    sy = np.empty((n_traits, *raw11.shape), dtype=np.float32)
    for k in range(n_traits):
        np.matmul(rows.x * group.residuals[:, k].astype(np.float32), right, out=sy[k])
    everyone = (np.ones((n_traits, rows.index.size), dtype=bool), np.ones((n_traits, columns.index.size), dtype=bool))
    use = (
        (everyone[0] if open_rows is None else open_rows) & (rows.scale > 0),
        (everyone[1] if open_columns is None else open_columns) & (columns.scale > 0),
        in_rows,
        rows.index,
        columns.index,
        places[rows.index, 0],
        places[columns.index, 0],
        places[rows.index, 1],
        places[columns.index, 1],
    )
    histogram = np.zeros((n_traits, _pairs.BINS), dtype=np.int64)
    t2, tested = np.empty(sy.shape, dtype=np.float32), np.zeros(n_traits, dtype=np.int64)
    products = (s11, raw11, v_row, v_column, s22, sy)
    sides = (rows.left, columns.left, rows.u, columns.u)
    total = (float(n), float(n))
    _pairs.tile_statistics(products, sides, total, df, use, rules.min_distance, histogram, t2, tested)
    return _keep(group, rows, columns, rules, t2, tested, histogram)


def _keep(
    group: PairGroup,
    rows: VariantBlock,
    columns: VariantBlock,
    rules: PairRules,
    t2: Float32[np.ndarray, "traits rows columns"],
    tested: Int[np.ndarray, " traits"],
    histogram: Int[np.ndarray, "traits bins"],
) -> TileResult:
    """Compute the pairs that matter again in float64, and keep those below the threshold."""
    df = float(group.degrees_of_freedom)
    limit = -np.log10(rules.report_p)
    strong = t2 > min(_RECOMPUTE_T2, 0.98 * _t2_at(limit, df))
    unstable = t2 == _pairs.UNSTABLE
    trait, row, column = np.nonzero(strong | unstable)
    t = np.empty(row.size)
    q, y = np.ascontiguousarray(group.q.T), np.ascontiguousarray(group.residuals.T)
    work = np.empty((3, q.shape[0]))
    blocks = (rows.dosage, columns.dosage, rows.mean, columns.mean)
    _pairs.exact_pairs(trait, row, column, *blocks, q, y, df, t, work)
    new = unstable[trait, row, column] & np.isfinite(t)
    bins = np.minimum(t[new] ** 2 * _pairs.BINS_PER_UNIT, _pairs.BINS - 1).astype(np.int64)
    np.add.at(histogram, (trait[new], bins), 1)
    lost = np.bincount(trait[np.isnan(t)], minlength=len(group.names))
    strength = np.asarray(neg_log10_p_from_t(t, df))
    hit = strength >= limit
    found = (trait[hit], rows.index[row[hit]], columns.index[column[hit]], strength[hit])
    return TileResult(tested - lost, lost, histogram, *found)


def _t2_at(limit: float, df: float) -> float:
    """Return the t^2 whose -log10 p is `limit`; infinite far in the tail."""
    return float(stdtrit(df, 0.5 * 10.0**-limit) ** 2) if limit < 100 else np.inf


def histogram_lambda(counts: Int[np.ndarray, " bins"], df: float) -> float:
    """Return lambda_GC: the chi-square with the p of the median t^2, over its expectation; NaN without tests."""
    total = int(counts.sum())
    if not total:
        return float("nan")
    below = np.cumsum(counts)
    place = int(np.searchsorted(below, total / 2))
    inside = (total / 2 - (below[place] - counts[place])) / counts[place]
    t2 = (place + inside) / _pairs.BINS_PER_UNIT
    return float(ndtri(stdtr(df, -np.sqrt(t2))) ** 2 / _MEDIAN_CHI2)


def histogram_strength(counts: Int[np.ndarray, " bins"], df: float) -> Float[np.ndarray, "occupied 2"]:
    """Return, for each bin with tests, -log10 p at its lower edge and its tests: what a Q-Q plot is drawn from."""
    place = np.flatnonzero(counts)
    strength = neg_log10_p_from_t(np.sqrt(place / _pairs.BINS_PER_UNIT), df)
    return np.column_stack([strength, counts[place]]).astype(np.float64)


def survey_variants(design: EpistasisDesign, source: GenotypeSource, *, block_size: int = 1024) -> VariantSurvey:
    """Return the frequency and marginal association of every variant, in one pass.

    Parameters
    ----------
    source
        Genotypes of exactly the people of the design, in their order.
    """
    m = len(source.variants)
    frequency, strength = np.empty(m), np.full((len(design.names), m), np.nan)
    for block in iter_blocks(source, block_size):
        place = np.arange(block.start, block.stop)
        called = ~np.isnan(block.dosage)
        count = called.sum(axis=1)
        total = np.where(called, block.dosage, 0.0).sum(axis=1, dtype=np.float64)
        frequency[place] = np.divide(total, 2.0 * count, out=np.full(place.size, np.nan), where=count > 0)
        first = 0
        for group in design.groups:
            ready = prepare_variants(group, block.dosage, place)
            n, df = group.rows.size, group.rows.size - group.q.shape[1] - 1
            fine = (ready.scale > 0) & (ready.left > 1e-6 * n)
            r2 = ready.u**2 / (np.where(fine, ready.left, np.nan) * n)
            t = np.sqrt(df * r2 / np.maximum(1.0 - r2, 1e-300))
            strength[first : first + len(group.names), place] = neg_log10_p_from_t(t, float(df))
            first += len(group.names)
    return VariantSurvey(frequency, strength)


def variant_places(variants: VariantTable) -> Int[np.ndarray, "variants 2"]:
    """Return the chromosome, as a number of its own, and the position of every variant."""
    chromosome = np.unique(variants.chromosome.astype(np.str_), return_inverse=True)[1]
    return np.column_stack([chromosome, variants.position]).astype(np.int64)


def count_pairs(pairs: PairSet, variants: VariantTable, min_distance: int) -> int:
    """Return how many pairs a scan tests for a trait without a marginal filter, by sorting positions."""
    n_rows = pairs.rows.size
    total = n_rows * pairs.columns.size - n_rows - n_rows * (n_rows - 1) // 2
    if min_distance <= 0:
        return int(total)
    places = variant_places(variants)
    row_places, column_places = places[pairs.rows], places[pairs.columns]
    near = 0
    for code in np.unique(row_places[:, 0]):
        first = np.sort(row_places[row_places[:, 0] == code, 1])
        second = np.sort(column_places[column_places[:, 0] == code, 1])
        near += _near(first, second, min_distance) - (_near(first, first, min_distance) + first.size) // 2
    return int(total - near)


def _near(first: Int[np.ndarray, " rows"], second: Int[np.ndarray, " columns"], distance: int) -> int:
    """Return the pairs nearer than `distance`, each position with itself included."""
    low = np.searchsorted(second, first - distance, side="right")
    return int((np.searchsorted(second, first + distance, side="left") - low).sum())


def refit_pairs(
    group: PairGroup,
    trait: int,
    first: Float32[np.ndarray, "pairs samples"],
    second: Float32[np.ndarray, "pairs samples"],
) -> list[PairFit]:
    """Fit pairs of variants one by one on the people with both calls, with ordinary and HC3 errors.

    Parameters
    ----------
    trait
        Column of the group's traits.
    first, second
        Dosages of all people of the design, NaN = missing.
    """
    y = group.traits[:, trait]
    return [_refit(group, y, a[group.rows], b[group.rows]) for a, b in zip(first, second, strict=True)]


def _refit(
    group: PairGroup,
    trait: Float[np.ndarray, " people"],
    first: Float32[np.ndarray, " people"],
    second: Float32[np.ndarray, " people"],
) -> PairFit:
    both = ~(np.isnan(first) | np.isnan(second))
    a, b, y, q = first[both].astype(np.float64), second[both].astype(np.float64), trait[both], group.q[both]
    n = int(both.sum())
    cells = np.bincount((3 * np.clip(np.rint(a), 0, 2) + np.clip(np.rint(b), 0, 2)).astype(np.int64), minlength=9)
    smallest = int(cells.min())
    main = np.column_stack([q, a - a.mean(), b - b.mean()]) if n else np.empty((0, q.shape[1] + 2))
    full = np.column_stack([main, main[:, -1] * main[:, -2]])
    fit = fit_least_squares(full, y)
    if fit is None:
        nan = float("nan")
        return PairFit(n, nan, nan, nan, nan, nan, nan, nan, nan, smallest, "collinear")
    beta, error = float(fit.beta[-1]), float(np.sqrt(fit.covariance[-1, -1]))
    robust = float(np.sqrt(fit.robust[-1, -1]))
    t, df = beta / error, float(fit.degrees_of_freedom)
    total = float(((y - y.mean()) ** 2).sum())
    added = t * t * fit.residual_ss / df / total
    p = neg_log10_p_from_t(np.array([t, beta / robust]), df)
    status = "ok" if smallest >= MIN_CELL else "sparse_cells"
    return PairFit(n, beta, error, t, df, float(p[0]), robust, float(p[1]), added, smallest, status)


def pair_fits_columns(fits: Sequence[PairFit]) -> dict[str, Shaped[np.ndarray, " pairs"]]:
    """Return the fits as columns of a result table."""
    floats = ("beta", "standard_error", "t", "degrees_of_freedom", "neg_log10_p", "robust_standard_error",
              "robust_neg_log10_p", "variance_explained")  # fmt: skip
    columns: dict[str, Shaped[np.ndarray, " pairs"]] = {"n": np.array([f.n for f in fits], dtype=np.int64)}
    columns |= {name: np.array([getattr(f, name) for f in fits], dtype=np.float64) for name in floats}
    columns["min_cell"] = np.array([f.min_cell for f in fits], dtype=np.int64)
    columns["status"] = np.array([f.status for f in fits], dtype=np.str_)
    return columns
