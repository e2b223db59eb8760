"""Fitted models as files: versioned NumPy archives with a JSON part, no pickle."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float64, Shaped

from brainlocus.cohort.harmonise import (
    CombatModel,
    CombatOptions,
    SmoothOptions,
    SmoothTerm,
    apply_combat,
    fit_combat,
)
from brainlocus.core import FormatError, PhenotypeTable, SchemaError
from brainlocus.io import atomic_path
from brainlocus.numerics import Design, design_from_formula

__all__ = [
    "ComBatHarmoniser",
    "FittedComBat",
    "SavedCombat",
    "check_formula_is_stateless",
    "combat_arrays",
    "combat_from_arrays",
    "design_with_smooth",
    "read_arrays",
    "read_combat",
    "smooth_options",
    "write_arrays",
    "write_combat",
]

COMBAT_FORMAT = "brainlocus-combat"
COMBAT_VERSION = 2
"""2 added smooth covariates; version 1 is read as a model without any."""
_STATEFUL = re.compile(r"\b(center|scale|standardize|poly|bs|cs|cc|cr)\s*\(")
_ARRAYS = ("site_counts", "alpha", "beta", "sigma", "gamma", "delta")
_SMOOTH_ARRAYS = ("knots", "coefficients", "weight", "edf")


@dataclass(frozen=True, slots=True, eq=False)
class SavedCombat:
    """A model with what is needed to make its covariates again."""

    model: CombatModel
    batch: str
    """Column of the site."""
    formula: str
    """Covariates that were preserved."""
    levels: dict[str, tuple[str, ...]]
    """Levels of the formula's text columns."""

    def design(self, table: PhenotypeTable) -> Design:
        """Return the covariates of other people, in the columns of the training people."""
        smooth = [term.covariate for term in self.model.smooth]
        return design_with_smooth(self.formula, smooth, table, levels=self.levels)


@dataclass(frozen=True, slots=True, eq=False)
class FittedComBat:
    """ComBat fitted on training people (`brainlocus.cohort.signatures.FittedHarmoniser`)."""

    model: CombatModel

    def apply(
        self,
        features: Float64[np.ndarray, "samples features"],
        batch: Shaped[np.ndarray, " samples"],
        covariates: Float64[np.ndarray, "samples covariates"],
    ) -> Float64[np.ndarray, "samples features"]:
        """Return the features without site effects."""
        return apply_combat(self.model, features, batch, covariates=covariates).values


@dataclass(frozen=True, slots=True)
class ComBatHarmoniser:
    """ComBat, or ComBat-GAM, as a `brainlocus.cohort.signatures.Harmoniser`."""

    options: CombatOptions
    covariate_names: tuple[str, ...] | None = None
    """Names by which the smooth covariates of `options` find their columns."""

    def fit(
        self,
        features: Float64[np.ndarray, "samples features"],
        batch: Shaped[np.ndarray, " samples"],
        covariates: Float64[np.ndarray, "samples covariates"],
    ) -> FittedComBat:
        """Return the fitted site effects."""
        model = fit_combat(
            features, batch, covariates=covariates, covariate_names=self.covariate_names, options=self.options
        )
        return FittedComBat(model)


def design_with_smooth(
    formula: str,
    smooth: Sequence[str],
    table: PhenotypeTable,
    *,
    levels: Mapping[str, tuple[str, ...]] | None = None,
) -> Design:
    """Return the design of a formula, and the smooth covariates that it does not name.

    Raises
    ------
    SchemaError
        A smooth covariate is no column, or text; as `brainlocus.numerics.design_from_formula`.
    """
    design = design_from_formula(formula, table, levels=levels)
    further = [name for name in smooth if name not in design.names]
    if not further:
        return design
    for name in further:
        if table.column(name).kind == "categorical":
            raise SchemaError(f"--smooth: expected a column of numbers, but {name!r} holds text.")
    values = table.matrix(further)
    complete = design.complete & ~np.isnan(values).any(axis=1)
    return Design(np.hstack([design.matrix, values]), (*design.names, *further), complete, design.levels)


def smooth_options(terms: tuple[str, ...]) -> tuple[SmoothOptions, ...]:
    """Return the smooth covariates of ``--smooth``: ``age`` or ``age:5:97``.

    Raises
    ------
    SchemaError
        Bounds that are no two rising numbers.
    """
    found = []
    for term in terms:
        name, *numbers = term.split(":")
        try:
            bounds = tuple(float(number) for number in numbers)
        except ValueError:
            bounds = (np.nan,)
        if not name or (bounds and not (len(bounds) == 2 and bounds[0] < bounds[1] and np.isfinite(bounds).all())):
            raise SchemaError(f"--smooth: expected NAME or NAME:LOW:HIGH, as in age:5:97, found {term!r}.")
        found.append(SmoothOptions(name, (bounds[0], bounds[1]) if bounds else None))
    return tuple(found)


