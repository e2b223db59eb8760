"""Level 1 of whole-genome ridge regression: the predictions of all blocks, stacked, without one chromosome.

Data flow::

    one trait's predictions by all blocks --stack_predictions--> RidgeFit       (per trait)

With W the L predictions of level 0 (`brainlocus.genetics.gwas.ridge`) of a trait's own people in variance 1, ridge
regression of the trait on W at the penalties ``L (1 - h) / h``, each fold by the others, and the penalty of least
squared error. The prediction is a sum over columns, and each column belongs to a chromosome: leaving
out chromosome k is leaving out its columns.

References
----------
Mbatchou et al. (2021), Nature Genetics 53:1097, 10.1038/s41588-021-00870-7; Breiman (1996), Machine Learning 24:49.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float32, Shaped

from brainlocus.core.genotypes import GenotypeSource, select_genotypes
from brainlocus.core.variants import chromosome_rank
from brainlocus.genetics.gwas.loco_cases import calibration_slope, negative_log_likelihood, stack_cases
from brainlocus.genetics.gwas.ridge import (
    RidgeDesign,
    RidgeSettings,
    assign_folds,
    centre_rows,
    fit_block,
    prepare_ridge,
    ridge_blocks,
    ridge_solve,
)

__all__ = ["RidgeFit", "predict_genome", "stack_peak_bytes", "stack_predictions"]


@dataclass(frozen=True, slots=True, eq=False)
class RidgeFit:
    """What the genome predicts of one trait, in trait units or (binary) log-odds; NaN for people without it."""

    chromosomes: tuple[str, ...]
    loco: Float32[np.ndarray, "chromosomes samples"]
    """Prediction without each chromosome. People in the order given to `prepare_ridge`."""
    whole: Float32[np.ndarray, " samples"]
    """With all chromosomes: for variants of chromosomes that were not regressed on (X, Y, MT)."""
    heritability: float
    """The h whose penalty was chosen at level 1."""
    r2: float
    """Share of the residual trait's variance, or a binary one's deviance, explained out of sample; may be negative."""


def predict_genome(
    source: GenotypeSource,
    traits: Float[np.ndarray, "samples traits"],
    covariates: Float[np.ndarray, "samples covariates"],
    *,
    names: Sequence[str] | None = None,
    settings: RidgeSettings | None = None,
    seed: int = 0,
) -> dict[str, RidgeFit]:
    """Return what the genome predicts of every trait, in this process: both levels, all blocks in memory.

    Parameters
    ----------
    source
        Variants to regress on, among the people of `traits`, in this order.
    traits
        NaN where a person has none. Those that cannot be regressed are not in the result.
    covariates
        Complete and without an intercept.

    Raises
    ------
    ValueError
        See `prepare_ridge`.

    Examples
    --------
    >>> from brainlocus.core import ArrayGenotypes, SampleIndex, VariantTable
    >>> from brainlocus.core.text import text_array
    >>> rng = np.random.default_rng(0)
    >>> calls = rng.binomial(2, 0.4, (40, 300)).astype(np.float32)
    >>> names, alleles = text_array([f"v{k}" for k in range(40)]), text_array(["A"] * 40)
    >>> chromosome = np.array(["1"] * 20 + ["2"] * 20)
    >>> table = VariantTable(chromosome, np.arange(1, 41), alleles, alleles, names, "GRCh38")
    >>> trait = calls[:5].sum(axis=0) + rng.normal(size=300)
    >>> genotypes = ArrayGenotypes(SampleIndex.of(range(300)), table, calls)
    >>> fit = predict_genome(genotypes, trait[:, None], np.empty((300, 0)), names=["y"])["y"]
    >>> without_1, without_2 = fit.loco
    >>> bool(np.corrcoef(without_2, trait)[0, 1] > 0.6), bool(abs(np.corrcoef(without_1, trait)[0, 1]) < 0.2)
    (True, True)
    """
    settings = settings or RidgeSettings()
    folds = assign_folds(source.samples, settings.folds, seed=seed)
    designs, _ = prepare_ridge(traits, covariates, folds, names=names, settings=settings)
    n_variants = len(source.variants)
    blocks = ridge_blocks(source.variants.chromosome, np.arange(n_variants), settings.block_size)
    where = np.repeat([block.chromosome for block in blocks], len(settings.heritabilities))
    fits: dict[str, RidgeFit] = {}
    for design in designs:
        people = source.samples.take(design.people)
        parts = []
        for block in blocks:
            dosage = select_genotypes(source, samples=people, variants=block.rows).read(0, block.rows.size).dosage
            parts.append(fit_block(design, dosage, n_variants, settings).predict(slice(None)))
        for k, name in enumerate(design.names):
            columns = np.concatenate([part[k] for part in parts])
            fits[name] = stack_predictions(design, k, columns, where, len(source.samples), settings)
    return fits


def stack_peak_bytes(n_samples: int, n_columns: int, settings: RidgeSettings) -> int:
    """Return an upper estimate of what `stack_predictions` holds."""
    grams = (settings.folds + 4) * 8 * n_columns**2
    loo = 16 * n_samples * n_columns if settings.cross_validation == "loo" or settings.binary else 0
    return 12 * n_samples * n_columns + grams + loo


def stack_predictions(
    design: RidgeDesign,
    trait: int,
    predictions: Float32[np.ndarray, "columns samples"],
    chromosome: Shaped[np.ndarray, " columns"],
    n_samples: int,
    settings: RidgeSettings | None = None,
) -> RidgeFit:
    """Return what all blocks together predict of a trait without each chromosome (level 1).

    Parameters
    ----------
    trait
        Column of the design.
    predictions
        Rows of `fit_block` of this trait, all blocks below one another.
    chromosome
        Chromosome of each of these rows.
    n_samples
        People given to `prepare_ridge`.
    """
    settings = settings or RidgeSettings()
    has = design.observed[:, trait]
    bounds = np.concatenate([[0], np.cumsum(has)])[list(design.fold_bounds)].tolist()
    w = _unit_rows(predictions[:, has] if not has.all() else predictions)
    penalties = [w.shape[0] * (1.0 - h) / h for h in settings.heritabilities]
    names = chromosome.astype(np.str_)
    present = np.unique(names)
    present = present[np.argsort(chromosome_rank(present), kind="stable")]
    members = (names[None, :] == present[:, None]).astype(np.float64)
    scale = float(design.scale[trait])
    if design.status is not None and design.log_odds is not None:
        status, log_odds, scale = design.status[has, trait], design.log_odds[has, trait], 1.0
        parts, errors = stack_cases(w, status, log_odds, bounds, penalties, members)
        alone = negative_log_likelihood(status, log_odds)
    else:
        y = design.traits[has, trait]
        stack = _stack_loo if settings.cross_validation == "loo" else _stack_folds
        parts, errors = stack(w, y, bounds, penalties, members)
        alone = float(y @ y)
    whole = parts.sum(axis=0)
    others = whole - parts
    if design.status is not None and design.log_odds is not None:
        for k, predicted in enumerate(others):
            others[k] *= calibration_slope(status, log_odds, predicted)
        whole = whole * calibration_slope(status, log_odds, whole)
    loco = np.full((present.size, n_samples), np.nan, dtype=np.float32)
    everything = np.full(n_samples, np.nan, dtype=np.float32)
    people = design.people[has]
    loco[:, people] = scale * others
    everything[people] = scale * whole
    best = int(np.argmin(errors))
    return RidgeFit(
        tuple(present.tolist()), loco, everything, settings.heritabilities[best], 1.0 - float(errors[best]) / alone
    )


def _unit_rows(rows: Float32[np.ndarray, "columns samples"]) -> Float32[np.ndarray, "columns samples"]:
    """Return every row with mean 0 and variance 1; a constant one as zeros."""
    out = np.array(rows, dtype=np.float32, order="C")
    total = np.empty(out.shape[0])
    centre_rows(out, total)
    varies = total > 0.0
    scale = np.sqrt(out.shape[1] / np.where(varies, total, 1.0)) * varies
    out *= scale[:, None].astype(np.float32)
    return out


def _stack_folds(
    w: Float32[np.ndarray, "columns samples"],
    y: Float[np.ndarray, " samples"],
    bounds: list[int],
    penalties: list[float],
    members: Float[np.ndarray, "chromosomes columns"],
) -> tuple[Float[np.ndarray, "chromosomes samples"], Float[np.ndarray, " penalties"]]:
    """Return each chromosome's part of the prediction at the best penalty, and the squared errors of all penalties."""
    folds = [slice(first, last) for first, last in pairwise(bounds)]
    grams = [(w[:, part] @ w[:, part].T).astype(np.float64) for part in folds]
    crosses = [(w[:, part] @ y[part].astype(np.float32)).astype(np.float64) for part in folds]
    gram, cross = np.sum(grams, axis=0), np.sum(crosses, axis=0)
    errors = np.zeros(len(penalties))
    betas = np.empty((len(penalties), len(folds), w.shape[0]))
    for f, part in enumerate(folds):
        others, right = gram - grams[f], (cross - crosses[f])[:, None]
        for r, penalty in enumerate(penalties):
            betas[r, f] = ridge_solve(others, right, penalty)[:, 0]
        rest = y[part] - betas[:, f].astype(np.float32) @ w[:, part]
        errors += (rest.astype(np.float64) ** 2).sum(axis=1)
    best = int(np.argmin(errors))
    parts = np.empty((members.shape[0], y.size))
    for f, part in enumerate(folds):
        parts[:, part] = (members * betas[best, f]).astype(np.float32) @ w[:, part]
    return parts, errors


