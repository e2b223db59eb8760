"""Categories of phenotypes: a table phenotype, category, or UK Biobank's fields by category as FUNPACK lists them.

FUNPACK's table has the columns ``ID``, ``Category`` and ``Variables``; variables are field ids separated by commas,
where ``a:b`` is the range from a to b and ``a:s:b`` the same in steps of s. The field of a phenotype is taken from its
name: ``31``, ``31-0.0``, ``f.31.0.0``, ``x31_0_0``, ``p31_i0``.

References
----------
FUNPACK (FMRIB, doi:10.5281/zenodo.1997626), ``categories.tsv``.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from brainlocus.core.errors import FormatError, SchemaError
from brainlocus.io.arrow_tables import read_arrow

__all__ = ["Categories", "field_of", "read_categories"]

_FIELD = re.compile(r"(?:f\.|f_|field_|x|p)?(\d+)(?:[-._]i?\d+(?:[-._]a?\d+)?)?", re.IGNORECASE)
_RANGE = re.compile(r"(\d+)(?::(\d+))?(?::(\d+))?")


@dataclass(frozen=True, slots=True)
class Categories:
    """Which category a phenotype has."""

    by_name: dict[str, str]
    by_field: dict[int, str]

    def of(self, phenotype: str) -> str:
        """Return the category, by name or else by field; ``""`` when it has none."""
        if phenotype in self.by_name:
            return self.by_name[phenotype]
        field = field_of(phenotype)
        return "" if field is None else self.by_field.get(field, "")


def field_of(phenotype: str) -> int | None:
    """Return the field of UK Biobank that a column's name holds; None when it holds none.

    Examples
    --------
    >>> [field_of(name) for name in ("31", "f.31.0.0", "31-2.0", "p31_i2_a1", "height_31")]
    [31, 31, 31, 31, None]
    """
    match = _FIELD.fullmatch(phenotype)
    return int(match.group(1)) if match else None


def read_categories(path: Path) -> Categories:
    """Return the categories that a table gives.

    Raises
    ------
    FormatError
        Not a readable table, or a range of fields that is none.
    SchemaError
        It has neither the columns phenotype and category nor Category and Variables.
    """
    table = read_arrow(path)
    names = set(table.column_names)

    def column(name: str) -> list[str]:
        return ["" if v is None else str(v).strip() for v in table.column(name).to_pylist()]

    if {"phenotype", "category"} <= names:
        return Categories(dict(zip(column("phenotype"), column("category"), strict=True)), {})
    if {"Category", "Variables"} <= names:
        fields: dict[int, str] = {}
        for line, (category, variables) in enumerate(zip(column("Category"), column("Variables"), strict=True), 2):
            for text in filter(None, (part.strip() for part in variables.split(","))):
                fields.update(dict.fromkeys(_fields(text, path, line), category))
        return Categories({}, fields)
    raise SchemaError(
        f"{path}: expected columns phenotype and category, or Category and Variables as FUNPACK has them, found "
        f"{', '.join(table.column_names[:8])}."
    )


def _fields(text: str, path: Path, line: int) -> range:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise FormatError(f"{path}: line {line}: expected a field, a:b or a:step:b, found {text!r}.")
    first, second, third = match.groups()
    start = int(first)
    step, stop = (1, int(second or first)) if third is None else (int(second or 1), int(third))
    if step < 1 or stop < start:
        raise FormatError(f"{path}: line {line}: expected a range of fields that rises, found {text!r}.")
    return range(start, stop + 1, step)
