r"""Case-control association scan: one logistic regression per variant and binary trait.

Data flow::

    traits, covariates, offset --prepare_logistic--> LogisticDesign                         (once per set of people)
    LogisticDesign + CallBlock --logistic_scan.LogisticMethod.scan_block--> BlockResult     (once per block)

Method: a null model per trait, ``logit P(y = 1) = C gamma + offset``, once. With ``mu`` its probabilities and
``w = mu (1 - mu)``, all variants are screened by the score test, which is matrix products for all traits::

    U = g'(y - mu)      V = (g.g)'w - ||(C'WC)^(-1/2) C'W g||^2      z = U / sqrt(V)      beta ~ U / V

Variants whose score p is below a threshold get the test that was asked for (`LogisticSettings.correction`):

================  ======================================================================================
firth-fallback    logistic regression; Firth's where an allele is absent from cases or controls, or it fails
firth             Firth's penalised regression
firth-approx      Firth's for the variant alone, covariates at their effects without it
spa               the score test with saddlepoint p-values; no regression
none              logistic regression; no estimate where it fails
================  ======================================================================================

Regressions are tested by likelihood ratio or by Wald. Traits with the same missing people share a basis of the
covariates; a trait's result never depends on which others are in the run. Missing calls: the screen has the variant's
mean among the trait's people for them; regressions too (``mean``), or are of the people with a call (``exact``);
``auto`` is ``mean`` from a call rate of 97 % and ``exact`` below.

References
----------
McCullagh & Nelder (1989), Generalized Linear Models; Firth (1993), 10.1093/biomet/80.1.27; Heinze & Schemper (2002),
10.1002/sim.1047; Dey et al. (2017), 10.1016/j.ajhg.2017.05.014; Mbatchou et al. (2021), 10.1038/s41588-021-00870-7;
Chang et al. (2015), 10.1186/s13742-015-0047-8.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from brainlocus.genetics.gwas._cases import (
    CONVERGED,
    JEFFREYS,
    cholesky,
    evaluate,
    maximise,
    weighted_products,
)
from brainlocus.numerics.missingness import refuse_infinite, same_people
from brainlocus.numerics.projection import covariate_basis

__all__ = [
    "MIN_CASES",
    "CaseGroup",
    "Correction",
    "LogisticDesign",
    "LogisticSettings",
    "NullModels",
    "prepare_logistic",
]

Correction = Literal["none", "firth-fallback", "firth", "firth-approx", "spa"]

MIN_CASES = 10
"""Fewest cases, and fewest controls, of a trait that is analysed."""
_TRANSFORM_TOLERANCE = 1e-8
"""Largest error of a group's basis made of the common one; beyond it the group keeps its own."""


@dataclass(frozen=True, slots=True)
class LogisticSettings:
    """How variants that pass the screen are tested."""

    correction: Correction = "firth-fallback"
    test: Literal["lrt", "wald"] = "lrt"
    """Likelihood ratio or Wald; the score test and its saddlepoint form have neither."""
    screen: float = 0.05
    """Largest score p-value of a variant that is tested in full; 1 tests all."""

    def __post_init__(self) -> None:
        if self.correction not in get_args(Correction):
            raise ValueError(f"correction is one of {', '.join(get_args(Correction))}, found {self.correction!r}.")
        if self.test not in ("lrt", "wald"):
            raise ValueError(f"test is lrt or wald, found {self.test!r}.")
        if not 0.0 < self.screen <= 1.0:
            raise ValueError(f"screen is a p-value in (0, 1], found {self.screen}.")


@dataclass(frozen=True, slots=True, eq=False)
class NullModels:
    """The models without a variant of traits that the same people have. Rows are traits."""

    cases: Int8[np.ndarray, "traits observed"]
    """1 for a case, 0 for a control."""
    probability: Float[np.ndarray, "traits observed"]
    """mu, of being a case."""
    offset: Float[np.ndarray, "traits_or_one observed"]
    """Known part of the log-odds; one row of zeros when there is none."""
    coefficients: Float[np.ndarray, "traits rank"]
    lower: Float[np.ndarray, "traits rank rank"]
    """Cholesky factor of C'WC."""
    log_likelihood: Float[np.ndarray, " traits"]
    penalised_offset: Float[np.ndarray, "traits_or_none observed"]
    """Log-odds of the penalised model without a variant; no rows unless the correction is firth-approx."""


