"""Whole-genome ridge regression, level 0: what each block of variants predicts of every trait.

Data flow::

    traits, covariates --prepare_ridge--> RidgeDesign                                 (once per set of people)
    RidgeDesign + block of variants --fit_block-->  .predict: traits x penalties x people  (level 0, per block)
    one trait's predictions by all blocks --stack_predictions--> RidgeFit              (level 1, per trait)

Level 0. With ``X`` a block of B variants (missing calls at the mean, covariates projected out, variance 1) and ``y``
the trait treated alike, ridge regression at the penalties ``lambda_r = m (1 - h_r) / h_r``, m variants in all blocks::

    beta_fr = (X'X - X_f'X_f + lambda_r I)^-1 (X'y - X_f'y_f)      yhat_fr = X_f beta_fr

for the people f of each fold: nobody is predicted by a model that has seen them. One Cholesky factor per fold and
penalty serves all traits. Leave-one-out instead of folds, from one eigendecomposition ``X'X = U D U'``::

    yhat_-i = (x_i'beta - H_ii y_i) / (1 - H_ii)       H_ii = sum_b (x_i'u_b)^2 / (d_b + lambda_r)

Level 1 (`brainlocus.genetics.gwas.loco`) stacks the predictions of all blocks and leaves out one chromosome at a time,
so that what remains holds the rest of the genome, and kinship, but not the variant to be tested.

Floor, in flop: n m B (X'X, symmetric) + 2 n m c (projection) + m B^2 F R / 3 (factors; F folds, R penalties) +
2 n m q (1 + R) (X'y and predictions of q traits) and n L^2 q for level 1. Predictions are R numbers per person,
block and trait, which is what many traits cost: 4 n q R m / B bytes.

References
----------
Mbatchou et al. (2021), Nature Genetics 53:1097, 10.1038/s41588-021-00870-7; Breiman (1996), Machine Learning 24:49
(stacking); Golub, Heath & Wahba (1979), Technometrics 21:215 (leave-one-out).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, no_type_check

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Float32, Int, Shaped
from numba import njit

from brainlocus.core.errors import AlignmentError
from brainlocus.core.samples import SampleIndex
from brainlocus.core.variants import chromosome_rank
from brainlocus.genetics.gwas.loco_cases import covariate_log_odds
from brainlocus.numerics.missingness import refuse_infinite, same_people
from brainlocus.numerics.projection import covariate_basis, project_out

__all__ = [
    "FoldModel",
    "LeaveOneOutModel",
    "RidgeBlock",
    "RidgeDesign",
    "RidgeSettings",
    "assign_folds",
    "block_peak_bytes",
    "centre_rows",
    "fit_block",
    "prepare_ridge",
    "ridge_blocks",
    "ridge_solve",
]

_MIN_RESIDUAL_SHARE = 1e-8
"""Share of a dosage's variance that the covariates must leave; else the variant predicts nothing (as in the scan)."""
_MIN_TRAIT_SHARE = 1e-12
"""Share of a trait's variance that the covariates must leave (as in the scan)."""

_ROWS_AT_ONCE = 128
"""Variants projected at once: what is held twice meanwhile."""


@dataclass(frozen=True, slots=True)
class RidgeSettings:
    """How the whole genome is regressed on."""

    block_size: int = 1_000
    """Variants of a level 0 block at most; blocks of a chromosome are of equal size."""
    heritabilities: tuple[float, ...] = (0.01, 0.25, 0.5, 0.75, 0.99)
    """Shares h of variance explained that make the penalties m (1 - h) / h, at both levels."""
    folds: int = 5
    cross_validation: Literal["folds", "loo"] = "folds"
    binary: bool = False
    """Traits are cases and controls: level 1 is logistic, always by folds, and predicts log-odds."""
    max_missing: float = 0.15
    """Traits missing in at most this share of the people are regressed together, with residual 0 (their mean given the
    covariates) for the missing; the others each among their own people. 0: every pattern of missing by itself."""

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise ValueError(f"block_size is a number of variants >= 1, found {self.block_size}.")
        if not self.heritabilities or not all(0.0 < h < 1.0 for h in self.heritabilities):
            raise ValueError(f"heritabilities lie between 0 and 1, found {self.heritabilities}.")
        if self.folds < 2:
            raise ValueError(f"folds is at least 2, found {self.folds}.")
        if not 0.0 <= self.max_missing < 1.0:
            raise ValueError(f"max_missing is a share in [0, 1), found {self.max_missing}.")