def _stack_loo(
    w: Float32[np.ndarray, "columns samples"],
    y: Float[np.ndarray, " samples"],
    bounds: list[int],  # noqa: ARG001 - the same call as with folds
    penalties: list[float],
    members: Float[np.ndarray, "chromosomes columns"],
) -> tuple[Float[np.ndarray, "chromosomes samples"], Float[np.ndarray, " penalties"]]:
    """Return the same with each person left out.

    With e_i the leave-one-out error, ``beta_-i = beta - (W'W + lambda I)^-1 w_i e_i``.
    """
    values, vectors = scipy.linalg.eigh((w @ w.T).astype(np.float64), check_finite=False)
    z = vectors.T @ w
    score = z @ y
    errors, left_out = np.empty(len(penalties)), []
    for r, penalty in enumerate(penalties):
        inverse = 1.0 / (np.maximum(values, 0.0) + penalty)
        error = (y - (inverse * score) @ z) / (1.0 - inverse @ (z * z))
        left_out.append(error)
        errors[r] = error @ error
    best = int(np.argmin(errors))
    inverse = 1.0 / (np.maximum(values, 0.0) + penalties[best])
    beta = vectors @ (inverse * score)
    solved = vectors @ (inverse[:, None] * z)  # (W'W + lambda I)^-1 w_i, one column a person
    solved *= w
    parts = (members * beta).astype(np.float64) @ w - (members @ solved) * left_out[best]
    return parts, errors