@dataclass(frozen=True, slots=True, eq=False)
class CaseGroup:
    """Traits observed in exactly the same people."""

    columns: slice
    """Its traits in `LogisticDesign.names` order."""
    people: Int[np.ndarray, " observed"]
    """Rows among all samples."""
    transform: Float[np.ndarray, "common_rank rank"] | None
    """Makes the group's basis of the common one; None: it has an `own` one, or is of everyone."""
    own: Float[np.ndarray, "rank observed"] | None
    dropped: tuple[str, ...]
    """Covariates that are constant or combinations of others among these people."""
    null: NullModels


@dataclass(frozen=True, slots=True, eq=False)
class LogisticDesign:
    """Null models of all traits and what the screen needs of them, reused for every block."""

    names: tuple[str, ...]
    """Traits that can be analysed, grouped by missingness."""
    groups: tuple[CaseGroup, ...]
    common: Float[np.ndarray, "common_rank samples"]
    """Intercept and covariates of everyone, orthogonal, with mean square 1."""
    skipped: tuple[tuple[str, str], ...]
    """Traits left out, with the reason: too_few_people, too_few_cases, too_few_controls, null_not_converged."""
    coding: dict[str, str]
    """By trait, the values of controls and cases: 0/1 or 1/2."""
    settings: LogisticSettings

    @property
    def n_samples(self) -> int:
        """People, observed for a trait or not."""
        return int(self.common.shape[1])

    @property
    def n_observed(self) -> Int[np.ndarray, " traits"]:
        """People with a value, per analysed trait."""
        return np.concatenate([np.full(g.null.cases.shape[0], g.people.size, dtype=np.int64) for g in self.groups])

    @property
    def n_cases(self) -> Int[np.ndarray, " traits"]:
        """Cases, per analysed trait."""
        return np.concatenate([g.null.cases.sum(axis=1, dtype=np.int64) for g in self.groups])

    @property
    def dropped(self) -> tuple[str, ...]:
        """Covariates that were constant or combinations of others for some trait."""
        return tuple(sorted({name for group in self.groups for name in group.dropped}))

    def basis(self, group: CaseGroup) -> Float[np.ndarray, "rank observed"]:
        """Return intercept and covariates among a group's people, orthogonal, with mean square 1."""
        return _basis(self.common, group.people, group.transform, group.own)


def _basis(
    common: Float[np.ndarray, "common_rank samples"],
    people: Int[np.ndarray, " observed"],
    transform: Float[np.ndarray, "common_rank rank"] | None,
    own: Float[np.ndarray, "rank observed"] | None,
) -> Float[np.ndarray, "rank observed"]:
    if own is not None:
        return own
    return common if transform is None else np.ascontiguousarray(transform.T @ common[:, people])