@dataclass(frozen=True, slots=True, eq=False)
class RidgeBlock:
    """Variants of one chromosome that are regressed on together."""

    chromosome: str
    rows: Int[np.ndarray, " variants"]
    """Rows of the variant table."""


@dataclass(frozen=True, slots=True, eq=False)
class RidgeDesign:
    """Traits that share people, reduced once and reused for every block."""

    names: tuple[str, ...]
    people: Int[np.ndarray, " samples"]
    """Rows of the people given, sorted by fold: the order of the columns of every block."""
    fold_bounds: tuple[int, ...]
    """Fold f is ``people[fold_bounds[f]:fold_bounds[f + 1]]``."""
    basis: Float[np.ndarray, "samples rank"]
    """Orthonormal columns that span intercept and covariates."""
    traits: Float[np.ndarray, "samples traits"]
    """Residuals in variance 1 among those who have the trait; 0 for the others."""
    observed: Bool[np.ndarray, "samples traits"]
    scale: Float[np.ndarray, " traits"]
    """Standard deviation of each residual, in trait units."""
    status: Float[np.ndarray, "samples traits"] | None = None
    """1 case, 0 control or missing, where the traits are binary."""
    log_odds: Float[np.ndarray, "samples traits"] | None = None
    """Given the covariates, of binary traits; 0 where missing."""


def assign_folds(samples: SampleIndex, folds: int, *, seed: int = 0) -> Int[np.ndarray, " samples"]:
    """Return each person's fold from a digest of seed and id: the same whoever else is analysed, in whatever order.

    Examples
    --------
    >>> assign_folds(SampleIndex.of(range(8)), 5).tolist()
    [3, 1, 4, 2, 4, 2, 3, 2]
    """
    digests = (hashlib.blake2b(f"{seed}\x00{name}".encode(), digest_size=8) for name in samples.ids.tolist())
    return np.array([int.from_bytes(digest.digest(), "big") % folds for digest in digests], dtype=np.int64)


