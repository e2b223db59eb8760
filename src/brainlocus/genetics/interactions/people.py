"""Who is analysed: traits, covariates and genotyped people aligned by id."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from brainlocus.core.errors import SchemaError
from brainlocus.core.phenotypes import PhenotypeTable
from brainlocus.core.samples import SampleIndex, shared_samples
from brainlocus.numerics.design import covariate_design
from brainlocus.numerics.missingness import refuse_infinite

__all__ = ["AlignedTraits", "align_traits"]


@dataclass(frozen=True, slots=True, eq=False)
class AlignedTraits:
    """Traits and covariates of the same people, rows in the order of `samples`."""

    samples: SampleIndex
    names: tuple[str, ...]
    traits: Float[np.ndarray, "samples traits"]
    """NaN where a person has none."""
    covariates: Float[np.ndarray, "samples covariates"]
    """Complete, without an intercept."""
    covariate_names: tuple[str, ...]
    counts: dict[str, int] = field(default_factory=dict)


def align_traits(
    traits: PhenotypeTable,
    samples: SampleIndex,
    *,
    covariates: PhenotypeTable | None = None,
    formula: str | None = None,
    names: Sequence[str] | None = None,
) -> AlignedTraits:
    """Return the people with genotypes, a trait and every covariate.

    Parameters
    ----------
    samples
        People with genotypes (or with calls of copy number).
    formula
        Model over `covariates`; None: the sum of all its columns, text columns as dummies.
    names
        Traits; None: all numeric columns.

    Raises
    ------
    AlignmentError
        No participant is shared.
    SchemaError
        A trait or covariate is not there, or nobody is left.
    ValueError
        A trait has an infinite value.
    """
    wanted = tuple(names) if names is not None else tuple(c.name for c in traits.columns if c.kind != "categorical")
    if not wanted:
        raise SchemaError("There is no trait to analyse: the table has no numeric column.")
    counts = {"with_genotypes": len(samples), "with_traits": len(traits.samples)}
    matrix: Float[np.ndarray, "samples covariates"]
    covariate_names: tuple[str, ...] = ()
    if covariates is None:
        people = shared_samples(samples, traits.samples, names=("genotypes", "traits"))
        matrix = np.empty((len(people), 0))
    else:
        counts["with_covariates"] = len(covariates.samples)
        labels = ("genotypes", "traits", "covariates")
        people = shared_samples(samples, traits.samples, covariates.samples, names=labels)
        design = covariate_design(covariates.take(people), formula)
        people, matrix, covariate_names = people.take(design.complete), design.matrix[design.complete], design.names
        counts["complete_covariates"] = len(people)
    values = traits.take(people).matrix(wanted)
    refuse_infinite(values, wanted)
    observed = ~np.isnan(values).all(axis=1)
    if not observed.any():
        raise SchemaError(
            f"Nobody has genotypes, complete covariates and a value of a trait ({', '.join(wanted[:5])}). "
            "Leave out a covariate that is missing in everyone, or impute it."
        )
    counts["analysed"] = int(observed.sum())
    return AlignedTraits(people.take(observed), wanted, values[observed], matrix[observed], covariate_names, counts)