def prepare_logistic(
    traits: Float[np.ndarray, "samples traits"],
    covariates: Float[np.ndarray, "samples covariates"],
    *,
    names: Sequence[str] | None = None,
    covariate_names: Sequence[str] | None = None,
    offset: Float[np.ndarray, "samples traits"] | None = None,
    settings: LogisticSettings | None = None,
) -> LogisticDesign:
    """Fit the model without a variant of every trait.

    Parameters
    ----------
    traits
        0 control and 1 case, or 1 and 2 (decided by trait); NaN where a person has none.
    covariates
        Complete and without an intercept, which is added here. Constant or collinear ones are dropped and named in
        `CaseGroup.dropped`.
    offset
        Known part of each person's log-odds, such as a prediction from the other chromosomes; 0 when None.

    Raises
    ------
    ValueError
        A trait with another value (named), an incomplete covariate or offset (named), more covariates than people,
        or no trait that can be analysed.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sick = (rng.random((200, 1)) < 0.3).astype(float)
    >>> design = prepare_logistic(sick + 1, rng.normal(size=(200, 2)), names=["sick"])
    >>> design.names, design.coding["sick"], int(design.n_cases[0]) == int(sick.sum())
    (('sick',), '1/2', True)
    """
    options = settings or LogisticSettings()
    labels = [str(name) for name in names] if names is not None else [f"trait_{k + 1}" for k in range(traits.shape[1])]
    if covariates.shape[1] >= traits.shape[0]:
        raise ValueError(f"There are {covariates.shape[1]} covariates for {traits.shape[0]} people; use fewer.")
    coding, cases = _coded(traits, labels)
    _check_offset(offset, ~np.isnan(traits), labels)
    common = np.ascontiguousarray(covariate_basis(covariates, covariate_names).q.T) * np.sqrt(traits.shape[0])
    order: list[str] = []
    skipped: list[tuple[str, str]] = []
    groups: list[CaseGroup] = []
    for mask, members in same_people(~np.isnan(traits)):
        people = np.flatnonzero(mask)
        status = cases[np.ix_(people, members)].T
        known = None if offset is None else np.ascontiguousarray(offset[np.ix_(people, members)].T)
        group, kept = _prepare_group(
            common, people, status, covariates, covariate_names, known, options, [labels[k] for k in members], skipped
        )
        if group is not None:
            groups.append(replace(group, columns=slice(len(order), len(order) + kept.size)))
            order += [labels[k] for k in members[kept]]
    if not groups:
        why = ", ".join(f"{name} ({reason})" for name, reason in skipped[:5])
        raise ValueError(f"No trait can be analysed: {why}. A trait needs {MIN_CASES} cases and controls.")
    return LogisticDesign(tuple(order), tuple(groups), common, tuple(skipped), coding, options)


def _coded(
    traits: Float[np.ndarray, "samples traits"], labels: Sequence[str]
) -> tuple[dict[str, str], Int8[np.ndarray, "samples traits"]]:
    """Return the coding of each trait, and 1 for its cases."""
    refuse_infinite(traits, labels)
    coding: dict[str, str] = {}
    cases = np.zeros(traits.shape, dtype=np.int8)
    for k, label in enumerate(labels):
        values = np.unique(traits[~np.isnan(traits[:, k]), k])
        other = values[~np.isin(values, (0.0, 1.0, 2.0))]
        if other.size or {0.0, 2.0} <= set(values.tolist()):
            found = f"{other[0]:g}" if other.size else "0 and 2 together"
            raise ValueError(
                f"Trait {label!r} is not binary: expected 0 (control) and 1 (case), or 1 and 2, found {found}. "
                "Choose binary traits, write missing values as NA, or use linear regression."
            )
        coding[label] = "1/2" if 2.0 in values else "0/1"
        cases[:, k] = traits[:, k] == (2.0 if coding[label] == "1/2" else 1.0)
    return coding, cases


def _check_offset(
    offset: Float[np.ndarray, "samples traits"] | None,
    observed: Bool[np.ndarray, "samples traits"],
    labels: Sequence[str],
) -> None:
    if offset is None:
        return
    bad = (~np.isfinite(offset) & observed).any(axis=0)
    if bad.any():
        named = ", ".join(label for label, is_bad in zip(labels, bad, strict=True) if is_bad)
        raise ValueError(f"Everyone with a trait needs a finite offset; some have none for: {named}.")