def ridge_blocks(
    chromosome: Shaped[np.ndarray, " variants"], rows: Int[np.ndarray, " chosen"], block_size: int
) -> tuple[RidgeBlock, ...]:
    """Return the chosen variants as blocks of at most `block_size`, none across two chromosomes.

    Examples
    --------
    >>> [b.rows.tolist() for b in ridge_blocks(np.array(["1", "1", "1", "2"]), np.arange(4), 2)]
    [[0, 1], [2], [3]]
    """
    names = chromosome[rows].astype(np.str_)
    present = np.unique(names)
    blocks: list[RidgeBlock] = []
    for name in present[np.argsort(chromosome_rank(present), kind="stable")].tolist():
        own = rows[names == name]
        parts = np.array_split(own, -(-own.size // block_size))
        blocks += [RidgeBlock(name, part.astype(np.int64)) for part in parts]
    return tuple(blocks)


def prepare_ridge(
    traits: Float[np.ndarray, "samples traits"],
    covariates: Float[np.ndarray, "samples covariates"],
    folds: Int[np.ndarray, " samples"],
    *,
    names: Sequence[str] | None = None,
    settings: RidgeSettings | None = None,
) -> tuple[tuple[RidgeDesign, ...], tuple[tuple[str, str], ...]]:
    """Reduce traits and covariates to designs, one per set of people, and name the traits that cannot be predicted.

    Parameters
    ----------
    traits
        NaN where a person has none.
    covariates
        Complete and without an intercept, which is added here.
    folds
        Fold of each person, see `assign_folds`.

    Returns
    -------
    designs
        The first holds the traits that nearly everyone has.
    skipped
        Name and reason (constant, collinear, too_few_people, separated: covariates tell cases from controls) of the
        others.

    Raises
    ------
    ValueError
        An infinite trait value, an incomplete covariate, or a trait that is not binary where it should be.
    """
    settings = settings or RidgeSettings()
    labels = [str(n) for n in names] if names is not None else [f"trait_{k + 1}" for k in range(traits.shape[1])]
    refuse_infinite(traits, labels)
    present = ~np.isnan(traits)
    skipped: list[tuple[str, str]] = []
    designs = [
        _design(traits, covariates, folds, people, columns, labels, settings, skipped)
        for people, columns in _sets_of_people(present, settings.max_missing)
    ]
    return tuple(d for d in designs if d is not None), tuple(skipped)


def _sets_of_people(
    present: Bool[np.ndarray, "samples traits"], max_missing: float
) -> list[tuple[Bool[np.ndarray, " samples"], Int[np.ndarray, " members"]]]:
    """Return people and columns: those nearly complete together, then each other pattern by itself."""
    anyone = present.any(axis=1)
    missing = 1.0 - present.sum(axis=0) / max(int(anyone.sum()), 1)
    together = missing <= max_missing
    sets: list[tuple[Bool[np.ndarray, " samples"], Int[np.ndarray, " members"]]] = []
    if together.any():
        sets.append((np.asarray(present[:, together].any(axis=1)), np.flatnonzero(together)))
    apart = np.flatnonzero(~together)
    sets += [(people, np.asarray(apart[columns])) for people, columns in same_people(present[:, apart])]
    return sets


def _design(
    traits: Float[np.ndarray, "samples traits"],
    covariates: Float[np.ndarray, "samples covariates"],
    folds: Int[np.ndarray, " samples"],
    inside: Bool[np.ndarray, " samples"],
    columns: Int[np.ndarray, " members"],
    labels: list[str],
    settings: RidgeSettings,
    skipped: list[tuple[str, str]],
) -> RidgeDesign | None:
    people = np.flatnonzero(inside)
    people = people[np.argsort(folds[people], kind="stable")]
    values, covariates = traits[np.ix_(people, columns)], covariates[people]
    observed = ~np.isnan(values)
    residuals, scale, log_odds = np.zeros_like(values), np.zeros(columns.size), np.zeros_like(values)
    reasons = [""] * columns.size
    for mask, members in same_people(observed):
        q = covariate_basis(covariates[mask]).q if mask.any() else np.empty((0, 1))
        df = int(mask.sum()) - q.shape[1] - 1
        for k in members.tolist():
            if df <= 0 or mask.sum() < 2 * settings.folds:
                reasons[k] = "too_few_people"
                continue
            if settings.binary:
                values[mask, k] = _case_status(values[mask, k], labels[columns[k]])
            residuals[mask, k], scale[k], reasons[k] = _unit_residual(q, values[mask, k])
            if settings.binary and not reasons[k]:
                found = covariate_log_odds(q, values[mask, k])
                reasons[k] = "separated" if found is None else ""
                log_odds[mask, k] = 0.0 if found is None else found
    good = np.array([not reason for reason in reasons], dtype=bool)
    skipped += [(labels[c], reason) for c, reason in zip(columns.tolist(), reasons, strict=True) if reason]
    if not good.any():
        return None
    return RidgeDesign(
        names=tuple(labels[c] for c in columns[good].tolist()),
        people=people,
        fold_bounds=tuple(np.searchsorted(folds[people], np.arange(settings.folds + 1)).tolist()),
        basis=covariate_basis(covariates).q,
        traits=residuals[:, good],
        observed=observed[:, good],
        scale=scale[good],
        status=np.nan_to_num(values[:, good]) if settings.binary else None,
        log_odds=log_odds[:, good] if settings.binary else None,
    )


def _case_status(values: Float[np.ndarray, " observed"], name: str) -> Float[np.ndarray, " observed"]:
    """Return 1 for cases and 0 for controls, coded 0/1 or 1/2."""
    found = np.unique(values)
    if not (np.isin(found, (0.0, 1.0)).all() or np.isin(found, (1.0, 2.0)).all()):
        raise ValueError(
            f"Trait {name!r} is not binary: expected 0/1 or 1/2, found {', '.join(f'{v:g}' for v in found[:5])}."
        )
    return np.asarray(values - (1.0 if found.max() == 2.0 else 0.0))


def _unit_residual(
    q: Float[np.ndarray, "observed rank"], y: Float[np.ndarray, " observed"]
) -> tuple[Float[np.ndarray, " observed"], float, str]:
    """Return the residual in variance 1, its standard deviation, and why there is none."""
    centred = y - y.mean()
    total = float(centred @ centred)
    if total <= _MIN_TRAIT_SHARE**2 * float(y @ y):
        return np.zeros_like(y), 0.0, "constant"
    residual = project_out(q, centred[:, None])[:, 0]
    left = float(residual @ residual)
    if left <= _MIN_TRAIT_SHARE * total:
        return np.zeros_like(y), 0.0, "collinear"
    scale = float(np.sqrt(left / (y.size - q.shape[1])))
    return residual / scale, scale, ""


def block_peak_bytes(n_samples: int, block_size: int, n_traits: int, settings: RidgeSettings) -> int:
    """Return an upper estimate of what `fit_block` and one part of its predictions hold, the block itself included."""
    square, wide, per_person = 8 * block_size**2, 8 * block_size * n_traits, 12 * n_samples * n_traits
    if settings.cross_validation == "loo":
        return 24 * n_samples * block_size + 5 * square + 3 * wide + per_person
    models = settings.folds * len(settings.heritabilities) * wide // 2
    return (
        8 * n_samples * block_size + (settings.folds + 4) * square + (settings.folds + 3) * wide + models + per_person
    )


@dataclass(frozen=True, slots=True, eq=False)
class FoldModel:
    """Ridge coefficients of one block, learned without each fold."""

    x: Float32[np.ndarray, "variants samples"]
    bounds: tuple[int, ...]
    betas: Float32[np.ndarray, "folds penalties traits variants"]

    def predict(self, traits: slice) -> Float32[np.ndarray, "some penalties samples"]:
        """Return what the block predicts of some traits, out of sample."""
        betas = self.betas[:, :, traits]
        n_folds, n_penalties, n_traits, n_variants = betas.shape
        out = np.empty((n_traits, n_penalties, self.x.shape[1]), dtype=np.float32)
        for f in range(n_folds):
            part = slice(self.bounds[f], self.bounds[f + 1])
            flat = betas[f].transpose(1, 0, 2).reshape(-1, n_variants) @ self.x[:, part]
            out[:, :, part] = flat.reshape(n_traits, n_penalties, -1)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class LeaveOneOutModel:
    """Ridge of one block in the coordinates of its eigenvectors."""

    z: Float32[np.ndarray, "variants samples"]
    """Dosages along the eigenvectors of X'X."""
    shrink: Float[np.ndarray, "penalties variants"]
    """1 / (eigenvalue + penalty)."""
    hat: Float[np.ndarray, "penalties samples"]
    """Diagonal of the hat matrix."""
    y: Float[np.ndarray, "samples traits"]

    def predict(self, traits: slice) -> Float32[np.ndarray, "some penalties samples"]:
        """Return what the block predicts of some traits, each person from all others."""
        y = self.y[:, traits]
        score = (self.z @ y.astype(np.float32)).astype(np.float64)
        out = np.empty((y.shape[1], self.shrink.shape[0], y.shape[0]), dtype=np.float32)
        for r, (inverse, hat) in enumerate(zip(self.shrink, self.hat, strict=True)):
            fitted = (score.T * inverse).astype(np.float32) @ self.z
            out[:, r] = (fitted - hat * y.T) / (1.0 - hat)
        return out


def fit_block(
    design: RidgeDesign,
    dosage: Float32[np.ndarray, "variants samples"],
    n_variants: int,
    settings: RidgeSettings | None = None,
) -> FoldModel | LeaveOneOutModel:
    """Regress every trait on the variants of one block at every penalty (level 0).

    Parameters
    ----------
    dosage
        Copies of an allele, NaN = missing; people in the order of `RidgeDesign.people`.
    n_variants
        m of the penalties: the variants of all blocks together.

    Returns
    -------
    FoldModel or LeaveOneOutModel
        Its ``predict`` gives the predictions of any traits of the design, out of sample.

    Raises
    ------
    AlignmentError
        The block and the design have different numbers of people.
    """
    settings = settings or RidgeSettings()
    if dosage.shape[1] != design.people.size:
        raise AlignmentError(f"The block has {dosage.shape[1]} people, the design {design.people.size}; select first.")
    x = _standardised(design.basis, dosage)
    penalties = np.array([n_variants * (1.0 - h) / h for h in settings.heritabilities])
    if settings.cross_validation == "loo":
        return _fit_loo(x, design.traits, penalties)
    return FoldModel(x, design.fold_bounds, _fit_folds(x, design.traits, design.fold_bounds, penalties))


def _standardised(
    basis: Float[np.ndarray, "samples rank"], dosage: Float32[np.ndarray, "variants samples"]
) -> Float32[np.ndarray, "variants samples"]:
    """Return the block with missing calls at the mean, covariates projected out, variance 1; 0 if nothing is left."""
    x = np.array(dosage, dtype=np.float32, order="C")
    total = np.empty(x.shape[0])
    centre_rows(x, total)
    q = basis.astype(np.float32)
    for first in range(0, x.shape[0], _ROWS_AT_ONCE):
        rows = x[first : first + _ROWS_AT_ONCE]
        rows -= (rows @ q) @ q.T
    left = np.empty(x.shape[0])
    _squares(x, left)
    usable = left > np.maximum(_MIN_RESIDUAL_SHARE * total, 1e-12)
    scale = np.sqrt((x.shape[1] - basis.shape[1]) / np.where(usable, left, 1.0)) * usable
    x *= scale[:, None].astype(np.float32)
    return x


@njit(cache=True, nogil=True)
@no_type_check
def centre_rows(x, total):  # noqa: ANN001, ANN201
    """Centre every row on the mean of its calls, set missing ones to 0, and fill the sums of squares."""
    for j in range(x.shape[0]):
        count = 0
        sum_j = 0.0
        for i in range(x.shape[1]):
            if x[j, i] == x[j, i]:
                sum_j += np.float64(x[j, i])
                count += 1
        mean = sum_j / max(count, 1)
        squares = 0.0
        for i in range(x.shape[1]):
            if x[j, i] == x[j, i]:
                value = np.float64(x[j, i]) - mean
                x[j, i] = value
                squares += value * value
            else:
                x[j, i] = 0
        total[j] = squares


@njit(cache=True, nogil=True)
@no_type_check
def _squares(x, total):  # noqa: ANN001, ANN202
    """Fill the sum of squares of every row."""
    for j in range(x.shape[0]):
        squares = 0.0
        for i in range(x.shape[1]):
            squares += np.float64(x[j, i]) * np.float64(x[j, i])
        total[j] = squares


def _fit_folds(
    x: Float32[np.ndarray, "variants samples"],
    y: Float[np.ndarray, "samples traits"],
    bounds: tuple[int, ...],
    penalties: Float[np.ndarray, " penalties"],
) -> Float32[np.ndarray, "folds penalties traits variants"]:
    """Return the coefficients of every fold, learned from the sums of the others."""
    parts = [slice(first, last) for first, last in pairwise(bounds)]
    single = y.astype(np.float32)
    grams = [(x[:, part] @ x[:, part].T).astype(np.float64) for part in parts]
    crosses = [(x[:, part] @ single[part]).astype(np.float64) for part in parts]
    gram, cross = np.sum(grams, axis=0), np.sum(crosses, axis=0)
    betas = np.empty((len(parts), penalties.size, y.shape[1], x.shape[0]), dtype=np.float32)
    for f in range(len(parts)):
        others, right = gram - grams[f], cross - crosses[f]
        for r, penalty in enumerate(penalties.tolist()):
            betas[f, r] = ridge_solve(others, right, penalty).T
    return betas


def ridge_solve(
    gram: Float[np.ndarray, "columns columns"], right: Float[np.ndarray, "columns traits"], penalty: float
) -> Float[np.ndarray, "columns traits"]:
    """Return ``(gram + penalty I)^-1 right`` by Cholesky."""
    shifted = gram.copy()
    shifted[np.diag_indices_from(shifted)] += penalty
    factor = scipy.linalg.cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)
    return np.asarray(scipy.linalg.cho_solve(factor, right, check_finite=False))


def _fit_loo(
    x: Float32[np.ndarray, "variants samples"],
    y: Float[np.ndarray, "samples traits"],
    penalties: Float[np.ndarray, " penalties"],
) -> LeaveOneOutModel:
    """Return everyone's ridge and the hat matrix that takes each person out of it."""
    values, vectors = scipy.linalg.eigh((x @ x.T).astype(np.float64), check_finite=False)
    z = vectors.T.astype(np.float32) @ x
    shrink = 1.0 / (np.maximum(values, 0.0)[None, :] + penalties[:, None])
    return LeaveOneOutModel(z, shrink, (shrink.astype(np.float32) @ (z * z)).astype(np.float64), y)
