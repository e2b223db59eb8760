"""Variants that are instruments of a gene's expression, with their effects on expression and on a phenotype."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from brainlocus.core.errors import SchemaError

__all__ = ["Instruments"]


@dataclass(frozen=True, slots=True, eq=False)
class Instruments:
    """Variants of one gene and one phenotype, in little linkage disequilibrium; all effects per the same allele.

    Raises
    ------
    SchemaError
        Columns differ in length, a variant occurs twice, a p lies outside [0, 1], or a standard error is not positive.
    """

    variants: Shaped[np.ndarray, " variants"]
    exposure_beta: Float64[np.ndarray, " variants"]
    """Effect on expression; NaN where missing, as in every column."""
    outcome_beta: Float64[np.ndarray, " variants"]
    """Effect on the phenotype."""
    exposure_se: Float64[np.ndarray, " variants"] | None = None
    outcome_se: Float64[np.ndarray, " variants"] | None = None
    outcome_p: Float64[np.ndarray, " variants"] | None = None
    """Two-sided p of the phenotype; 0 where it underflowed."""
    ld_score: Float64[np.ndarray, " variants"] | None = None

    def __post_init__(self) -> None:
        n = self.variants.size
        for name in ("exposure_beta", "outcome_beta", "exposure_se", "outcome_se", "outcome_p", "ld_score"):
            column = getattr(self, name)
            if column is not None and column.size != n:
                raise SchemaError(f"Expected {n} values of {name}, one for each variant, found {column.size}.")
            if column is not None and np.isinf(column).any():
                raise SchemaError(f"{name} of {self.variants[np.isinf(column)][0]} is infinite; expected a number.")
        names, counts = np.unique(self.variants, return_counts=True)
        if (counts > 1).any():
            raise SchemaError(f"A variant may occur once, found twice: {', '.join(map(str, names[counts > 1][:5]))}.")
        for name in ("exposure_se", "outcome_se"):
            column = getattr(self, name)
            if column is not None and (column <= 0).any():
                first = int(np.flatnonzero(column <= 0)[0])
                raise SchemaError(f"{name} must be above 0, found {column[first]} at {self.variants[first]}.")
        p = self.outcome_p
        if p is not None and ((p < 0) | (p > 1)).any():
            first = int(np.flatnonzero((p < 0) | (p > 1))[0])
            raise SchemaError(f"p must lie between 0 and 1, found {p[first]} at {self.variants[first]}.")

    def complete(self, *columns: str) -> Bool[np.ndarray, " variants"]:
        """Return which variants have a number in each of the columns.

        Raises
        ------
        SchemaError
            The instruments have no such column.
        """
        known = np.ones(self.variants.size, dtype=bool)
        for name in columns:
            column = getattr(self, name)
            if column is None:
                raise SchemaError(f"Expected {name} of the variants, found none.")
            known &= np.isfinite(column)
        return known