def _prepare_group(
    common: Float[np.ndarray, "common_rank samples"],
    people: Int[np.ndarray, " observed"],
    status: Int8[np.ndarray, "traits observed"],
    covariates: Float[np.ndarray, "samples covariates"],
    covariate_names: Sequence[str] | None,
    offset: Float[np.ndarray, "traits observed"] | None,
    options: LogisticSettings,
    labels: list[str],
    skipped: list[tuple[str, str]],
) -> tuple[CaseGroup | None, Int[np.ndarray, " kept"]]:
    """Return the group of the traits that can be analysed, and which these are."""
    basis = covariate_basis(covariates[people], covariate_names) if people.size else None
    if basis is None or people.size - basis.rank - 1 <= 0:
        skipped += [(label, "too_few_people") for label in labels]
        return None, np.empty(0, dtype=np.int64)
    transform, own = _made_of(common, people, np.ascontiguousarray(basis.q.T) * np.sqrt(people.size))
    x = _basis(common, people, transform, own)
    kept, fits = [], []
    for k, label in enumerate(labels):
        n_cases = int(status[k].sum())
        if n_cases < MIN_CASES or people.size - n_cases < MIN_CASES:
            skipped.append((label, "too_few_cases" if n_cases < MIN_CASES else "too_few_controls"))
            continue
        fit = _fit_null(x, status[k], None if offset is None else offset[k], options.correction)
        if fit is None:
            skipped.append((label, "null_not_converged"))
            continue
        kept.append(k)
        fits.append(fit)
    chosen = np.array(kept, dtype=np.int64)
    if not kept:
        return None, chosen
    penalised = [fit.penalised for fit in fits if fit.penalised is not None]
    null = NullModels(
        cases=np.ascontiguousarray(status[chosen]),
        probability=np.stack([fit.probability for fit in fits]),
        offset=np.zeros((1, people.size)) if offset is None else np.ascontiguousarray(offset[chosen]),
        coefficients=np.stack([fit.coefficients for fit in fits]),
        lower=np.stack([fit.lower for fit in fits]),
        log_likelihood=np.array([fit.log_likelihood for fit in fits]),
        penalised_offset=np.stack(penalised) if penalised else np.empty((0, people.size)),
    )
    return CaseGroup(slice(0, len(kept)), people, transform, own, basis.dropped, null), chosen


def _made_of(
    common: Float[np.ndarray, "common_rank samples"],
    people: Int[np.ndarray, " observed"],
    x: Float[np.ndarray, "rank observed"],
) -> tuple[Float[np.ndarray, "common_rank rank"] | None, Float[np.ndarray, "rank observed"] | None]:
    """Return how a group's basis is had from the common one, or the basis itself where it cannot be."""
    if people.size == common.shape[1]:
        return None, None
    inside = common[:, people]
    transform = np.linalg.lstsq(inside.T, x.T, rcond=None)[0]
    return (transform, None) if np.abs(transform.T @ inside - x).max() <= _TRANSFORM_TOLERANCE else (None, x)


@dataclass(frozen=True, slots=True, eq=False)
class _Null:
    probability: Float[np.ndarray, " observed"]
    coefficients: Float[np.ndarray, " rank"]
    lower: Float[np.ndarray, "rank rank"]
    log_likelihood: float
    penalised: Float[np.ndarray, " observed"] | None


def _fit_null(
    x: Float[np.ndarray, "rank observed"],
    cases: Int8[np.ndarray, " observed"],
    offset: Float[np.ndarray, " observed"] | None,
    correction: Correction,
) -> _Null | None:
    """Return the model without a variant; None when it has no finite maximum."""
    y = cases.astype(np.float64)
    known = np.zeros(y.size) if offset is None else np.ascontiguousarray(offset)
    b, no_factor = np.zeros(x.shape[0]), np.zeros((0, 0))
    b[0] = np.log(y.mean() / (1.0 - y.mean())) - known.mean()
    status, value, _ = maximise(x, y, known, b, b.size, 0.0, no_factor)
    if status != CONVERGED:
        return None
    probability, w, lower = np.empty(y.size), np.empty(y.size), np.empty((b.size, b.size))
    products = np.empty_like(lower)
    evaluate(b @ x + known, y, probability, w)
    weighted_products(x, w, products)
    cholesky(products, lower)
    penalised = None
    if correction == "firth-approx":
        b_penalised = b.copy()
        status, _, _ = maximise(x, y, known, b_penalised, b.size, JEFFREYS, no_factor)
        if status != CONVERGED:
            return None
        penalised = b_penalised @ x + known
    return _Null(probability, b, lower, float(value), penalised)