def check_formula_is_stateless(formula: str, option: str) -> None:
    """Refuse transforms whose value depends on the other rows: they would differ between training and new people.

    Raises
    ------
    SchemaError
        The formula centres, scales or makes splines.
    """
    found = _STATEFUL.search(formula)
    if found:
        raise SchemaError(
            f"{option}: {found.group(1)}() depends on the people at hand and cannot be applied to others. "
            "Use fixed numbers: I((age - 50) / 10); for curves there is --smooth."
        )


def combat_arrays(saved: SavedCombat) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a model as a JSON part and arrays."""
    model = saved.model
    meta = {
        "batch": saved.batch,
        "formula": saved.formula,
        "levels": {name: list(values) for name, values in saved.levels.items()},
        "feature_names": list(model.feature_names),
        "covariate_names": list(model.covariate_names),
        "sites": list(model.sites),
        "options": asdict(model.options),
        "notes": list(model.notes),
        "smooth": [term.covariate for term in model.smooth],
    }
    arrays = {name: getattr(model, name) for name in _ARRAYS}
    for k, term in enumerate(model.smooth):
        arrays |= {f"smooth{k}_{name}": getattr(term, name) for name in _SMOOTH_ARRAYS}
    return meta, arrays


def combat_from_arrays(meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> SavedCombat:
    """Return the model of `combat_arrays`, of this version or an earlier one."""
    smooth = tuple(
        SmoothTerm(covariate, *(arrays[f"smooth{k}_{name}"] for name in _SMOOTH_ARRAYS))
        for k, covariate in enumerate(meta.get("smooth", ()))
    )
    fitted: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
    model = CombatModel(
        feature_names=tuple(meta["feature_names"]),
        covariate_names=tuple(meta["covariate_names"]),
        sites=tuple(meta["sites"]),
        options=_combat_options(meta["options"]),
        notes=tuple(meta["notes"]),
        smooth=smooth,
        **fitted,
    )
    return SavedCombat(model, meta["batch"], meta["formula"], {k: tuple(v) for k, v in meta["levels"].items()})


def _combat_options(stored: Mapping[str, Any]) -> CombatOptions:
    terms = [
        SmoothOptions(term["covariate"], tuple(term["bounds"]) if term["bounds"] is not None else None, term["weight"])
        for term in stored.get("smooth", ())
    ]
    return CombatOptions(**{**stored, "smooth": tuple(terms)})


def write_combat(saved: SavedCombat, path: Path) -> None:
    """Write a harmonisation model."""
    meta, arrays = combat_arrays(saved)
    write_arrays({"format": COMBAT_FORMAT, "version": COMBAT_VERSION, **meta}, arrays, path)


def read_combat(path: Path) -> SavedCombat:
    """Read a harmonisation model.

    Raises
    ------
    FormatError
        Not a model of this kind, or of a newer version.
    """
    meta, arrays = read_arrays(path)
    if meta.get("format") != COMBAT_FORMAT or meta.get("version") not in range(1, COMBAT_VERSION + 1):
        raise FormatError(
            f"{path}: expected a {COMBAT_FORMAT} model of version 1 to {COMBAT_VERSION}, found "
            f"{meta.get('format')!r} version {meta.get('version')}. Write it with: brainlocus cohort harmonise --model"
        )
    return combat_from_arrays(meta, arrays)


def write_arrays(meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write arrays and a JSON part as one ``.npz`` archive whose bytes depend on its content only."""
    with atomic_path(path) as partial, partial.open("wb") as stream:
        named: dict[str, Any] = {"meta": np.array(json.dumps(meta)), **arrays}
        np.savez(stream, **named)


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `write_arrays` wrote.

    Raises
    ------
    FormatError
        The file is absent, not such an archive, or damaged.
    """
    if not path.is_file():
        raise FormatError(f"{path}: there is no such file. Expected a model (.npz).")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        meta: dict[str, Any] = json.loads(str(arrays.pop("meta")))
    except (ValueError, KeyError, OSError, EOFError, BadZipFile, AttributeError) as error:
        raise FormatError(f"{path}: expected a model written by brainlocus, it cannot be read: {error}") from error
    return meta, arrays
