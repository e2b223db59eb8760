"""Covariate formulas to design matrices.

Formulas are those of R and patsy (``age + I(age**2) + sex + age:sex + C(site)``), read by formulaic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from brainlocus.core.errors import SchemaError, nearest
from brainlocus.core.phenotypes import PhenotypeTable

__all__ = ["Design", "covariate_design", "design_from_formula", "formula_variables"]


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """A covariate matrix without its intercept."""

    matrix: Float[np.ndarray, "samples columns"]
    """NaN in rows where a variable is missing."""
    names: tuple[str, ...]
    complete: Bool[np.ndarray, " samples"]
    """Rows in which every variable is present."""
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Levels of each text variable, reference first: give them back to get the same columns on other people."""


def formula_variables(formula: str) -> tuple[str, ...]:
    """Return the names of the table columns a formula reads.

    Raises
    ------
    SchemaError
        The formula cannot be read.
    """
    return tuple(sorted(str(v) for v in _parse(formula).required_variables))


def covariate_design(covariates: PhenotypeTable, formula: str | None) -> Design:
    """Return the design of a formula, or of all columns as they are, text columns as dummies.

    Raises
    ------
    SchemaError
        See `design_from_formula`.

    Examples
    --------
    >>> from brainlocus.core import SampleIndex, quantitative_table
    >>> table = quantitative_table(SampleIndex.of(["a", "b"]), ["head size", "age"], np.eye(2))
    >>> covariate_design(table, None).names
    ('head size', 'age')
    """
    if formula is None and all(column.kind != "categorical" for column in covariates.columns):
        # Numbers need no formula, and so no pandas, which takes half a second to import.
        matrix = covariates.matrix()
        return Design(matrix, covariates.names, ~np.isnan(matrix).any(axis=1))
    everything = " + ".join(f"`{name}`" for name in covariates.names)
    return design_from_formula(formula if formula is not None else everything, covariates)


def design_from_formula(
    formula: str, table: PhenotypeTable, *, levels: Mapping[str, tuple[str, ...]] | None = None
) -> Design:
    """Return the design matrix of a formula over a table's columns.

    Parameters
    ----------
    formula
        Right-hand side only; an intercept is implied and not returned. Text columns become dummies with
        their first level (in sorted order) as the reference.
    levels
        `Design.levels` of an earlier design, whose columns are wanted again.

    Raises
    ------
    SchemaError
        The formula cannot be read, names a column that is not in the table, or a text column has a level that
        `levels` has not.

    Examples
    --------
    >>> from brainlocus.core import Column, SampleIndex
    >>> people = SampleIndex.of(["a", "b", "c"])
    >>> table = PhenotypeTable(people, (Column("age", np.array([1.0, 2.0, np.nan])),))
    >>> design_from_formula("age + I(age**2)", table).names
    ('age', 'I(age ** 2)')
    """
    import pandas as pd

    parsed = _parse(formula)
    variables = sorted(str(v) for v in parsed.required_variables)
    _check_known(variables, table.names, formula)
    n_samples = len(table.samples)
    complete = np.ones(n_samples, dtype=bool)
    data: dict[str, object] = {}
    used_levels: dict[str, tuple[str, ...]] = {}
    for name in variables:
        column = table.column(name)
        if column.kind == "categorical":
            complete &= column.values != ""
            found = tuple(str(v) for v in np.unique(column.values) if v != "")
            used_levels[name] = tuple(levels[name]) if levels is not None and name in levels else found
            _check_levels(name, found, used_levels[name])
            data[name] = pd.Categorical(column.values.astype(object), categories=list(used_levels[name]))
        else:
            complete &= ~np.isnan(column.values)
            data[name] = column.values
    if not variables:
        return Design(np.empty((n_samples, 0)), (), complete)
    frame = pd.DataFrame(data)[complete]
    try:
        built = parsed.get_model_matrix(frame, na_action="raise")
    except Exception as error:
        raise SchemaError(f"The formula {formula!r} cannot be evaluated on the table: {error}") from error
    names = [str(c) for c in built.columns if str(c) not in ("Intercept", "1")]
    matrix = np.full((n_samples, len(names)), np.nan)
    matrix[complete] = built[names].to_numpy(dtype=np.float64)
    return Design(matrix, tuple(names), complete, used_levels)


def _check_levels(name: str, found: tuple[str, ...], known: tuple[str, ...]) -> None:
    unseen = sorted(set(found) - set(known))
    if unseen:
        raise SchemaError(
            f"Column {name!r} has levels that were not there before: {', '.join(unseen[:5])}; known are "
            f"{', '.join(known[:10])}. Remove these people or fit anew."
        )


def _parse(formula: str) -> Any:
    from formulaic import Formula

    try:
        parse: Any = Formula
        return parse(formula if formula.strip() else "1")
    except Exception as error:
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise SchemaError(
            f"The formula {formula!r} cannot be read: {why}. Write it as in R: 'age + I(age**2) + sex + C(site)'; "
            "names with blanks or other signs stand in backquotes."
        ) from error


def _check_known(variables: Sequence[str], names: tuple[str, ...], formula: str) -> None:
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    for variable in variables:
        if variable not in names:
            raise SchemaError(
                f"The formula {formula!r} names {variable!r}, which is not a column."
                f"{nearest(variable, names)} The table has: {shown}."
            )
