"""What each confound is: its role decides how it is coded and which further columns are made from it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64, Shaped

from brainlocus.core import PhenotypeTable, SchemaError
from brainlocus.core.errors import nearest

__all__ = [
    "SINGLE_ROLES",
    "ConfoundRole",
    "ConfoundType",
    "Role",
    "check_roles",
    "date_years",
    "labels_of",
    "time_hours",
]

Role = Literal[
    "age", "sex", "site", "head_size", "head_motion", "table_position", "scan_date", "time_of_day", "protocol", "qc",
    "extra",
]  # fmt: skip
ConfoundType = Literal["auto", "continuous", "categorical"]

SINGLE_ROLES = ("age", "sex", "site", "head_size", "scan_date", "time_of_day")
"""Roles that one column has at most."""
_CATEGORICAL = ("sex", "site", "protocol")
_CONTINUOUS = ("age", "head_size", "scan_date", "time_of_day")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?")
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:[T ].*)?")
DAYS_PER_YEAR = 365.25


@dataclass(frozen=True, slots=True)
class ConfoundRole:
    """One column of the table of people, and what it is."""

    column: str
    role: Role
    type: ConfoundType = "auto"
    """By default: sex, site and protocol are categories, age, head size, date and time are continuous, and the others
    are what the column is, text or numbers."""
    traits: tuple[str, ...] = ()
    """Names or patterns (``T2star_*``) of the only traits it is a confound of; empty for all. With the role ``extra``:
    the field gradient for T2*, the volume of white-matter lesions for measures of lesions."""

    def concerns(self, trait: str) -> bool:
        """Return whether the column is a confound of a trait."""
        return not self.traits or any(fnmatchcase(trait, pattern) for pattern in self.traits)

    def categorical(self, table: PhenotypeTable) -> bool:
        """Return whether the column is coded by levels."""
        if self.type != "auto":
            return self.type == "categorical"
        if self.role in _CONTINUOUS:
            return False
        return self.role in _CATEGORICAL or table.column(self.column).kind == "categorical"


def confound_role(column: str, role: str, type_: str = "auto", traits: Sequence[str] = ()) -> ConfoundRole:
    """Return a column with its role, of texts.

    Raises
    ------
    SchemaError
        The role or the type is unknown (the message has those that are known), or a confound of some traits only has
        another role than ``extra``.

    Examples
    --------
    >>> confound_role("field_21003", "age")
    ConfoundRole(column='field_21003', role='age', type='auto', traits=())
    """
    roles: dict[str, Role] = {name: name for name in get_args(Role)}
    types: dict[str, ConfoundType] = {name: name for name in get_args(ConfoundType)}
    if role not in roles:
        raise SchemaError(
            f"Confound roles: column {column!r} has the unknown role {role!r}.{nearest(role, list(roles))} Roles are: "
            f"{', '.join(roles)}."
        )
    if type_ not in types:
        raise SchemaError(
            f"Confound roles: column {column!r} has the unknown type {type_!r}; expected {', '.join(types)}."
        )
    if traits and role != "extra":
        raise SchemaError(
            f"Confound roles: column {column!r} is for some traits only ({', '.join(traits[:3])}); that is possible "
            f"with the role extra, found {role}."
        )
    return ConfoundRole(column, roles[role], types[type_], tuple(traits))


def check_roles(roles: Sequence[ConfoundRole], table: PhenotypeTable) -> None:
    """Check that columns exist, and no role or column stands twice where once is allowed.

    Raises
    ------
    SchemaError
        All that is wrong of the first kind found, in one message.
    """
    if not roles:
        raise SchemaError("Confound roles: expected at least one column with a role, found none.")
    absent = [item.column for item in roles if item.column not in table.names]
    if absent:
        shown = ", ".join(repr(name) for name in absent[:5]) + (", ..." if len(absent) > 5 else "")
        raise SchemaError(
            f"Confound roles: {len(absent)} of {len(roles)} columns are not in the table of people: {shown}."
            f"{nearest(absent[0], table.names)}"
        )
    columns = [item.column for item in roles]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise SchemaError(f"Confound roles: expected one role a column, found {twice[0]!r} more than once.")
    for role in SINGLE_ROLES:
        holders = [item.column for item in roles if item.role == role]
        if len(holders) > 1:
            raise SchemaError(f"Confound roles: {role} is one column, found {', '.join(map(repr, holders))}.")
    for item in roles:
        text = table.column(item.column).kind == "categorical"
        if text and not item.categorical(table) and item.role not in ("scan_date", "time_of_day"):
            found = sorted({str(v) for v in table.column(item.column).values} - {""})
            raise SchemaError(
                f"Confound roles: {item.role} {item.column!r} is continuous, but the column holds text "
                f"({', '.join(found[:3])}). Correct the column, or give it the type categorical."
            )


def labels_of(table: PhenotypeTable, name: str) -> Shaped[np.ndarray, " samples"]:
    """Return a column as text, numbers without a needless ``.0``; ``""`` is missing."""
    column = table.column(name)
    if column.kind == "categorical":
        return column.values.astype(np.str_)
    return np.array(["" if np.isnan(v) else f"{v:g}" for v in column.values], dtype=np.str_)


def date_years(table: PhenotypeTable, name: str) -> Float64[np.ndarray, " samples"]:
    """Return a column of dates as years: ``2016-03-31`` (a time after it is left aside), ``20160331`` or ``2016.25``.

    Raises
    ------
    SchemaError
        Something else; the count and the first are named.
    """
    column = table.column(name)
    if column.kind == "categorical":
        return _parsed(column.values, name, _year_of_text, "a date such as 2016-03-31")
    values = column.values
    known = values[~np.isnan(values)]
    if ((known >= 1900) & (known < 2200)).all():
        return np.asarray(values, dtype=np.float64)
    text = np.array(["" if np.isnan(v) else f"{v:.0f}" for v in values], dtype=np.str_)
    dashed = np.array([f"{t[:4]}-{t[4:6]}-{t[6:]}" if len(t) == 8 else t for t in text], dtype=np.str_)
    return _parsed(dashed, name, _year_of_text, "dates as 2016-03-31, 20160331 or years such as 2016.25")


def time_hours(table: PhenotypeTable, name: str) -> Float64[np.ndarray, " samples"]:
    """Return a column of times of day as hours: ``14:30``, ``14:30:15`` or a number from 0 to 24.

    Raises
    ------
    SchemaError
        Something else; the count and the first are named.
    """
    column = table.column(name)
    if column.kind == "categorical":
        return _parsed(column.values, name, _hour_of_text, "a time such as 14:30 or 14:30:15")
    values = np.asarray(column.values, dtype=np.float64)
    bad = (values < 0) | (values > 24)
    if bad.any():
        raise SchemaError(
            f"Confound roles: time_of_day {name!r} holds {int(bad.sum())} numbers outside 0 to 24, such as "
            f"{values[bad][0]:g}; expected hours, or times such as 14:30."
        )
    return values


def _parsed(
    texts: Shaped[np.ndarray, " samples"], name: str, parse: Callable[[str], float], expected: str
) -> Float64[np.ndarray, " samples"]:
    distinct, code = np.unique(texts, return_inverse=True)
    values = np.array([np.nan if text == "" else parse(str(text)) for text in distinct], dtype=np.float64)
    bad = np.isnan(values) & (distinct != "")
    if bad.any():
        raise SchemaError(
            f"Confound roles: column {name!r} has {int(bad[code].sum())} values such as {str(distinct[bad][0])!r}; "
            f"expected {expected}."
        )
    return np.asarray(values[code])


def _year_of_text(text: str) -> float:
    found = _DATE.fullmatch(text)
    if found is None:
        return np.nan
    try:
        day = np.datetime64("-".join(found.groups()), "D")
    except ValueError:
        return np.nan
    return 1970.0 + float(day.astype(np.int64)) / DAYS_PER_YEAR


def _hour_of_text(text: str) -> float:
    found = _CLOCK.fullmatch(text)
    if found is None:
        return np.nan
    hour, minute, second = float(found[1]), float(found[2]), float(found[3] or 0)
    return hour + minute / 60 + second / 3600 if hour < 24 and minute < 60 and second < 60 else np.nan
